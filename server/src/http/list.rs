//! `GET /api/v1/secrets`.

use super::{answer::json, caller::Authenticated, document::errors, problem::Refusal, query::Parameters};
use crate::{
    app::App,
    operations::secrets::{self as operations, ListQuery},
};
use axum::{extract::State, response::Response};
use std::{collections::BTreeMap, str::FromStr, sync::Arc};
use strongroom_api::{ErrorCode, routes, secrets::SecretList};
use strongroom_core::{FolderPath, Labels, Moment, Owner, Scope};
use utoipa::IntoParams;

/// Entries of a page where the query says no number.
const PAGE: u32 = 100;
/// Most labels that one search asks for.
const MAX_LABELS: usize = 16;
/// Longest text that a path can hold.
const MAX_NAME: usize = 512;

errors! {
    ListErrors: Forbidden, NotFound, ProjectShredded, UnprocessableContent;
}

/// What [`parse`] takes, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "a description: `label` may stand several times, which serde's form of a query cannot say"
)]
struct ListParameters {
    /// What to list; everything the caller may list without one.
    folder: Option<FolderPath>,
    /// Whether what lies in subfolders is listed too; true without it. With false the folder's own secrets come, and the names of its subfolders.
    recursive: Option<bool>,
    /// Whether deleted secrets are listed, for those who may delete them.
    deleted: Option<bool>,
    /// Where the page starts: the page before it says so.
    cursor: Option<Scope>,
    /// Most entries; 100 without one. What is too large or zero is taken as the nearest that can be.
    #[param(format = "uint32")]
    limit: Option<u32>,
    /// A label, `key=value`, or any of that key, `key`. May stand up to 16 times; all must be there.
    #[param(max_items = 16, value_type = Option<Vec<String>>)]
    label: Vec<String>,
    /// Who answers for it.
    owner: Option<Owner>,
    /// A part of the path.
    #[param(min_length = 1, max_length = 512, pattern = "^[A-Za-z0-9._/-]+$")]
    name: Option<String>,
    /// Only what expires before this time.
    #[param(value_type = Option<Moment>)]
    expires_before: Option<String>,
    /// Only what did not change since this time.
    #[param(value_type = Option<Moment>)]
    changed_before: Option<String>,
    /// Only what was not read since this time.
    #[param(value_type = Option<Moment>)]
    not_read_since: Option<String>,
}

/// Lists a folder, or searches.
#[utoipa::path(get, path = routes::SECRETS, operation_id = "list_secrets", tag = "secrets", params(ListParameters),
    responses((status = OK, description = "One page.", body = SecretList), ListErrors))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let query = parse(parameters)
        .map_err(|(code, detail)| Refusal::new(code, Some(format!("query: {detail}")), caller.origin.request_id))?;
    let list = operations::list(&app, &caller, &query)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    json(caller.origin, &list)
}

type Problem = (ErrorCode, String);

/// `?[folder=][&recursive=][&deleted=][&cursor=][&limit=]` and the filters. `label` may stand several times, all else once; what is unknown is refused, and what
/// is malformed is not repeated.
fn parse(parameters: Vec<(String, String)>) -> Result<ListQuery, Problem> {
    let mut query = ListQuery { limit: PAGE, ..ListQuery::default() };
    let (mut labels, mut seen) = (Vec::new(), Vec::new());
    for (name, value) in parameters {
        let known = NAMES.iter().find(|known| **known == name);
        let name = *known.ok_or_else(|| bad(format!("unknown parameter; this route takes {}", NAMES.join(", "))))?;
        if name != "label" && seen.contains(&name) {
            return Err(bad(format!("{name} stands twice")));
        }
        seen.push(name);
        match name {
            "folder" => query.folder = Some(parsed(name, &value)?),
            "cursor" => query.after = Some(parsed(name, &value)?),
            "recursive" => query.children_only = !boolean(name, &value)?,
            "deleted" => query.deleted = boolean(name, &value)?,
            "limit" => query.limit = value.parse().map_err(|_| bad("limit: expected a number".to_owned()))?,
            "label" => labels.push(value),
            "owner" => query.filter.owner = Some(Owner::parse(&value).map_err(|error| bad(format!("owner: {error}")))?),
            "name" => query.filter.name = Some(part_of_a_path(value)?),
            "expires_before" => query.filter.expires_before = Some(parsed::<Moment>(name, &value)?.into()),
            "changed_before" => query.filter.changed_before = Some(parsed::<Moment>(name, &value)?.into()),
            _ => query.filter.not_read_since = Some(parsed::<Moment>(name, &value)?.into()),
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(bad(format!("label: at most {MAX_LABELS} in one search")));
    }
    for label in labels {
        let (key, value) = label.split_once('=').map_or((label.as_str(), None), |(key, value)| (key, Some(value)));
        Labels::new(BTreeMap::from([(key.to_owned(), value.unwrap_or_default().to_owned())]))
            .map_err(|error| bad(format!("label: {error}")))?;
        if value.is_some() {
            query.filter.labels.push(label);
        } else {
            query.filter.label_keys.push(label);
        }
    }
    Ok(query)
}

const NAMES: [&str; 11] = [
    "folder",
    "recursive",
    "deleted",
    "cursor",
    "limit",
    "label",
    "owner",
    "name",
    "expires_before",
    "changed_before",
    "not_read_since",
];

fn bad(detail: String) -> Problem {
    (ErrorCode::BadRequest, detail)
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|error: T::Err| bad(format!("{name}: {error}")))
}

fn boolean(name: &str, value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| bad(format!("{name}: expected true or false")))
}

fn part_of_a_path(text: String) -> Result<String, Problem> {
    let can_match =
        (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    let refused = || bad(format!("name: 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - /"));
    if can_match { Ok(text) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse(pairs).expect_err("it is refused").1
    }

    #[test]
    fn each_malformed_parameter_is_refused_with_its_name_and_never_repeated() {
        for (name, value) in [
            ("folder", "hunter2"),
            ("cursor", "hunter2"),
            ("recursive", "hunter2"),
            ("deleted", "hunter2"),
            ("limit", "hunter2"),
            ("label", "hunter2 hunter2=x"),
            ("label", "=hunter2"),
            ("owner", "hunter2 hunter2"),
            ("name", "hunter2 hunter2"),
            ("name", ""),
            ("expires_before", "hunter2"),
            ("expires_before", "0000-01-01T00:00:00+01:00"),
            ("changed_before", "2026-07-01"),
            ("changed_before", "1969-12-31T23:59:59Z"),
            ("not_read_since", "hunter2"),
            ("not_read_since", "9999-12-31T23:59:59-01:00"),
        ] {
            let detail = detail(&[(name, value)]);
            assert!(
                detail.starts_with(&format!("{name}: ")) && !detail.contains("hunter2"),
                "{name}={value}: {detail}"
            );
        }
        assert!(!detail(&[("hunter2", "hunter2")]).contains("hunter2"));
        assert!(detail(&[("limit", "1"), ("limit", "2")]).contains("twice"));
        assert!(detail(&[("label", "a"); MAX_LABELS + 1]).contains("at most"));
    }

    #[test]
    fn labels_are_asked_for_with_their_value_or_by_their_key() {
        let pairs = [("label", "tier=gold"), ("label", "team"), ("label", "note=")];
        let query = parse(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()).unwrap();
        assert_eq!(query.filter.labels, ["tier=gold", "note="]);
        assert_eq!(query.filter.label_keys, ["team"]);
    }
}
