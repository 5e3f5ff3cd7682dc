//! What this crate's tests and fuzz targets share.

#[cfg(test)]
use std::pin::pin;
#[cfg(test)]
use std::task::{Context, Poll, Waker};
#[cfg(test)]
use strongroom_core::ProjectId;
use strongroom_core::{InstanceId, SecretId};
use uuid::Uuid;

pub(crate) const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0001));
#[cfg(test)]
pub(crate) const PROJECT: ProjectId = ProjectId(Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0003));
pub(crate) const SECRET: SecretId = SecretId(Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0004));

/// A file of known answers.
#[cfg(test)]
pub(crate) fn vectors(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// A vector's bytes.
#[cfg(test)]
pub(crate) fn hex(text: &serde_json::Value) -> Vec<u8> {
    let digits = text.as_str().unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// What a future gives that never waits, as those of a key in this process are.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for something"),
    }
}
