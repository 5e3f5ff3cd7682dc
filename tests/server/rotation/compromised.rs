//! A term may be known to somebody.
