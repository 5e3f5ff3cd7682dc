//! A forbid stays until somebody who answers for the instance takes it away.

use serde_json::json;
use strongroom_api::routes;
use strongroom_core::Action;
use strongroom_tests::{Answer, TestServer, project};

const FORBID: &str = r#"forbid(principal, action == Action::"read", resource in Folder::"shop/mail/");"#;
const OTHER_FORBID: &str = r#"forbid(principal, action == Action::"read", resource == Secret::"shop/none");"#;
const PERMIT: &str = r#"permit(principal in Role::"shop/readers", action, resource in Project::"shop");"#;
const OTHER_PERMIT: &str = r#"permit(principal in Role::"shop/writers", action, resource in Project::"shop");"#;

async fn put(server: &TestServer, credential: &str, name: &str, text: &str) -> Answer {
    let body = json!({"project": "shop", "name": name, "text": text}).to_string();
    server.request("PUT", routes::POLICIES, Some(credential), Some(&body)).await
}

async fn delete(server: &TestServer, credential: &str, name: &str) -> Answer {
    server.request("DELETE", &format!("{}?project=shop&name={name}", routes::POLICIES), Some(credential), None).await
}

#[tokio::test]
async fn who_manages_a_projects_policies_adds_forbids_and_neither_replaces_nor_removes_one() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.grant("workload:lab/shop/api", &[Action::ManagePolicies], "shop/").await;
    let manager = server.session("shop", "api").await;

    assert_eq!(put(&server, &manager, "permit", PERMIT).await.status, 200);
    assert_eq!(put(&server, &manager, "permit", OTHER_PERMIT).await.status, 200, "a permit is replaced");
    assert_eq!(delete(&server, &manager, "permit").await.status, 204, "and removed");
    assert_eq!(put(&server, &manager, "turned", PERMIT).await.status, 200);
    assert_eq!(put(&server, &manager, "turned", FORBID).await.status, 200, "and turned into a forbid");
    assert_eq!(put(&server, &manager, "forbid", FORBID).await.status, 200, "a forbid is added");

    let mut sql = server.sql().await;
    let query = "SELECT p.name, p.text, p.mac FROM policies p ORDER BY p.name";
    let before = sql.rows(query).await;
    for (what, answer) in [
        ("removing it", delete(&server, &manager, "forbid").await),
        ("a permit in its place", put(&server, &manager, "forbid", PERMIT).await),
        ("another forbid in its place", put(&server, &manager, "forbid", OTHER_FORBID).await),
        ("the same in its place", put(&server, &manager, "forbid", FORBID).await),
        ("removing what became one", delete(&server, &manager, "turned").await),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{what}");
        let id = answer.header("x-request-id").unwrap();
        let events = sql.rows(&format!("SELECT * FROM audit_events WHERE request_id = '{id}'")).await;
        let [event] = &events[..] else { panic!("{what} leaves one event, not {}", events.len()) };
        assert_eq!(
            ["action", "resource", "decision", "outcome", "actor"]
                .map(|column| event[column].as_str().unwrap_or_default()),
            ["remove-forbids", "instance", "denied", "forbidden", "workload:lab/shop/api"],
            "{what}"
        );
    }
    assert_eq!(sql.rows(query).await, before);
    assert_eq!(delete(&server, &manager, "none").await.status, 404, "what is not there is no forbid");

    let admin = server.admin_token();
    assert_eq!(put(&server, admin, "forbid", OTHER_FORBID).await.status, 200);
    assert_eq!(delete(&server, admin, "forbid").await.status, 204);
    assert_eq!(put(&server, admin, "turned", PERMIT).await.status, 200);
    assert_eq!(delete(&server, &manager, "turned").await.status, 204, "it is a permit again");
    assert!(server.admin().policies(&project("shop")).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_right_to_remove_forbids_cannot_be_had_within_a_project() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.grant("workload:lab/shop/api", &[Action::ManageGrants, Action::ManagePolicies], "shop/").await;
    let manager = server.session("shop", "api").await;
    assert_eq!(put(&server, &manager, "forbid", FORBID).await.status, 200);
    let grant =
        json!({"principal": "workload:lab/shop/api", "actions": ["remove-forbids"], "scope": "shop/"}).to_string();
    assert_eq!(server.request("POST", routes::GRANTS, Some(&manager), Some(&grant)).await.status, 422);
    for text in [
        r#"permit(principal, action == Action::"remove-forbids", resource == Instance::"instance");"#,
        r#"permit(principal, action == Action::"remove-forbids", resource);"#,
        r#"permit(principal, action == Action::"remove-forbids", resource in Project::"shop");"#,
    ] {
        assert_eq!(put(&server, &manager, "escape", text).await.status, 422, "{text}");
    }
    // Whatever is taken for all actions ends at the project's wall.
    assert_eq!(
        put(&server, &manager, "everything", r#"permit(principal, action, resource in Project::"shop");"#).await.status,
        200
    );
    assert_eq!(delete(&server, &manager, "forbid").await.status, 403);
}
