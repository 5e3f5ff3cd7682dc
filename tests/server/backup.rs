//! Backups: whole, sealed, verified by the root key alone, and restored into an empty database.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use std::{collections::BTreeSet, io::Cursor};
use strongroom_api::{
    ErrorCode,
    access::{Policy, Role},
    backup::{EndLine, parse_row, row_line},
    metadata::{PutAlias, Target},
    routes,
};
use strongroom_client::{ErrorKind, PutOptions};
use strongroom_core::{Action, FixedClock, SecretBytes, SystemClock};
use strongroom_crypto::RootKey;
use strongroom_server::backup::{CannotRestore, CannotVerify, DamagedRecords, Report, rehearse, restore, verify};
use strongroom_server::{Server, anchor::AnchorPlace};
use strongroom_store::{BACKUP_TABLES, BackupRow, InstanceKind, LEFT_OUT, Options, ProjectKeyRow, Store};
use strongroom_tests::{
    INSTANCE, Sql, TestDatabase, TestServer, empty_database, field, fields, logged, path, pinned, project, raw_bytes,
    reference,
};

const CANARY: &str = "canary-in-a-backup-hunter2";

/// A server with a row of every kind that there is a way to make.
async fn full() -> TestServer {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.project("empty").await;
    let admin = server.admin();
    for value in [CANARY, "second"] {
        admin.put(&path("shop/db"), fields(&[("password", value)]), PutOptions::default()).await.unwrap();
    }
    admin.put(&path("shop/raw"), raw_bytes(&[0, 10, 255]), PutOptions::default()).await.unwrap();
    admin.put(&path("shop/large"), raw_bytes(&vec![7; 1024 * 1024]), PutOptions::default()).await.unwrap();
    let reason = Some("line \"one\" \u{1f511} \\n".to_owned());
    let quoted = PutOptions { reason, ..PutOptions::default() };
    admin.put(&path("shop/gone"), fields(&[("a", "b")]), quoted).await.unwrap();
    admin.delete(&path("shop/gone")).await.unwrap();
    let members = vec!["workload:lab/shop/api".to_owned()];
    let role = Role { project: project("shop"), name: "readers".to_owned(), members };
    admin.put_role(&role).await.unwrap();
    server.grant("role:shop/readers", &[Action::Read], "shop/").await;
    let text = r#"forbid(principal, action == Action::"read", resource in Folder::"shop/attic/");"#.to_owned();
    let policy = Policy { project: project("shop"), name: "not-the-attic".to_owned(), text };
    admin.put_policy(&policy).await.unwrap();
    server
}

pub(crate) async fn take(server: &TestServer) -> Vec<u8> {
    let mut stream = server.admin().backup().await.unwrap();
    let mut backup = Vec::new();
    while let Some(data) = stream.next().await {
        backup.extend_from_slice(&data.unwrap());
    }
    backup
}

pub(crate) fn root(server: &TestServer) -> RootKey {
    RootKey::from_file(&server.root_key_file()).unwrap()
}

pub(crate) async fn restore_into(
    database: &TestDatabase,
    backup: &[u8],
    root: &RootKey,
) -> Result<Report, CannotRestore> {
    restore_with(database, backup, root, DamagedRecords::Refuse).await
}

async fn restore_with(
    database: &TestDatabase,
    backup: &[u8],
    root: &RootKey,
    records: DamagedRecords,
) -> Result<Report, CannotRestore> {
    let store = Store::connect(&database.url(), &Options::default()).unwrap();
    let instance = (INSTANCE, InstanceKind::Dev);
    let restored = restore(Cursor::new(backup), &store, root, instance, records, &SystemClock).await;
    store.close().await;
    restored.map(|restored| restored.report)
}

/// The backup with other rows and a last line made anew by somebody without the key.
fn forged(backup: &[u8], change: impl Fn(&str, &str) -> Option<String>) -> Vec<u8> {
    let text = std::str::from_utf8(backup).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let mut end: EndLine = serde_json::from_str(lines.pop().unwrap()).unwrap();
    let mut forged = lines[0].to_owned() + "\n";
    end.end.rows.clear();
    for line in &lines[1..] {
        let (table, row) = parse_row(line).unwrap();
        let Some(row) = change(table, row) else { continue };
        *end.end.rows.entry(table.to_owned()).or_default() += 1;
        forged += &row_line(table, &row);
        forged.push('\n');
    }
    end.end.bytes = forged.len() as u64;
    end.end.sha256 = sha256(forged.as_bytes());
    forged += &serde_json::to_string(&end).unwrap();
    forged.push('\n');
    forged.into_bytes()
}

