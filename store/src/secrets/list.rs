//! Many secrets: pages of a list, and searches.

use super::{RawSecret, SecretRow};
use crate::{
    error::StoreError,
    pool::{Connection, Transaction},
};
use strongroom_core::{FolderPath, Owner, Scope, Unverified};
use time::OffsetDateTime;

/// A stretch of paths in their order, the bytes' own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRange {
    start: String,
    stop: String,
}

impl PathRange {
    /// All that lies in a scope.
    pub fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Secret(path) => Self { start: path.to_string(), stop: just_after(path.as_str()) },
            Scope::Folder(folder) => Self { start: folder.to_string(), stop: after_folder(folder) },
        }
    }

    /// What of it comes after a place: after a secret, or after a folder with everything in it. `None` where nothing does.
    pub fn after(self, place: &Scope) -> Option<Self> {
        let next = match place {
            Scope::Secret(path) => just_after(path.as_str()),
            Scope::Folder(folder) => after_folder(folder),
        };
        let start = self.start.max(next);
        (start < self.stop).then_some(Self { start, stop: self.stop })
    }
}

/// What a search asks of secrets beside their place. All of it narrows.
#[derive(Clone, Debug, Default)]
pub struct SecretFilter {
    /// Labels that must be there, each as `key=value`.
    pub labels: Vec<String>,
    /// Keys of labels that must be there, with any value.
    pub label_keys: Vec<String>,
    /// Who must answer for it.
    pub owner: Option<Owner>,
    /// What must stand somewhere in the path.
    pub name: Option<String>,
    /// It has an expiry, and that is earlier.
    pub expires_before: Option<OffsetDateTime>,
    /// Its last change is earlier.
    pub changed_before: Option<OffsetDateTime>,
    /// It was never read, or last earlier.
    pub not_read_since: Option<OffsetDateTime>,
}

impl SecretFilter {
    /// Whether it asks anything.
    pub fn is_some(&self) -> bool {
        let Self { labels, label_keys, owner, name, expires_before, changed_before, not_read_since } = self;
        !labels.is_empty()
            || !label_keys.is_empty()
            || owner.is_some()
            || name.is_some()
            || [expires_before, changed_before, not_read_since].into_iter().any(Option::is_some)
    }
}

/// A line of a list.
#[derive(Debug)]
pub struct ListedSecret {
    /// The secret.
    pub secret: Unverified<SecretRow>,
    /// When its value was last released, as far as that was written down. Not authenticated.
    pub last_read_at: Option<OffsetDateTime>,
}

/// The first secrets of these ranges in the order of their paths, at most `limit`; deleted ones only where asked for. The ranges do not overlap, and come in
/// order.
pub async fn list_secrets(
    connection: &mut Connection,
    ranges: &[PathRange],
    deleted: bool,
    limit: i64,
) -> Result<Vec<ListedSecret>, StoreError> {
    let (starts, stops) = arrays(ranges);
    let rows = sqlx::query_as!(
        RawListed,
        r#"SELECT s.id, s.project_id, s.path, s.state, s.latest_version, s.current_version, s.previous_version, s.created_at, s.updated_at, s.pending_version,
                  s.aliases, s.labels, s.owner, s.expires_at, s.deletion_protected, s.keep_versions, s.oldest_version, s.skipped_versions, s.revision,
                  s.mac_generation, s.mac_layout, s.mac, a.last_read_at AS "last_read_at?"
           FROM unnest($1::text[], $2::text[]) AS r (start, stop)
           CROSS JOIN LATERAL (SELECT * FROM secrets WHERE path >= r.start AND path < r.stop AND (state = 'live' OR $3) ORDER BY path LIMIT $4) s
           LEFT JOIN secret_activity a ON a.secret_id = s.id
           ORDER BY s.path LIMIT $4"#,
        &starts,
        &stops,
        deleted,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawListed::listed).collect()
}

