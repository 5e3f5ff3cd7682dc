//! The OpenAPI document against the router, the parsers and the wire. That answers fit it is checked by the harness, in every test.

use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use strongroom_api::routes;
use strongroom_core::{FieldName, FolderPath, ProjectName, Scope, SecretPath};
use strongroom_server::http::{OPEN, ROUTES, openapi};
use strongroom_tests::TestServer;

fn document() -> Value {
    serde_json::from_str(&openapi()).unwrap()
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())))
        .collect();
    let listed: BTreeSet<_> = ROUTES
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(|method| ((*path).to_owned(), (*method).to_owned())))
        .collect();
    assert_eq!(described, listed, "left: the router's handlers; right: ROUTES");
}

#[test]
fn every_operation_has_an_id_of_its_own_a_summary_and_what_its_credential_needs() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                "{method} {path} has no summary"
            );
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_open, OPEN.contains(&path.as_str()), "{method} {path}");
            assert_eq!(operation["responses"]["401"].is_null(), is_open && path != routes::LOGIN, "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let described = response.get("$ref").is_some() || response["description"] != "";
                assert!(described, "{method} {path} {status} has no description");
            }
        }
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn a_text_fits_its_pattern_exactly_when_it_parses() {
    let document = document();
    let texts = texts();
    let compare = |name: &str, parses: &dyn Fn(&str) -> bool| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}"), "components": document["components"] });
        let validator: Validator = jsonschema::validator_for(&schema).unwrap();
        for text in &texts {
            assert_eq!(validator.is_valid(&json!(text)), parses(text), "{name}: {text:?}");
        }
    };
    compare("ProjectName", &|text| ProjectName::parse(text).is_ok());
    compare("SecretPath", &|text| SecretPath::parse(text).is_ok());
    compare("FolderPath", &|text| FolderPath::parse(text).is_ok());
    compare("Scope", &|text| Scope::parse(text).is_ok());
    compare("FieldName", &|text| FieldName::parse(text).is_ok());
}

/// Every text of up to six characters of three kinds, every ASCII character in two places, and the lengths about each limit.
fn texts() -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut last = texts.clone();
    for _ in 0..6 {
        last = last.iter().flat_map(|text| ["a", ".", "/"].map(|next| format!("{text}{next}"))).collect();
        texts.extend(last.clone());
    }
    for character in (0_u8..128).map(char::from).chain(['é', '\u{2028}']) {
        texts.extend([
            format!("a{character}"),
            format!("a/b{character}"),
            format!("{character}a/"),
            format!("a/b{character}c/"),
        ]);
    }
    for length in 126..=131 {
        for first in ["a", ".", ".."] {
            let name = format!("{first}{}", "a".repeat(length - first.len()));
            texts.extend([format!("{name}/"), format!("{name}/b"), format!("b/{name}"), name]);
        }
    }
    for length in 510..=514 {
        texts.extend([format!("p/{}", "a".repeat(length - 2)), format!("p/{}/", "a".repeat(length - 3))]);
    }
    texts
}

#[test]
fn a_precondition_is_demanded_of_what_overwrites_and_of_nothing_else() {
    let document = document();
    let mut demanded = BTreeSet::new();
    for (_, item) in document["paths"].as_object().unwrap() {
        let operations =
            item.as_object().unwrap().values().filter(|operation| !operation["responses"]["428"].is_null());
        demanded.extend(operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()));
    }
    let overwrite = ["put_secret", "patch_secret", "generate_secret", "put_alias", "delete_alias", "write_secrets"];
    assert_eq!(demanded, overwrite.map(str::to_owned).into());
}

#[test]
fn a_cursor_is_a_secret_or_a_folder() {
    let document = document();
    let parameters = document["paths"][routes::SECRETS]["get"]["parameters"].as_array().unwrap();
    let cursor = parameters.iter().find(|parameter| parameter["name"] == "cursor").unwrap();
    let schema = json!({ "allOf": [cursor["schema"]], "components": document["components"] });
    let validator: Validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&json!("shop/a/")) && validator.is_valid(&json!("shop/db")));
    assert!(!validator.is_valid(&json!("shop")));
}

#[tokio::test]
async fn the_document_is_served_to_anybody() {
    let server = TestServer::start().await;
    let answer = server.request("GET", routes::OPENAPI, None, None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), openapi());
}
