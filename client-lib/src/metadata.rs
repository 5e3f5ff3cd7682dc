//! What is known of a secret beside its value, aliases, and where secrets go.

use crate::{client::Client, error::Error, secrets::tag, transport::Call};
use http::{Method, header};
use serde::{Serialize, de::DeserializeOwned};
use strongroom_api::{
    metadata::{Changed, Copy, Destroy, Metadata, Move, PatchMetadata, Placed, Purge, PutAlias, Rename},
    routes,
};
use strongroom_core::SecretPath;

impl Client {
    /// A secret's metadata.
    pub async fn metadata(&self, path: &SecretPath) -> Result<Metadata, Error> {
        self.call(Call::new(Method::GET, routes::SECRET_METADATA).query("path", path.as_str())).await?.json()
    }

    /// Changes a secret's metadata; what the patch leaves out stays. With `if_revision` only where that is the metadata's revision.
    pub async fn patch_metadata(
        &self,
        path: &SecretPath,
        patch: &PatchMetadata,
        if_revision: Option<u64>,
    ) -> Result<Changed, Error> {
        let mut call =
            Call::new(Method::PATCH, routes::SECRET_METADATA).query("path", path.as_str()).json(patch, 1024)?;
        if let Some(revision) = if_revision {
            call = call.header(header::IF_MATCH, tag(&format!("r{revision}")));
        }
        self.write(call).await?.json()
    }

    /// Points an alias at a version: `current` activates it, or goes back to it.
    pub async fn point_alias(&self, path: &SecretPath, alias: &str, to: &PutAlias) -> Result<Changed, Error> {
        let call = Call::new(Method::PUT, routes::SECRET_ALIAS).query("path", path.as_str()).query("alias", alias);
        self.write(call.json(to, 256)?).await?.json()
    }

    /// Removes a free alias, or `pending`.
    pub async fn remove_alias(&self, path: &SecretPath, alias: &str) -> Result<Changed, Error> {
        let call = Call::new(Method::DELETE, routes::SECRET_ALIAS).query("path", path.as_str()).query("alias", alias);
        self.write(call).await?.json()
    }

    /// Erases versions' values for good.
    pub async fn destroy(&self, path: &SecretPath, versions: &[u64]) -> Result<(), Error> {
        let body = Destroy { path: path.clone(), versions: versions.to_vec() };
        self.write(Call::new(Method::POST, routes::SECRET_DESTROY).json(&body, 1024)?).await.map(drop)
    }

    /// Removes a secret with all its versions for good.
    pub async fn purge(&self, path: &SecretPath) -> Result<(), Error> {
        let body = Purge { path: path.clone() };
        self.write(Call::new(Method::POST, routes::SECRET_PURGE).json(&body, 1024)?).await.map(drop)
    }

    /// Gives a secret another path in its project.
    pub async fn rename(&self, request: &Rename) -> Result<Placed, Error> {
        self.place(routes::SECRET_RENAME, request).await
    }

    /// Copies a secret, in another project too.
    pub async fn copy(&self, request: &Copy) -> Result<Placed, Error> {
        self.place(routes::SECRET_COPY, request).await
    }

    /// Moves a secret to another project.
    pub async fn move_to(&self, request: &Move) -> Result<Placed, Error> {
        self.place(routes::SECRET_MOVE, request).await
    }

    async fn place<T: DeserializeOwned>(&self, route: &'static str, body: &impl Serialize) -> Result<T, Error> {
        self.write(Call::new(Method::POST, route).json(body, 2048)?).await?.json()
    }
}
