//! A rotation goes on wherever it was when its server ended.
