//! Who may do what: the Cedar schema, grants, free-text policies, and the one decision.
//!
//! What it is: [`Engine::authorize`] gives a [`Grant`], the proof that one action on one resource was allowed, or a [`Denied`] that says by what.
//! A permit is needed, a forbid wins, order never matters, and whatever cannot be evaluated is a denial: Cedar itself skips a policy that errs,
//! forbids too. Rules of one project never decide on another's resources; that is checked when they are written and again at each decision.
//! What it is not: a place for SQL, HTTP or keys. Its inputs are rows whose MAC the caller has checked.

mod authorize;
mod check;
mod complexity;
mod engine;
mod entity;
mod reach;
mod rule;

pub use authorize::{About, DenialReason, Denied, Grant, Request, Resource};
pub use check::{CheckedPolicy, MAX_POLICY_NAME, MAX_POLICY_TEXT, PolicyProblem, Position};
pub use complexity::TooComplex;
pub use engine::Engine;
pub use reach::Reach;
pub use rule::{BadGrant, GrantRule, GrantScope, Slice, TextPolicy, check_grant, principal_keys};
