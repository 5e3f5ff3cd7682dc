//! Lists over all projects: who sees which, what is looked at, and what a damaged project does to the others.

use serde_json::Value;
use std::time::{Duration, Instant};
use strongroom_api::{
    access::{Policy, Role},
    keys::Rotate,
    routes,
};
use strongroom_client::{PutOptions, Search};
use strongroom_core::{Action, SystemClock};
use strongroom_server::{
    access::{Access, check_everything},
    failure::Failure,
};
use strongroom_tests::{Replica, TestServer, eventually, fields, logged, path, project};

const API: &str = "workload:lab/shop/api";

/// A server with these projects and a secret `x` in each.
async fn with(names: &[&str]) -> TestServer {
    // Keys that are retired stay for as long as a test lasts.
    let server = TestServer::start_with(|settings| settings.destroy_after_seconds = 3_600).await;
    for name in names {
        server.project(name).await;
        server.admin().put(&path(&format!("{name}/x")), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    server
}

async fn role(server: &TestServer, of: &str, name: &str, member: &str) {
    let role = Role { project: project(of), name: name.to_owned(), members: vec![member.to_owned()] };
    server.admin().put_role(&role).await.unwrap();
}

async fn permit(server: &TestServer, of: &str, principal: &str) {
    let text = format!(r#"permit({principal}, action == Action::"list", resource in Project::"{of}");"#);
    server.admin().put_policy(&Policy { project: project(of), name: "listing".to_owned(), text }).await.unwrap();
}

fn names(answer: &Value, list: &str, name: &str) -> Vec<String> {
    answer[list].as_array().unwrap().iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
}

async fn projects(server: &TestServer, credential: &str) -> Vec<String> {
    let answer = server.request("GET", routes::PROJECTS, Some(credential), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    names(&answer.json(), "items", "name")
}

async fn secrets(server: &TestServer, credential: &str) -> Vec<String> {
    let answer = server.request("GET", routes::SECRETS, Some(credential), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    names(&answer.json(), "secrets", "path")
}

/// What a server that never saw these rows lists: projects, and secrets.
async fn listed_anew(replica: &Replica, credential: &str) -> (Vec<String>, Vec<String>) {
    let (projects, secrets) = (
        replica.request("GET", routes::PROJECTS, Some(credential), None).await,
        replica.request("GET", routes::SECRETS, Some(credential), None).await,
    );
    assert_eq!((projects.status, secrets.status), (200, 200), "{} {}", projects.text(), secrets.text());
    (names(&projects.json(), "items", "name"), names(&secrets.json(), "secrets", "path"))
}

#[tokio::test]
async fn each_way_to_have_a_part_in_a_project_shows_it_and_nothing_else_does() {
    let all = [
        "anyone",
        "by-name",
        "exact-role",
        "forbidden",
        "granted",
        "managed",
        "none",
        "others",
        "role-policy",
        "wide-role",
    ];
    let server = with(&all).await;
    let list = [Action::List];
    server.grant(API, &list, "granted/").await;
    server.grant(API, &[Action::ManageRoles], "managed/").await;
    role(&server, "exact-role", "readers", API).await;
    server.grant("role:exact-role/readers", &list, "exact-role/").await;
    role(&server, "wide-role", "readers", "workload:*/shop/*").await;
    server.grant("role:wide-role/readers", &list, "wide-role/").await;
    permit(&server, "anyone", "principal").await;
    permit(&server, "by-name", r#"principal == Workload::"lab/shop/api""#).await;
    role(&server, "role-policy", "readers", "workload:lab/shop/*").await;
    permit(&server, "role-policy", r#"principal in Role::"role-policy/readers""#).await;
    server.grant("workload:lab/shop/web", &list, "others/").await;
    server.grant(API, &list, "forbidden/").await;
    let text = r#"forbid(principal, action, resource in Project::"forbidden");"#.to_owned();
    let policy = Policy { project: project("forbidden"), name: "no".to_owned(), text };
    server.admin().put_policy(&policy).await.unwrap();

    let session = server.session("shop", "api").await;
    let expected = ["anyone", "by-name", "exact-role", "granted", "managed", "role-policy", "wide-role"];
    assert_eq!(projects(&server, &session).await, expected);
    let expected = ["anyone/x", "by-name/x", "exact-role/x", "granted/x", "role-policy/x", "wide-role/x"];
    assert_eq!(secrets(&server, &session).await, expected);
    let stranger = server.session("elsewhere", "api").await;
    assert_eq!(projects(&server, &stranger).await, ["anyone"]);
    assert_eq!(secrets(&server, &stranger).await, ["anyone/x"]);
    let narrowed = server.workload_in_role("shop", "api", Some("wide-role/readers"));
    let seen: Vec<_> = narrowed.projects().await.unwrap().into_iter().map(|seen| seen.name).collect();
    assert_eq!(seen, [project("wide-role")]);
    let page = narrowed.search(&Search::default(), None).await.unwrap();
    assert_eq!(page.secrets.len(), 1);
}

#[tokio::test]
async fn projects_come_in_pages_whose_cursors_name_only_what_the_caller_sees() {
    let all = ["a", "b", "c", "d", "e", "f"];
    let server = with(&all).await;
    let own = ["a", "c", "d", "f"];
    for name in own {
        server.grant(API, &[Action::List], &format!("{name}/")).await;
    }
    permit(&server, "b", "principal is User").await;
    let session = server.session("shop", "api").await;
    for limit in 0..=5 {
        let (mut seen, mut target) = (Vec::new(), format!("{}?limit={limit}", routes::PROJECTS));
        loop {
            let answer = server.request("GET", &target, Some(&session), None).await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            let page = answer.json();
            let items = names(&page, "items", "name");
            assert!(!items.is_empty() && items.len() <= limit.max(1), "{target}: {items:?}");
            seen.extend(items);
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            assert_eq!(seen.last().map(String::as_str), Some(cursor), "{target}");
            target = format!("{}?limit={limit}&cursor={cursor}", routes::PROJECTS);
        }
        assert_eq!(seen, own, "{limit} a page");
    }
    for bad in ["cursor=a/b", "cursor=", "limit=-1", "after=a", "limit=1&limit=1"] {
        let answer = server.request("GET", &format!("{}?{bad}", routes::PROJECTS), Some(&session), None).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_damaged_project_is_left_out_of_lists_with_an_alarm_and_the_others_are_shown() {
    let server = with(&["a", "b", "c", "d"]).await;
    let gone = server.grant("user:ada", &[Action::Read], "b/").await;
    let ids: Vec<_> = server.admin().projects().await.unwrap().into_iter().map(|seen| seen.id.to_string()).collect();
    let mut sql = server.sql().await;
    sql.run(&format!("DELETE FROM grants WHERE id = '{}'", gone.id)).await;
    sql.run("UPDATE secrets SET owner = 'eve' WHERE path = 'c/x'").await;
    let replica = server.replica().await.unwrap();
    let alarmed = |what: &str| {
        let logged = String::from_utf8(logged()).unwrap();
        logged.lines().any(|line| line.contains("going on without it") && line.contains(what))
    };

    let session = server.session("shop", "api").await;
    server.grant(API, &[Action::List], "a/").await;
    assert_eq!(listed_anew(&replica, &session).await, (vec!["a".to_owned()], vec!["a/x".to_owned()]));
    assert!(!alarmed(&ids[1]), "what cannot concern the caller is not even looked at");

    let (projects, secrets) = listed_anew(&replica, server.admin_token()).await;
    assert_eq!(projects, ["a", "c", "d"], "the secret's row is none that decides who sees the project");
    assert_eq!(secrets, ["a/x", "d/x"]);
    assert!(alarmed(&ids[1]) && alarmed("secrets"), "both are said");
    for folder in ["b/", "c/"] {
        let target = format!("{}?folder={folder}", routes::SECRETS);
        let answer = replica.request("GET", &target, Some(server.admin_token()), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "who asks for it is told");
    }
    replica.stop().await;
}

#[tokio::test]
async fn who_changes_where_lists_look_takes_away_and_gives_nothing() {
    let server = with(&["given", "taken"]).await;
    server.grant(API, &[Action::List], "taken/").await;
    let session = server.session("shop", "api").await;
    assert_eq!(projects(&server, &session).await, ["taken"]);
    let mut sql = server.sql().await;
    sql.run(&format!(
        "INSERT INTO grants SELECT gen_random_uuid(), (SELECT id FROM projects WHERE name = 'given'), principal, actions, 'given/', author, created_at,
         mac_generation, mac_layout, mac FROM grants WHERE principal = '{API}'; DELETE FROM grants WHERE principal = '{API}' AND scope = 'taken/'"
    ))
    .await;
    assert_eq!(projects(&server, &session).await, Vec::<String>::new(), "by what this server verified");
    let replica = server.replica().await.unwrap();
    assert_eq!(listed_anew(&replica, &session).await, (Vec::new(), Vec::new()));
    replica.stop().await;
}

#[tokio::test]
async fn a_check_of_everything_names_each_damaged_project() {
    let server = with(&["a", "b", "c", "d"]).await;
    let (app, background) = server.app_at(std::sync::Arc::new(SystemClock)).await;
    let check = async || {
        let mut connection = app.store.reader().await.unwrap();
        check_everything(&app, &mut connection).await.unwrap()
    };
    let survey = check().await;
    assert_eq!((survey.scopes, survey.damaged.len()), (5, 0));
    let of = |name: &str| format!("(SELECT id FROM projects WHERE name = '{name}')");
    let mut sql = server.sql().await;
    sql.run(&format!("UPDATE grants SET actions = 'read' WHERE project_id = {}", of("b"))).await;
    sql.run(&format!("DELETE FROM manifests WHERE scope = {}", of("d"))).await;
    let damaged: Vec<_> = check().await.damaged.into_iter().map(|(name, _)| name).collect();
    assert_eq!(damaged, [project("b"), project("d")]);
    drop(app);
    background.finish().await;
}

#[tokio::test]
async fn an_older_state_of_a_project_is_refused_after_the_project_was_let_go() {
    let server = with(&["a"]).await;
    let (app, background) = server.app_at(std::sync::Arc::new(SystemClock)).await;
    let now = async || {
        let mut connection = app.store.reader().await.unwrap();
        Access::now(&app, &mut connection, Some(&project("a"))).await
    };
    let mut sql = server.sql().await;
    for table in ["grants", "manifests"] {
        sql.run(&format!("CREATE TABLE _kept_{table} AS SELECT * FROM {table}")).await;
    }
    server.grant("user:ada", &[Action::Read], "a/").await;
    let kept = std::sync::Arc::downgrade(&now().await.unwrap().project.unwrap());
    app.access.forget_unused(Instant::now());
    assert!(kept.upgrade().is_some(), "it was just used");
    app.access.forget_unused(Instant::now() + Duration::from_hours(1));
    assert!(kept.upgrade().is_none(), "its keys are not in memory any more");
    for table in ["grants", "manifests"] {
        sql.run(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM _kept_{table}")).await;
    }
    let Err(Failure::Integrity(why)) = now().await else { panic!("the grant that was made since is forgotten") };
    assert!(why.contains("rolled back"), "{why}");
    drop(app);
    background.finish().await;
}

#[tokio::test]
async fn keys_are_shown_though_a_row_of_one_project_is_damaged() {
    let server = with(&["a", "b"]).await;
    let mut sql = server.sql().await;
    for name in ["a", "b"] {
        server.admin().rotate(&Rotate::ProjectKey { project: project(name) }).await.unwrap();
    }
    let retired = "project_keys WHERE state = 'decrypt-only'";
    eventually("both have a key that is retired", async || sql.count(retired).await == 2).await;
    sql.run("UPDATE project_keys SET created_at = created_at + interval '1 s' WHERE project_id = (SELECT id FROM projects WHERE name = 'b')").await;
    let shown = server.admin().keys().await.unwrap().project_keys;
    assert!(!shown.is_empty() && shown.iter().all(|key| key.project == project("a")), "{shown:?}");
}
