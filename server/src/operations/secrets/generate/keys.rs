//! Key pairs, made on threads that serve nobody.

use crate::failure::Failure;
use strongroom_crypto::{KeyPair, RsaBits};
use tokio::sync::Semaphore;

/// How many RSA keys are made at once: each takes a whole core for up to some seconds.
static ROOM: Semaphore = Semaphore::const_new(2);

/// An RSA key pair of 2048, 3072 or 4096 bits.
///
/// # Errors
/// [`Failure::Unavailable`] where too many are being made already.
pub(super) async fn rsa(bits: u32) -> Result<KeyPair, Failure> {
    let bits = RsaBits::try_from(bits).map_err(|error| Failure::Invalid(format!("bits: {error}")))?;
    let place = ROOM.try_acquire().map_err(|_| Failure::Unavailable("room for making RSA keys"))?;
    let made = tokio::task::spawn_blocking(move || KeyPair::rsa(bits)).await;
    drop(place);
    made.map_err(|error| Failure::Internal(anyhow::Error::new(error)))
}
