//! The anchor: a database that was set back as a whole is refused when a server starts, unless somebody says that it is meant.

use memchr::memmem;
use std::{fs, sync::Arc, time::Duration};
use strongroom_api::{keys::Rotate, routes};
use strongroom_client::PutOptions;
use strongroom_core::{Action, SystemClock};
use strongroom_server::{
    Server,
    access::{Access, verified_manifests},
    anchor::AnchorPlace,
};
use strongroom_tests::{Sql, TestServer, eventually, fields, logged, path};

/// A server with an anchor in a file, and a copy of all of its rows.
struct World {
    server: TestServer,
    sql: Sql,
}

impl World {
    async fn new() -> Self {
        let server = TestServer::start_with(|settings| {
            let directory = settings.certificate.parent().unwrap().join("outside");
            fs::create_dir(&directory).unwrap();
            settings.anchor = Some(AnchorPlace::File(directory.join("anchor")));
            settings.check_every = Duration::from_millis(100);
        })
        .await;
        server.project("shop").await;
        server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
        let mut sql = server.sql().await;
        sql.run("SET session_replication_role = replica").await;
        let mut world = Self { server, sql };
        world.keep("kept").await;
        world
    }

    /// Keeps all rows as they are, under a name.
    async fn keep(&mut self, name: &str) {
        for table in self.sql.tables().await {
            self.sql.run(&format!("CREATE TABLE _{name}_{table} AS SELECT * FROM {table}")).await;
        }
    }

    /// Puts all rows back as they were.
    async fn put_back(&mut self, name: &str) {
        for table in self.sql.tables().await {
            self.sql.run(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM _{name}_{table}")).await;
        }
    }

    fn anchor(&self) -> std::path::PathBuf {
        self.server.directory().join("outside/anchor")
    }

    /// How often a server found that rows are not what was written.
    async fn alarms(&mut self) -> u64 {
        self.sql.count("audit_events WHERE action = 'verify' AND outcome = 'integrity'").await
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.anchor()).unwrap()
    }

    /// Waits until the anchor says this epoch of this scope.
    async fn anchored(&self, scope: &str, epoch: i64) {
        let wanted = format!("\"{scope}\":{{\"epoch\":{epoch},");
        eventually("the anchor follows", async || self.text().contains(&wanted)).await;
    }

    async fn epoch(&mut self, scope: &str) -> i64 {
        self.sql.rows(&format!("SELECT epoch FROM manifests WHERE scope = '{scope}'")).await[0]["epoch"]
            .as_i64()
            .unwrap()
    }
}

const INSTANCE: &str = "00000000-0000-0000-0000-000000000000";

