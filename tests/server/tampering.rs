//! Whoever can write the database gains nothing: every row that decides access or integrity is authenticated.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use strongroom_api::{
    access::{NewCluster, Policy, Role, Trust},
    routes,
};
use strongroom_client::PutOptions;
use strongroom_core::{Action, Clock as _, RowMac, SystemClock, Unverified};
use strongroom_crypto::Token;
use strongroom_local::{Issuer, Pod};
use strongroom_store::AuditRow;
use strongroom_tests::{Answer, CLUSTER, Replica, Sql, TestServer, fields, hex, path, project};
use uuid::Uuid;

/// What is asked after a row was changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    /// A pod of `shop/api` reads `shop/db`, by its role.
    Read,
    /// The same pod lists `shop/`.
    List,
    /// A pod logs in.
    Login,
    /// The admin asks who it is.
    Token,
    /// The admin changes a role.
    Change,
    /// The name of a removed cluster stays taken.
    RetiredName,
    /// The server starts.
    Start,
    /// The event's MAC is checked: no request reads events yet.
    Event,
}

/// Which table each probe reads, and the one row of it that is changed.
const CASES: &[(&str, &str, Probe)] = &[
    ("instance", "true", Probe::Start),
    ("keyring_terms", "term = 1", Probe::Start),
    ("keyring_keys", "purpose = 'session'", Probe::Start),
    ("projects", "name = 'shop'", Probe::List),
    ("project_keys", "project_id = (SELECT id FROM projects WHERE name = 'shop')", Probe::Read),
    ("secrets", "path = 'shop/db'", Probe::Read),
    ("secret_versions", "version = 2 AND secret_id = (SELECT id FROM secrets WHERE path = 'shop/db')", Probe::Read),
    ("clusters", "name = 'lab'", Probe::Login),
    ("cluster_names", "name = 'retired'", Probe::RetiredName),
    ("roles", "name = 'readers'", Probe::Read),
    ("role_members", "pattern = 'workload:lab/shop/api'", Probe::Read),
    ("grants", "principal = 'role:shop/readers' AND scope = 'shop/'", Probe::Read),
    ("policies", "name = 'not-the-attic'", Probe::Read),
    ("tokens", "true", Probe::Token),
    ("access_revision", "true", Probe::Change),
    ("tombstones", "version = 1", Probe::List),
    ("manifests", "scope = (SELECT id FROM projects WHERE name = 'shop')", Probe::List),
    ("manifests", "scope = '00000000-0000-0000-0000-000000000000'", Probe::Login),
    ("audit_events", "action = 'claim-admin'", Probe::Event),
];

/// Tables with a MAC that are changed elsewhere, where what makes their rows is tested.
const ELSEWHERE: &[&str] = &["idempotency_keys", "quarantines", "restores", "rotations"];

/// Tables without a MAC: nothing is decided by them.
const VOLATILE: &[&str] = &["deliveries", "replicas", "secret_activity"];

/// Columns whose change is not seen by the probe, each with why that is no gain.
fn unseen(table: &str, column: &str) -> bool {
    matches!(
        (table, column),
        // Fixed by a constraint to one value, the row's key.
        ("instance" | "access_revision", "singleton")
        // Given by the linker, after the event was written; they will have a signature of their own.
        | ("audit_events", "chain" | "sequence" | "chain_hash")
    )
}

struct World {
    server: TestServer,
    sql: Sql,
    session: String,
}

const CANARY: &str = "the-value-of-shop-db";

