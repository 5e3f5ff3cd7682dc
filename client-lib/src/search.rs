//! Searching secrets, and walking folders.

use crate::{client::Client, error::Error, transport::Call};
use http::Method;
use strongroom_api::{routes, secrets::SecretList};
use strongroom_core::{FolderPath, Moment, Owner};

/// What to look for. Everything given narrows; nothing given is everything the caller may list.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Only in this folder and below.
    pub folder: Option<FolderPath>,
    /// The folder's own secrets and the names of its subfolders, instead of everything below. Not with what asks something of secrets.
    pub children_only: bool,
    /// Deleted secrets too, of those that the caller may delete.
    pub deleted: bool,
    /// Labels that must be there: `key=value`, or `key` for any value.
    pub labels: Vec<String>,
    /// Who must answer for it.
    pub owner: Option<Owner>,
    /// What must stand somewhere in the path. The server looks at each path for it.
    pub name: Option<String>,
    /// It expires earlier than this.
    pub expires_before: Option<Moment>,
    /// It last changed earlier than this.
    pub changed_before: Option<Moment>,
    /// Its value was not released since.
    pub not_read_since: Option<Moment>,
    /// Most entries of a page; 100 unless set, at most 1,000.
    pub limit: Option<u32>,
}

impl Client {
    /// One page of what the caller may list and the search lets through. The next page starts at the last one's `next_cursor`.
    pub async fn search(&self, search: &Search, cursor: Option<&str>) -> Result<SecretList, Error> {
        let mut call = Call::new(Method::GET, routes::SECRETS);
        let text = |at: Option<Moment>| at.map(|at| at.to_string());
        let once = [
            ("folder", search.folder.as_ref().map(FolderPath::to_string)),
            ("recursive", search.children_only.then(|| "false".to_owned())),
            ("deleted", search.deleted.then(|| "true".to_owned())),
            ("owner", search.owner.as_ref().map(Owner::to_string)),
            ("name", search.name.clone()),
            ("expires_before", text(search.expires_before)),
            ("changed_before", text(search.changed_before)),
            ("not_read_since", text(search.not_read_since)),
            ("limit", search.limit.map(|limit| limit.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        for (name, value) in once {
            if let Some(value) = value {
                call = call.query(name, &value);
            }
        }
        for label in &search.labels {
            call = call.query("label", label);
        }
        self.call(call).await?.json()
    }
}
