//! `cluster`.

use crate::{
    connection::{Connection, ConnectionOptions},
    failure::Failure,
    input::read_text,
    output::{Printer, moment},
};
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use strongroom_api::access::{Cluster, NewCluster, Trust};

const ADD_EXAMPLES: &str = "\
Examples:
  strongroom cluster add lab --issuer https://kubernetes.default.svc.cluster.local \\
      --api-url https://kubernetes.default.svc --api-ca /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
  kubectl get --raw /openid/v1/jwks | strongroom cluster add edge --issuer https://edge.example --jwks -";

#[derive(Subcommand)]
pub(crate) enum ClusterVerb {
    /// Register a cluster; its name and its trust never change.
    Add(AddArguments),
    /// List the registered clusters.
    #[command(after_help = "Example: strongroom cluster list")]
    List,
    /// Remove a cluster: its workloads can no longer log in, and its name is never given out again.
    #[command(after_help = "Example: strongroom cluster remove lab")]
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Args)]
#[command(after_help = ADD_EXAMPLES, group = ArgGroup::new("trust").required(true).args(["api_url", "jwks"]))]
pub(crate) struct AddArguments {
    /// Its name, as grants and audiences will have it.
    name: String,
    /// The `iss` of its service account tokens.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Check tokens by asking the cluster's API at this address (TokenReview).
    #[arg(long, value_name = "URL", requires = "api_ca")]
    api_url: Option<String>,
    /// PEM of the CA of the cluster's API.
    #[arg(long, value_name = "FILE", requires = "api_url")]
    api_ca: Option<PathBuf>,
    /// Check tokens offline with this JSON Web Key Set, from a file or from standard input (-). A deleted pod's token then stays good until it expires.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
}

impl ClusterVerb {
    pub(crate) async fn run(self, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Add(arguments) => {
                let connection = connection.open()?;
                let trust = trust(&arguments)?;
                let new = NewCluster { name: arguments.name, issuer: arguments.issuer, trust };
                let cluster = connection.client.create_cluster(&new).await?;
                printer.result(&added(&cluster, &connection), &cluster)
            }
            Self::List => {
                let clusters = connection.open()?.client.clusters().await?;
                let head = ["CLUSTER", "TRUST", "REGISTERED", "AUDIENCE", "ISSUER"];
                printer.list(&clusters, "there are no clusters", &head, |cluster| {
                    let Cluster { name, issuer, kind, audience, created_at, .. } = cluster.clone();
                    vec![name, kind, moment(created_at), audience, issuer]
                })
            }
            Self::Remove { name } => {
                connection.open()?.client.remove_cluster(&name).await?;
                printer.result(
                    &format!("cluster {name} is removed; sessions of its pods end within 15 minutes"),
                    &json!({"removed": name}),
                )
            }
        }
    }
}

fn trust(arguments: &AddArguments) -> Result<Trust, Failure> {
    match (&arguments.api_url, &arguments.api_ca, &arguments.jwks) {
        (Some(api_url), Some(api_ca), None) => {
            Ok(Trust::TokenReview { api_url: api_url.clone(), api_ca: read_text(api_ca, "the API's CA")? })
        }
        (None, None, Some(jwks)) => {
            let text = read_text(jwks, "the key set")?;
            let keys = serde_json::from_str(&text).map_err(|error| {
                Failure::usage(
                    format_args!("the key set is not JSON: {error}"),
                    "Take it from the cluster: kubectl get --raw /openid/v1/jwks",
                )
            })?;
            Ok(Trust::OfflineKeys { keys })
        }
        _ => Err(Failure::usage("a cluster is trusted one way", "Give --api-url with --api-ca, or --jwks.")),
    }
}

/// What the operator needs next: the audience, and the injector's settings. TOML, so that the lines can be copied as they are.
fn added(cluster: &Cluster, connection: &Connection) -> String {
    // `strongroom/<instance>/<cluster>`; no name has a slash.
    let instance = cluster.audience.split('/').nth(1).unwrap_or_default();
    format!(
        "cluster {name} is registered\naudience: {audience}\n\n\
         # For the injector's settings. The server's address is the one that pods of this cluster reach it by.\n\
         server = {server:?}\ninstance = {instance:?}\ncluster = {name:?}\nca_bundle = \"\"\"\n{ca}\n\"\"\"",
        name = cluster.name,
        audience = cluster.audience,
        server = connection.server,
        ca = connection.ca_bundle.trim(),
    )
}
