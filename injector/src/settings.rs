//! The injector's settings: a TOML file, read once at start.

use crate::quantity::{ByteSize, Millicores};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use strongroom_core::Workload;
use thiserror::Error;

/// What the operator decides. Nothing in a pod can change any of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the webhook listens.
    pub listen: SocketAddr,
    /// The server's address for agents, `https://host[:port]`.
    pub server: String,
    /// PEM of the CA certificates the server's certificate must chain to; certificates only, normalised.
    pub ca_bundle: String,
    /// The instance's name; part of the token's audience.
    pub instance: String,
    /// The name this cluster is registered under at the server.
    pub cluster: String,
    /// The agent's image.
    pub agent_image: String,
    /// When the agent's image is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// The namespace the injector runs in; pods there are never injected.
    pub namespace: String,
    /// The Service in front of the injector.
    pub service: String,
    /// The name of its MutatingWebhookConfiguration.
    pub webhook_configuration: String,
    /// The name of the Secret that holds its certificates.
    pub secret: String,
    /// The agent's limit of processor time. Without one it has none, unless the pod is Guaranteed.
    pub agent_cpu_limit: Option<Millicores>,
    /// How long a pod's start may wait for its secrets, in seconds.
    pub wait_deadline_seconds: u32,
    /// The limit of a pod's tmpfs volume.
    pub volume_size_limit: ByteSize,
    /// `error`, `warn`, `info`, `debug` or `trace`; for the injector itself.
    pub log_level: String,
}

/// A pull policy, as Kubernetes spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum ImagePullPolicy {
    /// At each start.
    Always,
    /// Where the node does not have it.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown name, a missing one, or a value of the wrong type; the message has line and column.
    #[error("settings: {0}")]
    Toml(toml::de::Error),
    /// A value that cannot be used.
    #[error("settings: {field}: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    server: String,
    ca_bundle: Option<String>,
    ca_bundle_file: Option<PathBuf>,
    instance: String,
    cluster: String,
    agent_image: String,
    #[serde(default)]
    image_pull_policy: ImagePullPolicy,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default = "default_name")]
    service: String,
    #[serde(default = "default_configuration")]
    webhook_configuration: String,
    #[serde(default = "default_secret")]
    secret: String,
    agent_cpu_limit: Option<String>,
    #[serde(default = "default_wait")]
    wait_deadline_seconds: u32,
    #[serde(default = "default_size")]
    volume_size_limit: String,
    #[serde(default = "default_level")]
    log_level: String,
}

impl Settings {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = read(path)?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Parses settings; `directory` is where a relative `ca_bundle_file` is looked for.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, SettingsError> {
        let file: Written = toml::from_str(text).map_err(SettingsError::Toml)?;
        let pem = match (file.ca_bundle, file.ca_bundle_file) {
            (Some(pem), None) => pem,
            (None, Some(path)) => read(&directory.join(path))?,
            (Some(_), Some(_)) => return Err(bad("ca_bundle", "set ca_bundle or ca_bundle_file, not both")),
            (None, None) => return Err(bad("ca_bundle", "missing; set ca_bundle (PEM) or ca_bundle_file")),
        };
        check_server(&file.server)?;
        for (field, name) in [
            ("instance", &file.instance),
            ("cluster", &file.cluster),
            ("namespace", &file.namespace),
            ("service", &file.service),
            ("webhook_configuration", &file.webhook_configuration),
            ("secret", &file.secret),
        ] {
            Workload::parse(name, "default", "default")
                .map_err(|_| bad(field, "write a lower-case DNS name: a-z 0-9 . -"))?;
        }
        if file.agent_image.is_empty() || file.agent_image.bytes().any(|b| b.is_ascii_whitespace() || b == b'$') {
            return Err(bad("agent_image", "write an image's name, such as registry.example/strongroom/agent:1.0"));
        }
        if !(1..=3600).contains(&file.wait_deadline_seconds) {
            return Err(bad("wait_deadline_seconds", "write a number of seconds from 1 to 3600"));
        }
        if !matches!(file.log_level.as_str(), "error" | "warn" | "info" | "debug" | "trace") {
            return Err(bad("log_level", "write error, warn, info, debug or trace"));
        }
        let agent_cpu_limit = file
            .agent_cpu_limit
            .map(|text| {
                Millicores::parse(&text)
                    .filter(|limit| (Millicores::LEAST..=Millicores::MOST).contains(limit))
                    .ok_or_else(|| bad("agent_cpu_limit", "write an amount from 10m to 4, such as 100m"))
            })
            .transpose()?;
        let volume_size_limit = ByteSize::parse(&file.volume_size_limit)
            .filter(|size| (64 << 10..=1 << 30).contains(&size.bytes()))
            .ok_or_else(|| bad("volume_size_limit", "write a size from 64Ki to 1Gi, such as 4Mi"))?;
        Ok(Self {
            listen: file.listen,
            server: file.server.trim_end_matches('/').to_owned(),
            ca_bundle: certificates_only(&pem)?,
            instance: file.instance,
            cluster: file.cluster,
            agent_image: file.agent_image,
            image_pull_policy: file.image_pull_policy,
            namespace: file.namespace,
            service: file.service,
            webhook_configuration: file.webhook_configuration,
            secret: file.secret,
            agent_cpu_limit,
            wait_deadline_seconds: file.wait_deadline_seconds,
            volume_size_limit,
            log_level: file.log_level,
        })
    }

