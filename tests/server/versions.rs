//! Versions: what aliases point at, what is deleted, destroyed, purged and pruned.

use strongroom_api::{
    ErrorCode, Update,
    access::PatchProject,
    metadata::{PatchMetadata, Pointers, PutAlias, Target},
    routes,
    secrets::VersionState,
};
use strongroom_client::{Client, Error, PutOptions};
use strongroom_core::Action;
use strongroom_tests::{TestServer, field, fields, path, pinned, project, reference};

async fn shop() -> (TestServer, Client) {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    (server, admin)
}

async fn put(client: &Client, value: &str) -> u64 {
    client.put(&path("shop/db"), fields(&[("a", value)]), PutOptions::default()).await.unwrap().version
}

async fn put_pending(client: &Client, value: &str) -> Result<u64, Error> {
    let pending = PutOptions { pending: true, ..PutOptions::default() };
    Ok(client.put(&path("shop/db"), fields(&[("a", value)]), pending).await?.version)
}

async fn point(client: &Client, alias: &str, target: Target) -> Result<Pointers, Error> {
    client.point_alias(&path("shop/db"), alias, &PutAlias { version: target, if_version: None }).await?;
    Ok(client.metadata(&path("shop/db")).await?.pointers)
}

async fn read(client: &Client, text: &str) -> Result<String, Option<ErrorCode>> {
    client.read(&reference(text)).await.map(|read| field(&read, "a")).map_err(|error| error.code())
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Option<ErrorCode> {
    outcome.unwrap_err().code()
}

fn number(version: u64) -> Target {
    Target::Number(version)
}

fn named(alias: &str) -> Target {
    Target::Alias(alias.to_owned())
}

#[tokio::test]
async fn a_pending_version_is_activated_and_rolled_back_without_the_right_to_read() {
    let (server, admin) = shop().await;
    let error = put_pending(&admin, "one").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnprocessableContent));
    assert!(error.to_string().contains("the first version of a secret is current"), "{error}");
    put(&admin, "one").await;
    server.grant("workload:lab/shop/deployer", &[Action::Write, Action::Describe], "shop/").await;
    let deployer = server.workload("shop", "deployer");
    assert_eq!(put_pending(&deployer, "two").await.unwrap(), 2);
    assert_eq!(put_pending(&deployer, "three").await.unwrap(), 3, "it takes the earlier one's place");
    assert_eq!(read(&admin, "shop/db").await.unwrap(), "one");
    assert_eq!(read(&admin, "shop/db@pending").await.unwrap(), "three");

    let activated = point(&deployer, "current", named("pending")).await.unwrap();
    assert_eq!((activated.current, activated.previous, activated.pending), (3, Some(1), None));
    let back = point(&deployer, "current", named("previous")).await.unwrap();
    assert_eq!((back.current, back.previous), (1, Some(3)));
    assert_eq!(read(&admin, "shop/db").await.unwrap(), "one");
    assert_eq!(read(&deployer, "shop/db").await, Err(Some(ErrorCode::Forbidden)), "rolled back without reading");
    let again = point(&deployer, "current", number(1)).await.unwrap();
    assert_eq!((again.current, again.previous), (1, Some(3)), "what is so already stays so");
}

#[tokio::test]
async fn free_aliases_point_at_versions_that_can_be_read_and_at_nothing_else() {
    let (_server, admin) = shop().await;
    assert_eq!(code(point(&admin, "blue", number(1)).await), Some(ErrorCode::NotFound), "no secret yet");
    for value in ["one", "two", "three"] {
        put(&admin, value).await;
    }
    let pointers = point(&admin, "blue", number(1)).await.unwrap();
    assert_eq!(pointers.aliases.values().copied().collect::<Vec<_>>(), [1]);
    point(&admin, "green", named("blue")).await.unwrap();
    assert_eq!(read(&admin, "shop/db@green").await.unwrap(), "one");
    point(&admin, "blue", named("current")).await.unwrap();
    assert_eq!(read(&admin, "shop/db@blue").await.unwrap(), "three");
    for (alias, target, expected) in [
        ("previous", number(1), ErrorCode::UnprocessableContent),
        ("pending", number(3), ErrorCode::UnprocessableContent),
        ("4", number(1), ErrorCode::UnprocessableContent),
        ("a b", number(1), ErrorCode::BadPath),
        ("red", number(4), ErrorCode::NotFound),
        ("red", number(0), ErrorCode::NotFound),
        ("red", number(u64::MAX), ErrorCode::NotFound),
        ("red", named("nothing"), ErrorCode::NotFound),
        ("red", named("pending"), ErrorCode::NotFound),
    ] {
        assert_eq!(code(point(&admin, alias, target.clone()).await), Some(expected), "{alias} {target:?}");
    }
    let stale = PutAlias { version: number(1), if_version: Some(2) };
    assert_eq!(code(admin.point_alias(&path("shop/db"), "red", &stale).await), Some(ErrorCode::VersionConflict));
    let fresh = PutAlias { version: number(1), if_version: Some(3) };
    admin.point_alias(&path("shop/db"), "red", &fresh).await.unwrap();

    for unremovable in ["current", "previous"] {
        let refused = admin.remove_alias(&path("shop/db"), unremovable).await;
        assert_eq!(code(refused), Some(ErrorCode::UnprocessableContent), "{unremovable}");
    }
    admin.remove_alias(&path("shop/db"), "red").await.unwrap();
    assert_eq!(code(admin.remove_alias(&path("shop/db"), "red").await), Some(ErrorCode::NotFound));
    assert_eq!(read(&admin, "shop/db@red").await, Err(Some(ErrorCode::NotFound)));
    for index in 2..32 {
        point(&admin, &format!("free-{index}"), number(1)).await.unwrap();
    }
    let one_more = point(&admin, "one-more", number(1)).await;
    assert_eq!(code(one_more), Some(ErrorCode::UnprocessableContent), "blue, green and 30 more are 32");
}

