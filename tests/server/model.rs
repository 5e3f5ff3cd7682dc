//! Random sequences of operations against a small model: every answer, and everything that can be seen after each step.

use futures_util::future::join_all;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{collections::BTreeMap, sync::Arc};
use strongroom_api::{
    ErrorCode, Update,
    access::PatchProject,
    metadata::{PatchMetadata, PutAlias, Target},
    secrets::VersionState,
};
use strongroom_client::{Client, Error, PutOptions};
use strongroom_core::{Identity, Reference, SecretPath, SystemClock, VersionSelector};
use strongroom_server::{
    app::{Caller, Origin},
    failure::Failure,
    operations::secrets::{Precondition, Put, put},
};
use strongroom_tests::{TestServer, field, fields, path, project, reference};
use uuid::Uuid;

/// Versions kept.
const KEPT: u64 = 4;

#[derive(Clone, Debug)]
enum Step {
    Put { value: u8, pending: bool, if_version: Option<u64> },
    Point { alias: &'static str, target: Target },
    Remove { alias: &'static str },
    DeleteVersion(u64),
    UndeleteVersion(u64),
    Delete,
    Undelete,
    Destroy(Vec<u64>),
    Advance(u64),
    Keep(Option<u32>),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let alias = prop::sample::select(vec!["current", "pending", "previous", "blue", "green"]);
    let number = 0u64..9;
    let target = prop_oneof![
        3 => number.clone().prop_map(Target::Number),
        1 => alias.clone().prop_map(|alias| Target::Alias(alias.to_owned()))
    ];
    prop_oneof![
        6 => (0u8..3, prop::bool::weighted(0.25), prop::option::weighted(0.3, number.clone()))
            .prop_map(|(value, pending, if_version)| Step::Put { value, pending, if_version }),
        4 => (alias.clone(), target).prop_map(|(alias, target)| Step::Point { alias, target }),
        1 => alias.prop_map(|alias| Step::Remove { alias }),
        2 => number.clone().prop_map(Step::DeleteVersion),
        2 => number.clone().prop_map(Step::UndeleteVersion),
        1 => Just(Step::Delete),
        2 => Just(Step::Undelete),
        2 => prop::collection::vec(number, 1..3).prop_map(Step::Destroy),
        2 => (0u64..4).prop_map(Step::Advance),
        1 => prop::option::of(1u32..6).prop_map(Step::Keep),
        1 => Just(Step::Purge),
    ]
}

/// What a secret is, as simply as it can be said.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    deleted: bool,
    keep: Option<u32>,
    oldest: u64,
    latest: u64,
    current: u64,
    previous: Option<u64>,
    pending: Option<u64>,
    aliases: BTreeMap<String, u64>,
    versions: BTreeMap<u64, (u8, VersionState)>,
}

type Answer = Result<u64, ErrorCode>;

impl Model {
    fn pointed(&self, alias: &str) -> Option<u64> {
        match alias {
            "current" => Some(self.current),
            "previous" => self.previous,
            "pending" => self.pending,
            free => self.aliases.get(free).copied(),
        }
    }

    fn names(&self, version: u64) -> Vec<String> {
        let fixed = ["current", "previous", "pending"].into_iter().filter(|name| self.pointed(name) == Some(version));
        let free = self.aliases.iter().filter(|(_, at)| **at == version).map(|(name, _)| name.clone());
        fixed.map(str::to_owned).chain(free).collect()
    }

    fn activate(&mut self, version: u64) {
        if self.current != version {
            self.previous = Some(self.current);
            self.current = version;
        }
        if self.pending == Some(version) {
            self.pending = None;
        }
    }

    fn prune(&mut self) {
        let kept: Vec<u64> =
            self.versions.keys().copied().filter(|v| *v >= self.oldest || !self.names(*v).is_empty()).collect();
        self.versions.retain(|version, _| kept.contains(version));
    }

    /// The version, where it is as `wanted`.
    fn version(&self, version: u64, wanted: &[VersionState]) -> Answer {
        match self.versions.get(&version) {
            None => Err(ErrorCode::NotFound),
            Some((_, state)) if wanted.contains(state) => Ok(version),
            Some((_, VersionState::Deleted)) => Err(ErrorCode::VersionDeleted),
            Some(_) => Err(ErrorCode::VersionDestroyed),
        }
    }