/// As [`list_secrets`], of those that the filter lets through.
///
/// Labels given with their value, an owner and an expiry are found by an index; a name, a key alone and the other times are looked for in every row that the
/// rest leaves. The transaction is for its settings; nothing is written.
pub async fn search_secrets(
    transaction: &mut Transaction,
    ranges: &[PathRange],
    filter: &SecretFilter,
    deleted: bool,
    limit: i64,
) -> Result<Vec<ListedSecret>, StoreError> {
    let [first, ..] = ranges else { return Ok(Vec::new()) };
    // The stretch from the first to the last stands there as well: the planner knows nothing of what is in an array.
    let (last, (starts, stops)) = (ranges.last().unwrap_or(first), arrays(ranges));
    // A plan made once for all searches would use no index: what is not asked for is NULL.
    sqlx::query!("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")
        .fetch_one(transaction.connection())
        .await?;
    let labels = (!filter.labels.is_empty()).then_some(&filter.labels[..]);
    let keys: Vec<String> = filter.label_keys.iter().map(|key| format!("\n{key}=")).collect();
    let rows = sqlx::query_as!(
        RawListed,
        r#"SELECT s.id, s.project_id, s.path, s.state, s.latest_version, s.current_version, s.previous_version, s.created_at, s.updated_at, s.pending_version,
                  s.aliases, s.labels, s.owner, s.expires_at, s.deletion_protected, s.keep_versions, s.oldest_version, s.skipped_versions, s.revision,
                  s.mac_generation, s.mac_layout, s.mac, a.last_read_at AS "last_read_at?"
           FROM secrets s
           LEFT JOIN secret_activity a ON a.secret_id = s.id
           WHERE s.path >= $12 AND s.path < $13
             AND EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS r (start, stop) WHERE s.path >= r.start AND s.path < r.stop)
             AND (s.state = 'live' OR $3)
             AND ($5::text[] IS NULL OR (s.labels <> '' AND string_to_array(s.labels, E'\n') @> $5))
             AND NOT EXISTS (SELECT FROM unnest($6::text[]) AS k (key) WHERE strpos(E'\n' || s.labels, k.key) = 0)
             AND ($7::text IS NULL OR s.owner = $7)
             AND ($8::text IS NULL OR strpos(s.path, $8) > 0)
             AND ($9::timestamptz IS NULL OR s.expires_at < $9)
             AND ($10::timestamptz IS NULL OR s.updated_at < $10)
             AND ($11::timestamptz IS NULL OR a.last_read_at IS NULL OR a.last_read_at < $11)
           ORDER BY s.path LIMIT $4"#,
        &starts,
        &stops,
        deleted,
        limit,
        labels,
        &keys,
        filter.owner.as_ref().map(Owner::as_str),
        filter.name.as_deref(),
        filter.expires_before,
        filter.changed_before,
        filter.not_read_since,
        first.start,
        last.stop
    )
    .fetch_all(transaction.connection())
    .await?;
    rows.into_iter().map(RawListed::listed).collect()
}

