//! Audit events.

use crate::{
    error::StoreError,
    pool::{Connection, Store},
};
use sqlx::{Connection as _, PgConnection};
use std::time::{Duration, Instant};
use strongroom_core::{AuditEvent, Columns, Identity, MacRow, Maced};
use time::OffsetDateTime;
use uuid::Uuid;

/// An event as it is stored.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// The event's id, a version 7 UUID.
    pub id: Uuid,
    /// When it was decided.
    pub at: OffsetDateTime,
    /// The request's id.
    pub request_id: Uuid,
    /// Who asked.
    pub actor: Option<String>,
    /// From which pod.
    pub actor_pod: Option<String>,
    /// That pod's UID.
    pub actor_pod_uid: Option<Uuid>,
    /// What.
    pub action: String,
    /// On what.
    pub resource: Option<String>,
    /// Which version.
    pub version: Option<i64>,
    /// How it was decided.
    pub decision: String,
    /// By which policies, joined by commas.
    pub policies: String,
    /// `ok`, or the error code.
    pub outcome: String,
    /// From which address.
    pub source: Option<String>,
}

impl From<AuditEvent> for AuditRow {
    fn from(event: AuditEvent) -> Self {
        let pod = match &event.actor {
            Some(Identity::Workload { pod, .. }) => Some((pod.name.clone(), pod.uid)),
            _ => None,
        };
        Self {
            id: event.id,
            at: event.at,
            request_id: event.request_id,
            actor: event.actor.as_ref().map(Identity::principal),
            actor_pod: pod.as_ref().map(|(name, _)| name.clone()),
            actor_pod_uid: pod.map(|(_, uid)| uid),
            action: event.action.as_str().to_owned(),
            resource: event.resource,
            version: event.version.and_then(|version| i64::try_from(version).ok()),
            decision: event.decision.as_str().to_owned(),
            policies: event.policies.join(","),
            outcome: event.outcome.to_owned(),
            source: event.source.map(|address| address.to_string()),
        }
    }
}

impl MacRow for AuditRow {
    const TABLE: &'static str = "audit_events";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        fn text(columns: &mut Columns, text: &str) {
            columns.text(text);
        }
        out.uuid(self.id).time(self.at).uuid(self.request_id);
        out.optional(self.actor.as_deref(), text).optional(self.actor_pod.as_deref(), text);
        out.optional(self.actor_pod_uid, |c, uid| {
            c.uuid(uid);
        });
        out.text(&self.action).optional(self.resource.as_deref(), text);
        out.optional(self.version, |c, version| {
            c.integer(version);
        });
        out.text(&self.decision).text(&self.policies).text(&self.outcome).optional(self.source.as_deref(), text);
    }
}

/// A connection of its own that only writes events. It is no part of the pool: requests that hold a pooled connection while they wait for their event must
/// not keep the writer from getting one, and a connection that stops answering is thrown away here, which a pool would not do.
#[derive(Debug)]
pub struct EventWriter {
    store: Store,
    connection: Option<PgConnection>,
    used_at: Instant,
}

/// How long one group may take, the connection included.
const GROUP_PATIENCE: Duration = Duration::from_secs(3);
/// After so long without events the connection is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(5);
/// How long its answer may take.
const PING_PATIENCE: Duration = Duration::from_millis(500);
/// How long a probe may take: events that come meanwhile wait for it.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

impl EventWriter {
    /// A writer that connects when it is first used.
    pub fn new(store: Store) -> Self {
        Self { store, connection: None, used_at: Instant::now() }
    }

    /// Commits events, all or none. After any error but [`StoreError::BadText`] and [`StoreError::Refused`] they may have been committed all the same.
    ///
    /// One autocommit statement is safe here, though it is banned elsewhere: nothing cancels it but the deadline, and then the connection goes too.
    pub async fn commit(&mut self, rows: &[Maced<AuditRow>]) -> Result<(), StoreError> {
        let mut connection = self.connection.take();
        // What lay idle may have been cut by something in between, or by a restart: events must not be refused for that.
        if self.used_at.elapsed() > IDLE
            && let Some(idle) = &mut connection
            && !matches!(tokio::time::timeout(PING_PATIENCE, idle.ping()).await, Ok(Ok(())))
        {
            connection = None;
        }
        self.used_at = Instant::now();
        let written = tokio::time::timeout(GROUP_PATIENCE, async {
            let mut connection = match connection.take() {
                Some(connection) => connection,
                None => PgConnection::connect_with(&self.store.connect_options()).await?,
            };
            let outcome = insert_events(&mut connection, rows).await;
            Ok::<_, StoreError>((connection, outcome))
        });
        let (connection, outcome) = match written.await {
            Ok(written) => written?,
            Err(_) => return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        };
        if !matches!(outcome, Err(StoreError::Unavailable(_))) {
            self.connection = Some(connection);
        }
        outcome
    }

    /// Whether events can be written now: writes one and takes it back. After an error the connection is thrown away.
    pub async fn probe(&mut self, row: &Maced<AuditRow>) -> Result<(), StoreError> {
        let connection = self.connection.take();
        let written = tokio::time::timeout(PROBE_PATIENCE, async {
            let mut connection = match connection {
                Some(connection) => connection,
                None => PgConnection::connect_with(&self.store.connect_options()).await?,
            };
            let mut transaction = connection.begin().await?;
            insert_events(&mut transaction, std::slice::from_ref(row)).await?;
            transaction.rollback().await?;
            Ok::<_, StoreError>(connection)
        });
        self.connection = Some(written.await.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))??);
        Ok(())
    }
}

/// Writes events, many in one statement.
pub async fn insert_events(connection: &mut Connection, rows: &[Maced<AuditRow>]) -> Result<(), StoreError> {
    fn column<'a, T>(rows: &'a [Maced<AuditRow>], pick: impl Fn(&'a Maced<AuditRow>) -> T) -> Vec<T> {
        rows.iter().map(pick).collect()
    }
    let result = sqlx::query!(
        "INSERT INTO audit_events (id, at, request_id, actor, actor_pod, actor_pod_uid, action, resource, version, decision, policies, outcome, source,
                                   mac_generation, mac_layout, mac)
         SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::bigint[],
                              $10::text[], $11::text[], $12::text[], $13::text[], $14::integer[], $15::smallint[], $16::bytea[])",
        &column(rows, |r| r.row().id),
        &column(rows, |r| r.row().at),
        &column(rows, |r| r.row().request_id),
        &column(rows, |r| r.row().actor.clone()) as &[Option<String>],
        &column(rows, |r| r.row().actor_pod.clone()) as &[Option<String>],
        &column(rows, |r| r.row().actor_pod_uid) as &[Option<Uuid>],
        &column(rows, |r| r.row().action.clone()),
        &column(rows, |r| r.row().resource.clone()) as &[Option<String>],
        &column(rows, |r| r.row().version) as &[Option<i64>],
        &column(rows, |r| r.row().decision.clone()),
        &column(rows, |r| r.row().policies.clone()),
        &column(rows, |r| r.row().outcome.clone()),
        &column(rows, |r| r.row().source.clone()) as &[Option<String>],
        &column(rows, |r| r.mac().generation),
        &column(rows, |r| r.mac().layout),
        &column(rows, |r| r.mac().tag.clone())
    )
    .execute(connection)
    .await?;
    match result.rows_affected() {
        affected if affected == rows.len() as u64 => Ok(()),
        affected => Err(StoreError::Affected { table: "audit_events", affected }),
    }
}
