//! The mutating webhook: a pod's annotations become a patch that gives it the agent.
//!
//! What it is: [`annotations`] (annotations → [`Injection`]) and [`mutate`] (Pod, [`Injection`], [`Settings`] → patch operations), both pure;
//! [`http`] (reviews in, verdicts out), [`serve`] (TLS connections with deadlines) and the webhook's own certificates ([`certificates`] decides,
//! [`keeper`] does).
//! What it is not: a boundary. A pod can log in without it, and the server never trusts that a caller was injected. It holds no secrets, has no
//! database, and calls nothing but the Kubernetes API, for one Secret and one webhook configuration.

pub mod annotations;
pub mod certificates;
pub mod http;
pub mod keeper;
pub mod mutate;
mod ownership;
mod peers;
mod pod;
pub mod quantity;
mod repairs;
mod run;
pub mod serve;
pub mod settings;
mod sidecar;
mod weight;

pub use annotations::{BadAnnotation, Injection};
pub use mutate::{Mutation, PatchOperation, Refusal, mutate};
pub use run::{RunError, run};
pub use settings::{Settings, SettingsError};
