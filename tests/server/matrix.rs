//! What somebody who can write every row of the database can do: each table, each way. Whatever is not refused stands in `SECURITY.md`, with the reason.

use serde_json::json;
use std::fmt::Write as _;
use strongroom_api::{
    access::{Policy, Role},
    keys::{Rotate, ShredProject},
    routes,
};
use strongroom_client::PutOptions;
use strongroom_core::Action;
use strongroom_local::{Issuer, Pod};
use strongroom_store::{InstanceRow, Options, Store, instance};
use strongroom_tests::{CLUSTER, Replica, Sql, TestServer, eventually, fields, hex, path, project};

/// The ways, as `SECURITY.md` names them.
const WAYS: [&str; 5] = ["forge", "swap", "delete", "replay", "resurrect"];

/// What is expected of a cell.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    /// Nothing in the scope is served any more, and an event says why.
    Refused,
    /// It is not noticed; the note says why, and what follows.
    Unnoticed(&'static str),
    /// There is nothing to do it with; the note says why.
    Never(&'static str),
}

use Cell::{Never, Refused, Unnoticed};

/// Secrets' rows are not in a manifest: each write of a secret would have to lock its project's.
const HIDDEN: &str = "a";
const SET_BACK: &str = "b";
const UNDELETED: &str = "c";
const NOTHING_DECIDED: &str = "d";
const NOT_YET: &str = "e";
const HISTORY: &str = "f";
const EVENTS: &str = "rows of this table never change, and are not read yet";
const NEVER_CHANGED: &str = "rows of this table never change";
const NEVER_REMOVED: &str = "rows of this table are never removed";
const PRUNED: &str = "of finished rotations the last 100 are kept, and none from before a compromised term was replaced; one that is put back has nothing to do";
const ONE_ROW: &str = "there is one row";

const NOTES: &[(&str, &str)] = &[
    (
        HIDDEN,
        "the secret, or that version, is gone, as after a loss of data. A read of a version that an alias points at and that is missing is refused; a secret that is missing altogether looks as if it had never been. Backups have it, and agents keep the files they have",
    ),
    (
        SET_BACK,
        "an earlier state of this secret is served: an older version as the current one, or earlier labels. Agents never go back to an older version; the next put is refused while the newer versions are still there. A tag for each secret outside the database would be needed to notice it, at the cost of a lock for each write in the project",
    ),
    (
        UNDELETED,
        "a version that was deleted can be read again by those who may read it, as by an undelete. What must never come back is destroyed: then its rows are refused",
    ),
    (
        NOTHING_DECIDED,
        "no access is decided by it: the row counts changes, by which servers see that the anchor is to be written (where it is set back a change may be anchored only at the next comparison, after five minutes), or remembers the answer to a request that is sent again",
    ),
    (
        NOT_YET,
        "each event has its MAC, which no request checks yet; the chain that shows a missing event is not built yet",
    ),
    (
        HISTORY,
        "a finished rotation is history; an unfinished one is checked before each of its steps, and what it is to make is found from the keys' own rows",
    ),
];

/// Tables with a MAC that have no row here, each with what is known of them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("quarantines", "covered by the instance's manifest as every access row is"),
    (
        "restores",
        "nothing is decided by it; a forged row keeps the server from starting while its `started_at`, which no MAC covers, is NULL",
    ),
    (
        "idempotency_keys",
        "a forged or exchanged answer is refused; without its row, or with one by an older row key, a request that is sent again is done again, as after 24 hours",
    ),
];

