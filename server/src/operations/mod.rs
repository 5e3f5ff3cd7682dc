//! What the server does, without HTTP: one file a resource.
//!
//! Each operation authorises before it looks at what it found, and leaves one audit event: a mutation's in its transaction, a read's or a refusal's
//! committed before the answer.

pub mod authentication;
pub mod authorization;
pub mod backup;
pub mod change;
pub mod claim;
pub mod clusters;
pub mod deliveries;
pub mod everywhere;
pub mod expiry;
pub mod grants;
pub mod keys;
pub mod login;
pub mod policies;
pub mod projects;
pub mod revision;
pub mod roles;
pub mod secrets;
pub mod shred;
pub mod watch;