impl World {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        for name in ["shop", "other"] {
            server.project(name).await;
            for value in ["old", CANARY] {
                let value = match (name, value) {
                    ("shop", value) => value,
                    (_, "old") => "elsewhere-old",
                    _ => "elsewhere",
                };
                admin.put(&path(&format!("{name}/db")), fields(&[("a", value)]), PutOptions::default()).await.unwrap();
            }
        }
        let members = vec!["workload:lab/shop/api".to_owned()];
        admin.put_role(&Role { project: project("shop"), name: "readers".to_owned(), members }).await.unwrap();
        server.grant("role:shop/readers", &[Action::Read, Action::List], "shop/").await;
        server.grant("workload:lab/other/web", &[Action::Read], "other/").await;
        let text = "forbid(principal, action == Action::\"read\", resource in Folder::\"shop/attic/\");".to_owned();
        admin.put_policy(&Policy { project: project("shop"), name: "not-the-attic".to_owned(), text }).await.unwrap();
        admin.create_cluster(&retired_cluster(&Issuer::new("https://retired.test"))).await.unwrap();
        admin.remove_cluster("retired").await.unwrap();
        for value in ["destroyed", "kept"] {
            admin.put(&path("shop/broken"), fields(&[("a", value)]), PutOptions::default()).await.unwrap();
        }
        let destroyed = json!({"path": "shop/broken", "versions": [1]}).to_string();
        let answer = server.request("POST", routes::SECRET_DESTROY, Some(server.admin_token()), Some(&destroyed)).await;
        assert!((200..300).contains(&answer.status), "{}", answer.text());
        let session = server.session("shop", "api").await;
        let mut sql = server.sql().await;
        // Foreign keys are no protection from a superuser; here they would only hide what the MACs do.
        sql.run("SET session_replication_role = replica").await;
        for table in sql.tables().await {
            sql.run(&format!("CREATE TABLE _kept_{table} AS SELECT * FROM {table}")).await;
        }
        Self { server, sql, session }
    }

    /// Puts every row back as it was.
    async fn restore(&mut self) {
        for table in self.sql.tables().await {
            self.sql.run(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM _kept_{table}")).await;
        }
    }

    /// What a server that never saw these rows answers; `None` where it does not even start.
    async fn ask(&self, method: &str, target: &str, credential: &str, body: Option<&str>) -> Option<Answer> {
        let replica = self.server.replica().await?;
        let answer = replica.request(method, target, Some(credential), body).await;
        replica.stop().await;
        Some(answer)
    }

    async fn assert_refused(&self, target: &str, credential: &str, why: &str) {
        if let Some(answer) = self.ask("GET", target, credential, None).await {
            assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "{why}");
            assert!(!answer.text().contains(CANARY));
        }
    }

    /// Whether the probe gets what it asks for.
    ///
    /// A server that never saw these rows is asked: one that runs goes on by what it verified, as `a_running_server_goes_on_by_what_it_verified` shows.
    async fn succeeds(&mut self, probe: Probe) -> bool {
        if probe == Probe::Event {
            return self.event_is_authentic().await;
        }
        let Some(replica) = self.server.replica().await else { return false };
        let succeeds = self.replica_serves(&replica, probe).await;
        replica.stop().await;
        succeeds
    }

    async fn replica_serves(&self, replica: &Replica, probe: Probe) -> bool {
        let server = &self.server;
        let (session, admin) = (Some(self.session.as_str()), Some(server.admin_token()));
        let answer = match probe {
            Probe::Read => replica.request("GET", "/api/v1/secret?path=shop/db", session, None).await,
            Probe::List => replica.request("GET", "/api/v1/secrets?folder=shop/", session, None).await,
            Probe::Login => {
                let body = json!({"cluster": CLUSTER, "token": server.pod_token(&Pod::of("shop", "api"))}).to_string();
                replica.request("POST", routes::LOGIN, None, Some(&body)).await
            }
            Probe::Token => replica.request("GET", routes::SESSION, admin, None).await,
            Probe::Change => {
                let body = json!({"project": "other", "name": "some", "members": []}).to_string();
                replica.request("PUT", routes::ROLES, admin, Some(&body)).await
            }
            Probe::RetiredName => {
                let new = json!(retired_cluster(&Issuer::new("https://again.test"))).to_string();
                let answer = replica.request("POST", routes::CLUSTERS, admin, Some(&new)).await;
                return answer.code() == "already_exists";
            }
            // It runs: it started.
            Probe::Start => return true,
            Probe::Event => unreachable!("no server answers this"),
        };
        if answer.status == 200 {
            return true;
        }
        assert!(!answer.text().contains(CANARY) && !answer.text().contains("srs_"), "{probe:?}: {}", answer.text());
        let expected = matches!((answer.status, answer.code().as_str()), (500, "integrity") | (401 | 403 | 404, _));
        assert!(expected, "{probe:?}: {} {}", answer.status, answer.text());
        false
    }

    async fn event_is_authentic(&mut self) -> bool {
        let rows = self
            .sql
            .rows("SELECT *, encode(mac, 'hex') AS mac_hex FROM audit_events WHERE action LIKE 'claim-admin%'")
            .await;
        let Some(row) = rows.first() else { return false };
        let text = |column: &str| row[column].as_str().map(str::to_owned);
        let id = |column: &str| row[column].as_str().map(|id| Uuid::parse_str(id).unwrap());
        let format = &time::format_description::well_known::Rfc3339;
        let number = |column: &str| row[column].as_i64().unwrap();
        let event = AuditRow {
            id: id("id").unwrap(),
            at: time::OffsetDateTime::parse(row["at"].as_str().unwrap(), format).unwrap(),
            request_id: id("request_id").unwrap(),
            actor: text("actor"),
            actor_pod: text("actor_pod"),
            actor_pod_uid: id("actor_pod_uid"),
            action: text("action").unwrap(),
            resource: text("resource"),
            version: row["version"].as_i64(),
            decision: text("decision").unwrap(),
            policies: text("policies").unwrap(),
            outcome: text("outcome").unwrap(),
            source: text("source"),
        };
        let hex = text("mac_hex").unwrap();
        let tag = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        let (generation, layout) =
            (number("mac_generation").try_into().unwrap(), number("mac_layout").try_into().unwrap());
        let row = Unverified::new(event, RowMac { generation, layout, tag });
        self.server.keyring().await.verify_audit_row(row).is_ok()
    }

    async fn columns(&mut self, table: &str) -> Vec<(String, String)> {
        let query = format!(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position"
        );
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        self.sql.rows(&query).await.iter().map(|row| (text(row, "column_name"), text(row, "data_type"))).collect()
    }
}

