//! `import`: secrets from elsewhere. Everything is read into a plan first; then the plan is shown or done.
//!
//! Each source has a file of its own that turns what it holds into a [`reading::Reading`]. From there on all are alike.

mod dotenv;
mod export;
mod json;
mod kubernetes;
mod labels;
mod names;
mod object;
mod perform;
pub(crate) mod plan;
mod progress;
mod reading;
mod vault;
mod vault_api;
mod yaml;

use crate::{
    connection::ConnectionOptions,
    export::keys::identities,
    failure::{Exit, Failure},
    input::{read_large_secret_file, read_large_secret_stdin, read_secret_file, read_secret_stdin},
    output::{Printer, counted},
    secrets::secret_path,
};
use clap::{Args, Subcommand};
use kubernetes::Binary;
use names::NameRule;
use object::ValueRule;
use plan::Plan;
use reading::{Labels, Reading, Trouble};
use std::{
    env,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};
use strongroom_core::{FolderPath, Payload, SecretBytes, SecretPath};
use vault_api::VaultApi;

/// Largest file of manifests or JSON, in bytes.
const MAX_FILE: usize = 16 * 1024 * 1024;
/// Where the Vault token's file is named, when not on the command line.
const VAULT_TOKEN_FILE: &str = "VAULT_TOKEN_FILE";

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
    dry_run: bool,
    /// Put a new version where a secret exists with another value; otherwise it is left as it is.
    #[arg(long)]
    overwrite: bool,
    /// Import the rest where some secrets of the source have problems; otherwise nothing is done.
    #[arg(long)]
    skip_problems: bool,
    /// Take labels along.
    #[arg(long)]
    labels: bool,
}