/// A folder's own secrets in these ranges, and of each subfolder the first secret there, in the order of their paths. It goes from one to the next by the
/// index and reads nothing in between, however much lies in a subfolder.
pub async fn list_children(
    connection: &mut Connection,
    folder: &FolderPath,
    ranges: &[PathRange],
    deleted: bool,
    limit: i64,
) -> Result<Vec<ListedSecret>, StoreError> {
    let (starts, stops) = arrays(ranges);
    let depth = i32::try_from(folder.as_str().len()).expect("a path has at most 512 bytes");
    let rows = sqlx::query_as!(
        RawListed,
        r#"WITH RECURSIVE child (path, number) AS (
               SELECT (SELECT p.path FROM unnest($1::text[], $2::text[]) AS r (start, stop)
                       CROSS JOIN LATERAL (SELECT path FROM secrets WHERE path >= r.start AND path < r.stop AND (state = 'live' OR $3) ORDER BY path LIMIT 1) p
                       ORDER BY p.path LIMIT 1), 1::bigint
               UNION ALL
               SELECT (SELECT p.path FROM unnest($1::text[], $2::text[]) AS r (start, stop)
                       CROSS JOIN LATERAL (SELECT path FROM secrets
                           WHERE path >= greatest(r.start COLLATE "C", n.next COLLATE "C") AND path < r.stop AND (state = 'live' OR $3) ORDER BY path LIMIT 1) p
                       WHERE n.next COLLATE "C" < r.stop COLLATE "C"
                       ORDER BY p.path LIMIT 1), child.number + 1
               FROM child
               -- After a secret of its own comes the next path; after one in a subfolder, what follows the subfolder: `0` is the character after the slash.
               CROSS JOIN LATERAL (SELECT CASE WHEN strpos(substr(child.path, $5 + 1), '/') = 0 THEN child.path || E'\x01'
                                               ELSE left(child.path, $5) || split_part(substr(child.path, $5 + 1), '/', 1) || '0' END AS next) n
               WHERE child.path IS NOT NULL AND child.number < $4
           )
           SELECT s.id, s.project_id, s.path, s.state, s.latest_version, s.current_version, s.previous_version, s.created_at, s.updated_at, s.pending_version,
                  s.aliases, s.labels, s.owner, s.expires_at, s.deletion_protected, s.keep_versions, s.oldest_version, s.skipped_versions, s.revision,
                  s.mac_generation, s.mac_layout, s.mac, a.last_read_at AS "last_read_at?"
           FROM child JOIN secrets s ON s.path = child.path
           LEFT JOIN secret_activity a ON a.secret_id = s.id
           ORDER BY s.path"#,
        &starts,
        &stops,
        deleted,
        limit,
        depth
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawListed::listed).collect()
}

fn arrays(ranges: &[PathRange]) -> (Vec<String>, Vec<String>) {
    ranges.iter().map(|range| (range.start.clone(), range.stop.clone())).unzip()
}

/// No path lies between a path and this.
fn just_after(path: &str) -> String {
    format!("{path}\u{1}")
}

/// Everything in `folder/` lies before `folder0`: that is the next character after the slash.
fn after_folder(folder: &FolderPath) -> String {
    let mut end = folder.as_str().trim_end_matches('/').to_owned();
    end.push('0');
    end
}

/// A line of a list as the queries return it.
struct RawListed {
    id: uuid::Uuid,
    project_id: uuid::Uuid,
    path: String,
    state: String,
    latest_version: i64,
    current_version: i64,
    previous_version: Option<i64>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    pending_version: Option<i64>,
    aliases: String,
    labels: String,
    owner: Option<String>,
    expires_at: Option<OffsetDateTime>,
    deletion_protected: bool,
    keep_versions: Option<i32>,
    oldest_version: i64,
    skipped_versions: i64,
    revision: i64,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
    last_read_at: Option<OffsetDateTime>,
}

impl RawListed {
    fn listed(self) -> Result<ListedSecret, StoreError> {
        let last_read_at = self.last_read_at;
        let secret = RawSecret {
            id: self.id,
            project_id: self.project_id,
            path: self.path,
            state: self.state,
            latest_version: self.latest_version,
            current_version: self.current_version,
            previous_version: self.previous_version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            pending_version: self.pending_version,
            aliases: self.aliases,
            labels: self.labels,
            owner: self.owner,
            expires_at: self.expires_at,
            deletion_protected: self.deletion_protected,
            keep_versions: self.keep_versions,
            oldest_version: self.oldest_version,
            skipped_versions: self.skipped_versions,
            revision: self.revision,
            mac_generation: self.mac_generation,
            mac_layout: self.mac_layout,
            mac: self.mac,
        };
        Ok(ListedSecret { secret: secret.unverified()?, last_read_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_on_after_a_secret_or_after_a_whole_folder() {
        let range = |text: &str| PathRange::of(&Scope::parse(text).unwrap());
        let after = |of: &str, place: &str| range(of).after(&Scope::parse(place).unwrap());
        assert_eq!(after("p/", "p/f/").unwrap().start, "p/f0");
        assert_eq!(after("p/", "p/f").unwrap().start, "p/f\u{1}");
        assert_eq!(after("p/g", "p/f/").unwrap(), range("p/g"));
        assert_eq!(after("p/f", "p/f"), None);
        assert_eq!(after("p/f/", "p/f/"), None);
        assert_eq!(after("p/f/a", "p/g"), None);
    }
}