fn retired_cluster(issuer: &Issuer) -> NewCluster {
    let (name, trust) = ("retired".to_owned(), Trust::OfflineKeys { keys: issuer.jwks() });
    NewCluster { name, issuer: issuer.url().to_owned(), trust }
}

/// Another value that the table's constraints take.
fn altered(table: &str, column: &str, kind: &str) -> String {
    match (table, column, kind) {
        ("instance", "kind", _) => "'production'".to_owned(),
        ("secrets" | "secret_versions", "state", _) => "'deleted'".to_owned(),
        ("projects", "state", _) => "'shredded'".to_owned(),
        (_, "aliases" | "labels", _) => "'a=1'".to_owned(),
        (_, _, "boolean") => format!("NOT {column}"),
        (_, "state", _) => "'decrypt-only'".to_owned(),
        (_, "purpose", _) => "'audit'".to_owned(),
        (_, _, "uuid") => "gen_random_uuid()".to_owned(),
        (_, _, "text") => format!("coalesce({column}, '') || 'x'"),
        (_, _, "bytea") => format!("coalesce(set_byte({column}, 0, get_byte({column}, 0) # 1), '\\x00')"),
        (_, _, "integer" | "bigint" | "smallint") => format!("coalesce({column}, 0) + 1"),
        (_, _, "timestamp with time zone") => format!("coalesce({column}, now()) + interval '1 second'"),
        (table, column, kind) => panic!("{table}.{column} is of a new kind, {kind}: say here what another value is"),
    }
}

#[tokio::test]
async fn every_column_of_every_authenticated_row_is_covered() {
    let mut world = World::new().await;
    let authenticated = world
        .sql
        .rows("SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'mac' AND table_name NOT LIKE '\\_%'")
        .await;
    let authenticated: BTreeSet<_> = authenticated.iter().map(|row| row["table_name"].as_str().unwrap()).collect();
    let cases: BTreeSet<_> = CASES.iter().map(|(table, ..)| *table).chain(ELSEWHERE.iter().copied()).collect();
    assert_eq!(authenticated, cases, "each table with a MAC has its case here");
    let without: Vec<_> = world
        .sql
        .tables()
        .await
        .into_iter()
        .filter(|table| !cases.contains(table.as_str()) && !VOLATILE.contains(&table.as_str()))
        .collect();
    assert!(without.is_empty(), "a table without a MAC must decide nothing: {without:?}");

    let mut changed = 0;
    for (table, row, probe) in CASES {
        assert!(world.succeeds(*probe).await, "{probe:?} before {table} is changed");
        for (column, kind) in world.columns(table).await {
            if unseen(table, &column) {
                continue;
            }
            // `purpose` and `generation` are the key together: the row that is in the way is another change than the one that is tried.
            if (*table, column.as_str()) == ("keyring_keys", "purpose") {
                world.sql.run("DELETE FROM keyring_keys WHERE purpose = 'audit'").await;
            }
            let value = altered(table, &column, &kind);
            assert_eq!(
                world.sql.run(&format!("UPDATE {table} SET {column} = {value} WHERE {row}")).await,
                1,
                "{table}.{column}"
            );
            assert!(!world.succeeds(*probe).await, "{table}.{column} was changed and nobody noticed");
            world.restore().await;
            changed += 1;
        }
        assert!(world.succeeds(*probe).await, "{probe:?} when {table} is as it was");
    }
    println!("{changed} columns were changed, one at a time, and each was noticed");
}