fn sha256(bytes: &[u8]) -> String {
    // As the reader does it: a file of this content, and no last line.
    let whole = [bytes, br#"{"end":{"rows":{},"bytes":0,"sha256":"","mac":""}}"#, b"\n"].concat();
    let mut file = strongroom_server::backup::BackupFile::open(&whole[..]).unwrap();
    while let strongroom_server::backup::Line::Row { .. } = file.line().unwrap() {}
    file.tally().sha256()
}

/// What is wrong, as `table: what`, without the rows' names.
fn wrong(report: &Report) -> BTreeSet<String> {
    report.problems.iter().map(|problem| format!("{}: {}", problem.table, problem.what)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_sealed_verified_and_restored_with_everything_in_it() {
    let mut server = full().await;
    let backup = take(&server).await;
    assert!(memchr::memmem::find(&backup, CANARY.as_bytes()).is_none(), "values stay sealed");

    let report = verify(&backup[..], &root(&server)).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.values.0, 5, "each version's value was opened");
    let tables = ["manifests", "secrets", "secret_versions", "projects"];
    assert_eq!(tables.map(|table| report.rows[table]), [3, 4, 5, 2]);
    let text = std::str::from_utf8(&backup).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).unwrap().is_object()), "each line is JSON");
    let before_end = &text[..=text.trim_end().rfind('\n').unwrap()];
    assert_eq!(report.sha256, sha256(before_end.as_bytes()));

    // Afterwards this is lost.
    server.admin().put(&path("shop/db"), fields(&[("password", "third")]), PutOptions::default()).await.unwrap();
    let before = server.sql().await.dump().await;
    let database = empty_database().await;
    let report = restore_into(&database, &backup, &root(&server)).await.unwrap();
    assert!(report.is_sound());
    let after = Sql::connect(&database.url()).await.dump().await;
    for table in before.keys().filter(|table| {
        !["secrets", "secret_versions", "audit_events", "restores", "manifests"].contains(&table.as_str())
    }) {
        if BACKUP_TABLES.contains(&table.as_str()) {
            assert_eq!(before[table], after[table], "{table}");
        }
    }
    assert_eq!(after["secret_versions"].len(), 5);
    for (before, after) in before["manifests"].iter().zip(&after["manifests"]) {
        assert_eq!((&before["scope"], &before["root"]), (&after["scope"], &after["root"]), "over the same rows");
        let [before, after] = [before, after].map(|row| row["epoch"].as_i64().unwrap() >> 32);
        assert!(after > before, "of another branch");
    }

    server.settings.database_url = SecretBytes::from(database.url());
    server.restart().await;
    let admin = server.admin();
    let read = admin.read(&reference("shop/db")).await.unwrap();
    assert_eq!((read.version, field(&read, "password").as_str()), (2, "second"), "the token too is there again");
    assert_eq!(field(&admin.read(&pinned("shop/db", 1)).await.unwrap(), "password"), CANARY);
    let pod = server.workload("shop", "api");
    assert_eq!(field(&pod.read(&reference("shop/db")).await.unwrap(), "password"), "second");
    let put = admin.put(&path("shop/db"), fields(&[("a", "b")]), PutOptions::default()).await.unwrap();
    assert_eq!(put.version, 3);
    let mut sql = Sql::connect(&database.url()).await;
    let events = sql.rows("SELECT decision, outcome, resource FROM audit_events WHERE action = 'restore'").await;
    assert_eq!(events, [serde_json::json!({ "decision": "allowed", "outcome": "ok", "resource": INSTANCE })]);
    assert_eq!(sql.count("restores WHERE started_at IS NOT NULL").await, 1, "the first start noticed");
    assert!(memchr::memmem::find(&logged(), b"this database was restored from a backup").is_some());
    // A backup of what was restored is sound as well.
    assert_eq!(verify(&take(&server).await[..], &root(&server)).await.unwrap().problems, []);
}

#[tokio::test]
async fn every_table_is_in_a_backup_or_left_out_with_a_reason() {
    let server = TestServer::start().await;
    let tables = server.sql().await.tables().await;
    let known: BTreeSet<&str> = BACKUP_TABLES.iter().chain(LEFT_OUT).copied().collect();
    let missing: Vec<_> = tables.iter().filter(|table| !known.contains(table.as_str())).collect();
    assert!(missing.is_empty(), "add to BACKUP_TABLES (and to BackupRow), or to LEFT_OUT: {missing:?}");
}

