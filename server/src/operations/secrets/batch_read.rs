//! Reading many values at once: two statements for all of one project, and a decision and an event for each.

use super::{
    ReadSecret, checked, checked_version, event, may_reach, opened,
    pointers::{is_expired, is_kept, pointed},
    read::one_field,
    resource, unsigned, with_key,
};
use crate::{
    access::ProjectAccess,
    app::{App, Caller},
    failure::Failure,
    operations::{
        authorization::{Rules, decide, rules},
        change::{audited, decision_after},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strongroom_api::batch::{MAX_BATCH, MAX_BATCH_BYTES};
use strongroom_core::{Action, AuditEvent, Decision, Payload, ProjectName, Reference, SecretId, SecretPath, Verified};
use strongroom_policy::Grant;
use strongroom_store::{FoundVersion, SecretRow, VersionState, secrets_at, versions_with_values};

/// Reads the values of up to [`MAX_BATCH`] references. What becomes of one changes nothing for the others, but that all values together have at most
/// [`MAX_BATCH_BYTES`]: those that come after are [`Failure::AnswerTooLarge`].
///
/// # Errors
/// [`Failure::Invalid`] where there are none or too many, and what befalls the request as a whole: rows that are not what was written, events that cannot be.
pub async fn read_batch(
    app: &App,
    caller: &Caller,
    references: &[Reference],
) -> Result<Vec<Result<ReadSecret, Failure>>, Failure> {
    let outcome = try_read_batch(app, caller, references).await;
    audited(app, caller, Action::Read, "secrets".to_owned(), outcome).await
}

/// Projects with the keys of these generations.
type Projects = BTreeMap<(ProjectName, i32), Arc<ProjectAccess>>;

/// A reference whose secret may be read.
struct Allowed<'a> {
    reference: &'a Reference,
    secret: &'a SecretRow,
    version: i64,
    grant: Grant,
}

async fn try_read_batch(
    app: &App,
    caller: &Caller,
    references: &[Reference],
) -> Result<Vec<Result<ReadSecret, Failure>>, Failure> {
    if !(1..=MAX_BATCH).contains(&references.len()) {
        return Err(Failure::Invalid(format!("references: 1 to {MAX_BATCH}")));
    }
    let (by_project, secrets) = look_up(app, caller, references).await?;
    let mut decisions = Vec::with_capacity(references.len());
    for reference in references {
        let rules = &by_project[&reference.path.project()];
        decisions.push(decide_one(app, caller, rules, reference, secrets.get(&reference.path)));
    }
    // Sizes count only once a read is allowed: what somebody may not read says nothing of itself by pushing others out.
    let wanted: Vec<_> = decisions.iter().flatten().map(|one| (one.secret.id, one.version)).collect();
    let paths = decisions.iter().flatten().map(|one| one.reference.path.project());
    let (mut values, projects) = {
        let mut connection = app.store.reader().await?;
        let values = match wanted.as_slice() {
            [] => Vec::new(),
            wanted => versions_with_values(&mut connection, wanted, MAX_BATCH_BYTES).await?,
        };
        let mut projects = Projects::new();
        for (name, value) in paths.zip(&values) {
            // A rotation may be under way: of one project, some versions are wrapped by the key that was known and some by the next.
            let generation = value.as_ref().map(|found| found.version.claimed(|row| row.project_key_generation));
            if let Some(generation) = generation {
                let project = with_key(app, &mut connection, &by_project[&name], generation).await?;
                projects.insert((name, generation), project);
            }
        }
        (values.into_iter(), projects)
    };
    let (mut events, mut results, mut read) = (Vec::new(), Vec::new(), Vec::<SecretId>::new());
    for decision in decisions {
        results.push(match decision {
            Err(refusal) => {
                let (failure, event) = *refusal;
                events.push(event);
                Err(failure)
            }
            Ok(one) => {
                let (path, secret, number) = (&one.reference.path, one.secret.id, Some(unsigned(one.version)));
                let policies = one.grant.policies().to_vec();
                let rules = &by_project[&path.project()];
                let outcome = release(app, rules, &projects, one, values.next().flatten());
                events.push(match &outcome {
                    Ok(_) => event(app, caller, (Action::Read, "ok"), path.to_string(), number, policies),
                    Err(failure) => failed(app, caller, path, failure),
                });
                read.extend(outcome.is_ok().then_some(secret));
                outcome
            }
        });
    }
    app.audit.commit_all(events).await?;
    let now = app.clock.now();
    for secret in read {
        app.activity.note_read(secret, now);
    }
    Ok(results)
}

/// The rules of each project, and the secrets that are there.
async fn look_up(
    app: &App,
    caller: &Caller,
    references: &[Reference],
) -> Result<(BTreeMap<ProjectName, Rules>, BTreeMap<SecretPath, Verified<SecretRow>>), Failure> {
    let mut connection = app.store.reader().await?;
    let mut by_project = BTreeMap::new();
    let projects: BTreeSet<_> = references.iter().map(|reference| reference.path.project()).collect();
    for project in projects {
        let rules = rules(app, &mut connection, caller, Some(&project)).await?;
        by_project.insert(project, rules);
    }
    let looks = |path: &&SecretPath| may_reach(app, caller, &by_project[&path.project()], Action::Read, path);
    let paths = references.iter().map(|reference| &reference.path).filter(looks);
    let paths: Vec<_> = paths.map(ToString::to_string).collect();
    let mut secrets = BTreeMap::new();
    let rows = if paths.is_empty() { Vec::new() } else { secrets_at(&mut connection, &paths).await? };
    for row in rows {
        let rules = by_project.get(&row.claimed(|row| row.path.project()));
        if let Some(rules) = rules
            && let Some(row) = checked(app, rules, Some(row))?
        {
            secrets.insert(row.path.clone(), row);
        }
    }
    Ok((by_project, secrets))
}

fn decide_one<'a>(
    app: &App,
    caller: &Caller,
    rules: &Rules,
    reference: &'a Reference,
    secret: Option<&'a Verified<SecretRow>>,
) -> Result<Allowed<'a>, Box<(Failure, AuditEvent)>> {
    let path = &reference.path;
    let secret: Option<&SecretRow> = secret.map(|secret| &**secret);
    // A number below 1 was never given out.
    let version = secret.and_then(|secret| pointed(secret, &reference.version)).filter(|version| *version > 0);
    let grant =
        decide(app, caller, rules, Action::Read, resource(path, secret, version.map(unsigned))).map_err(|denied| {
            let mut event = failed(app, caller, path, &Failure::Denied);
            event.policies = denied.policies;
            Box::new((Failure::Denied, event))
        })?;
    let failure = match (secret, version) {
        (Some(secret), _) if secret.deleted => Failure::Deleted,
        (Some(secret), _) if is_expired(secret, app.clock.now()) => Failure::Expired,
        (Some(secret), Some(version)) if is_kept(secret, version) => {
            return Ok(Allowed { reference, secret, version, grant });
        }
        _ => Failure::NotFound,
    };
    let event = failed(app, caller, path, &failure);
    Err(Box::new((failure, event)))
}