/// The expected outcome of each table and way.
const EXPECTED: &[(&str, [Cell; 5])] = &[
    ("instance", [Refused, Never(ONE_ROW), Refused, Refused, Never(ONE_ROW)]),
    ("keyring_terms", [Refused, Refused, Refused, Refused, Never(NEVER_REMOVED)]),
    ("keyring_keys", [Refused, Refused, Refused, Refused, Never(NEVER_REMOVED)]),
    ("projects", [Refused, Refused, Refused, Refused, Refused]),
    ("project_keys", [Refused, Refused, Refused, Refused, Refused]),
    ("clusters", [Refused, Refused, Refused, Never(NEVER_CHANGED), Refused]),
    ("cluster_names", [Refused, Refused, Refused, Never(NEVER_CHANGED), Never(NEVER_REMOVED)]),
    ("roles", [Refused, Refused, Refused, Never(NEVER_CHANGED), Refused]),
    ("role_members", [Refused, Refused, Refused, Never(NEVER_CHANGED), Refused]),
    ("grants", [Refused, Refused, Refused, Never(NEVER_CHANGED), Refused]),
    ("policies", [Refused, Refused, Refused, Never(NEVER_CHANGED), Refused]),
    ("tokens", [Refused, Never(ONE_ROW), Refused, Never(NEVER_CHANGED), Never(NEVER_REMOVED)]),
    ("tombstones", [Refused, Refused, Refused, Never(NEVER_CHANGED), Never(NEVER_REMOVED)]),
    ("rotations", [Unnoticed(HISTORY), Unnoticed(HISTORY), Unnoticed(HISTORY), Never(NEVER_CHANGED), Never(PRUNED)]),
    ("manifests", [Refused, Refused, Refused, Refused, Refused]),
    ("access_revision", [Refused, Never(ONE_ROW), Refused, Unnoticed(NOTHING_DECIDED), Never(ONE_ROW)]),
    ("secrets", [Refused, Refused, Unnoticed(HIDDEN), Unnoticed(SET_BACK), Refused]),
    ("audit_events", [Unnoticed(NOT_YET), Unnoticed(NOT_YET), Unnoticed(NOT_YET), Never(EVENTS), Never(EVENTS)]),
    ("secret_versions", [Refused, Refused, Unnoticed(HIDDEN), Unnoticed(UNDELETED), Refused]),
];

/// A database with a past: `_old_…` holds every row as it was, `_kept_…` as it is.
struct World {
    server: TestServer,
    sql: Sql,
    session: String,
    revoked: String,
}