#[tokio::test]
async fn a_backup_is_for_those_who_may_and_is_audited_before_it_leaves() {
    let server = full().await;
    let refused = server.workload("shop", "api").backup().await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
    assert_eq!(server.request("GET", routes::BACKUP, None, None).await.status, 401);
    let backup = take(&server).await;
    let text = String::from_utf8(backup).unwrap();
    let events: Vec<_> = text.lines().filter(|line| line.contains(r#""action" : "backup""#)).collect();
    assert_eq!(events.len(), 2, "the refusal, and this one, which was committed before the snapshot");
    assert!(events[1].contains(r#""decision" : "allowed""#));
}

#[tokio::test]
async fn one_that_is_cut_off_is_an_error_for_the_receiver() {
    let server = full().await;
    // More than every buffer between the two holds.
    for _ in 0..16 {
        server.admin().put(&path("shop/large"), raw_bytes(&vec![7; 1024 * 1024]), PutOptions::default()).await.unwrap();
    }
    let mut stream = server.admin().backup().await.unwrap();
    stream.next().await.unwrap().unwrap();
    // Whoever stands between ends every connection of the database.
    server.database().accept_connections(false).await;
    let mut last = Ok(());
    while let Some(data) = stream.next().await {
        last = data.map(drop);
    }
    assert_eq!(last.unwrap_err().kind(), ErrorKind::StreamLost);
    server.database().accept_connections(true).await;
}

#[tokio::test]
async fn what_rotted_is_told_from_what_somebody_changed() {
    let server = full().await;
    let (backup, root) = (take(&server).await, root(&server));
    let at = memchr::memmem::find(&backup, b"not-the-attic").unwrap();
    let mut rotted = backup.clone();
    rotted[at] = b'N';
    let report = verify(&rotted[..], &root).await.unwrap();
    let tampered = "its MAC is wrong: it was changed, or another instance wrote it";
    let manifest = "manifests: the rows of this scope are not those of its manifest: one is missing, was added, or is an older one";
    assert_eq!(
        wrong(&report),
        BTreeSet::from([
            format!("policies: {tampered}"),
            manifest.to_owned(),
            "(file): its SHA-256 is another than when it was taken: the file was damaged, or somebody changed it"
                .to_owned(),
        ])
    );

    let mac =
        "(file): its MAC is not this instance's: somebody changed the backup and made its last line anew".to_owned();
    let untouched = forged(&backup, |_, row| Some(row.to_owned()));
    assert_eq!(verify(&untouched[..], &root).await.unwrap().problems, [], "a last line that says the same is as good");
    let without = |table: &'static str, words: &'static str| {
        forged(&backup, move |t, row| (t != table || !row.contains(words)).then(|| row.to_owned()))
    };
    let found = async |bytes: Vec<u8>| wrong(&verify(&bytes[..], &root).await.unwrap());
    for table in ["grants", "policies", "role_members", "tokens", "clusters"] {
        assert_eq!(found(without(table, "")).await, BTreeSet::from([manifest.to_owned(), mac.clone()]), "{table}");
    }
    assert_eq!(
        found(without("secret_versions", r#""version" : 2"#)).await,
        BTreeSet::from(["secret_versions: an alias points at it, and it is missing".to_owned(), mac.clone()])
    );
    assert_eq!(
        found(without("manifests", "00000000-0000-0000-0000-000000000000")).await,
        BTreeSet::from([
            "manifests: it is missing".to_owned(),
            "(file): the header names manifests that are not there".to_owned(),
            mac.clone()
        ])
    );
    // The values of two versions, exchanged: the rows' MACs leave them out, the envelopes do not.
    let rows: Vec<Value> = std::str::from_utf8(&backup)
        .unwrap()
        .lines()
        .filter_map(parse_row)
        .filter(|(table, row)| *table == "secret_versions" && row.len() < 10_000)
        .map(|(_, row)| serde_json::from_str(row).unwrap())
        .collect();
    let (one, two) = (rows[0]["sealed_value"].as_str().unwrap(), rows[1]["sealed_value"].as_str().unwrap());
    let exchanged = forged(&backup, |_, row| Some(row.replace(one, "(one)").replace(two, one).replace("(one)", two)));
    let report = verify(&exchanged[..], &root).await.unwrap();
    assert_eq!(
        wrong(&report),
        BTreeSet::from([
            "secret_versions: the sealed value does not open: it was sealed by another key or for another place"
                .to_owned(),
            mac.clone()
        ])
    );
    assert!(report.problems[0].row.starts_with("shop/"), "it says which: {}", report.problems[0].row);
    // Nothing of this is restored.
    for bytes in [rotted, exchanged, without("grants", "")] {
        let database = empty_database().await;
        let error = restore_into(&database, &bytes, &root).await.unwrap_err();
        assert!(matches!(error, CannotRestore::NotSound(_)), "{error}");
        assert_eq!(Sql::connect(&database.url()).await.dump().await.len(), 0, "not even a table");
    }
}

#[tokio::test]
async fn a_value_that_is_lost_is_not_called_sound() {
    let server = full().await;
    let stable = PutAlias { version: Target::Number(1), if_version: None };
    // A free alias: `previous` has moved on.
    server.admin().put(&path("shop/db"), fields(&[("password", "third")]), PutOptions::default()).await.unwrap();
    server.admin().point_alias(&path("shop/db"), "stable", &stable).await.unwrap();
    let (backup, root, keyring) = (take(&server).await, root(&server), server.keyring().await);
    assert_eq!(verify(&backup[..], &root).await.unwrap().problems, []);

    let id = server.sql().await.rows("SELECT id FROM secrets WHERE path = 'shop/db'").await[0]["id"].clone();
    let is_pointed_at = |row: &str| {
        let row: Value = serde_json::from_str(row).unwrap();
        row["secret_id"] == id && row["version"] == 1
    };
    let without =
        forged(&backup, |table, row| (table != "secret_versions" || !is_pointed_at(row)).then(|| row.to_owned()));
    let found = verify(&without[..], &root).await.unwrap();
    assert!(
        wrong(&found).contains("secret_versions: an alias points at it, and it is missing"),
        "{:?}",
        found.problems
    );

    // Somebody with the keys, or a defect: the key of a project that lives is destroyed, and its values are there.
    let destroyed = forged(&backup, |table, row| {
        if table != "project_keys" {
            return Some(row.to_owned());
        }
        let Ok(BackupRow::ProjectKey(key)) = BackupRow::parse("project_keys", row) else { panic!("{row}") };
        let key = keyring.verify_row(key).unwrap().into_inner();
        let key = keyring.mac_row(ProjectKeyRow { state: "destroyed".to_owned(), wrapped: Vec::new(), ..key });
        let mut row: Value = serde_json::from_str(row).unwrap();
        (row["state"], row["wrapped"]) = ("destroyed".into(), "".into());
        row["mac"] = BASE64_STANDARD.encode(&key.mac().tag).into();
        Some(row.to_string())
    });
    let found = verify(&destroyed[..], &root).await.unwrap();
    let lost = "secret_versions: the project's key of generation 1 was destroyed, and its value is lost";
    assert!(wrong(&found).contains(lost), "{:?}", found.problems);
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_and_changes_nothing() {
    let server = full().await;
    let (backup, own) = (take(&server).await, root(&server));
    assert!(matches!(
        verify(&backup[..], &RootKey::generate()).await.unwrap_err(),
        CannotVerify::Keyring(strongroom_crypto::KeyringError::WrongRootKey { .. })
    ));
    assert!(matches!(verify(&backup[..backup.len() - 9], &own).await.unwrap_err(), CannotVerify::File(_)));

    let empty = empty_database().await;
    let store = Store::connect(&empty.url(), &Options::default()).unwrap();
    let clock = FixedClock::new(time::OffsetDateTime::UNIX_EPOCH);
    for (instance, root, bytes, words) in [
        (("other", InstanceKind::Dev), &own, &backup[..], "the backup is of the instance"),
        ((INSTANCE, InstanceKind::Production), &own, &backup[..], "the backup is of the instance"),
        ((INSTANCE, InstanceKind::Dev), &RootKey::generate(), &backup[..], "the keyring in the backup does not open"),
        ((INSTANCE, InstanceKind::Dev), &own, &backup[..backup.len() - 1], "incomplete"),
    ] {
        let error = restore(Cursor::new(bytes), &store, root, instance, DamagedRecords::Refuse, &clock)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let newer = String::from_utf8(backup.clone()).unwrap().replacen("\"schema\":3", "\"schema\":999", 1);
    let error = restore(
        Cursor::new(newer.as_bytes()),
        &store,
        &own,
        (INSTANCE, InstanceKind::Dev),
        DamagedRecords::Refuse,
        &clock,
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("schema 999"), "{error}");
    rehearse(Cursor::new(&backup), &store, &own).await.unwrap();
    store.close().await;
    assert_eq!(Sql::connect(&empty.url()).await.dump().await.len(), 0);

    for used in [TestDatabase::migrated().await.url(), server.database_url()] {
        let before = Sql::connect(&used).await.dump().await;
        let store = Store::connect(&used, &Options::default()).unwrap();
        let error =
            restore(Cursor::new(&backup), &store, &own, (INSTANCE, InstanceKind::Dev), DamagedRecords::Refuse, &clock)
                .await
                .unwrap_err();
        assert!(matches!(error, CannotRestore::NotEmpty), "{error}");
        store.close().await;
        assert_eq!(Sql::connect(&used).await.dump().await, before);
    }
}

#[tokio::test]
async fn a_forged_note_of_a_restore_keeps_the_server_from_starting() {
    let mut server = TestServer::start().await;
    server.stop().await;
    let forged = "INSERT INTO restores VALUES (gen_random_uuid(), now(), '\\x00', now(), 1, 1, '\\x00')";
    server.sql().await.run(forged).await;
    let error = Server::start(&server.settings).await.err().expect("it does not start");
    assert!(format!("{error:#}").contains("a row of the table restores was not written by this instance"), "{error:#}");
}

#[tokio::test]
async fn what_a_restore_left_behind_is_never_taken_for_newer() {
    let mut server = TestServer::start_with(|settings| {
        let directory = settings.certificate.parent().unwrap().to_owned();
        settings.anchor = Some(AnchorPlace::File(directory.join("anchor")));
    })
    .await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let backup = take(&server).await;
    // Afterwards access rows change, and a project comes.
    server.grant("user:eve", &[Action::Read], "shop/").await;
    server.project("more").await;
    server.stop().await;
    let mut left = server.sql().await;

    let database = empty_database().await;
    restore_into(&database, &backup, &root(&server)).await.unwrap();
    server.settings.database_url = SecretBytes::from(database.url());
    let refused = async |server: &TestServer| match Server::start(&server.settings).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    };
    let message = refused(&server).await;
    assert!(message.contains("its anchor of") && message.contains("--accept-older-database"), "{message}");
    server.settings.accept_older_database = true;
    server.restart().await;
    server.settings.accept_older_database = false;
    assert_eq!(server.admin().projects().await.unwrap().len(), 1);

    // Somebody who has the rows of the lost database writes them into this one.
    let mut sql = Sql::connect(&database.url()).await;
    sql.run("SET session_replication_role = replica").await;
    for table in BACKUP_TABLES {
        let rows = Value::Array(left.rows(&format!("SELECT * FROM {table}")).await).to_string().replace('\'', "''");
        let put = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, '{rows}')");
        sql.run(&format!("DELETE FROM {table}; {put}")).await;
    }
    let answer = server.request("GET", routes::PROJECTS, Some(server.admin_token()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"));
    server.stop().await;
    let message = refused(&server).await;
    assert!(message.contains("the database is older than its anchor"), "{message}");
}

#[tokio::test]
async fn damaged_records_that_decide_nothing_are_left_out_where_somebody_says_so() {
    let server = full().await;
    let root = root(&server);
    let mut sql = server.sql().await;
    sql.run(
        "INSERT INTO restores VALUES (gen_random_uuid(), now(), '\\x00', now(), 1, 1, '\\x00');
         INSERT INTO rotations (id, kind, compromised, author, created_at, mac_generation, mac_layout, mac, stage, updated_at, finished_at)
         VALUES (gen_random_uuid(), 'term', false, 'user:eve', now(), 1, 1, '\\x00', 'finished', now(), now());
         UPDATE audit_events SET outcome = 'nothing' WHERE action = 'claim-admin'",
    )
    .await;
    let backup = take(&server).await;
    let report = verify(&backup[..], &root).await.unwrap();
    let tables: BTreeSet<_> = report.problems.iter().map(|problem| problem.table).collect();
    assert_eq!(tables, BTreeSet::from(["audit_events", "restores", "rotations"]));
    assert!(!report.is_sound() && report.is_sound_but_for_records());
    let empty = empty_database().await;
    let refused = restore_into(&empty, &backup, &root).await.unwrap_err();
    assert!(matches!(refused, CannotRestore::NotSound(_)), "{refused}");
    restore_with(&empty, &backup, &root, DamagedRecords::LeaveOut).await.unwrap();
    let mut restored = Sql::connect(&empty.url()).await;
    assert_eq!(restored.count("restores").await, 1, "the note of this one");
    assert_eq!(
        restored.count("rotations").await + restored.count("audit_events WHERE action = 'claim-admin'").await,
        0
    );
    assert_eq!(restored.count("audit_events WHERE outcome = 'damaged-records-left-out'").await, 1);

    // Whatever decides something is refused all the same.
    sql.run("UPDATE grants SET author = 'user:eve' WHERE principal = 'role:shop/readers'").await;
    let report = verify(&take(&server).await[..], &root).await.unwrap();
    assert!(!report.is_sound_but_for_records());
}
