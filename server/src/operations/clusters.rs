//! Clusters: whose service account tokens are believed.

use super::change::{Change, audited, look, plain};
use crate::{
    app::{App, Caller},
    cluster::{TrustedKeys, audience, check_reviewer},
    failure::Failure,
};
use strongroom_api::access::{Cluster, NewCluster, Trust};
use strongroom_core::{Action, ClusterId, is_kubernetes_name};
use strongroom_store::{ClusterRow, Conflict, RetiredNameRow, delete_cluster, insert_cluster, retire_name};
use uuid::Uuid;

/// Registers a cluster.
pub async fn create(app: &App, caller: &Caller, new: NewCluster) -> Result<Cluster, Failure> {
    let resource = format!("cluster:{}", plain(&new.name));
    let outcome = try_create(app, caller, new).await;
    audited(app, caller, Action::ManageClusters, resource, outcome).await
}

async fn try_create(app: &App, caller: &Caller, new: NewCluster) -> Result<Cluster, Failure> {
    if !is_cluster_name(&new.name) {
        return Err(Failure::Invalid(
            "name: 1 to 63 characters of a-z 0-9 . -, starting and ending with a letter or digit".to_owned(),
        ));
    }
    let issuer_is_plain = (1..=512).contains(&new.issuer.len()) && new.issuer.bytes().all(|b| b.is_ascii_graphic());
    if !issuer_is_plain {
        return Err(Failure::Invalid(
            "issuer: 1 to 512 visible ASCII characters, as the cluster's tokens have it".to_owned(),
        ));
    }
    let keys = match &new.trust {
        Trust::TokenReview { api_url, api_ca } => {
            check_reviewer(api_url, api_ca).map_err(|message| Failure::Invalid(format!("trust: {message}")))?;
            TrustedKeys::default()
        }
        Trust::OfflineKeys { keys } => {
            TrustedKeys::parse(keys).map_err(|message| Failure::Invalid(format!("trust.keys: {message}")))?
        }
    };
    let mut change = Change::on_instance(app, caller, Action::ManageClusters).await?;
    // Two clusters with one signing key could log in as each other. The lock above makes this check good until the commit.
    for other in change.instance().clusters() {
        let trusted = TrustedKeys::of_row(other)?;
        if trusted.shares_a_key_with(&keys) {
            return Err(Failure::Invalid("trust.keys: another cluster has one of these keys".to_owned()));
        }
    }
    if change.instance().is_retired(&new.name) {
        return Err(Failure::Conflict(Conflict::ClusterName));
    }
    let row = ClusterRow {
        id: ClusterId(Uuid::now_v7()),
        name: new.name,
        issuer: new.issuer,
        trust: serde_json::to_string(&new.trust).map_err(|error| Failure::Internal(error.into()))?,
        author: caller.identity.principal(),
        created_at: app.clock.now(),
    };
    let row = app.keyring().mac_row(row);
    insert_cluster(change.connection(), &row).await?;
    change.ledger.put_in_instance(&row);
    change.commit(app, caller, format!("cluster:{}", row.row().name)).await?;
    Ok(shown(app, row.row()))
}

/// All clusters.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Cluster>, Failure> {
    look(app, caller, Action::ManageClusters, None, |rules| {
        Ok(rules.instance().clusters().map(|row| shown(app, row)).collect())
    })
    .await
}

/// Removes a cluster; its name is never given out again. Its pods' sessions end by themselves, within 15 minutes.
pub async fn delete(app: &App, caller: &Caller, name: &str) -> Result<(), Failure> {
    let outcome = try_delete(app, caller, name).await;
    audited(app, caller, Action::ManageClusters, format!("cluster:{}", plain(name)), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, name: &str) -> Result<(), Failure> {
    let mut change = Change::on_instance(app, caller, Action::ManageClusters).await?;
    let instance = change.instance().clone();
    let row = instance.cluster(name).ok_or(Failure::NotFound)?;
    delete_cluster(change.connection(), row.id).await?;
    change.ledger.remove_from_instance(&**row)?;
    let retired = app.keyring().mac_row(RetiredNameRow { name: name.to_owned(), retired_at: app.clock.now() });
    retire_name(change.connection(), &retired).await?;
    change.ledger.put_in_instance(&retired);
    change.commit(app, caller, format!("cluster:{name}")).await?;
    Ok(())
}

/// A DNS name that fits into an audience.
pub fn is_cluster_name(name: &str) -> bool {
    name.len() <= 63 && is_kubernetes_name(name)
}

fn shown(app: &App, row: &ClusterRow) -> Cluster {
    let kind = if matches!(serde_json::from_str(&row.trust), Ok(Trust::OfflineKeys { .. })) {
        "offline-keys"
    } else {
        "token-review"
    };
    Cluster {
        id: row.id,
        name: row.name.clone(),
        issuer: row.issuer.clone(),
        kind: kind.to_owned(),
        audience: audience(&app.instance.name, &row.name),
        created_at: row.created_at,
    }
}
