//! A line of a backup as a row, unverified as if it had come from the database.

use crate::{
    AuditRow, ClusterRow, GrantRow, InstanceRow, ManifestRow, MemberRow, PolicyRow, ProjectKeyRow, ProjectRow,
    ProjectSettings, PurposeKeyRow, QuarantineRow, RestoreRow, RetiredNameRow, RevisionRow, RoleRow, RotationKind,
    RotationRow, SecretRow, StoreError, TermRow, TokenRow, TombstoneRow, VersionRow, manifests::ManifestScope,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use strongroom_core::{
    Aliases, ClusterId, GrantId, InstanceId, Labels, Owner, PolicyId, ProjectId, ProjectName, RoleId, RowMac, SecretId,
    SecretPath, TokenId, Unverified,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// A row of a backup.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the row of the table of its name")]
#[non_exhaustive]
pub enum BackupRow {
    Instance(Unverified<InstanceRow>),
    Term(Unverified<TermRow>),
    PurposeKey(Unverified<PurposeKeyRow>),
    Revision(Unverified<RevisionRow>),
    Restore(Unverified<RestoreRow>),
    Manifest(Unverified<ManifestRow>),
    Project(Unverified<ProjectRow>),
    ProjectKey(Unverified<ProjectKeyRow>),
    Tombstone(Unverified<TombstoneRow>),
    Cluster(Unverified<ClusterRow>),
    RetiredName(Unverified<RetiredNameRow>),
    Role(Unverified<RoleRow>),
    Member(Unverified<MemberRow>),
    Grant(Unverified<GrantRow>),
    Policy(Unverified<PolicyRow>),
    Token(Unverified<TokenRow>),
    Quarantine(Unverified<QuarantineRow>),
    Rotation(Unverified<RotationRow>),
    Secret(Box<Unverified<SecretRow>>),
    Version(Unverified<VersionRow>),
    AuditEvent(Unverified<AuditRow>),
    /// A row of a table whose rows nothing is decided by.
    Unauthenticated,
}

impl BackupRow {
    /// Reads a line's JSON object as a row of this table. An error names the column and never what it holds.
    pub fn parse(table: &'static str, json: &str) -> Result<Self, StoreError> {
        let Ok(Value::Object(fields)) = serde_json::from_str(json) else {
            return Err(StoreError::Corrupt { table, column: "(the row)" });
        };
        let mut f = Fields { table, fields };
        Ok(match table {
            "instance" => Self::Instance(f.instance()?),
            "keyring_terms" => Self::Term(f.term()?),
            "keyring_keys" => Self::PurposeKey(f.purpose_key()?),
            "access_revision" => Self::Revision(f.row(|f| Ok(RevisionRow { revision: f.integer("revision")? }))?),
            "restores" => Self::Restore(f.restore()?),
            "manifests" => Self::Manifest(f.manifest()?),
            "projects" => Self::Project(f.project()?),
            "project_keys" => Self::ProjectKey(f.project_key()?),
            "tombstones" => Self::Tombstone(f.tombstone()?),
            "clusters" => Self::Cluster(f.cluster()?),
            "cluster_names" => Self::RetiredName(f.retired_name()?),
            "roles" => Self::Role(f.role()?),
            "role_members" => Self::Member(f.member()?),
            "grants" => Self::Grant(f.grant()?),
            "policies" => Self::Policy(f.policy()?),
            "tokens" => Self::Token(f.token()?),
            "quarantines" => Self::Quarantine(f.quarantine()?),
            "rotations" => Self::Rotation(f.rotation()?),
            "secrets" => Self::Secret(Box::new(f.secret()?)),
            "secret_versions" => Self::Version(f.version()?),
            "audit_events" => Self::AuditEvent(f.audit_event()?),
            _ => Self::Unauthenticated,
        })
    }
}

/// A row's columns by name; each is taken out once.
struct Fields {
    table: &'static str,
    fields: Map<String, Value>,
}

impl Fields {
    fn instance(&mut self) -> Result<Unverified<InstanceRow>, StoreError> {
        self.row(|f| {
            Ok(InstanceRow {
                id: InstanceId(f.uuid("id")?),
                name: f.text("name")?,
                kind: f.text("kind")?.parse()?,
                created_at: f.time("created_at")?,
                admin_claimed_at: f.optional("admin_claimed_at", Self::time)?,
                keyring_mac_key: f.bytes("keyring_mac_key")?,
                next_keyring_mac_key: f.optional("next_keyring_mac_key", Self::bytes)?,
            })
        })
    }

    fn term(&mut self) -> Result<Unverified<TermRow>, StoreError> {
        self.row(|f| {
            Ok(TermRow {
                term: f.number("term")?,
                state: f.text("state")?,
                wrapped: f.bytes("wrapped")?,
                created_at: f.time("created_at")?,
                retired_at: f.optional("retired_at", Self::time)?,
            })
        })
    }

    fn purpose_key(&mut self) -> Result<Unverified<PurposeKeyRow>, StoreError> {
        self.row(|f| {
            Ok(PurposeKeyRow {
                purpose: f.text("purpose")?,
                generation: f.number("generation")?,
                term: f.number("term")?,
                state: f.text("state")?,
                wrapped: f.bytes("wrapped")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn restore(&mut self) -> Result<Unverified<RestoreRow>, StoreError> {
        self.row(|f| {
            Ok(RestoreRow {
                id: f.uuid("id")?,
                taken_at: f.time("taken_at")?,
                backup_sha256: f.bytes("backup_sha256")?,
                restored_at: f.time("restored_at")?,
            })
        })
    }

    fn manifest(&mut self) -> Result<Unverified<ManifestRow>, StoreError> {
        self.row(|f| {
            Ok(ManifestRow {
                scope: ManifestScope::from_id(f.uuid("scope")?),
                epoch: f.integer("epoch")?,
                entries: f.number("entries")?,
                root: f.bytes("root")?,
            })
        })
    }

    fn project(&mut self) -> Result<Unverified<ProjectRow>, StoreError> {
        self.row(|f| {
            let name = f.text("name")?;
            Ok(ProjectRow {
                id: ProjectId(f.uuid("id")?),
                name: ProjectName::parse(&name).map_err(|_| f.corrupt("name"))?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
                shredded: f.is("state", ["live", "shredded"])?,
                settings: ProjectSettings {
                    keep_versions: f.number("keep_versions")?,
                    require_check_and_set: f.boolean("require_check_and_set")?,
                    deletion_protection: f.boolean("deletion_protection")?,
                    expiry_notice_seconds: f.number("expiry_notice_seconds")?,
                    max_secrets: f.optional("max_secrets", Self::number)?,
                },
            })
        })
    }

    fn project_key(&mut self) -> Result<Unverified<ProjectKeyRow>, StoreError> {
        self.row(|f| {
            Ok(ProjectKeyRow {
                project: ProjectId(f.uuid("project_id")?),
                generation: f.number("generation")?,
                term: f.number("term")?,
                state: f.text("state")?,
                wrapped: f.bytes("wrapped")?,
                created_at: f.time("created_at")?,
                retired_at: f.optional("retired_at", Self::time)?,
            })
        })
    }

    fn tombstone(&mut self) -> Result<Unverified<TombstoneRow>, StoreError> {
        self.row(|f| {
            Ok(TombstoneRow {
                scope: ManifestScope::from_id(f.uuid("scope")?),
                subject: f.uuid("subject")?,
                version: f.integer("version")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn quarantine(&mut self) -> Result<Unverified<QuarantineRow>, StoreError> {
        self.row(|f| {
            Ok(QuarantineRow {
                scope: ManifestScope::from_id(f.uuid("scope")?),
                root: f.bytes("root")?,
                epoch: f.integer("epoch")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn rotation(&mut self) -> Result<Unverified<RotationRow>, StoreError> {
        self.row(|f| {
            Ok(RotationRow {
                id: f.uuid("id")?,
                kind: RotationKind::parse(&f.text("kind")?)?,
                project: f.optional("project_id", Self::uuid)?.map(ProjectId),
                target: f.number("target")?,
                compromised: f.boolean("compromised")?,
                accept_unanchored: f.boolean("accept_unanchored")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn cluster(&mut self) -> Result<Unverified<ClusterRow>, StoreError> {
        self.row(|f| {
            Ok(ClusterRow {
                id: ClusterId(f.uuid("id")?),
                name: f.text("name")?,
                issuer: f.text("issuer")?,
                trust: f.text("trust")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn retired_name(&mut self) -> Result<Unverified<RetiredNameRow>, StoreError> {
        self.row(|f| Ok(RetiredNameRow { name: f.text("name")?, retired_at: f.time("retired_at")? }))
    }

    fn role(&mut self) -> Result<Unverified<RoleRow>, StoreError> {
        self.row(|f| {
            Ok(RoleRow {
                id: RoleId(f.uuid("id")?),
                project: ProjectId(f.uuid("project_id")?),
                name: f.text("name")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn member(&mut self) -> Result<Unverified<MemberRow>, StoreError> {
        self.row(|f| Ok(MemberRow { role: RoleId(f.uuid("role_id")?), pattern: f.text("pattern")? }))
    }

    fn grant(&mut self) -> Result<Unverified<GrantRow>, StoreError> {
        self.row(|f| {
            Ok(GrantRow {
                id: GrantId(f.uuid("id")?),
                project: f.optional("project_id", Self::uuid)?.map(ProjectId),
                principal: f.text("principal")?,
                actions: f.text("actions")?,
                scope: f.text("scope")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn policy(&mut self) -> Result<Unverified<PolicyRow>, StoreError> {
        self.row(|f| {
            Ok(PolicyRow {
                id: PolicyId(f.uuid("id")?),
                project: ProjectId(f.uuid("project_id")?),
                name: f.text("name")?,
                text: f.text("text")?,
                principal_key: f.optional("principal_key", Self::text)?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn token(&mut self) -> Result<Unverified<TokenRow>, StoreError> {
        self.row(|f| {
            Ok(TokenRow {
                id: TokenId(f.uuid("id")?),
                generation: f.number("generation")?,
                hash: f.bytes("hash")?,
                principal: f.text("principal")?,
                expires_at: f.time("expires_at")?,
                author: f.text("author")?,
                created_at: f.time("created_at")?,
            })
        })
    }

    fn secret(&mut self) -> Result<Unverified<SecretRow>, StoreError> {
        self.row(|f| {
            let (path, aliases, labels) = (f.text("path")?, f.text("aliases")?, f.text("labels")?);
            let owner = f.optional("owner", Self::text)?;
            Ok(SecretRow {
                id: SecretId(f.uuid("id")?),
                project: ProjectId(f.uuid("project_id")?),
                path: SecretPath::parse(&path).map_err(|_| f.corrupt("path"))?,
                deleted: f.is("state", ["live", "deleted"])?,
                latest_version: f.integer("latest_version")?,
                current_version: f.integer("current_version")?,
                previous_version: f.optional("previous_version", Self::integer)?,
                created_at: f.time("created_at")?,
                updated_at: f.time("updated_at")?,
                pending_version: f.optional("pending_version", Self::integer)?,
                aliases: Aliases::parse_canonical(&aliases).map_err(|_| f.corrupt("aliases"))?,
                labels: Labels::parse_canonical(&labels).map_err(|_| f.corrupt("labels"))?,
                owner: owner.as_deref().map(Owner::parse).transpose().map_err(|_| f.corrupt("owner"))?,
                expires_at: f.optional("expires_at", Self::time)?,
                deletion_protected: f.boolean("deletion_protected")?,
                keep_versions: f.optional("keep_versions", Self::number)?,
                oldest_version: f.integer("oldest_version")?,
                skipped_versions: f.integer("skipped_versions")?,
                revision: f.integer("revision")?,
            })
        })
    }

    fn version(&mut self) -> Result<Unverified<VersionRow>, StoreError> {
        self.row(|f| {
            Ok(VersionRow {
                secret: SecretId(f.uuid("secret_id")?),
                version: f.integer("version")?,
                author: f.text("author")?,
                reason: f.optional("reason", Self::text)?,
                media_type: f.text("media_type")?,
                created_at: f.time("created_at")?,
                project_key_generation: f.number("project_key_generation")?,
                wrapped_key: f.bytes("wrapped_key")?,
                sealed_value: f.bytes("sealed_value")?,
                state: crate::VersionState::parse(&f.text("state")?)?,
            })
        })
    }

    fn audit_event(&mut self) -> Result<Unverified<AuditRow>, StoreError> {
        self.row(|f| {
            Ok(AuditRow {
                id: f.uuid("id")?,
                at: f.time("at")?,
                request_id: f.uuid("request_id")?,
                actor: f.optional("actor", Self::text)?,
                actor_pod: f.optional("actor_pod", Self::text)?,
                actor_pod_uid: f.optional("actor_pod_uid", Self::uuid)?,
                action: f.text("action")?,
                resource: f.optional("resource", Self::text)?,
                version: f.optional("version", Self::integer)?,
                decision: f.text("decision")?,
                policies: f.text("policies")?,
                outcome: f.text("outcome")?,
                source: f.optional("source", Self::text)?,
            })
        })
    }

    /// A row with the MAC that stands beside it.
    fn row<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<Unverified<T>, StoreError> {
        let row = read(self)?;
        let layout = self.integer("mac_layout")?.try_into().map_err(|_| self.corrupt("mac_layout"))?;
        let mac = RowMac { generation: self.number("mac_generation")?, layout, tag: self.bytes("mac")? };
        Ok(Unverified::new(row, mac))
    }

    fn text(&mut self, column: &'static str) -> Result<String, StoreError> {
        match self.fields.get_mut(column) {
            Some(Value::String(text)) => Ok(std::mem::take(text)),
            _ => Err(self.corrupt(column)),
        }
    }

    fn bytes(&mut self, column: &'static str) -> Result<Vec<u8>, StoreError> {
        let text = self.text(column)?;
        BASE64_STANDARD.decode(text).map_err(|_| self.corrupt(column))
    }

    fn time(&mut self, column: &'static str) -> Result<OffsetDateTime, StoreError> {
        let text = self.text(column)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| self.corrupt(column))
    }

    fn uuid(&mut self, column: &'static str) -> Result<Uuid, StoreError> {
        let text = self.text(column)?;
        Uuid::try_parse(&text).map_err(|_| self.corrupt(column))
    }

    fn integer(&mut self, column: &'static str) -> Result<i64, StoreError> {
        self.fields.get(column).and_then(Value::as_i64).ok_or_else(|| self.corrupt(column))
    }

    fn number(&mut self, column: &'static str) -> Result<i32, StoreError> {
        self.integer(column)?.try_into().map_err(|_| self.corrupt(column))
    }

    fn boolean(&mut self, column: &'static str) -> Result<bool, StoreError> {
        self.fields.get(column).and_then(Value::as_bool).ok_or_else(|| self.corrupt(column))
    }

    /// Whether a column holds the second of two words; anything but the two is corrupt.
    fn is(&mut self, column: &'static str, words: [&str; 2]) -> Result<bool, StoreError> {
        let text = self.text(column)?;
        words.iter().position(|word| *word == text).map(|at| at == 1).ok_or_else(|| self.corrupt(column))
    }

    fn optional<T>(
        &mut self,
        column: &'static str,
        read: fn(&mut Self, &'static str) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.fields.get(column) {
            Some(Value::Null) => Ok(None),
            _ => read(self, column).map(Some),
        }
    }

    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt { table: self.table, column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_column_and_never_what_it_holds() {
        let mac = r#""mac_generation":1,"mac_layout":1,"mac":"AA==""#;
        for (json, column) in [
            ("hunter2".to_owned(), "(the row)"),
            ("[]".to_owned(), "(the row)"),
            (format!("{{{mac}}}"), "revision"),
            (format!(r#"{{"revision":"hunter2",{mac}}}"#), "revision"),
            (r#"{"revision":1,"mac_generation":1,"mac_layout":70000,"mac":"AA=="}"#.to_owned(), "mac_layout"),
            (r#"{"revision":1,"mac_generation":1,"mac_layout":1,"mac":"hunter2!"}"#.to_owned(), "mac"),
        ] {
            let error = BackupRow::parse("access_revision", &json).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"));
            assert!(matches!(error, StoreError::Corrupt { column: found, .. } if found == column), "{json}: {error}");
        }
        assert!(BackupRow::parse("access_revision", &format!(r#"{{"revision":1,{mac}}}"#)).is_ok());
    }
}