#[derive(Args)]
pub(crate) struct KubernetesArguments {
    /// Manifests, YAML or JSON, at most 16 MiB each; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The folder, PROJECT/ or PROJECT/FOLDER/.
    #[arg(long, value_name = "FOLDER/")]
    to: String,
    /// Put each into a folder of its namespace's name.
    #[arg(long)]
    with_namespace: bool,
    /// What to do with values that are not text.
    #[arg(long, value_enum)]
    binary: Option<Binary>,
    /// Import service accounts' tokens, too.
    #[arg(long)]
    service_account_tokens: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct DotenvArguments {
    /// The file; - is standard input.
    file: PathBuf,
    /// The secret, PROJECT/NAME or PROJECT/FOLDER/NAME.
    #[arg(long, value_name = "PATH")]
    to: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct JsonArguments {
    /// The file, at most 16 MiB; - is standard input.
    file: PathBuf,
    /// The secret; with --tree the folder.
    #[arg(long, value_name = "PATH")]
    to: String,
    /// The file is an object of secrets by their paths.
    #[arg(long)]
    tree: bool,
    #[command(flatten)]
    foreign: Foreign,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct VaultArguments {
    /// Where Vault is; the token goes there and nowhere else.
    #[arg(long, value_name = "URL")]
    address: String,
    /// The KV v2 mount.
    #[arg(long, default_value = "secret")]
    mount: String,
    /// Only what lies below this folder of the mount.
    #[arg(long, value_name = "FOLDER", default_value = "")]
    below: String,
    /// The folder, PROJECT/ or PROJECT/FOLDER/.
    #[arg(long, value_name = "FOLDER/")]
    to: String,
    /// Vault's or OpenBao's namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// PEM of the CA of Vault's certificate; without it the system's CAs are trusted.
    #[arg(long, value_name = "FILE")]
    vault_ca: Option<PathBuf>,
    /// A file with the Vault token, - for standard input [env: VAULT_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    vault_token_file: Option<PathBuf>,
    #[command(flatten)]
    foreign: Foreign,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// The file; - is standard input.
    file: PathBuf,
    /// A file of age keys, as age-keygen writes it, that opens the export; - is standard input.
    #[arg(long, value_name = "KEYFILE")]
    identity: Option<PathBuf>,
    /// The folder, PROJECT/ or PROJECT/FOLDER/, for what lay below the exported one.
    #[arg(long, value_name = "FOLDER/", required_unless_present = "to_same_paths")]
    to: Option<String>,
    /// Put each where it was.
    #[arg(long, conflicts_with = "to")]
    to_same_paths: bool,
    #[command(flatten)]
    common: Common,
}

/// What sources have whose names and values are freer than Strongroom's.
#[derive(Args)]
pub(crate) struct Foreign {
    /// In names, put - in the place of each character that a path cannot hold.
    #[arg(long)]
    map_names: bool,
    /// Take numbers, booleans, arrays and objects as the text they are written as.
    #[arg(long)]
    stringify: bool,
}

pub(crate) async fn run(source: Source, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
    let common = source.common();
    labels::check(common.labels)?;
    // Before the source is read, which may take long or ask for a secret.
    let client = connection.open()?.client;
    let reading = source.read().await?;
    let plan = Plan::make(reading, &client, common.overwrite).await?;
    if common.dry_run {
        plan.print(*printer)?;
        return if plan.problems.is_empty() { Ok(()) } else { Err(problems(plan.problems.len())) };
    }
    if !plan.problems.is_empty() && !common.skip_problems {
        if printer.is_json() {
            plan.print(*printer)?;
        } else {
            plan.print_remarks();
        }
        return Err(problems(plan.problems.len()));
    }
    if !printer.is_json() {
        plan.print_remarks();
    }
    perform::perform(plan, &client, printer, source.reason()).await
}

fn problems(count: usize) -> Failure {
    let what = format!("the source has {}, so nothing was changed", counted(count, "problem"));
    Failure::new(Exit::Problems, what)
        .remedy("See above what to do about each, or import the rest with --skip-problems.")
}

impl Source {
    fn common(&self) -> &Common {
        match self {
            Self::Kubernetes(arguments) => &arguments.common,
            Self::Dotenv(arguments) => &arguments.common,
            Self::Json(arguments) => &arguments.common,
            Self::Vault(arguments) => &arguments.common,
            Self::Export(arguments) => &arguments.common,
        }
    }

    /// What the history says about the versions.
    fn reason(&self) -> &'static str {
        match self {
            Self::Kubernetes(_) => "imported from Kubernetes manifests",
            Self::Dotenv(_) => "imported from an env file",
            Self::Json(_) => "imported from JSON",
            Self::Vault(_) => "imported from Vault",
            Self::Export(_) => "imported from an export",
        }
    }

    async fn read(&self) -> Result<Reading, Failure> {
        match self {
            Self::Kubernetes(arguments) => arguments.read(),
            Self::Dotenv(arguments) => arguments.read(),
            Self::Json(arguments) => arguments.read(),
            Self::Vault(arguments) => arguments.read().await,
            Self::Export(arguments) => arguments.read(),
        }
    }
}

impl KubernetesArguments {
    fn read(&self) -> Result<Reading, Failure> {
        let mut reading = Reading::new(folder(&self.to)?);
        let rules = kubernetes::Rules {
            with_namespace: self.with_namespace,
            binary: self.binary,
            service_account_tokens: self.service_account_tokens,
            labels: self.common.labels,
        };
        for file in &self.files {
            let shown = shown(file);
            let bytes = large(file)?;
            // Exposed to the parser.
            let text = bytes.expose_str().ok_or_else(|| {
                Failure::usage(format_args!("{shown} is not UTF-8 text"), "Give manifests as YAML or JSON.")
            })?;
            let documents =
                yaml::documents(text).map_err(|bad| Failure::usage(format_args!("{shown}: {bad}"), bad.remedy))?;
            for manifest in &documents {
                kubernetes::read(&shown, manifest, rules, &mut reading);
            }
        }
        Ok(reading)
    }
}

impl DotenvArguments {
    fn read(&self) -> Result<Reading, Failure> {
        let path = secret_path(&self.to)?;
        let shown = shown(&self.file);
        let bytes = if is_stdin(&self.file) {
            read_secret_stdin("the env file")?
        } else {
            read_secret_file(&self.file, "the env file")?
        };
        // Exposed to the parser.
        let text = bytes
            .expose_str()
            .ok_or_else(|| Failure::usage(format_args!("{shown} is not UTF-8 text"), "Check the file."))?;
        let variables =
            dotenv::parse(text).map_err(|bad| Failure::usage(format_args!("{shown}, {bad}"), bad.fault.remedy()))?;
        let mut reading = Reading::new(folder_of(&path));
        let payload =
            Payload::fields(variables).map_err(|error| Trouble::new(error, "Check that it is the right file."));
        reading.take(&shown, Labels::new(), false, payload.map(|payload| (path, payload)));
        Ok(reading)
    }
}

impl JsonArguments {
    fn read(&self) -> Result<Reading, Failure> {
        let (names, values) = self.foreign.rules();
        let shown = shown(&self.file);
        if self.tree {
            let folder = folder(&self.to)?;
            let mut reading = Reading::new(folder.clone());
            json::tree(&shown, &large(&self.file)?, &folder, names, values, &mut reading)?;
            Ok(reading)
        } else {
            let path = secret_path(&self.to)?;
            let mut reading = Reading::new(folder_of(&path));
            json::one(&shown, &large(&self.file)?, path, names, values, &mut reading)?;
            Ok(reading)
        }
    }
}

impl VaultArguments {
    async fn read(&self) -> Result<Reading, Failure> {
        let mut reading = Reading::new(folder(&self.to)?);
        let file = self.vault_token_file.clone().or_else(|| env::var_os(VAULT_TOKEN_FILE).map(PathBuf::from));
        let file = file.filter(|file| !file.as_os_str().is_empty()).ok_or_else(|| {
            Failure::usage(
                "there is no token to show Vault",
                "Give --vault-token-file FILE, or - for standard input, or set VAULT_TOKEN_FILE. It is never an argument.",
            )
        })?;
        let what = "the Vault token";
        let token = if is_stdin(&file) { read_secret_stdin(what)? } else { read_secret_file(&file, what)? };
        let ca = self.vault_ca.as_deref();
        let api = VaultApi::new(&self.address, &self.mount, self.namespace.as_deref(), ca, &token)?;
        let (names, values) = self.foreign.rules();
        let rules = vault::Rules { names, values, labels: self.common.labels };
        vault::read(&api, &self.below, rules, &mut reading).await?;
        Ok(reading)
    }
}

impl ExportArguments {
    fn read(&self) -> Result<Reading, Failure> {
        let target = match &self.to {
            Some(to) => export::Target::Folder(folder(to)?),
            None => export::Target::SamePaths,
        };
        if is_stdin(&self.file) && self.identity.as_deref().is_some_and(is_stdin) {
            return Err(Failure::usage(
                "the export and the identity cannot both be standard input",
                "Give one as a file.",
            ));
        }
        let identities = self.identity.as_deref().map(identities).transpose()?.unwrap_or_default();
        let shown = shown(&self.file);
        let labels = self.common.labels;
        if is_stdin(&self.file) {
            return export::read(&shown, std::io::stdin().lock(), &identities, &target, labels);
        }
        let file = File::open(&self.file).map_err(|error| {
            Failure::usage(format_args!("{shown} cannot be read: {error}"), "Check the file's name.")
        })?;
        export::read(&shown, BufReader::new(file), &identities, &target, labels)
    }
}

impl Foreign {
    fn rules(&self) -> (NameRule, ValueRule) {
        let names = if self.map_names { NameRule::Mapped } else { NameRule::Exact };
        let values = if self.stringify { ValueRule::Stringify } else { ValueRule::TextOnly };
        (names, values)
    }
}

fn folder(text: &str) -> Result<FolderPath, Failure> {
    FolderPath::parse(text).map_err(|error| {
        Failure::usage(format_args!("--to: {error}"), "Write PROJECT/ or PROJECT/FOLDER/, with the slash.")
    })
}

/// The folder that a secret lies in.
fn folder_of(path: &SecretPath) -> FolderPath {
    let end = path.as_str().len() - path.name().len();
    FolderPath::parse(&path.as_str()[..end]).expect("a path without its last segment is a folder")
}

fn large(file: &Path) -> Result<SecretBytes, Failure> {
    if is_stdin(file) {
        read_large_secret_stdin("the source", MAX_FILE)
    } else {
        read_large_secret_file(file, "the source", MAX_FILE)
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn shown(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}
