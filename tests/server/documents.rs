//! Documents that are made from the code, or must name all of it.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};
use strongroom_api::ErrorCode;
use strongroom_server::metrics;

/// Set to write the documents anew instead of comparing them.
const BLESS: &str = "STRONGROOM_BLESS";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is in the workspace").to_owned()
}

fn is_as_generated(name: &str, generated: &str) {
    let file = root().join("docs").join(name);
    if std::env::var_os(BLESS).is_some() {
        fs::write(&file, generated).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == generated,
        "docs/{name} is not what the code says; write it anew with\n  {BLESS}=1 cargo test -p strongroom-tests --test server documents"
    );
}

#[test]
fn the_list_of_errors_is_the_codes() {
    let mut text = String::from(
        "# Errors\n\nEvery error is an `application/problem+json` (RFC 9457) with a stable `code`. Codes are never renamed or reused; programs decide by them, \
         and by nothing else.\n`request_id` is the id under which the request stands in the server's log and in the audit log.\n\n\
         | Code | Status | Meaning | What to do |\n|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        writeln!(text, "| `{}` | {} | {} | {} |", code.as_str(), code.status(), code.meaning(), code.remedy()).unwrap();
    }
    text.push_str("\nThis file is made from `api/src/error.rs`; a test compares it.\n");
    is_as_generated("errors.md", &text);
}

#[test]
fn the_openapi_document_is_the_routers() {
    is_as_generated("openapi.json", &strongroom_server::http::openapi());
}

#[test]
fn the_list_of_metrics_is_the_metrics() {
    let mut text = String::from(
        "# Metrics\n\n`GET /metrics`, in Prometheus' text format, without a credential. No label holds a path, a name or anything of a caller.\n\n\
         | Metric | Type | Meaning |\n|---|---|---|\n",
    );
    for (name, kind, meaning) in metrics::ALL {
        writeln!(text, "| `{name}` | {kind} | {meaning} |").unwrap();
    }
    text.push_str("\nThis file is made from `server/src/metrics.rs`; a test compares it.\n");
    is_as_generated("metrics.md", &text);
}

#[test]
fn every_direct_dependency_has_its_line() {
    let manifest = |path: PathBuf| -> toml::Table { fs::read_to_string(path).unwrap().parse().unwrap() };
    let document = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let workspace = manifest(root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut missing = BTreeSet::new();
    for member in members {
        let member = member.as_str().unwrap();
        let mut tables = vec![manifest(root().join(member).join("Cargo.toml"))];
        let targets = tables[0].get("target").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        tables.extend(targets.into_iter().filter_map(|(_, table)| table.as_table().cloned()));
        for table in &tables {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let names = table.get(kind).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
                missing.extend(
                    names
                        .filter(|name| !name.starts_with("strongroom-") && !document.contains(&format!("`{name}`")))
                        .map(|name| format!("{name} ({member})")),
                );
            }
        }
    }
    assert!(missing.is_empty(), "docs/dependencies.md has no line for {missing:?}");
}