/// Opens one value.
fn release(
    app: &App,
    rules: &Rules,
    projects: &Projects,
    one: Allowed<'_>,
    found: Option<FoundVersion>,
) -> Result<ReadSecret, Failure> {
    let found = found.ok_or(Failure::NotFound)?;
    let version = checked_version(app, rules, one.secret, found.version)?;
    match version.state {
        VersionState::Live => {}
        VersionState::Deleted => return Err(Failure::VersionDeleted),
        VersionState::Destroyed => return Err(Failure::VersionDestroyed),
    }
    if !found.has_value {
        return Err(Failure::AnswerTooLarge);
    }
    let project = projects.get(&(one.reference.path.project(), version.project_key_generation));
    let bytes = opened(app, project.ok_or(Failure::NotFound)?, &version, one.grant)?;
    let payload = Payload::decode(&version.media_type, bytes).map_err(|error| Failure::Integrity(error.to_string()))?;
    let payload = match &one.reference.field {
        Some(name) => one_field(payload, name)?,
        None => payload,
    };
    Ok(ReadSecret {
        version: unsigned(version.version),
        revision: unsigned(one.secret.revision),
        created_at: version.created_at,
        payload,
    })
}

fn failed(app: &App, caller: &Caller, path: &SecretPath, failure: &Failure) -> AuditEvent {
    let decision = if matches!(failure, Failure::Denied) { Decision::Denied } else { decision_after(failure) };
    let outcome = failure.code().as_str();
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::Read, decision, outcome);
    event.resource = Some(path.to_string());
    event
}