    fn release(&mut self, version: u64) -> Result<(), ErrorCode> {
        if self.names(version).iter().any(|name| name != "previous") {
            return Err(ErrorCode::VersionInUse);
        }
        if self.previous == Some(version) {
            self.previous = None;
        }
        Ok(())
    }

    fn put(&mut self, value: u8, pending: bool, if_version: Option<u64>) -> Answer {
        let fits = match if_version {
            None => true,
            Some(0) => self.deleted,
            Some(version) => !self.deleted && self.current == version,
        };
        if !fits {
            return Err(ErrorCode::VersionConflict);
        }
        if pending && self.deleted {
            return Err(ErrorCode::SecretDeleted);
        }
        if !pending && !self.deleted && self.versions[&self.current].0 == value {
            return Ok(self.current);
        }
        self.latest += 1;
        self.versions.insert(self.latest, (value, VersionState::Live));
        if pending {
            self.pending = Some(self.latest);
        } else {
            self.deleted = false;
            self.activate(self.latest);
        }
        let keep = self.keep.map_or(KEPT, u64::from);
        // The newest that are there, whatever numbers they have.
        if let Some((version, _)) = self.versions.iter().rev().nth(usize::try_from(keep).unwrap() - 1) {
            self.oldest = self.oldest.max(*version);
        }
        self.prune();
        Ok(self.latest)
    }

    fn point(&mut self, alias: &str, target: &Target) -> Answer {
        if alias == "previous" {
            return Err(ErrorCode::UnprocessableContent);
        }
        if self.deleted {
            return Err(ErrorCode::SecretDeleted);
        }
        let version = match target {
            Target::Number(number) => *number,
            Target::Alias(alias) => self.pointed(alias).ok_or(ErrorCode::NotFound)?,
        };
        let version = self.version(version, &[VersionState::Live])?;
        match alias {
            "current" => self.activate(version),
            "pending" if self.pending == Some(version) => {}
            "pending" if version == self.current => return Err(ErrorCode::UnprocessableContent),
            "pending" => self.pending = Some(version),
            free => {
                self.aliases.insert(free.to_owned(), version);
            }
        }
        self.prune();
        Ok(0)
    }

    fn remove(&mut self, alias: &str) -> Answer {
        if matches!(alias, "previous" | "current") {
            return Err(ErrorCode::UnprocessableContent);
        }
        if self.deleted {
            return Err(ErrorCode::SecretDeleted);
        }
        self.pointed(alias).ok_or(ErrorCode::NotFound)?;
        if alias == "pending" {
            self.pending = None;
        } else {
            self.aliases.remove(alias);
        }
        self.prune();
        Ok(0)
    }

    fn destroy(&mut self, versions: &[u64]) -> Answer {
        let all = [VersionState::Live, VersionState::Deleted, VersionState::Destroyed];
        for version in versions {
            self.version(*version, &all)?;
        }
        let mut after = self.clone();
        for version in versions {
            if after.versions[version].1 != VersionState::Destroyed {
                after.release(*version)?;
                after.versions.get_mut(version).unwrap().1 = VersionState::Destroyed;
            }
        }
        after.prune();
        *self = after;
        Ok(0)
    }

