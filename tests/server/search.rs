//! Folders without what lies below, and searches.

use std::collections::BTreeMap;
use strongroom_api::{ErrorCode, access::Policy};
use strongroom_client::{Client, PutOptions, Search};
use strongroom_core::{Action, Clock as _, Labels, Moment, Owner, ProjectId, SecretId, SystemClock};
use strongroom_store::SecretRow;
use strongroom_tests::{TestServer, fields, folder, insert_secrets, path, project};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const API: &str = "workload:lab/shop/api";

fn row(project: ProjectId, name: &str, now: OffsetDateTime) -> SecretRow {
    SecretRow::new(SecretId(Uuid::now_v7()), project, path(name), now)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()).unwrap()
}

async fn id_of(server: &TestServer, name: &str) -> ProjectId {
    server.admin().projects().await.unwrap().iter().find(|known| known.name == project(name)).unwrap().id
}

async fn insert(server: &TestServer, rows: Vec<SecretRow>) {
    insert_secrets(&mut server.sql().await, &*server.keyring().await, rows).await;
}

async fn permit(server: &TestServer, name: &str, text: &str) {
    let policy = Policy { project: project("shop"), name: name.to_owned(), text: text.to_owned() };
    server.admin().put_policy(&policy).await.unwrap();
}

/// All pages of a search, with the entries of each page together in the order of their paths.
async fn all(client: &Client, search: &Search) -> Vec<String> {
    let (mut found, mut cursor): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let page = client.search(search, cursor.as_deref()).await.unwrap();
        let mut names: Vec<_> = page.secrets.iter().map(|entry| entry.path.to_string()).collect();
        names.extend(page.folders.iter().map(ToString::to_string));
        names.sort();
        assert!(names.len() <= search.limit.unwrap_or(100) as usize);
        assert!(found.last().zip(names.first()).is_none_or(|(last, first)| last < first), "pages are in order");
        found.extend(names);
        match page.next_cursor {
            Some(next) => {
                assert_eq!(found.last(), Some(&next), "a cursor is what the caller saw last");
                cursor = Some(next);
            }
            None => return found,
        }
    }
}

fn children_of(name: &str, limit: u32) -> Search {
    Search { folder: Some(folder(name)), children_only: true, limit: Some(limit), ..Search::default() }
}

#[tokio::test]
async fn a_folder_lists_its_own_secrets_and_each_subfolder_once() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let (project, now) = (id_of(&server, "shop").await, SystemClock.now());
    // Names around the slash in the order of bytes: `-` and `.` come before it, `0` after.
    let names =
        ["shop/a", "shop/a-b/x", "shop/a.b", "shop/a/x", "shop/a/y/z", "shop/a0", "shop/b/c/d", "shop/b/e", "shop/c"];
    let mut rows: Vec<_> = names.iter().map(|name| row(project, name, now)).collect();
    rows.extend((0..50).map(|number| row(project, &format!("shop/many/s-{number}"), now)));
    insert(&server, rows).await;
    for limit in [1, 2, 3, 100] {
        let shop = all(&server.admin(), &children_of("shop/", limit)).await;
        let expected = ["shop/a", "shop/a-b/", "shop/a.b", "shop/a/", "shop/a0", "shop/b/", "shop/c", "shop/many/"];
        assert_eq!(shop, expected, "{limit} a page");
        assert_eq!(all(&server.admin(), &children_of("shop/a/", limit)).await, ["shop/a/x", "shop/a/y/"]);
        assert_eq!(all(&server.admin(), &children_of("shop/b/c/", limit)).await, ["shop/b/c/d"]);
    }
    let page = server.admin().search(&children_of("shop/", 100), None).await.unwrap();
    assert_eq!(page.folders.len(), 4);
    let several =
        ["&name=a", "&label=a", "&owner=a"].map(|more| format!("/api/v1/secrets?folder=shop/&recursive=false{more}"));
    for target in several
        .iter()
        .map(String::as_str)
        .chain(["/api/v1/secrets?recursive=false", "/api/v1/secrets?folder=shop/&cursor=shop/a/"])
    {
        let answer = server.request("GET", target, Some(server.admin_token()), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "unprocessable_content"), "{target}");
    }
}