    /// The audience of the agents' tokens.
    pub fn audience(&self) -> String {
        format!("strongroom/{}/{}", self.instance, self.cluster)
    }

    /// The name the API server knows the webhook by.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

fn check_server(text: &str) -> Result<(), SettingsError> {
    let uri: Option<::http::Uri> = text.parse().ok();
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    let good = uri.is_some_and(|uri| {
        uri.scheme_str() == Some("https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| authority.as_str().bytes().all(plain))
    });
    if good && !text.contains('#') {
        Ok(())
    } else {
        Err(bad("server", "write https://host or https://host:port, without a path or a user"))
    }
}

/// Only certificates, rewritten: a key that was put into the bundle by mistake must not be copied into every pod, nor comments.
fn certificates_only(pem: &str) -> Result<String, SettingsError> {
    let mut roots = RootCertStore::empty();
    let mut bundle = String::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        let (kind, der) = section.map_err(|_| bad("ca_bundle", "not PEM"))?;
        if kind != SectionKind::Certificate {
            return Err(bad(
                "ca_bundle",
                "it holds something other than certificates; a private key there would be copied into every pod",
            ));
        }
        bundle.push_str(&crate::certificates::to_pem("CERTIFICATE", &der));
        roots
            .add(CertificateDer::from(der))
            .map_err(|_| bad("ca_bundle", "it holds a certificate that cannot be read"))?;
    }
    if roots.is_empty() { Err(bad("ca_bundle", "it holds no certificate")) } else { Ok(bundle) }
}

fn read(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })
}

fn bad(field: &'static str, problem: &'static str) -> SettingsError {
    SettingsError::Field { field, problem }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
}

fn default_namespace() -> String {
    "strongroom".to_owned()
}

fn default_name() -> String {
    "strongroom-injector".to_owned()
}

/// First by its name, so that it is called before the webhooks of meshes: what those add later is not ours to mount secrets in.
fn default_configuration() -> String {
    "00-strongroom-injector".to_owned()
}

fn default_secret() -> String {
    "strongroom-injector-certificates".to_owned()
}

fn default_wait() -> u32 {
    120
}

fn default_size() -> String {
    "4Mi".to_owned()
}