#[tokio::test]
async fn a_deleted_version_cannot_be_read_until_it_is_undeleted() {
    let (_server, admin) = shop().await;
    for value in ["one", "two", "three"] {
        put(&admin, value).await;
    }
    let shop_db = path("shop/db");
    let refused = admin.delete_version(&shop_db, 3).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::VersionInUse));
    assert!(refused.to_string().contains("`current` points at version 3"), "{refused}");
    point(&admin, "blue", number(1)).await.unwrap();
    assert_eq!(code(admin.delete_version(&shop_db, 1).await), Some(ErrorCode::VersionInUse));
    admin.remove_alias(&shop_db, "blue").await.unwrap();
    admin.delete_version(&shop_db, 1).await.unwrap();
    admin.delete_version(&shop_db, 2).await.unwrap();
    assert_eq!(code(admin.delete_version(&shop_db, 2).await), Some(ErrorCode::VersionDeleted));
    assert_eq!(code(admin.read(&pinned("shop/db", 2)).await), Some(ErrorCode::VersionDeleted));
    assert_eq!(
        read(&admin, "shop/db@previous").await,
        Err(Some(ErrorCode::NotFound)),
        "it pointed at a version that went"
    );
    assert_eq!(code(point(&admin, "current", number(2)).await), Some(ErrorCode::VersionDeleted));
    let versions = admin.versions(&shop_db).await.unwrap();
    let states: Vec<_> = versions.versions.iter().map(|v| (v.version, v.state, v.aliases.join(","))).collect();
    assert_eq!(
        states,
        [
            (3, VersionState::Live, "current".to_owned()),
            (2, VersionState::Deleted, String::new()),
            (1, VersionState::Deleted, String::new())
        ]
    );
    admin.undelete(&shop_db, Some(2)).await.unwrap();
    admin.undelete(&shop_db, Some(2)).await.unwrap();
    assert_eq!(field(&admin.read(&pinned("shop/db", 2)).await.unwrap(), "a"), "two");
    assert_eq!(code(admin.undelete(&shop_db, Some(9)).await), Some(ErrorCode::NotFound));

    admin.delete(&shop_db).await.unwrap();
    assert_eq!(code(admin.delete_version(&shop_db, 2).await), Some(ErrorCode::SecretDeleted));
    assert_eq!(code(admin.undelete(&shop_db, Some(1)).await), Some(ErrorCode::SecretDeleted));
    assert_eq!(code(point(&admin, "blue", number(2)).await), Some(ErrorCode::SecretDeleted));
    assert_eq!(code(put_pending(&admin, "x").await), Some(ErrorCode::SecretDeleted), "what is pending revives nothing");
    admin.undelete(&shop_db, None).await.unwrap();
    assert_eq!(read(&admin, "shop/db").await.unwrap(), "three");
}

