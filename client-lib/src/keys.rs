//! Keys: what there is, rotations, and the end of a project.

use crate::{client::Client, error::Error, transport::Call};
use http::Method;
use strongroom_api::{
    keys::{ConfirmScope, DestroyTerm, Keys, Rotate, Rotation, ShredProject},
    routes,
};

impl Client {
    /// The instance's keys, what uses them, and work on them.
    pub async fn keys(&self) -> Result<Keys, Error> {
        self.call(Call::new(Method::GET, routes::KEYS)).await?.json()
    }

    /// Asks for a key to be made anew. The work goes on by itself; [`Self::keys`] says how far it came.
    pub async fn rotate(&self, rotate: &Rotate) -> Result<Rotation, Error> {
        self.call(Call::new(Method::POST, routes::KEYS_ROTATE).json(rotate, 256)?).await?.json()
    }

    /// Destroys a term that nothing uses any more.
    pub async fn destroy_term(&self, term: i32) -> Result<(), Error> {
        self.call(Call::new(Method::POST, routes::KEYS_DESTROY).json(&DestroyTerm { term }, 64)?).await.map(drop)
    }

    /// Confirms a quarantined scope.
    pub async fn confirm_scope(&self, confirm: &ConfirmScope) -> Result<(), Error> {
        self.call(Call::new(Method::POST, routes::KEYS_CONFIRM).json(confirm, 256)?).await.map(drop)
    }

    /// Destroys a project's keys, and with them everything in it.
    pub async fn shred_project(&self, shred: &ShredProject) -> Result<(), Error> {
        self.call(Call::new(Method::POST, routes::PROJECTS_SHRED).json(shred, 256)?).await.map(drop)
    }
}