fn default_level() -> String {
    "info".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("../tests/ca.crt");

    fn minimal() -> String {
        format!(
            "server = \"https://strongroom.strongroom.svc:8443\"\ninstance = \"trial\"\ncluster = \"local\"\nagent_image = \"strongroom/agent:1\"\nca_bundle = '''{CA}'''\n"
        )
    }

    fn problem(text: &str) -> String {
        Settings::parse(text, Path::new(".")).unwrap_err().to_string()
    }

    #[test]
    fn the_least_settings_are_enough() {
        let settings = Settings::parse(&minimal(), Path::new(".")).unwrap();
        assert_eq!(settings.audience(), "strongroom/trial/local");
        assert_eq!(settings.host(), "strongroom-injector.strongroom.svc");
        assert_eq!(settings.volume_size_limit.to_string(), "4Mi");
        assert_eq!(settings.wait_deadline_seconds, 120);
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_line() {
        let text = problem(&format!("{}ca-bundle = \"x\"\n", minimal()));
        assert!(text.contains("ca-bundle") && text.contains("line"), "{text}");
    }

    #[test]
    fn each_bad_value_is_refused_by_name() {
        for (from, to, field) in [
            ("https://strongroom.strongroom.svc:8443", "http://strongroom", "server"),
            ("https://strongroom.strongroom.svc:8443", "https://user@strongroom", "server"),
            ("https://strongroom.strongroom.svc:8443", "https://strongroom/path", "server"),
            ("https://strongroom.strongroom.svc:8443", "https://strongroom?x", "server"),
            ("https://strongroom.strongroom.svc:8443", "strongroom:8443", "server"),
            ("\"trial\"", "\"\"", "instance"),
            ("\"trial\"", "\"Trial\"", "instance"),
            ("\"local\"", "\"a/b\"", "cluster"),
            ("strongroom/agent:1", "", "agent_image"),
            ("instance", "wait_deadline_seconds = 0\ninstance", "wait_deadline_seconds"),
            ("instance", "volume_size_limit = \"4MB\"\ninstance", "volume_size_limit"),
            ("instance", "volume_size_limit = \"4\"\ninstance", "volume_size_limit"),
            ("instance", "volume_size_limit = \"2Gi\"\ninstance", "volume_size_limit"),
            ("instance", "agent_cpu_limit = \"5m\"\ninstance", "agent_cpu_limit"),
            ("instance", "agent_cpu_limit = \"5\"\ninstance", "agent_cpu_limit"),
            ("instance", "agent_cpu_limit = \"0.1\"\ninstance", "agent_cpu_limit"),
            ("instance", "agent_cpu_limit = 1\ninstance", "agent_cpu_limit"),
            ("instance", "image_pull_policy = \"always\"\ninstance", "image_pull_policy"),
            ("instance", "log_level = \"loud\"\ninstance", "log_level"),
            ("instance", "listen = \"8443\"\ninstance", "listen"),
            ("instance", "ca_bundle_file = \"ca.crt\"\ninstance", "ca_bundle"),
            ("server", "x", "server"),
        ] {
            let text = problem(&minimal().replacen(from, to, 1));
            assert!(text.contains(field), "{to}: {text}");
        }
    }

    #[test]
    fn a_bundle_with_a_key_or_without_a_certificate_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let text = problem(&minimal().replacen(CA, &format!("{CA}{key}"), 1));
        assert!(text.contains("private key"), "{text}");
        assert!(problem(&minimal().replacen(CA, "", 1)).contains("no certificate"));
        assert!(
            problem(&minimal().replacen(CA, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 1))
                .contains("cannot be read")
        );
        assert!(problem(&minimal().replacen(CA, "-----BEGIN CERTIFICATE-----\n!!!\n", 1)).contains("not PEM"));
    }

    #[test]
    fn comments_in_the_bundle_are_dropped() {
        let settings =
            Settings::parse(&minimal().replacen(CA, &format!("# $(HOME)\n{CA}"), 1), Path::new(".")).unwrap();
        assert_eq!(settings.ca_bundle, CA);
    }

    #[test]
    fn the_trials_manifests_use_the_default_names_and_allow_no_more() {
        let settings = Settings::parse(&minimal(), Path::new(".")).unwrap();
        let webhook = include_str!("../../deploy/trial/webhook.yaml");
        let injector = include_str!("../../deploy/trial/injector.yaml");
        assert!(webhook.contains(&format!("\n  name: {}\n", settings.webhook_configuration)));
        assert!(injector.contains(&format!("kind: Secret\nmetadata:\n  name: {}\n", settings.secret)));
        for name in [&settings.webhook_configuration, &settings.secret] {
            assert!(injector.contains(&format!("resourceNames: [{name}]\n")));
        }
        // Each rule is about one object.
        assert_eq!(injector.matches("    verbs: ").count(), injector.matches("    resourceNames: ").count());
        assert!(settings.webhook_configuration.as_str() < "istio-sidecar-injector");
    }

    #[test]
    fn every_option_is_documented() {
        let documentation = include_str!("../../docs/configuration.md");
        // An unknown option's error lists all known ones, from the code.
        let error = toml::from_str::<Written>("unknown_option = 1").err().unwrap().to_string();
        let (_, known) = error.split_once("expected ").unwrap();
        for name in known.split('`').skip(1).step_by(2) {
            assert!(documentation.contains(&format!("| `{name}` |")), "docs/configuration.md lacks {name}");
        }
    }
}