async fn refusal(server: &TestServer) -> String {
    match Server::start(&server.settings).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn a_database_that_was_set_back_is_refused_until_somebody_says_that_it_is_meant() {
    let mut world = World::new().await;
    let project = world.server.admin().projects().await.unwrap()[0].id.to_string();
    world.server.grant("user:eve", &[Action::Read], "shop/").await;
    let epoch = world.epoch(&project).await;
    world.anchored(&project, epoch).await;
    world.server.project("more").await;
    let of_instance = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, of_instance).await;

    world.put_back("kept").await;
    // The server that runs has seen more.
    let answer = world.server.request("GET", routes::PROJECTS, Some(world.server.admin_token()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"));
    world.server.stop().await;
    let before = world.text();
    let message = refusal(&world.server).await;
    assert!(message.contains("the database is older than its anchor"), "{message}");
    assert!(message.contains("--accept-older-database"), "{message}");
    assert_eq!(world.text(), before, "nothing was changed");

    world.server.settings.accept_older_database = true;
    world.server.restart().await;
    world.server.settings.accept_older_database = false;
    let accepted = "audit_events WHERE action = 'verify' AND outcome = 'older-database-accepted'";
    assert_eq!(world.sql.count(accepted).await, 1);
    let again = world.epoch(INSTANCE).await;
    assert!(again > of_instance, "nothing of before is newer than what was taken");
    world.anchored(INSTANCE, again).await;
    world.server.restart().await;
    assert_eq!(world.server.admin().projects().await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_project_that_was_set_back_with_its_manifest_is_refused_too() {
    let mut world = World::new().await;
    let project = world.server.admin().projects().await.unwrap()[0].id.to_string();
    let grant = world.server.grant("user:eve", &[Action::Read], "shop/").await;
    for table in world.sql.tables().await {
        world.sql.run(&format!("DROP TABLE _kept_{table}; CREATE TABLE _kept_{table} AS SELECT * FROM {table}")).await;
    }
    world.server.admin().revoke_grant(&strongroom_tests::project("shop"), grant.id).await.unwrap();
    let epoch = world.epoch(&project).await;
    world.anchored(&project, epoch).await;
    world.server.stop().await;
    // The revoked grant is back, and the manifest that covers it.
    for table in ["grants", "manifests"] {
        world.sql.run(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM _kept_{table}")).await;
    }
    let message = refusal(&world.server).await;
    assert!(message.contains(&format!("project {project}")), "{message}");
}

#[tokio::test]
async fn an_anchor_that_is_not_this_instances_own_is_refused() {
    let mut world = World::new().await;
    let epoch = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, epoch).await;
    world.server.stop().await;
    let whole = world.text();
    let other = World::new().await;
    let epoch = {
        let mut sql = other.server.sql().await;
        sql.rows("SELECT max(epoch) AS epoch FROM manifests").await[0]["epoch"].as_i64().unwrap()
    };
    other.anchored(INSTANCE, epoch).await;
    for (name, text) in [
        ("empty", String::new()),
        ("one line", whole.lines().next().unwrap().to_owned()),
        ("a changed epoch", whole.replace(&format!("\"epoch\":{epoch}"), "\"epoch\":1")),
        ("no MAC", whole.replace("mac:", "mac:zz")),
        ("another instance's", other.text()),
    ] {
        assert_ne!(text, whole, "{name}");
        std::fs::write(world.anchor(), &text).unwrap();
        let message = refusal(&world.server).await;
        assert!(message.contains("the anchor"), "{name}: {message}");
        assert_eq!(world.text(), text, "{name}: it is not written over");
    }
    std::fs::write(world.anchor(), &whole).unwrap();
    world.server.restart().await;
}

#[tokio::test]
async fn one_project_whose_manifest_is_damaged_keeps_its_mark_in_the_anchor_and_stops_no_other() {
    for damage in [
        "DELETE FROM manifests WHERE scope = '{}'",
        "UPDATE manifests SET epoch = epoch + 1 WHERE scope = '{}'",
        "UPDATE manifests SET mac = sha256('forged') WHERE scope = '{}'",
    ] {
        let mut world = World::new().await;
        let shop = world.server.admin().projects().await.unwrap()[0].id.to_string();
        world.server.grant("user:eve", &[Action::Read], "shop/").await;
        let epoch = world.epoch(&shop).await;
        world.anchored(&shop, epoch).await;
        world.sql.run(&damage.replace("{}", &shop)).await;

        // Changes elsewhere are anchored, and what stood there of the project stays: it is the evidence.
        for more in ["elsewhere", "further"] {
            world.server.project(more).await;
            let of_instance = world.epoch(INSTANCE).await;
            world.anchored(INSTANCE, of_instance).await;
            world.anchored(&shop, epoch).await;
        }
        let said = format!("project {shop} cannot be compared with its anchor");
        eventually("it is said", async || memmem::find(&logged(), said.as_bytes()).is_some()).await;
        eventually("it is an alarm", async || world.alarms().await > 0).await;
        world.server.stop().await;
        let log = logged();
        let count = log.split(|b| *b == b'\n').filter(|line| memmem::find(line, said.as_bytes()).is_some()).count();
        assert_eq!(count, 1, "it is said once while it lasts: {damage}");

        let message = refusal(&world.server).await;
        assert!(message.contains(&said) && message.contains("--accept-older-database"), "{damage}: {message}");
        world.server.settings.accept_older_database = true;
        world.server.restart().await;
        world.server.settings.accept_older_database = false;
        world.server.restart().await;
        let status = async |path: &str| {
            let target = format!("/api/v1/secret?path={path}");
            world.server.request("GET", &target, Some(world.server.admin_token()), None).await.status
        };
        assert_eq!((status("shop/db").await, status("elsewhere/db").await), (500, 404), "{damage}");
    }
}

#[tokio::test]
async fn a_manifest_of_what_is_no_project_is_not_looked_at() {
    let mut world = World::new().await;
    let columns = "epoch, entries, root, mac, mac_generation, mac_layout";
    world
        .sql
        .run(&format!(
            "INSERT INTO manifests (scope, {columns}) SELECT gen_random_uuid(), {columns} FROM manifests LIMIT 1"
        ))
        .await;
    world.server.project("elsewhere").await;
    let epoch = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, epoch).await;
    world.server.restart().await;
    assert_eq!(world.alarms().await, 0);
}

#[tokio::test]
async fn manifests_are_taken_only_beside_the_instance_that_they_were_read_with() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let (app, _background) = server.app_at(Arc::new(SystemClock)).await;
    let mut connection = app.store.reader().await.unwrap();
    let before = Access::now(&app, &mut connection, None).await.unwrap().instance;
    assert!(verified_manifests(&app, &mut connection, &before).await.unwrap().is_some());

    // A project more, of which what was looked at before knows nothing.
    server.project("more").await;
    assert!(verified_manifests(&app, &mut connection, &before).await.unwrap().is_none());
    let now = Access::now(&app, &mut connection, None).await.unwrap().instance;
    let manifests = verified_manifests(&app, &mut connection, &now).await.unwrap().unwrap();
    assert_eq!((manifests.sound.len(), manifests.damaged.len()), (3, 0));
}

#[tokio::test]
async fn what_was_left_behind_when_a_database_was_set_back_is_never_taken_for_newer() {
    let mut world = World::new().await;
    let shop = world.server.admin().projects().await.unwrap()[0].id.to_string();
    for user in ["user:eve", "user:mallory"] {
        world.server.grant(user, &[Action::Read], "shop/").await;
    }
    world.server.project("more").await;
    let (of_shop, of_instance) = (world.epoch(&shop).await, world.epoch(INSTANCE).await);
    world.anchored(INSTANCE, of_instance).await;
    world.anchored(&shop, of_shop).await;
    world.server.stop().await;
    world.keep("left").await;
    world.put_back("kept").await;
    world.server.settings.accept_older_database = true;
    world.server.restart().await;
    world.server.settings.accept_older_database = false;
    let begun = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, begun).await;
    world.keep("now").await;
    let anchor = world.text();
    let status = async |world: &World, target: &str| {
        let answer = world.server.request("GET", target, Some(world.server.admin_token()), None).await;
        (answer.status, answer.text())
    };

    // One project, of which this server has seen nothing yet.
    for table in ["grants", "manifests"] {
        let of = if table == "grants" { "project_id" } else { "scope" };
        world
            .sql
            .run(&format!(
                "DELETE FROM {table} WHERE {of} = '{shop}'; INSERT INTO {table} SELECT * FROM _left_{table} WHERE {of} = '{shop}'"
            ))
            .await;
    }
    let (answer, text) = status(&world, "/api/v1/secret?path=shop/db").await;
    assert_eq!(answer, 500, "{text}");
    eventually("the check finds it", async || world.alarms().await > 0).await;

    // Everything.
    world.put_back("left").await;
    assert_eq!(status(&world, routes::PROJECTS).await.0, 500);
    // The events were put back too, before the manifests were.
    eventually("it is an alarm", async || world.alarms().await > 0).await;
    assert_eq!(world.text(), anchor, "it is not anchored");
    world.server.stop().await;
    let message = refusal(&world.server).await;
    assert!(message.contains("the database is older than its anchor"), "{message}");

    world.put_back("now").await;
    world.server.restart().await;
    assert_eq!(status(&world, "/api/v1/secret?path=shop/db").await.0, 200);
    // New projects are of the same branch.
    world.server.project("fresh").await;
    world.server.restart().await;
    assert_eq!(world.server.admin().projects().await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_anchor_that_cannot_be_kept_hides_nothing_else_that_is_wrong() {
    let mut world = World::new().await;
    let epoch = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, epoch).await;
    let (place, away) = (world.server.directory().join("outside"), world.server.directory().join("away"));
    fs::rename(&place, &away).unwrap();
    world.server.project("more").await;
    let failing = b"the anchor in the file ";
    let place_text = place.display().to_string();
    eventually("it says that the anchor cannot be kept", async || {
        let log = logged();
        log.split(|b| *b == b'\n')
            .any(|line| memmem::find(line, failing).is_some() && memmem::find(line, place_text.as_bytes()).is_some())
    })
    .await;
    assert_eq!(world.alarms().await, 0, "an outage is no alarm");

    // The rows are checked all the same: no server loads these by itself, for their manifest is the one it knows.
    world.sql.run("DELETE FROM grants WHERE project_id IS NOT NULL; DELETE FROM project_keys").await;
    eventually("the check finds it in both projects", async || world.alarms().await == 2).await;

    // And what is wrong with the anchor once it is there again is said too, though it was failing before.
    fs::write(away.join("anchor"), "something else\n").unwrap();
    fs::rename(&away, &place).unwrap();
    eventually("the anchor is an alarm too", async || world.alarms().await == 3).await;
}

#[tokio::test]
async fn a_start_says_that_it_waits_for_an_anchor_that_hangs_and_goes_on_once_it_is_there() {
    let mut world = World::new().await;
    let epoch = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, epoch).await;
    world.server.stop().await;
    // Whoever reads a pipe that nobody writes into waits for ever.
    let (anchor, kept) = (world.anchor(), world.server.directory().join("kept"));
    let pipe = world.server.directory().join("pipe");
    fs::rename(&anchor, &kept).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::hard_link(&pipe, &anchor).unwrap();
    let start = Server::start(&world.server.settings);
    let says_so = eventually("it says that it waits", async || {
        let log = logged();
        let of_this = anchor.display().to_string();
        log.split(|b| *b == b'\n').any(|line| {
            memmem::find(line, b"waiting for the anchor").is_some() && memmem::find(line, of_this.as_bytes()).is_some()
        })
    });
    let goes_on = async {
        says_so.await;
        fs::rename(&kept, &anchor).unwrap();
        // Whoever still waits for the pipe is let go, or this program would not end.
        let release = tokio::task::spawn_blocking(move || fs::OpenOptions::new().read(true).write(true).open(pipe));
        release.await.unwrap().unwrap()
    };
    let (started, _pipe) = tokio::join!(start, goes_on);
    started.unwrap().stop().await;
}

#[tokio::test]
async fn a_database_from_before_a_compromised_term_was_replaced_is_not_believed_by_a_start() {
    let mut world = World::new().await;
    let rotate = Rotate::Term { compromised: true, accept_unanchored: false };
    world.server.admin().rotate(&rotate).await.unwrap();
    let sql = &mut world.sql;
    eventually("it is replaced", async || sql.count("rotations WHERE stage = 'finished'").await == 1).await;
    let epoch = world.epoch(INSTANCE).await;
    world.anchored(INSTANCE, epoch).await;
    world.server.stop().await;
    // With the key that authenticated the keyring's rows then: whoever knows it could sign whatever he likes in its place.
    world.put_back("kept").await;
    let message = refusal(&world.server).await;
    assert!(message.contains("the anchor was not written by this instance"), "{message}");

    let (whole, other) = (world.text(), World::new().await);
    let epoch = {
        let mut sql = other.server.sql().await;
        sql.rows(&format!("SELECT epoch FROM manifests WHERE scope = '{INSTANCE}'")).await[0]["epoch"].as_i64().unwrap()
    };
    other.anchored(INSTANCE, epoch).await;
    world.server.settings.accept_older_database = true;
    std::fs::write(world.anchor(), other.text()).unwrap();
    let message = refusal(&world.server).await;
    assert!(message.contains("the anchor"), "another instance's is written over by no word: {message}");
    std::fs::write(world.anchor(), whole).unwrap();
    world.server.restart().await;
    assert_eq!(world.server.admin().projects().await.unwrap().len(), 1);
}