    /// The answer to a read of one of its versions.
    fn read(&self, version: Option<u64>) -> Result<u8, ErrorCode> {
        if self.deleted {
            return Err(ErrorCode::SecretDeleted);
        }
        let version = self.version(version.ok_or(ErrorCode::NotFound)?, &[VersionState::Live])?;
        Ok(self.versions[&version].0)
    }
}

/// What a step does; `None` is no secret at all.
fn apply(model: &mut Option<Model>, step: &Step) -> Answer {
    let Some(secret) = model else {
        return match step {
            Step::Put { if_version: Some(1..), .. } => Err(ErrorCode::VersionConflict),
            Step::Put { pending: true, .. } => Err(ErrorCode::UnprocessableContent),
            Step::Put { value, .. } => {
                let versions = [(1, (*value, VersionState::Live))].into();
                *model = Some(Model { oldest: 1, latest: 1, current: 1, versions, ..Model::default() });
                Ok(1)
            }
            Step::Point { alias: "previous", .. } | Step::Remove { alias: "previous" | "current" } => {
                Err(ErrorCode::UnprocessableContent)
            }
            _ => Err(ErrorCode::NotFound),
        };
    };
    match step {
        Step::Put { value, pending, if_version } => secret.put(*value, *pending, *if_version),
        Step::Point { alias, target } => secret.point(alias, target),
        Step::Remove { alias } => secret.remove(alias),
        Step::DeleteVersion(version) => {
            if secret.deleted {
                return Err(ErrorCode::SecretDeleted);
            }
            let version = secret.version(*version, &[VersionState::Live])?;
            secret.release(version)?;
            secret.versions.get_mut(&version).unwrap().1 = VersionState::Deleted;
            secret.prune();
            Ok(0)
        }
        Step::UndeleteVersion(version) => {
            if secret.deleted {
                return Err(ErrorCode::SecretDeleted);
            }
            let version = secret.version(*version, &[VersionState::Live, VersionState::Deleted])?;
            secret.versions.get_mut(&version).unwrap().1 = VersionState::Live;
            Ok(0)
        }
        Step::Delete if secret.deleted => Err(ErrorCode::SecretDeleted),
        Step::Delete => {
            secret.deleted = true;
            Ok(0)
        }
        Step::Undelete => {
            secret.deleted = false;
            Ok(0)
        }
        Step::Destroy(versions) => secret.destroy(versions),
        Step::Advance(by) => {
            secret.latest += by;
            Ok(secret.latest)
        }
        Step::Keep(keep) => {
            secret.keep = *keep;
            Ok(0)
        }
        Step::Purge => {
            *model = None;
            Ok(0)
        }
    }
}

async fn act(client: &Client, secret: &SecretPath, step: &Step) -> Result<u64, Error> {
    let done = |()| 0;
    match step {
        Step::Put { value, pending, if_version } => {
            let options = PutOptions { pending: *pending, if_version: *if_version, ..PutOptions::default() };
            client.put(secret, fields(&[("a", &value.to_string())]), options).await.map(|put| put.version)
        }
        Step::Point { alias, target } => {
            let to = PutAlias { version: target.clone(), if_version: None };
            client.point_alias(secret, alias, &to).await.map(|_| 0)
        }
        Step::Remove { alias } => client.remove_alias(secret, alias).await.map(|_| 0),
        Step::DeleteVersion(version) => client.delete_version(secret, *version).await.map(done),
        Step::UndeleteVersion(version) => client.undelete(secret, Some(*version)).await.map(done),
        Step::Delete => client.delete(secret).await.map(done),
        Step::Undelete => client.undelete(secret, None).await.map(done),
        Step::Destroy(versions) => client.destroy(secret, versions).await.map(done),
        Step::Advance(by) => {
            let latest = client.metadata(secret).await?.latest;
            client.advance(secret, latest + by).await.map(|advanced| advanced.latest_version)
        }
        Step::Keep(keep) => {
            let keep_versions = keep.map_or(Update::Clear, Update::Set);
            let patch = PatchMetadata { keep_versions, ..PatchMetadata::default() };
            client.patch_metadata(secret, &patch, None).await.map(|_| 0)
        }
        Step::Purge => client.purge(secret).await.map(done),
    }
}

/// Everything that can be seen of the secret is what the model says.
async fn compare(client: &Client, secret: &SecretPath, model: Option<&Model>) {
    let Some(model) = model else {
        assert_eq!(client.metadata(secret).await.unwrap_err().code(), Some(ErrorCode::NotFound));
        assert_eq!(client.versions(secret).await.unwrap_err().code(), Some(ErrorCode::NotFound));
        return;
    };
    let metadata = client.metadata(secret).await.unwrap();
    let aliases = metadata.pointers.aliases.iter().map(|(name, at)| (name.as_str().to_owned(), *at)).collect();
    let pointers = &metadata.pointers;
    let seen = Model {
        deleted: metadata.deleted,
        keep: metadata.keep_versions,
        oldest: model.oldest,
        latest: metadata.latest,
        current: pointers.current,
        previous: pointers.previous,
        pending: pointers.pending,
        aliases,
        versions: model.versions.clone(),
    };
    assert_eq!(&seen, model);
    let versions = client.versions(secret).await.unwrap();
    assert_eq!((versions.oldest, versions.deleted), (model.oldest, model.deleted));
    let seen: Vec<_> = versions.versions.iter().map(|v| (v.version, v.state, v.aliases.clone())).collect();
    let expected: Vec<_> = model.versions.iter().rev().map(|(v, (_, state))| (*v, *state, model.names(*v))).collect();
    assert_eq!(seen, expected);
    let numbers = (1..=model.latest).map(|number| (VersionSelector::Number(number), Some(number)));
    let names = ["current", "previous", "pending", "blue"]
        .map(|name| (VersionSelector::parse(name).unwrap(), model.pointed(name)));
    for (version, pointed) in numbers.chain(names) {
        let asked = Reference { version, ..reference(secret.as_str()) };
        let read = client.read(&asked).await;
        let read = read.map(|read| field(&read, "a").parse::<u8>().unwrap()).map_err(|error| error.code().unwrap());
        assert_eq!(read, model.read(pointed), "{asked}");
    }
}

#[test]
fn a_secret_is_what_the_model_says_after_any_sequence_of_operations() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = TestServer::start().await;
        server.project("shop").await;
        let kept = PatchProject { keep_versions: Some(u32::try_from(KEPT).unwrap()), ..PatchProject::default() };
        server.admin().patch_project(&project("shop"), &kept).await.unwrap();
        server
    });
    let admin = server.admin();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 60, ..Config::default() });
    let next = std::cell::Cell::new(0);
    let outcome = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        let secret = path(&format!("shop/s{}", next.replace(next.get() + 1)));
        runtime.block_on(async {
            let mut model = None;
            for (index, step) in steps.iter().enumerate() {
                let before = model.clone();
                let expected = apply(&mut model, step);
                let answer = act(&admin, &secret, step).await.map_err(|error| error.code().unwrap());
                assert_eq!(answer, expected, "step {index}, {step:?}, on {before:?}");
                compare(&admin, &secret, model.as_ref()).await;
            }
        });
        Ok(())
    });
    // The server needs a runtime to be dropped in.
    let _guard = runtime.enter();
    drop(server);
    outcome.unwrap();
}

