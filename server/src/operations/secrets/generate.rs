//! Values that the server makes: nobody has seen them before whoever reads them.

mod keys;
mod password;

use super::{
    once::run,
    patch::{Changes, Patch, patch_in},
    precondition::Precondition,
    put::{Put, put_in},
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::{allowed_on_secret, audited},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt::Write as _;
use strongroom_api::{
    generate::{Encoding, Fields, Generate, Kind},
    secrets::PutResult,
};
use strongroom_core::{Action, FieldName, Payload, SecretBytes, SecretPath};
use strongroom_crypto::KeyPair;
use uuid::Builder;
use zeroize::Zeroizing;

/// Puts a version with a value that is made here. It needs `write` only.
pub async fn generate(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    request: Generate,
    precondition: Precondition,
) -> Result<PutResult, Failure> {
    let outcome = async {
        let made = made(app, caller, path, &request).await?;
        run(app, caller, async |work| generate_in(app, caller, work, path, &request, made, precondition).await).await
    };
    audited(app, caller, Action::Write, path.to_string(), outcome.await).await
}

/// Puts what [`made`] made, in a transaction.
pub async fn generate_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    request: &Generate,
    made: Vec<(FieldName, SecretBytes)>,
    precondition: Precondition,
) -> Result<PutResult, Halt> {
    let (reason, activate, expires_at) = (request.reason.clone(), request.activate, request.expires_at);
    if request.fields == Fields::Merge {
        let changes: Changes = made.into_iter().map(|(name, value)| (name, Some(value))).collect();
        return patch_in(app, caller, work, path, Patch { changes, reason, precondition, activate, expires_at }).await;
    }
    let payload =
        Payload::fields(made.into_iter().collect()).map_err(|error| Failure::Internal(anyhow::Error::new(error)))?;
    let put = Put { reason, precondition, activate, expires_at, ..Put::new(&payload) };
    put_in(app, caller, work, path, put).await
}

/// Makes the fields that were asked for, outside of any transaction: a key takes its time. For a key it is decided first whether the caller may write at all.
pub async fn made(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    request: &Generate,
) -> Result<Vec<(FieldName, SecretBytes)>, Failure> {
    refuse_foreign_members(request)?;
    let name = |given: &Option<FieldName>, usual: &str| {
        given.clone().unwrap_or_else(|| FieldName::parse(usual).expect("a plain word is a field's name"))
    };
    Ok(match request.kind {
        Kind::Password => {
            let password =
                password::password(request.length.unwrap_or(32), request.alphabet.as_deref(), request.each_class)?;
            vec![(name(&request.field, "password"), password)]
        }
        Kind::Bytes => {
            let bytes = bytes(request.length.unwrap_or(32), request.encoding.unwrap_or(Encoding::Base64))?;
            vec![(name(&request.field, "bytes"), bytes)]
        }
        Kind::Uuid => {
            let uuid = Builder::from_random_bytes(random()).into_uuid();
            vec![(name(&request.field, "uuid"), SecretBytes::from(uuid.to_string()))]
        }
        Kind::Rsa | Kind::Ed25519 => {
            let (private, public) = (name(&request.field, "private_key"), name(&request.public_field, "public_key"));
            if private == public {
                return Err(Failure::Invalid("public_field: it is the private key's field too".to_owned()));
            }
            allowed_on_secret(app, caller, Action::Write, path).await?;
            let pair = match request.kind {
                Kind::Rsa => keys::rsa(request.bits.unwrap_or(3072)).await?,
                _ => KeyPair::ed25519(),
            };
            vec![(private, pair.private), (public, pair.public)]
        }
    })
}

/// What does not belong to the kind is refused: whoever gave it expects something else than he would get.
fn refuse_foreign_members(request: &Generate) -> Result<(), Failure> {
    let (password, bytes) = (request.kind == Kind::Password, request.kind == Kind::Bytes);
    let (rsa, pair) = (request.kind == Kind::Rsa, matches!(request.kind, Kind::Rsa | Kind::Ed25519));
    for (name, given, belongs) in [
        ("length", request.length.is_some(), password || bytes),
        ("alphabet", request.alphabet.is_some(), password),
        ("each_class", request.each_class, password),
        ("encoding", request.encoding.is_some(), bytes),
        ("bits", request.bits.is_some(), rsa),
        ("public_field", request.public_field.is_some(), pair),
    ] {
        if given && !belongs {
            return Err(Failure::Invalid(format!("{name}: it means nothing for this kind")));
        }
    }
    Ok(())
}

fn bytes(length: u32, encoding: Encoding) -> Result<SecretBytes, Failure> {
    if !(16..=4096).contains(&length) {
        return Err(Failure::Invalid("length: 16 to 4096 bytes".to_owned()));
    }
    let mut bytes = Zeroizing::new(vec![0; length as usize]);
    fill(&mut bytes);
    let text = match encoding {
        Encoding::Base64 => BASE64.encode(&*bytes),
        Encoding::Hex => bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes all");
            text
        }),
    };
    Ok(SecretBytes::from(text))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system's randomness does not fail once the server has started");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_their_length_and_their_encoding() {
        let hex = bytes(16, Encoding::Hex).unwrap();
        assert!(hex.len() == 32 && hex.expose_bytes().iter().all(u8::is_ascii_hexdigit));
        let base64 = bytes(33, Encoding::Base64).unwrap();
        assert_eq!(BASE64.decode(base64.expose_bytes()).unwrap().len(), 33);
        assert!(bytes(15, Encoding::Hex).is_err() && bytes(4097, Encoding::Hex).is_err());
        assert_ne!(bytes(16, Encoding::Hex).unwrap().expose_bytes(), hex.expose_bytes());
    }

    #[test]
    fn each_member_that_does_not_belong_to_the_kind_is_refused() {
        for request in [
            Generate { length: Some(32), ..Generate::new(Kind::Uuid) },
            Generate { alphabet: Some("ab".to_owned()), ..Generate::new(Kind::Bytes) },
            Generate { each_class: true, ..Generate::new(Kind::Bytes) },
            Generate { encoding: Some(Encoding::Hex), ..Generate::new(Kind::Password) },
            Generate { bits: Some(2048), ..Generate::new(Kind::Ed25519) },
            Generate { public_field: Some(FieldName::parse("a").unwrap()), ..Generate::new(Kind::Password) },
        ] {
            assert!(refuse_foreign_members(&request).is_err(), "{request:?}");
        }
        for kind in [Kind::Password, Kind::Bytes, Kind::Uuid, Kind::Rsa, Kind::Ed25519] {
            assert!(refuse_foreign_members(&Generate::new(kind)).is_ok());
        }
    }
}