#[tokio::test]
async fn what_is_brought_back_is_what_the_precondition_says() {
    let (server, admin) = shop().await;
    put(&admin, "one").await;
    put(&admin, "two").await;
    let undelete = async |more: &str, header: &str| {
        let request = format!(
            "POST {}?path=shop/db{more} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{header}\r\ncontent-length: 0\r\n\r\n",
            routes::SECRET_UNDELETE,
            server.admin_token()
        );
        let mut raw = server.connect().await;
        raw.send(request.as_bytes()).await;
        raw.answer().await.unwrap().status
    };
    let shop_db = path("shop/db");
    assert_eq!(undelete("", "if-none-match: *").await, 412, "it is there");
    admin.delete(&shop_db).await.unwrap();
    assert_eq!(undelete("", "if-match: \"1\"").await, 412);
    assert_eq!(undelete("", "if-match: x").await, 400);
    assert_eq!(read(&admin, "shop/db").await, Err(Some(ErrorCode::SecretDeleted)), "what is refused does nothing");
    assert_eq!(undelete("", "if-match: \"2\"").await, 204);
    admin.delete(&shop_db).await.unwrap();
    assert_eq!(undelete("", "if-none-match: *").await, 204);
    admin.delete_version(&shop_db, 1).await.unwrap();
    assert_eq!(undelete("&version=1", "if-match: \"1\"").await, 412, "the current version is another");
    assert_eq!(code(admin.read(&pinned("shop/db", 1)).await), Some(ErrorCode::VersionDeleted));
    assert_eq!(undelete("&version=1", "if-match: \"2\"").await, 204);
    assert_eq!(field(&admin.read(&pinned("shop/db", 1)).await.unwrap(), "a"), "one");
}

#[tokio::test]
async fn a_destroyed_version_is_erased_in_the_database_and_its_row_is_refused_when_it_comes_back() {
    let (server, admin) = shop().await;
    for value in ["one", "two", "three"] {
        put(&admin, value).await;
    }
    let shop_db = path("shop/db");
    let mut sql = server.sql().await;
    sql.run("CREATE TABLE copied AS SELECT * FROM secret_versions").await;
    assert_eq!(code(admin.destroy(&shop_db, &[3]).await), Some(ErrorCode::VersionInUse));
    assert_eq!(code(admin.destroy(&shop_db, &[1, 9]).await), Some(ErrorCode::NotFound));
    for bad in [vec![], (1..=101).collect()] {
        assert_eq!(code(admin.destroy(&shop_db, &bad).await), Some(ErrorCode::UnprocessableContent));
    }
    assert_eq!(sql.count("secret_versions WHERE length(sealed_value) > 0").await, 3, "all or none");
    admin.destroy(&shop_db, &[1, 2]).await.unwrap();
    admin.destroy(&shop_db, &[1]).await.unwrap();
    assert_eq!(
        sql.count("secret_versions WHERE state = 'destroyed' AND wrapped_key = '' AND sealed_value = ''").await,
        2
    );
    assert_eq!(sql.count("tombstones WHERE version IN (1, 2)").await, 2);
    for gone in [pinned("shop/db", 1), pinned("shop/db", 2)] {
        assert_eq!(code(admin.read(&gone).await), Some(ErrorCode::VersionDestroyed), "{gone}");
    }
    assert_eq!(code(admin.undelete(&shop_db, Some(1)).await), Some(ErrorCode::VersionDestroyed));
    assert_eq!(code(admin.delete_version(&shop_db, 1).await), Some(ErrorCode::VersionDestroyed));
    assert_eq!(code(point(&admin, "current", number(1)).await), Some(ErrorCode::VersionDestroyed));

    sql.run("DELETE FROM secret_versions WHERE version = 1; INSERT INTO secret_versions SELECT * FROM copied WHERE version = 1").await;
    assert_eq!(code(admin.read(&pinned("shop/db", 1)).await), Some(ErrorCode::Integrity));
    assert_eq!(read(&admin, "shop/db").await.unwrap(), "three", "the others are not touched by that");
    let events = "audit_events WHERE action = 'destroy' AND resource = 'shop/db' AND decision = 'allowed'";
    assert_eq!(sql.count(&format!("{events} AND outcome = 'ok'")).await, 2, "one for each version");
    assert_eq!(sql.count(&format!("{events} AND outcome = 'unchanged'")).await, 1);
}

#[tokio::test]
async fn a_purged_secret_leaves_its_path_free_and_cannot_come_back() {
    let (server, admin) = shop().await;
    put(&admin, "one").await;
    put(&admin, "two").await;
    let mut sql = server.sql().await;
    sql.run(
        "CREATE TABLE copied_secrets AS SELECT * FROM secrets; CREATE TABLE copied AS SELECT * FROM secret_versions",
    )
    .await;
    admin.purge(&path("shop/db")).await.unwrap();
    assert_eq!((sql.count("secrets").await, sql.count("secret_versions").await), (0, 0));
    assert_eq!(read(&admin, "shop/db").await, Err(Some(ErrorCode::NotFound)));
    assert_eq!(code(admin.purge(&path("shop/db")).await), Some(ErrorCode::NotFound));
    assert_eq!(put(&admin, "new").await, 1, "it is another secret");
    admin.purge(&path("shop/db")).await.unwrap();
    sql.run("INSERT INTO secrets SELECT * FROM copied_secrets; INSERT INTO secret_versions SELECT * FROM copied").await;
    assert_eq!(read(&admin, "shop/db").await, Err(Some(ErrorCode::Integrity)));
}

