//! Secrets: read, put, delete, list.

use crate::{client::Client, error::Error, transport::Call};
use http::{HeaderValue, Method, header};
use strongroom_api::{
    routes,
    secrets::{PutResult, PutSecret, SecretList, SecretValue, SecretVersions},
};
use strongroom_core::{FolderPath, Payload, Reference, SecretPath, VersionSelector};
use time::OffsetDateTime;

/// A value and which version it is.
#[derive(Debug)]
pub struct Versioned {
    /// The version's number.
    pub version: u64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The value, wiped when dropped.
    pub payload: Payload,
}

/// How to put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Put only where this is the secret's current version; 0: only where there is none. Otherwise [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    pub if_version: Option<u64>,
    /// Why, for people; at most 256 characters. Not for secrets.
    pub reason: Option<String>,
}

impl Client {
    /// A secret's value. With a field in the reference the payload holds that field only.
    pub async fn read(&self, reference: &Reference) -> Result<Versioned, Error> {
        let mut call = Call::new(Method::GET, routes::SECRET).query("path", reference.path.as_str());
        if reference.version != VersionSelector::Current {
            call = call.query("version", &reference.version.to_string());
        }
        if let Some(field) = &reference.field {
            call = call.query("field", field.as_str());
        }
        let value: SecretValue = self.call(call).await?.json()?;
        if value.path != reference.path {
            return Err(Error::protocol("it is about another secret"));
        }
        let (version, created_at) = (value.version, value.created_at);
        let payload = value.into_payload().map_err(|error| Error::protocol(format_args!("its payload: {error}")))?;
        Ok(Versioned { version, created_at, payload })
    }

    /// Puts a new version. With `if_version` it may be repeated after a lost answer: a conflict then says that the first try was carried out.
    pub async fn put(&self, path: &SecretPath, payload: Payload, options: PutOptions) -> Result<PutResult, Error> {
        let expected = payload_size(&payload);
        let call = Call::new(Method::PUT, routes::SECRET)
            .query("path", path.as_str())
            .json(&PutSecret::new(payload, options.reason), expected)?;
        let call = match options.if_version {
            None => call,
            Some(0) => call.header(header::IF_NONE_MATCH, HeaderValue::from_static("*")),
            Some(version) => {
                let tag =
                    HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes are a header value");
                call.header(header::IF_MATCH, tag)
            }
        };
        self.call(call).await?.json()
    }

    /// Deletes a secret; its versions stay and a new put brings it back.
    pub async fn delete(&self, path: &SecretPath) -> Result<(), Error> {
        self.call(Call::new(Method::DELETE, routes::SECRET).query("path", path.as_str())).await.map(drop)
    }

    /// One page of the secrets in a folder and below that the caller may list. The next page starts at the last one's `next_cursor`.
    pub async fn list(&self, folder: &FolderPath, cursor: Option<&str>) -> Result<SecretList, Error> {
        let mut call = Call::new(Method::GET, routes::SECRETS).query("folder", folder.as_str());
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        self.call(call).await?.json()
    }

    /// A secret's newest versions, without values.
    pub async fn versions(&self, path: &SecretPath) -> Result<SecretVersions, Error> {
        self.call(Call::new(Method::GET, routes::SECRET_VERSIONS).query("path", path.as_str())).await?.json()
    }
}

/// A bound of the body's usual size, so that its buffer rarely moves.
fn payload_size(payload: &Payload) -> usize {
    let inner = match payload {
        Payload::Fields(fields) => fields.iter().map(|(name, value)| name.as_str().len() + 2 * value.len() + 8).sum(),
        Payload::Raw { bytes, .. } => bytes.len().div_ceil(3) * 4 + 256,
    };
    inner + 1024
}