impl World {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        let put = async |name: &str, value: &str| {
            admin.put(&path(name), fields(&[("a", value)]), PutOptions::default()).await.unwrap();
        };
        for name in ["shop", "other", "doomed"] {
            server.project(name).await;
            put(&format!("{name}/db"), "old").await;
        }
        put("shop/gone", "purged").await;
        put("shop/broken", "destroyed").await;
        put("shop/broken", "kept").await;
        put("shop/soft", "deleted").await;
        put("shop/soft", "kept").await;
        let role = async |name: &str, members: &[&str]| {
            let members = members.iter().map(|member| (*member).to_owned()).collect();
            admin.put_role(&Role { project: project("shop"), name: name.to_owned(), members }).await.unwrap();
        };
        role("readers", &["workload:lab/shop/api", "workload:lab/shop/revoked"]).await;
        role("leavers", &[]).await;
        role("writers", &["workload:lab/shop/deploy"]).await;
        server.grant("role:shop/readers", &[Action::Read, Action::List], "shop/").await;
        let grant = server.grant("workload:lab/shop/revoked", &[Action::Read], "shop/").await;
        let policy = async |text: &str| {
            let body = json!({"project": "shop", "name": "rule", "text": text}).to_string();
            let answer = server.request("PUT", routes::POLICIES, Some(server.admin_token()), Some(&body)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        policy(r#"permit(principal == Workload::"lab/shop/revoked", action, resource in Project::"shop");"#).await;
        let other = r#"permit(principal == Workload::"lab/shop/deploy", action == Action::"write", resource in Project::"shop");"#;
        admin
            .put_policy(&Policy { project: project("shop"), name: "other".to_owned(), text: other.to_owned() })
            .await
            .unwrap();
        for name in ["old", "older", "another"] {
            let issuer = Issuer::new(format!("https://{name}.test"));
            let body = json!({
                "name": name, "issuer": issuer.url(), "trust": {"kind": "offline-keys", "keys": issuer.jwks()},
            });
            let body = body.to_string();
            let answer = server.request("POST", routes::CLUSTERS, Some(server.admin_token()), Some(&body)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        admin.remove_cluster("older").await.unwrap();
        let (session, revoked) = (server.session("shop", "api").await, server.session("shop", "revoked").await);
        let mut sql = server.sql().await;
        // Neither keys to other tables nor names that must differ stop him.
        sql.run(
            "SET session_replication_role = replica; ALTER TABLE policies DROP CONSTRAINT policies_name_key;
                 DROP INDEX keyring_terms_one_active, keyring_keys_one_active, project_keys_one_active",
        )
        .await;
        copy(&mut sql, "_old_").await;
        unclaimed(&server, &mut sql).await;

        put("shop/db", "new").await;
        role("readers", &["workload:lab/shop/api"]).await;
        admin.remove_role(&project("shop"), "leavers").await.unwrap();
        admin.revoke_grant(&project("shop"), grant.id).await.unwrap();
        policy(r#"forbid(principal == Workload::"lab/shop/revoked", action, resource in Project::"shop");"#).await;
        admin.remove_cluster("old").await.unwrap();
        let send = async |method: &str, target: &str, body: serde_json::Value| {
            let (body, admin) = (body.to_string(), Some(server.admin_token()));
            let body = (!body.is_empty() && body != "null").then_some(body);
            let answer = server.request(method, target, admin, body.as_deref()).await;
            assert!((200..300).contains(&answer.status), "{method} {target}: {}", answer.text());
        };
        send("PATCH", "/api/v1/project?name=shop", json!({"keep_versions": 50})).await;
        send("DELETE", "/api/v1/secret?path=shop/soft&version=1", serde_json::Value::Null).await;
        send("POST", routes::SECRET_DESTROY, json!({"path": "shop/broken", "versions": [1]})).await;
        send("POST", routes::SECRET_PURGE, json!({"path": "shop/gone"})).await;
        let (other, doomed) = (project("other"), project("doomed"));
        admin.shred_project(&ShredProject { name: doomed.clone(), confirm: doomed }).await.unwrap();
        admin.rotate(&Rotate::ProjectKey { project: other }).await.unwrap();
        eventually("the project and its old key are gone", async || {
            sql.count("rotations WHERE finished_at IS NULL").await == 0
        })
        .await;
        admin.rotate(&Rotate::Term { compromised: false, accept_unanchored: false }).await.unwrap();
        admin.rotate(&Rotate::Root {}).await.unwrap();
        eventually("every key is wrapped anew", async || sql.count("rotations WHERE finished_at IS NULL").await == 0)
            .await;
        copy(&mut sql, "_kept_").await;
        Self { server, sql, session, revoked }
    }

    async fn restore(&mut self) {
        for table in self.sql.tables().await {
            self.sql.run(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM _kept_{table}")).await;
        }
    }

    /// A condition that finds one row of a table by its primary key, for each row that `from` gives.
    async fn keys(&mut self, table: &str, from: &str) -> Vec<String> {
        let columns = self
            .sql
            .rows(&format!(
                "SELECT a.attname AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                 WHERE i.indrelid = '{table}'::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)"
            ))
            .await;
        let columns: Vec<_> = columns.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
        let condition: Vec<_> =
            columns.iter().map(|name| format!("'{name} = ' || quote_literal(t.{name}::text)")).collect();
        let rows = self.sql.rows(&format!("SELECT {} AS key FROM {from}", condition.join(" || ' AND ' || "))).await;
        rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
    }

    /// Every change of this way that the table's rows offer, as statements.
    async fn changes(&mut self, table: &str, way: &str) -> Vec<String> {
        let current = self.keys(table, &format!("_kept_{table} t")).await;
        match way {
            "forge" => current
                .iter()
                .take(3)
                .map(|key| format!("UPDATE {table} SET mac = set_byte(mac, 0, get_byte(mac, 0) # 1) WHERE {key}"))
                .collect(),
            "swap" => current
                .windows(2)
                .take(3)
                .map(|pair| {
                    let (one, other) = (&pair[0], &pair[1]);
                    format!(
                        "UPDATE {table} SET mac = (SELECT mac FROM _kept_{table} WHERE {other}) WHERE {one};
                         UPDATE {table} SET mac = (SELECT mac FROM _kept_{table} WHERE {one}) WHERE {other}"
                    )
                })
                .collect(),
            "delete" => current.iter().map(|key| format!("DELETE FROM {table} WHERE {key}")).collect(),
            "replay" => {
                let same = "(SELECT 1 FROM _kept_{table} k WHERE k::text = t::text)".replace("{table}", table);
                let changed = self.keys(table, &format!("_old_{table} t WHERE NOT EXISTS {same}")).await;
                let changed = changed.into_iter().filter(|key| current.contains(key));
                changed
                    .map(|key| {
                        format!(
                            "DELETE FROM {table} WHERE {key}; INSERT INTO {table} SELECT * FROM _old_{table} WHERE {key}"
                        )
                    })
                    .collect()
            }
            "resurrect" => {
                let old = self.keys(table, &format!("_old_{table} t")).await;
                old.into_iter()
                    .filter(|key| !current.contains(key))
                    .map(|key| {
                        let mut statement = format!("INSERT INTO {table} SELECT * FROM _old_{table} WHERE {key};");
                        // With what it is part of: alone it is of nothing.
                        let part_of = |whole: &str, id: String| {
                            format!("INSERT INTO {whole} SELECT * FROM _old_{whole} WHERE id = ({id}) ON CONFLICT DO NOTHING;")
                        };
                        let of_row = |column: &str| format!("SELECT {column} FROM _old_{table} WHERE {key}");
                        match table {
                            "secret_versions" => {
                                let project = format!("SELECT project_id FROM _old_secrets WHERE id = ({})", of_row("secret_id"));
                                statement += &part_of("secrets", of_row("secret_id"));
                                statement += &part_of("projects", project);
                            }
                            "project_keys" | "grants" | "secrets" | "roles" | "policies" => {
                                statement += &part_of("projects", of_row("project_id"));
                            }
                            "manifests" => statement += &part_of("projects", of_row("scope")),
                            _ => {}
                        }
                        statement
                    })
                    .collect()
            }
            way => panic!("{way}"),
        }
    }

    /// Asks a server that never saw these rows for everything: a login, reads, lists, a change. Answers whether anything was refused as not being what was
    /// written. Whatever else happens, nobody who had no right gets anything.
    async fn is_refused(&mut self, change: &str) -> bool {
        let Some(replica) = self.server.replica().await else { return true };
        let refused = self.ask_everything(&replica, change).await;
        replica.stop().await;
        refused
    }

    async fn ask_everything(&self, replica: &Replica, change: &str) -> bool {
        let admin = self.server.admin_token();
        let login = json!({"cluster": CLUSTER, "token": self.server.pod_token(&Pod::of("shop", "api"))}).to_string();
        let again = json!({"project": "other", "name": "some", "members": []}).to_string();
        let retired = Issuer::new("https://again.test");
        let retired = json!({
            "name": "old", "issuer": retired.url(), "trust": {"kind": "offline-keys", "keys": retired.jwks()},
        });
        let retired = retired.to_string();
        let requests = [
            ("POST", routes::LOGIN, None, Some(&login)),
            ("GET", "/api/v1/secret?path=shop/db", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=shop/db&version=1", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=shop/broken", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=shop/broken&version=1", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=shop/soft", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=shop/soft&version=1", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=shop/gone", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret/versions?path=shop/db", Some(admin), None),
            ("GET", "/api/v1/secrets?folder=shop/", Some(self.session.as_str()), None),
            ("GET", "/api/v1/secret?path=other/db", Some(admin), None),
            ("POST", routes::CLUSTERS, Some(admin), Some(&retired)),
            ("PUT", routes::ROLES, Some(admin), Some(&again)),
        ];
        let mut refused = false;
        for (method, target, credential, body) in requests {
            let answer = replica.request(method, target, credential, body.map(String::as_str)).await;
            refused |= (answer.status, answer.code().as_str()) == (500, "integrity");
            if body == Some(&retired) {
                assert_ne!(answer.status, 200, "{change}: a retired name was given out again");
            }
        }
        let stolen = replica.request("GET", "/api/v1/secret?path=shop/db", Some(&self.revoked), None).await;
        assert_ne!(stolen.status, 200, "{change}: who has no right any more read the secret");
        refused
    }
}

/// The instance's row as it was before its first admin claimed it: a MAC has no nonce, so it can be made again.
async fn unclaimed(server: &TestServer, sql: &mut Sql) {
    let store = Store::connect(&server.database_url(), &Options::default()).unwrap();
    let row = instance(&mut store.reader().await.unwrap()).await.unwrap().unwrap();
    let keyring = server.keyring().await;
    let row = keyring.verify_keyring_row(row).unwrap().into_inner();
    let row = keyring.mac_keyring_row(InstanceRow { admin_claimed_at: None, ..row });
    store.close().await;
    sql.run(&format!("UPDATE _old_instance SET admin_claimed_at = NULL, mac = '\\x{}'", hex(&row.mac().tag))).await;
}

/// A copy of every table.
async fn copy(sql: &mut Sql, prefix: &str) {
    for table in sql.tables().await {
        sql.run(&format!("CREATE TABLE {prefix}{table} AS SELECT * FROM {table}")).await;
    }
}

#[tokio::test]
async fn what_a_writer_of_the_database_can_do_is_refused_or_listed() {
    let mut world = World::new().await;
    assert!(!world.is_refused("nothing").await, "as it is, everything is served");
    world.restore().await;
    let mut wrong = String::new();
    let with_mac = "SELECT table_name AS name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'mac' AND table_name NOT LIKE '\\_%'";
    for row in world.sql.rows(with_mac).await {
        let name = row["name"].as_str().unwrap();
        let listed =
            EXPECTED.iter().any(|(table, _)| *table == name) || ELSEWHERE.iter().any(|(table, _)| *table == name);
        assert!(listed, "{name} is not in the table");
    }
    for (table, cells) in EXPECTED {
        for (way, expected) in WAYS.iter().zip(cells) {
            let changes = world.changes(table, way).await;
            if let Never(why) = expected {
                if !changes.is_empty() {
                    let _ = writeln!(wrong, "{table} {way}: {why}, and yet: {}", changes[0]);
                }
                continue;
            }
            if changes.is_empty() {
                let _ = writeln!(wrong, "{table} {way}: this world offers no row for it");
            }
            let mut refusals = 0;
            for change in &changes {
                world.sql.run(change).await;
                let refused = world.is_refused(change).await;
                refusals += usize::from(refused);
                if refused {
                    let audited = world.sql.count("audit_events WHERE outcome = 'integrity'").await;
                    let starts = matches!(*table, "instance" | "keyring_terms" | "keyring_keys" | "manifests");
                    if audited == 0 && !starts {
                        let _ = writeln!(wrong, "{table} {way}: refused without an event: {change}");
                    }
                } else if *expected == Refused {
                    let _ = writeln!(wrong, "{table} {way}: not noticed: {change}");
                }
                world.restore().await;
            }
            if matches!(expected, Unnoticed(_)) && refusals == changes.len() && !changes.is_empty() {
                let _ = writeln!(wrong, "{table} {way}: listed as not noticed, and it is noticed");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

const BEGIN: &str = "<!-- made by tests/server/matrix.rs: begin -->\n";
const END: &str = "<!-- end -->\n";

/// The table as `SECURITY.md` has it.
fn table() -> String {
    let mut text = format!("| Table | {} |\n|---|{}\n", WAYS.join(" | "), "---|".repeat(WAYS.len()));
    for (table, cells) in EXPECTED {
        let cells: Vec<_> = cells
            .iter()
            .map(|cell| match cell {
                Refused => "refused".to_owned(),
                Unnoticed(note) => format!("**not noticed** ({note})"),
                Never(why) => (*why).to_owned(),
            })
            .collect();
        let _ = writeln!(text, "| `{table}` | {} |", cells.join(" | "));
    }
    text.push('\n');
    for (table, meaning) in ELSEWHERE {
        let _ = writeln!(text, "- `{table}`: {meaning}.");
    }
    for (note, meaning) in NOTES {
        let _ = writeln!(text, "- ({note}) {meaning}.");
    }
    text
}

#[test]
fn security_md_has_the_table() {
    let file = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("SECURITY.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("SECURITY.md has the mark");
    let (found, after) = rest.split_once(END).expect("SECURITY.md has the second mark");
    let made = table();
    if std::env::var_os("STRONGROOM_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, made, "SECURITY.md is not what the test says; write it anew with STRONGROOM_BLESS=1");
}
