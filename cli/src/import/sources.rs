//! How each source is read: its files or its server, in the forms that the parsers beside take.

use super::{
    arguments::{DotenvArguments, ExportArguments, JsonArguments, KubernetesArguments, Source, VaultArguments},
    dotenv, export, json, kubernetes,
    reading::{Description, Reading, Trouble},
    vault,
    vault_api::VaultApi,
    yaml,
};
use crate::{
    export::keys::identities,
    failure::Failure,
    input::{read_large_secret_file, read_large_secret_stdin, read_secret_file, read_secret_stdin},
    secrets::secret_path,
};
use std::{
    env,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};
use strongroom_core::{FolderPath, Payload, SecretBytes, SecretPath};

/// Largest file of manifests or JSON, in bytes.
const MAX_FILE: usize = 16 * 1024 * 1024;
/// Where the Vault token's file is named, when not on the command line.
const VAULT_TOKEN_FILE: &str = "VAULT_TOKEN_FILE";

impl Source {
    /// Everything the source holds.
    pub(super) async fn read(&self) -> Result<Reading, Failure> {
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
        reading.take(&shown, Description::default(), false, payload.map(|payload| (path, payload)));
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