#[tokio::test]
async fn a_running_server_goes_on_by_what_it_verified() {
    let mut world = World::new().await;
    let stranger = world.server.session("shop", "stranger").await;
    let read = "/api/v1/secret?path=shop/db";
    let (session, admin) = (world.session.clone(), world.server.admin_token().to_owned());
    for (what, statement) in [
        ("grants gone", "DELETE FROM grants"),
        ("policies gone", "DELETE FROM policies"),
        (
            "a member forged",
            "INSERT INTO role_members SELECT id, 'workload:lab/shop/stranger', 1, 1, ''::bytea FROM roles",
        ),
        ("a project renamed", "UPDATE projects SET name = 'shopping' WHERE name = 'shop'"),
    ] {
        let status = async |credential: &str| world.server.request("GET", read, Some(credential), None).await.status;
        assert_eq!((status(&session).await, status(&stranger).await), (200, 403), "before");
        world.sql.run(statement).await;
        let (pod, other) = (status(&session).await, status(&stranger).await);
        // Without its name the project's manifest is not found: refused, too.
        let expected = if what == "a project renamed" { (500, 500) } else { (200, 403) };
        assert_eq!((pod, other), expected, "{what}");
        // What it adds does not make good what others did.
        let body = json!({"project": "shop", "name": "more", "members": []}).to_string();
        world.server.request("PUT", routes::ROLES, Some(&admin), Some(&body)).await;
        world.assert_refused(read, &session, what).await;
        world.restore().await;
        // The manifest is older again than what was seen.
        world.server.restart().await;
    }
}

#[tokio::test]
async fn macs_of_two_rows_do_not_fit_each_other() {
    let mut world = World::new().await;
    for (table, one, two, probe) in [
        ("grants", "principal = 'role:shop/readers'", "principal = 'workload:lab/other/web'", Probe::Read),
        (
            "secret_versions",
            "version = 2 AND secret_id = (SELECT id FROM secrets WHERE path = 'shop/db')",
            "version = 1 AND secret_id = (SELECT id FROM secrets WHERE path = 'shop/db')",
            Probe::Read,
        ),
        ("secrets", "path = 'shop/db'", "path = 'other/db'", Probe::Read),
        ("projects", "name = 'shop'", "name = 'other'", Probe::List),
        (
            "project_keys",
            "project_id = (SELECT id FROM projects WHERE name = 'shop')",
            "project_id = (SELECT id FROM projects WHERE name = 'other')",
            Probe::Read,
        ),
        ("keyring_keys", "purpose = 'session'", "purpose = 'token'", Probe::Start),
    ] {
        assert!(world.succeeds(probe).await, "{table}");
        let statement = format!("UPDATE {table} SET mac = (SELECT mac FROM _kept_{table} WHERE {two}) WHERE {one}");
        assert_eq!(world.sql.run(&statement).await, 1, "{table}");
        assert!(!world.succeeds(probe).await, "the MAC of another row of {table} was taken");
        world.restore().await;
    }
}

#[tokio::test]
async fn a_value_moved_to_another_secret_or_version_does_not_open() {
    let mut world = World::new().await;
    let of = |name: &str, version: i32| {
        format!("secret_id = (SELECT id FROM secrets WHERE path = '{name}') AND version = {version}")
    };
    let (target, old, elsewhere) = (of("shop/db", 2), of("shop/db", 1), of("other/db", 2));
    let whole = "sealed_value, wrapped_key, mac, created_at";
    for (name, columns, source) in [
        ("an older version's value", "sealed_value", &old),
        ("an older version's value and key", "sealed_value, wrapped_key", &old),
        ("all of an older version", whole, &old),
        ("another project's value", "sealed_value", &elsewhere),
        ("all of another project's", whole, &elsewhere),
    ] {
        let statement = format!(
            "UPDATE secret_versions SET ({columns}) = (SELECT {columns} FROM _kept_secret_versions WHERE {source}) WHERE {target}"
        );
        assert_eq!(world.sql.run(&statement).await, 1, "{name}");
        assert!(!world.succeeds(Probe::Read).await, "{name} was opened");
        world.restore().await;
    }
    let length = world.sql.rows(&format!("SELECT length(sealed_value) AS n FROM secret_versions WHERE {target}")).await
        [0]["n"]
        .as_i64()
        .unwrap();
    for at in (0..length).step_by(7).chain([length - 1]) {
        world.sql.run(&format!("UPDATE secret_versions SET sealed_value = set_byte(sealed_value, {at}, get_byte(sealed_value, {at}) # 128) WHERE {target}")).await;
        assert!(!world.succeeds(Probe::Read).await, "byte {at} of the sealed value was changed");
        world.restore().await;
    }
    for cut in [
        "''::bytea",
        "substr(sealed_value, 1, 10)",
        "substr(sealed_value, 1, length(sealed_value) - 1)",
        "sealed_value || 'x'",
    ] {
        world.sql.run(&format!("UPDATE secret_versions SET sealed_value = {cut} WHERE {target}")).await;
        assert!(!world.succeeds(Probe::Read).await, "{cut}");
        world.restore().await;
    }
    assert!(world.succeeds(Probe::Read).await);
}

