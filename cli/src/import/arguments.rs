//! The sources as they are typed.

use super::{kubernetes::Binary, names::NameRule, object::ValueRule};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum Source {
    /// Kubernetes manifests: each Secret becomes one secret of named fields.
    #[command(after_help = "\
Example: kubectl get secrets -n payments -o yaml | strongroom import kubernetes - --to payments/ --dry-run")]
    Kubernetes(KubernetesArguments),
    /// An env file: its variables become the fields of one secret. Nothing is expanded.
    #[command(after_help = "Example: strongroom import dotenv .env --to payments/api --dry-run")]
    Dotenv(DotenvArguments),
    /// A JSON object of texts, or with --tree an object of such objects by their paths.
    #[command(after_help = "Example: strongroom import json secrets.json --tree --to payments/ --dry-run")]
    Json(JsonArguments),
    /// A KV v2 mount of Vault or OpenBao: the current version of each secret.
    #[command(after_help = "\
Example: strongroom import vault --address https://vault.example:8200 --mount secret --to payments/ --vault-token-file t --dry-run")]
    Vault(VaultArguments),
    /// A file that `strongroom export` wrote.
    #[command(
        after_help = "Example: strongroom import export payments.age --identity key.txt --to-same-paths --dry-run"
    )]
    Export(ExportArguments),
}

/// What every source has.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, as it is typed")]
pub(crate) struct Common {
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Put a new version where a secret exists with another value; otherwise it is left as it is.
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Import the rest where some secrets of the source have problems; otherwise nothing is done.
    #[arg(long)]
    pub(super) skip_problems: bool,
    /// Take labels along, and from an export owners. Policies can depend on both, so it needs manage-grants.
    #[arg(long)]
    pub(super) labels: bool,
}

#[derive(Args)]
pub(crate) struct KubernetesArguments {
    /// Manifests, YAML or JSON, at most 16 MiB each; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// The folder, PROJECT/ or PROJECT/FOLDER/.
    #[arg(long, value_name = "FOLDER/")]
    pub(super) to: String,
    /// Put each into a folder of its namespace's name.
    #[arg(long)]
    pub(super) with_namespace: bool,
    /// What to do with values that are not text.
    #[arg(long, value_enum)]
    pub(super) binary: Option<Binary>,
    /// Import service accounts' tokens, too.
    #[arg(long)]
    pub(super) service_account_tokens: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct DotenvArguments {
    /// The file; - is standard input.
    pub(super) file: PathBuf,
    /// The secret, PROJECT/NAME or PROJECT/FOLDER/NAME.
    #[arg(long, value_name = "PATH")]
    pub(super) to: String,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct JsonArguments {
    /// The file, at most 16 MiB; - is standard input.
    pub(super) file: PathBuf,
    /// The secret; with --tree the folder.
    #[arg(long, value_name = "PATH")]
    pub(super) to: String,
    /// The file is an object of secrets by their paths.
    #[arg(long)]
    pub(super) tree: bool,
    #[command(flatten)]
    pub(super) foreign: Foreign,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct VaultArguments {
    /// Where Vault is; the token goes there and nowhere else.
    #[arg(long, value_name = "URL")]
    pub(super) address: String,
    /// The KV v2 mount.
    #[arg(long, default_value = "secret")]
    pub(super) mount: String,
    /// Only what lies below this folder of the mount.
    #[arg(long, value_name = "FOLDER", default_value = "")]
    pub(super) below: String,
    /// The folder, PROJECT/ or PROJECT/FOLDER/.
    #[arg(long, value_name = "FOLDER/")]
    pub(super) to: String,
    /// Vault's or OpenBao's namespace.
    #[arg(long)]
    pub(super) namespace: Option<String>,
    /// PEM of the CA of Vault's certificate; without it the system's CAs are trusted.
    #[arg(long, value_name = "FILE")]
    pub(super) vault_ca: Option<PathBuf>,
    /// A file with the Vault token, - for standard input [env: VAULT_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) vault_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) foreign: Foreign,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// The file; - is standard input.
    pub(super) file: PathBuf,
    /// A file of age keys, as age-keygen writes it, that opens the export; - is standard input.
    #[arg(long, value_name = "KEYFILE")]
    pub(super) identity: Option<PathBuf>,
    /// The folder, PROJECT/ or PROJECT/FOLDER/, for what lay below the exported one.
    #[arg(long, value_name = "FOLDER/", required_unless_present = "to_same_paths")]
    pub(super) to: Option<String>,
    /// Put each where it was.
    #[arg(long, conflicts_with = "to")]
    pub(super) to_same_paths: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What sources have whose names and values are freer than Strongroom's.
#[derive(Args)]
pub(crate) struct Foreign {
    /// In names, put - in the place of each character that a path cannot hold.
    #[arg(long)]
    pub(super) map_names: bool,
    /// Take numbers, booleans, arrays and objects as the text they are written as.
    #[arg(long)]
    pub(super) stringify: bool,
}

impl Source {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::Kubernetes(arguments) => &arguments.common,
            Self::Dotenv(arguments) => &arguments.common,
            Self::Json(arguments) => &arguments.common,
            Self::Vault(arguments) => &arguments.common,
            Self::Export(arguments) => &arguments.common,
        }
    }

    /// What the history says about the versions.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Kubernetes(_) => "imported from Kubernetes manifests",
            Self::Dotenv(_) => "imported from an env file",
            Self::Json(_) => "imported from JSON",
            Self::Vault(_) => "imported from Vault",
            Self::Export(_) => "imported from an export",
        }
    }
}

impl Foreign {
    pub(super) fn rules(&self) -> (NameRule, ValueRule) {
        let names = if self.map_names { NameRule::Mapped } else { NameRule::Exact };
        let values = if self.stringify { ValueRule::Stringify } else { ValueRule::TextOnly };
        (names, values)
    }
}