#[tokio::test]
async fn a_value_that_is_there_already_makes_no_version_for_who_may_read_and_tells_others_nothing() {
    let (server, admin) = shop().await;
    put(&admin, "one").await;
    let again = admin.put(&path("shop/db"), fields(&[("a", "one")]), PutOptions::default()).await.unwrap();
    assert_eq!((again.version, again.unchanged), (1, true));
    let other = admin.put(&path("shop/db"), fields(&[("a", "one"), ("b", "")]), PutOptions::default()).await.unwrap();
    assert_eq!((other.version, other.unchanged), (2, false));
    server.grant("workload:lab/shop/writer", &[Action::Write], "shop/").await;
    let writer = server.workload("shop", "writer");
    let blind = writer.put(&path("shop/db"), fields(&[("a", "one"), ("b", "")]), PutOptions::default()).await.unwrap();
    assert_eq!((blind.version, blind.unchanged), (3, false));
    // A pending version, a deleted secret and a stale precondition are none of it.
    assert_eq!(put_pending(&admin, "one").await.unwrap(), 4);
    let stale = PutOptions { if_version: Some(2), ..PutOptions::default() };
    let stale = admin.put(&path("shop/db"), fields(&[("a", "one"), ("b", "")]), stale).await;
    assert_eq!(code(stale), Some(ErrorCode::VersionConflict));
    admin.delete(&path("shop/db")).await.unwrap();
    let revived = admin.put(&path("shop/db"), fields(&[("a", "one"), ("b", "")]), PutOptions::default()).await.unwrap();
    assert_eq!((revived.version, revived.unchanged), (5, false));
    let mut sql = server.sql().await;
    assert_eq!(sql.count("audit_events WHERE action = 'write' AND outcome = 'unchanged' AND version = 1").await, 1);
    assert_eq!(sql.count("secret_versions").await, 5);
}

#[tokio::test]
async fn the_newest_versions_are_kept_and_those_that_an_alias_holds_until_it_lets_go() {
    let (server, admin) = shop().await;
    let shop_db = path("shop/db");
    let numbers = async || {
        let versions = admin.versions(&shop_db).await.unwrap();
        (versions.oldest, versions.versions.iter().map(|version| version.version).collect::<Vec<_>>())
    };
    for index in 1..=4 {
        put(&admin, &index.to_string()).await;
    }
    point(&admin, "blue", number(1)).await.unwrap();
    admin
        .patch_project(&project("shop"), &PatchProject { keep_versions: Some(2), ..PatchProject::default() })
        .await
        .unwrap();
    assert_eq!(numbers().await, (1, vec![4, 3, 2, 1]), "what is there goes with the next put");
    put(&admin, "5").await;
    assert_eq!(numbers().await, (4, vec![5, 4, 1]));
    assert_eq!(code(admin.read(&pinned("shop/db", 3)).await), Some(ErrorCode::NotFound));
    assert_eq!(read(&admin, "shop/db@blue").await.unwrap(), "1");
    point(&admin, "blue", number(4)).await.unwrap();
    assert_eq!(numbers().await, (4, vec![5, 4]), "what only an alias held goes with it");
    let one = PatchMetadata { keep_versions: Update::Set(1), ..PatchMetadata::default() };
    admin.patch_metadata(&shop_db, &one, None).await.unwrap();
    put(&admin, "6").await;
    assert_eq!(numbers().await, (6, vec![6, 5, 4]), "previous and blue hold two");
    put(&admin, "7").await;
    assert_eq!(numbers().await, (7, vec![7, 6, 4]));
    assert_eq!(server.sql().await.count("secret_versions").await, 3, "they are gone, not only hidden");
}