#[tokio::test]
async fn rows_moved_to_another_project_are_refused_there() {
    let mut world = World::new().await;
    let server = &world.server;
    let web = server.session("other", "web").await;
    let stranger = server.session("shop", "stranger").await;
    let to_other = "(SELECT id FROM projects WHERE name = 'other')";
    let read = "/api/v1/secret?path=other/db";
    assert_eq!(server.request("GET", read, Some(&web), None).await.status, 200);
    for (name, statement) in [
        (
            "a policy copied",
            format!(
                "INSERT INTO policies SELECT gen_random_uuid(), {to_other}, name, text, principal_key, author, created_at, mac_generation, mac_layout, mac FROM _kept_policies"
            ),
        ),
        ("a policy moved", format!("UPDATE policies SET project_id = {to_other}")),
        (
            "a grant copied for another",
            format!(
                "INSERT INTO grants SELECT gen_random_uuid(), {to_other}, 'workload:lab/other/web', actions, 'other/', author, created_at, mac_generation, mac_layout, mac FROM _kept_grants WHERE principal = 'role:shop/readers'"
            ),
        ),
        (
            "a grant moved up to the instance",
            "UPDATE grants SET project_id = NULL WHERE principal = 'workload:lab/other/web'".to_owned(),
        ),
    ] {
        world.sql.run(&statement).await;
        world.assert_refused(read, &web, name).await;
        world.restore().await;
    }
    // A second name for the same secret: the path is bound to the id by the row's MAC.
    world.sql.run(&format!("INSERT INTO secrets (id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, mac_generation, mac_layout, mac) SELECT gen_random_uuid(), {to_other}, 'other/stolen', state, latest_version, current_version, previous_version, created_at, updated_at, mac_generation, mac_layout, mac FROM _kept_secrets WHERE path = 'shop/db'")).await;
    world.sql.run("INSERT INTO secret_versions (secret_id, version, author, reason, media_type, created_at, project_key_generation, wrapped_key, sealed_value, mac_generation, mac_layout, mac) SELECT (SELECT id FROM secrets WHERE path = 'other/stolen'), version, author, reason, media_type, created_at, project_key_generation, wrapped_key, sealed_value, mac_generation, mac_layout, mac FROM _kept_secret_versions WHERE secret_id = (SELECT id FROM secrets WHERE path = 'shop/db')").await;
    let answer = world.server.request("GET", "/api/v1/secret?path=other/stolen", Some(&web), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"));
    let answer =
        world.server.request("GET", "/api/v1/secrets?folder=other/", Some(world.server.admin_token()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "not even listed");
    world.restore().await;
    assert_eq!(world.server.request("GET", read, Some(&stranger), None).await.status, 403);
}

#[tokio::test]
async fn forged_rows_open_nothing() {
    let mut world = World::new().await;
    let stranger = world.server.session("evil", "pod").await;
    let read = "/api/v1/secret?path=shop/db";
    assert_eq!(world.server.request("GET", read, Some(&stranger), None).await.status, 403);
    let shop = "(SELECT id FROM projects WHERE name = 'shop')";
    let macs = [
        ("32 zeros", "1, 1, decode(repeat('00', 32), 'hex')".to_owned()),
        ("no bytes", "1, 1, ''::bytea".to_owned()),
        ("a generation there is not", "7, 1, decode(repeat('00', 32), 'hex')".to_owned()),
        ("the keyring's generation", "0, 1, decode(repeat('00', 32), 'hex')".to_owned()),
        ("a layout there is not", "1, 9, decode(repeat('00', 32), 'hex')".to_owned()),
        ("another row's", "1, 1, (SELECT mac FROM _kept_grants LIMIT 1)".to_owned()),
        ("another table's", "1, 1, (SELECT mac FROM _kept_projects LIMIT 1)".to_owned()),
    ];
    for (name, mac) in &macs {
        let forgeries = [
            (
                "grants",
                format!(
                    "INSERT INTO grants SELECT gen_random_uuid(), {shop}, 'workload:lab/evil/pod', 'read', 'shop/', 'user:admin', now(), {mac}"
                ),
            ),
            (
                "grants",
                format!(
                    "INSERT INTO grants SELECT gen_random_uuid(), NULL, 'workload:lab/evil/pod', 'create-project,manage-clusters', 'instance', 'user:admin', now(), {mac}"
                ),
            ),
            (
                "role_members",
                format!(
                    "INSERT INTO role_members SELECT id, 'workload:lab/evil/pod', {mac} FROM roles WHERE name = 'readers'"
                ),
            ),
            (
                "policies",
                format!(
                    "INSERT INTO policies SELECT gen_random_uuid(), {shop}, 'evil', 'permit(principal, action, resource in Project::\"shop\");', NULL, 'user:admin', now(), {mac}"
                ),
            ),
        ];
        for (table, statement) in forgeries {
            world.sql.run(&statement).await;
            world.assert_refused(read, &stranger, &format!("a forged row of {table} with {name}")).await;
            world.restore().await;
        }
        // A token whose plain SHA-256, or whose keyed hash by a guessed key, is written into the table.
        let token = Token::generate();
        let forged = token.expose_text().to_owned();
        world.sql.run(&format!("INSERT INTO tokens SELECT gen_random_uuid(), 1, sha256('{forged}'), 'user:admin', now() + interval '1 day', 'user:admin', now(), {mac}")).await;
        world.assert_refused(routes::SESSION, &forged, &format!("a forged token with {name}")).await;
        let right = world.server.keyring().await.token_hash(&token).hash;
        let right = hex(&right);
        world
            .sql
            .run(&format!("UPDATE tokens SET hash = decode('{right}', 'hex') WHERE hash = sha256('{forged}')"))
            .await;
        world.assert_refused(routes::SESSION, &forged, &format!("even one with the right hash, with {name}")).await;
        world.restore().await;

        let issuer = Issuer::new("https://evil.test");
        let trust = json!({"kind": "offline-keys", "keys": issuer.jwks()}).to_string();
        world.sql.run(&format!("INSERT INTO clusters SELECT gen_random_uuid(), 'evil', 'https://evil.test', '{trust}', 'user:admin', now(), {mac}")).await;
        let token = issuer.token(&Pod::of("shop", "api"), "strongroom/test/evil", SystemClock.now()).sign();
        let body = json!({"cluster": "evil", "token": token}).to_string();
        let replica = world.server.replica().await.expect("clusters are not looked at when it starts");
        let answer = replica.request("POST", routes::LOGIN, None, Some(&body)).await;
        replica.stop().await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "a forged cluster with {name}");
        world.restore().await;
    }
    assert_eq!(world.server.request("GET", read, Some(&stranger), None).await.status, 403);
}

#[tokio::test]
async fn a_secret_cannot_be_pointed_at_an_older_version_or_undeleted_by_hand() {
    let mut world = World::new().await;
    world.server.admin().delete(&path("other/db")).await.unwrap();
    for (name, statement, target) in [
        ("pointed back", "UPDATE secrets SET current_version = 1 WHERE path = 'shop/db'", "shop/db"),
        ("revived", "UPDATE secrets SET state = 'live' WHERE path = 'other/db'", "other/db"),
        (
            "an older row put back",
            "UPDATE secrets s SET state = k.state, updated_at = k.updated_at FROM _kept_secrets k WHERE k.id = s.id AND s.path = 'other/db'",
            "other/db",
        ),
    ] {
        world.sql.run(statement).await;
        let target = format!("/api/v1/secret?path={target}");
        let answer = world.server.request("GET", &target, Some(world.server.admin_token()), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "{name}");
    }
    let answer = world
        .server
        .request(
            "PUT",
            "/api/v1/secret?path=shop/db",
            Some(world.server.admin_token()),
            Some(r#"{"fields":{"a":"1"}}"#),
        )
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "integrity"),
        "a changed row is not made good by writing over it"
    );
    let answer =
        world.server.request("DELETE", "/api/v1/secret?path=shop/db", Some(world.server.admin_token()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"));
}
