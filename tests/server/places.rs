//! Where secrets lie: renamed, copied, moved.

use strongroom_api::{
    ErrorCode,
    metadata::{CopiedVersions, Copy, Move, PatchMetadata, PutAlias, Rename, Target},
    secrets::VersionState,
};
use strongroom_client::{Client, Error, PutOptions};
use strongroom_core::Action;
use strongroom_tests::{TestServer, field, fields, path, pinned, reference};

/// Two projects, and three versions of `shop/db`, of which `blue` is the first.
async fn shops() -> (TestServer, Client) {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.project("bank").await;
    let admin = server.admin();
    for value in ["one", "two", "three"] {
        let options = PutOptions { reason: Some(format!("because {value}")), ..PutOptions::default() };
        admin.put(&path("shop/db"), fields(&[("a", value)]), options).await.unwrap();
    }
    let blue = PutAlias { version: Target::Number(1), if_version: None };
    admin.point_alias(&path("shop/db"), "blue", &blue).await.unwrap();
    let labels =
        PatchMetadata { labels: [("env".to_owned(), Some("prod".to_owned()))].into(), ..PatchMetadata::default() };
    admin.patch_metadata(&path("shop/db"), &labels, None).await.unwrap();
    (server, admin)
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Option<ErrorCode> {
    outcome.unwrap_err().code()
}

async fn value(client: &Client, text: &str) -> String {
    field(&client.read(&reference(text)).await.unwrap(), "a")
}

#[tokio::test]
async fn a_renamed_secret_is_the_same_at_another_path() {
    let (server, admin) = shops().await;
    let mut sql = server.sql().await;
    let id = async |sql: &mut strongroom_tests::Sql| sql.rows("SELECT id FROM secrets").await[0]["id"].clone();
    let before = id(&mut sql).await;
    let rename = Rename { from: path("shop/db"), to: path("shop/new/db") };
    let placed = admin.rename(&rename).await.unwrap();
    assert_eq!((placed.path.as_str(), placed.version, placed.copied), ("shop/new/db", 3, 0));
    assert_eq!(id(&mut sql).await, before);
    assert_eq!(value(&admin, "shop/new/db").await, "three");
    assert_eq!(value(&admin, "shop/new/db@blue").await, "one");
    assert_eq!(admin.metadata(&path("shop/new/db")).await.unwrap().labels.canonical(), "env=prod");
    assert_eq!(code(admin.read(&reference("shop/db")).await), Some(ErrorCode::NotFound));
    assert_eq!(code(admin.rename(&rename).await), Some(ErrorCode::NotFound), "nothing is there any more");
    for resource in ["shop/db", "shop/new/db"] {
        let events =
            format!("audit_events WHERE resource = '{resource}' AND outcome = 'ok' AND action IN ('write', 'delete')");
        assert!(sql.count(&events).await > 0, "{resource}");
    }
    admin.put(&path("shop/db"), fields(&[("a", "another")]), PutOptions::default()).await.unwrap();
    let taken = Rename { from: path("shop/db"), to: path("shop/new/db") };
    assert_eq!(code(admin.rename(&taken).await), Some(ErrorCode::AlreadyExists));
    admin.delete(&path("shop/new/db")).await.unwrap();
    assert_eq!(code(admin.rename(&taken).await), Some(ErrorCode::AlreadyExists), "a deleted one is there as well");
    for (from, to) in [("shop/db", "shop/db"), ("shop/db", "bank/db")] {
        let refused = admin.rename(&Rename { from: path(from), to: path(to) }).await;
        assert_eq!(code(refused), Some(ErrorCode::UnprocessableContent), "{from} {to}");
    }
}

#[tokio::test]
async fn renaming_needs_delete_there_write_here_and_manage_grants() {
    let (server, _admin) = shops().await;
    let rename = Rename { from: path("shop/db"), to: path("shop/new") };
    let all = [(Action::Delete, "shop/db"), (Action::Write, "shop/new"), (Action::ManageGrants, "shop/")];
    for left_out in 0..all.len() {
        let account = format!("a{left_out}");
        for (_, (action, scope)) in all.iter().enumerate().filter(|(index, _)| *index != left_out) {
            server.grant(&format!("workload:lab/shop/{account}"), &[*action], scope).await;
        }
        let refused = server.workload("shop", &account).rename(&rename).await;
        assert_eq!(code(refused), Some(ErrorCode::Forbidden), "without {:?}", all[left_out]);
    }
    for (action, scope) in all {
        server.grant("workload:lab/shop/all", &[action], scope).await;
    }
    server.workload("shop", "all").rename(&rename).await.unwrap();
}

#[tokio::test]
async fn a_copy_is_another_secret_sealed_under_the_targets_key() {
    let (server, admin) = shops().await;
    let request =
        Copy { from: path("shop/db"), to: path("bank/db"), versions: CopiedVersions::Current, metadata: false };
    let placed = admin.copy(&request).await.unwrap();
    assert_eq!((placed.version, placed.copied), (1, 1));
    assert_eq!(value(&admin, "bank/db").await, "three");
    assert!(admin.metadata(&path("bank/db")).await.unwrap().labels.is_empty());
    assert_eq!(code(admin.copy(&request).await), Some(ErrorCode::AlreadyExists));
    let all = Copy { to: path("bank/all"), versions: CopiedVersions::All, metadata: true, ..request.clone() };
    admin.delete_version(&path("shop/db"), 2).await.unwrap();
    let placed = admin.copy(&all).await.unwrap();
    assert_eq!((placed.version, placed.copied), (3, 2), "a deleted version cannot be read, and is not copied");
    assert_eq!(value(&admin, "bank/all").await, "three");
    assert_eq!(value(&admin, "bank/all@blue").await, "one");
    assert_eq!(code(admin.read(&pinned("bank/all", 2)).await), Some(ErrorCode::NotFound));
    assert_eq!(admin.metadata(&path("bank/all")).await.unwrap().labels.canonical(), "env=prod");
    let versions = admin.versions(&path("bank/all")).await.unwrap().versions;
    assert_eq!(versions[1].reason.as_deref(), Some("because one"), "history goes with all versions");
    admin.put(&path("shop/db"), fields(&[("a", "four")]), PutOptions::default()).await.unwrap();
    assert_eq!(value(&admin, "bank/all").await, "three", "it goes its own way");
    assert_eq!(admin.put(&path("bank/all"), fields(&[("a", "x")]), PutOptions::default()).await.unwrap().version, 4);
    let mut sql = server.sql().await;
    let reads = "audit_events WHERE action = 'read' AND resource = 'shop/db' AND outcome = 'ok' AND version IN (1, 3)";
    assert_eq!(sql.count(reads).await, 3, "each version that was opened");
}

#[tokio::test]
async fn copying_needs_read_of_each_version_and_write_at_the_target() {
    let (server, admin) = shops().await;
    let request = Copy { from: path("shop/db"), to: path("bank/db"), versions: CopiedVersions::All, metadata: false };
    server.grant("workload:lab/shop/reader", &[Action::Read], "shop/").await;
    server.grant("workload:lab/shop/writer", &[Action::Write], "bank/").await;
    for account in ["reader", "writer", "nobody"] {
        let client = server.workload("shop", account);
        assert_eq!(code(client.copy(&request).await), Some(ErrorCode::Forbidden), "{account}");
        let missing = Copy { from: path("shop/none"), ..request.clone() };
        assert_eq!(code(client.copy(&missing).await), Some(ErrorCode::Forbidden), "{account}");
    }
    server.grant("workload:lab/shop/reader", &[Action::Write], "bank/").await;
    let reader = server.workload("shop", "reader");
    let labelled = Copy { metadata: true, ..request.clone() };
    assert_eq!(code(reader.copy(&labelled).await), Some(ErrorCode::Forbidden), "labels decide in policies there");
    reader.copy(&request).await.unwrap();
    admin.delete(&path("shop/db")).await.unwrap();
    let gone = Copy { to: path("bank/gone"), ..request };
    assert_eq!(code(reader.copy(&gone).await), Some(ErrorCode::SecretDeleted));
}

#[tokio::test]
async fn a_moved_secret_is_gone_for_good_where_it_was() {
    let (server, admin) = shops().await;
    let mut sql = server.sql().await;
    sql.run(
        "CREATE TABLE copied_secrets AS SELECT * FROM secrets; CREATE TABLE copied AS SELECT * FROM secret_versions",
    )
    .await;
    let request = Move { from: path("shop/db"), to: path("bank/db"), metadata: true };
    server.grant("workload:lab/shop/mover", &[Action::Read, Action::Delete], "shop/").await;
    server.grant("workload:lab/shop/mover", &[Action::Write], "bank/").await;
    let mover = server.workload("shop", "mover");
    assert_eq!(code(mover.move_to(&request).await), Some(ErrorCode::Forbidden), "purge is needed too");
    let same = Move { to: path("shop/other"), ..request.clone() };
    assert_eq!(code(admin.move_to(&same).await), Some(ErrorCode::UnprocessableContent));
    let placed = admin.move_to(&request).await.unwrap();
    assert_eq!((placed.version, placed.copied), (3, 3));
    assert_eq!((value(&admin, "bank/db").await, value(&admin, "bank/db@blue").await), ("three".into(), "one".into()));
    let states: Vec<_> = admin.versions(&path("bank/db")).await.unwrap().versions.iter().map(|v| v.state).collect();
    assert_eq!(states, [VersionState::Live; 3]);
    assert_eq!(code(admin.read(&reference("shop/db")).await), Some(ErrorCode::NotFound));
    assert_eq!((sql.count("secrets").await, sql.count("secret_versions").await), (1, 3));
    sql.run("INSERT INTO secrets SELECT * FROM copied_secrets; INSERT INTO secret_versions SELECT * FROM copied").await;
    assert_eq!(code(admin.read(&reference("shop/db")).await), Some(ErrorCode::Integrity), "its rows are refused there");
}

#[tokio::test]
async fn a_protected_secret_is_copied_and_not_moved() {
    let (_server, admin) = shops().await;
    let protect = PatchMetadata { deletion_protected: Some(true), ..PatchMetadata::default() };
    admin.patch_metadata(&path("shop/db"), &protect, None).await.unwrap();
    let request = Move { from: path("shop/db"), to: path("bank/db"), metadata: false };
    assert_eq!(code(admin.move_to(&request).await), Some(ErrorCode::DeletionProtected));
    let copy = Copy { from: path("shop/db"), to: path("bank/db"), versions: CopiedVersions::All, metadata: false };
    admin.copy(&copy).await.unwrap();
    assert!(admin.metadata(&path("bank/db")).await.unwrap().deletion_protected, "the copy is protected as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renames_towards_each_other_wait_for_nobody_for_ever() {
    let (_server, admin) = shops().await;
    let start = std::time::Instant::now();
    let rounds = (0..40).map(|round| {
        let admin = admin.clone();
        async move {
            let (from, to) = if round % 2 == 0 { ("shop/db", "shop/eb") } else { ("shop/eb", "shop/db") };
            loop {
                match admin.rename(&Rename { from: path(from), to: path(to) }).await {
                    Err(error) if error.is_retryable() => {}
                    Ok(_) => return,
                    Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::AlreadyExists)) => {
                        return;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures_util::future::join_all(rounds).await;
    println!("40 renames against each other took {:?}", start.elapsed());
    let here = [admin.read(&reference("shop/db")).await.is_ok(), admin.read(&reference("shop/eb")).await.is_ok()];
    assert_eq!(here.iter().filter(|here| **here).count(), 1);
}