#[tokio::test]
async fn a_version_that_was_pruned_and_is_put_back_is_not_looked_at() {
    let (server, admin) = shop().await;
    put(&admin, "1").await;
    let mut sql = server.sql().await;
    sql.run("CREATE TABLE copied AS SELECT * FROM secret_versions").await;
    let one = PatchMetadata { keep_versions: Update::Set(1), ..PatchMetadata::default() };
    admin.patch_metadata(&path("shop/db"), &one, None).await.unwrap();
    for index in 2..=4 {
        put(&admin, &index.to_string()).await;
    }
    sql.run("INSERT INTO secret_versions SELECT * FROM copied").await;
    assert_eq!(code(admin.read(&pinned("shop/db", 1)).await), Some(ErrorCode::NotFound));
    assert_eq!(code(point(&admin, "current", number(1)).await), Some(ErrorCode::NotFound));
    let versions = admin.versions(&path("shop/db")).await.unwrap();
    assert_eq!(versions.versions.iter().map(|version| version.version).collect::<Vec<_>>(), [4, 3]);
}

#[tokio::test]
async fn versions_are_paged_from_the_newest_to_the_oldest() {
    let (_server, admin) = shop().await;
    for index in 1..=7 {
        put(&admin, &index.to_string()).await;
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = admin.versions_before(&path("shop/db"), before, Some(3)).await.unwrap();
        seen.push(page.versions.iter().map(|version| version.version).collect::<Vec<_>>());
        match page.next_before {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
}

#[tokio::test]
async fn each_operation_needs_its_own_right() {
    let (server, admin) = shop().await;
    put(&admin, "1").await;
    put(&admin, "2").await;
    for (account, action) in [
        ("reader", Action::Read),
        ("writer", Action::Write),
        ("deleter", Action::Delete),
        ("destroyer", Action::Destroy),
    ] {
        server.grant(&format!("workload:lab/shop/{account}"), &[action], "shop/").await;
    }
    let forbidden = Some(ErrorCode::Forbidden);
    let shop_db = path("shop/db");
    for account in ["reader", "deleter", "destroyer"] {
        let client = server.workload("shop", account);
        assert_eq!(code(point(&client, "blue", number(1)).await), forbidden, "{account}");
        assert_eq!(code(client.remove_alias(&shop_db, "blue").await), forbidden, "{account}");
    }
    for account in ["reader", "writer", "destroyer"] {
        let client = server.workload("shop", account);
        assert_eq!(code(client.delete_version(&shop_db, 1).await), forbidden, "{account}");
        assert_eq!(code(client.undelete(&shop_db, Some(1)).await), forbidden, "{account}");
    }
    for account in ["reader", "writer", "deleter"] {
        let client = server.workload("shop", account);
        assert_eq!(code(client.destroy(&shop_db, &[1]).await), forbidden, "{account}");
    }
    for account in ["reader", "writer", "deleter", "destroyer"] {
        let client = server.workload("shop", account);
        assert_eq!(code(client.purge(&shop_db).await), forbidden, "{account}");
        assert_eq!(code(client.purge(&path("shop/none")).await), forbidden, "{account}: whether or not it exists");
    }
    server.workload("shop", "deleter").delete_version(&shop_db, 1).await.unwrap();
    server.workload("shop", "destroyer").destroy(&shop_db, &[1]).await.unwrap();
}

#[tokio::test]
async fn protection_refuses_whatever_would_take_something_away() {
    let (server, admin) = shop().await;
    let shop_db = path("shop/db");
    put(&admin, "1").await;
    put(&admin, "2").await;
    let protect = |protected| PatchMetadata { deletion_protected: Some(protected), ..PatchMetadata::default() };
    server.grant("workload:lab/shop/writer", &[Action::Write], "shop/").await;
    let writer = server.workload("shop", "writer");
    writer.patch_metadata(&shop_db, &protect(true), None).await.unwrap();
    let protected = Some(ErrorCode::DeletionProtected);
    let all_refused = async || {
        assert_eq!(code(admin.delete(&shop_db).await), protected);
        assert_eq!(code(admin.delete_version(&shop_db, 1).await), protected);
        assert_eq!(code(admin.destroy(&shop_db, &[1]).await), protected);
        assert_eq!(code(admin.purge(&shop_db).await), protected);
    };
    all_refused().await;
    let lifted = writer.patch_metadata(&shop_db, &protect(false), None).await;
    assert_eq!(code(lifted), Some(ErrorCode::Forbidden), "lifting needs purge");
    admin.patch_metadata(&shop_db, &protect(false), None).await.unwrap();
    let of_project = |protected| PatchProject { deletion_protection: Some(protected), ..PatchProject::default() };
    admin.patch_project(&project("shop"), &of_project(true)).await.unwrap();
    all_refused().await;
    assert_eq!(put(&admin, "3").await, 3, "a put takes nothing away");
    admin.patch_project(&project("shop"), &of_project(false)).await.unwrap();
    admin.delete(&shop_db).await.unwrap();
    admin.purge(&shop_db).await.unwrap();
}