/// The operation itself, a thousand times at once on the server's own eight connections: a thousand TLS handshakes would be another test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_compare_and_sets_at_once_one_wins_each_round_and_no_number_is_lost() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let (app, background) = server.app_at(Arc::new(SystemClock)).await;
    let secret = path("shop/db");
    for round in 0..2 {
        let precondition = if round == 0 { Precondition::Absent } else { Precondition::Current(round) };
        let puts = (0..1_000).map(|contender| {
            let (app, secret) = (app.clone(), secret.clone());
            tokio::spawn(async move {
                let payload = fields(&[("a", &format!("{round}-{contender}"))]);
                loop {
                    let origin = Origin { request_id: Uuid::now_v7(), source: None };
                    let expires_at = app.clock.now() + time::Duration::hours(1);
                    let caller = Caller {
                        identity: Identity::user("admin").unwrap(),
                        role: None,
                        expires_at,
                        origin,
                        once: None,
                    };
                    match put(&app, &caller, &secret, Put { precondition, ..Put::new(&payload) }).await {
                        // No connection came free in time: nothing was done, and a caller is told to come again.
                        Err(Failure::Unavailable(_)) => {}
                        outcome => return outcome.map(|put| put.version).map_err(|failure| failure.code()),
                    }
                }
            })
        });
        let outcomes: Vec<_> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().flatten().copied().collect::<Vec<_>>(), [round + 1]);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(ErrorCode::VersionConflict))));
    }
    let versions = server.admin().versions(&secret).await.unwrap();
    assert_eq!(versions.versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
    drop(app);
    background.finish().await;
}
