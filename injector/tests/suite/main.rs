//! The injector from outside: patched pods, reviews over HTTP, and connections.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod connections;
mod keeping;
mod patched_pods;
mod reviews;
mod support;