/// Whether a secret may be listed.
type Sees<'a> = &'a dyn Fn(&SecretRow) -> bool;

/// A world of 120 secrets in 30 folders with grants, label policies and forbids; which of it a pod may list is known without the engine.
#[tokio::test]
async fn lists_show_exactly_what_may_be_listed_whatever_the_rules_are_made_of() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let (project, now) = (id_of(&server, "shop").await, SystemClock.now());
    let mut rows = Vec::new();
    for number in 0..120_u32 {
        let (outer, inner) = (number % 6, number / 6 % 5);
        let mut row = row(project, &format!("shop/o{outer}/i{inner}/s{number:03}"), now);
        row.labels = labels(&[("tier", if number % 7 == 0 { "gold" } else { "iron" })]);
        rows.push(row);
    }
    rows.push(row(project, "shop/o1", now));
    insert(&server, rows.clone()).await;
    let gold = |row: &SecretRow| row.labels.texts().any(|label| label == "tier=gold");
    let under = |row: &SecretRow, place: &str| row.path.as_str().starts_with(place);
    let granted = |row: &SecretRow| {
        under(row, "shop/o1/i2/") || ["shop/o3/i0/s003", "shop/o1", "shop/o2/i3/s020"].contains(&row.path.as_str())
    };
    let with_policy = |row: &SecretRow| granted(row) || (under(row, "shop/o4/") && gold(row));
    let with_forbid = |row: &SecretRow| with_policy(row) && !(under(row, "shop/o1/i2/") && gold(row));
    let steps: [(&str, Sees<'_>); 4] =
        [("nothing", &|_| false), ("grants", &granted), ("a policy", &with_policy), ("a forbid", &with_forbid)];
    let pod = server.workload("shop", "api");
    for (step, sees) in steps {
        match step {
            "grants" => {
                for scope in ["shop/o1/i2/", "shop/o3/i0/s003", "shop/o1", "shop/o2/i3/s020"] {
                    server.grant(API, &[Action::List], scope).await;
                }
                // One about something else changes nothing.
                permit(&server, "reads", r#"permit(principal, action == Action::"read", resource in Project::"shop");"#).await;
            }
            "a policy" => permit(&server, "gold", r#"permit(principal == Workload::"lab/shop/api", action == Action::"list", resource is Secret in Folder::"shop/o4/") when { resource.labels.contains("tier=gold") };"#).await,
            "a forbid" => permit(&server, "no-gold", r#"forbid(principal, action, resource is Secret in Folder::"shop/o1/i2/") when { resource.labels.contains("tier=gold") };"#).await,
            _ => {
                let refused = pod.search(&Search { folder: Some(folder("shop/")), ..Search::default() }, None).await;
                assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::Forbidden));
                assert!(all(&pod, &Search::default()).await.is_empty(), "a search everywhere finds nothing");
                continue;
            }
        }
        let mut expected: Vec<_> = rows.iter().filter(|row| sees(row)).map(|row| row.path.to_string()).collect();
        expected.sort();
        for limit in [1, 7, 100] {
            let everything = Search { folder: Some(folder("shop/")), limit: Some(limit), ..Search::default() };
            assert_eq!(all(&pod, &everything).await, expected, "{step}, {limit} a page");
            assert_eq!(all(&pod, &Search { folder: None, ..everything.clone() }).await, expected, "{step}, everywhere");
            for place in ["shop/", "shop/o1/", "shop/o4/", "shop/o4/i1/"] {
                let mut children: Vec<String> = expected
                    .iter()
                    .filter_map(|name| name.strip_prefix(place))
                    .map(|rest| {
                        rest.split_once('/').map_or(format!("{place}{rest}"), |(name, _)| format!("{place}{name}/"))
                    })
                    .collect();
                children.dedup();
                if !children.is_empty() {
                    assert_eq!(
                        all(&pod, &children_of(place, limit)).await,
                        children,
                        "{step}, children of {place}, {limit} a page"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn each_filter_narrows_and_all_can_be_combined() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.project("bank").await;
    let (shop, bank, now) = (id_of(&server, "shop").await, id_of(&server, "bank").await, SystemClock.now());
    let make = |project, name: &str, pairs: &[(&str, &str)], owner: Option<&str>| {
        let mut row = row(project, name, now - Duration::days(1));
        row.labels = labels(pairs);
        row.owner = owner.map(|owner| Owner::parse(owner).unwrap());
        row
    };
    let mut rows = vec![
        make(bank, "bank/db", &[("tier", "gold"), ("team", "pay")], Some("ada")),
        make(shop, "shop/a/db", &[("tier", "gold"), ("team", "web")], Some("ada")),
        make(shop, "shop/b/db", &[("tier", "golden"), ("x.tier", "gold")], Some("bob")),
        make(shop, "shop/b/key", &[("team", "")], None),
        make(shop, "shop/c", &[], None),
    ];
    rows[1].expires_at = Some(now + Duration::days(3));
    rows[2].expires_at = Some(now + Duration::days(30));
    rows[3].updated_at = now - Duration::days(400);
    let read = [rows[1].id, rows[2].id];
    insert(&server, rows).await;
    for (id, days) in read.iter().zip([1, 100]) {
        let at = now - Duration::days(days);
        server
            .sql()
            .await
            .run(&format!("INSERT INTO secret_activity (secret_id, last_read_at) VALUES ('{id}', '{at}')"))
            .await;
    }
    let admin = server.admin();
    let everywhere = Search::default();
    let tiers = |labels: &[&str]| Search {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..everywhere.clone()
    };
    let moment = |days| Some(Moment::new(now + Duration::days(days)).unwrap());
    for (search, expected) in [
        (everywhere.clone(), &["bank/db", "shop/a/db", "shop/b/db", "shop/b/key", "shop/c"][..]),
        (tiers(&["tier=gold"]), &["bank/db", "shop/a/db"]),
        (tiers(&["tier=gold", "team=pay"]), &["bank/db"]),
        (tiers(&["tier"]), &["bank/db", "shop/a/db", "shop/b/db"]),
        (tiers(&["team"]), &["bank/db", "shop/a/db", "shop/b/key"]),
        (tiers(&["team="]), &["shop/b/key"]),
        (tiers(&["team", "tier=gold"]), &["bank/db", "shop/a/db"]),
        (tiers(&["ier"]), &[]),
        (Search { owner: Some(Owner::parse("ada").unwrap()), ..everywhere.clone() }, &["bank/db", "shop/a/db"]),
        (Search { name: Some("b/".into()), ..everywhere.clone() }, &["shop/b/db", "shop/b/key"]),
        (Search { name: Some("B/".into()), ..everywhere.clone() }, &[]),
        (Search { expires_before: moment(7), ..everywhere.clone() }, &["shop/a/db"]),
        (Search { expires_before: moment(70), ..everywhere.clone() }, &["shop/a/db", "shop/b/db"]),
        (Search { changed_before: moment(-365), ..everywhere.clone() }, &["shop/b/key"]),
        (
            Search { not_read_since: moment(-90), ..everywhere.clone() },
            &["bank/db", "shop/b/db", "shop/b/key", "shop/c"],
        ),
        (
            Search {
                folder: Some(folder("shop/")),
                not_read_since: moment(-90),
                labels: vec!["tier".into()],
                ..everywhere.clone()
            },
            &["shop/b/db"],
        ),
        (Search { folder: Some(folder("shop/a/")), ..tiers(&["tier=gold"]) }, &["shop/a/db"]),
    ] {
        for limit in [None, Some(1)] {
            let search = Search { limit, ..search.clone() };
            assert_eq!(all(&admin, &search).await, expected, "{search:?}");
        }
    }
    let page = admin.search(&tiers(&["team=web"]), None).await.unwrap();
    let entry = &page.secrets[0];
    assert_eq!(
        (entry.owner.as_ref().unwrap().as_str(), entry.labels.clone()),
        ("ada", labels(&[("tier", "gold"), ("team", "web")]))
    );
    assert_eq!((entry.expires_at.is_some(), entry.last_read_at.is_some(), entry.deleted), (true, true, false));

    // Whoever may list some of it finds that, and learns nothing from finding nothing.
    server.grant(API, &[Action::List], "shop/b/key").await;
    let pod = server.workload("shop", "api");
    assert_eq!(all(&pod, &tiers(&["team"])).await, ["shop/b/key"]);
    let in_shop = Search { folder: Some(folder("shop/")), ..tiers(&["tier=gold"]) };
    assert!(all(&pod, &in_shop).await.is_empty());
    let in_bank = Search { folder: Some(folder("bank/")), ..tiers(&["tier=gold"]) };
    assert_eq!(pod.search(&in_bank, None).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn deleted_secrets_are_listed_to_those_who_may_delete_them_when_they_ask() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for name in ["shop/a", "shop/b", "shop/gone/c"] {
        admin.put(&path(name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    for name in ["shop/b", "shop/gone/c"] {
        admin.delete(&path(name)).await.unwrap();
    }
    let shop = Search { folder: Some(folder("shop/")), ..Search::default() };
    let with_deleted = Search { deleted: true, ..shop.clone() };
    assert_eq!(all(&admin, &shop).await, ["shop/a"]);
    assert_eq!(all(&admin, &with_deleted).await, ["shop/a", "shop/b", "shop/gone/c"]);
    let page = admin.search(&with_deleted, None).await.unwrap();
    let deleted: BTreeMap<_, _> = page.secrets.iter().map(|entry| (entry.path.to_string(), entry.deleted)).collect();
    assert_eq!(deleted.into_values().collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(all(&admin, &children_of("shop/", 10)).await, ["shop/a"]);
    let children = Search { deleted: true, ..children_of("shop/", 10) };
    assert_eq!(all(&admin, &children).await, ["shop/a", "shop/b", "shop/gone/"]);

    server.grant(API, &[Action::List], "shop/").await;
    let pod = server.workload("shop", "api");
    assert_eq!(all(&pod, &with_deleted).await, ["shop/a"]);
    assert_eq!(all(&pod, &children).await, ["shop/a"], "not even that a folder held something");
    server.grant(API, &[Action::Delete], "shop/gone/").await;
    assert_eq!(all(&pod, &with_deleted).await, ["shop/a", "shop/gone/c"]);
    assert_eq!(all(&pod, &children).await, ["shop/a", "shop/gone/"]);
}

#[tokio::test]
async fn a_session_narrowed_to_a_role_lists_what_the_role_may() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let (project, now) = (id_of(&server, "shop").await, SystemClock.now());
    insert(&server, ["shop/a/x", "shop/b/x", "shop/c/x"].map(|name| row(project, name, now)).to_vec()).await;
    let role = strongroom_api::access::Role {
        project: strongroom_tests::project("shop"),
        name: "readers".to_owned(),
        members: vec![API.to_owned()],
    };
    server.admin().put_role(&role).await.unwrap();
    server.grant(API, &[Action::List], "shop/a/").await;
    server.grant("role:shop/readers", &[Action::List], "shop/b/").await;
    let whole = server.workload("shop", "api");
    assert_eq!(all(&whole, &Search::default()).await, ["shop/a/x", "shop/b/x"]);
    let narrowed = server.workload_in_role("shop", "api", Some("shop/readers"));
    assert_eq!(all(&narrowed, &Search::default()).await, ["shop/b/x"]);
    assert_eq!(all(&narrowed, &children_of("shop/", 10)).await, ["shop/b/"]);
    permit(
        &server,
        "closed",
        r#"forbid(principal == Workload::"lab/shop/api", action == Action::"list", resource in Folder::"shop/b/");"#,
    )
    .await;
    assert!(all(&narrowed, &Search::default()).await.is_empty(), "a forbid of the whole identity holds");
}
