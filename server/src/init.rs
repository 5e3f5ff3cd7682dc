//! `strongroom-server init`: what a trial needs, in one directory. Nothing that exists is ever overwritten.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::{
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use strongroom_core::{Clock, SecretBytes};
use strongroom_crypto::RootKey;
use time::Duration;

/// What to make.
#[derive(Debug)]
pub struct Init {
    /// The directory; made with mode 0700 where it does not exist.
    pub directory: PathBuf,
    /// The instance's name.
    pub instance: String,
    /// `dev` or `production`.
    pub kind: &'static str,
    /// The name the cluster will be registered under, for the injector's settings.
    pub cluster: String,
    /// Names and addresses the server is reached by; the first is what agents are told.
    pub hosts: Vec<String>,
    /// The port the server listens on, and agents are told.
    pub port: u16,
    /// The address to listen on.
    pub listen: String,
    /// The database's URL; without it, it comes from the environment.
    pub database_url: Option<SecretBytes>,
    /// PEM of the CA of the database's certificate.
    pub database_ca: Option<String>,
    /// The ConfigMap that holds the anchor, `namespace/name`; without one there is no anchor.
    pub anchor_config_map: Option<String>,
    /// The agent's image, for the injector's settings.
    pub agent_image: String,
}

/// How long the certificates of a trial live.
const CERTIFICATE_LIFE: Duration = Duration::days(365);

impl Init {
    /// Makes everything, or nothing that was there before is touched.
    pub fn run(&self, clock: &dyn Clock) -> anyhow::Result<()> {
        anyhow::ensure!(!self.hosts.is_empty(), "at least one host is needed");
        if !self.directory.exists() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.directory)
                .with_context(|| format!("cannot make {}", self.directory.display()))?;
        }
        let (ca, certificate, key) = self.certificates(clock)?;
        let mut files = vec![
            ("ca.crt", 0o444, ca.clone().into_bytes()),
            ("tls.crt", 0o444, certificate.into_bytes()),
            ("tls.key", 0o400, key.into_bytes()),
            ("server.toml", 0o444, self.server_settings().into_bytes()),
            ("injector.toml", 0o444, self.injector_settings(&ca).into_bytes()),
            ("database-ca.crt", 0o444, self.database_ca.clone().unwrap_or_default().into_bytes()),
        ];
        if let Some(url) = &self.database_url {
            files.push(("database.url", 0o400, url.expose_bytes().to_vec()));
        }
        for name in files.iter().map(|(name, ..)| *name).chain(["root.key"]) {
            let path = self.directory.join(name);
            anyhow::ensure!(
                !path.exists(),
                "{} exists already; nothing was changed. Choose another directory",
                path.display()
            );
        }
        RootKey::create_file(&self.directory.join("root.key"))?;
        for (name, mode, content) in files {
            write_new(&self.directory.join(name), mode, &content)?;
        }
        Ok(())
    }

    /// A CA that signs one certificate and is forgotten, so that nobody can sign another.
    fn certificates(&self, clock: &dyn Clock) -> anyhow::Result<(String, String, String)> {
        let now = clock.now();
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, format!("Strongroom {} CA", self.instance));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.not_before = now - Duration::hours(1);
        ca.not_after = now + CERTIFICATE_LIFE;
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let mut leaf =
            CertificateParams::new(self.hosts.clone()).context("a host is neither a DNS name nor an address")?;
        leaf.distinguished_name.push(DnType::CommonName, format!("Strongroom {}", self.instance));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.not_before = now - Duration::hours(1);
        leaf.not_after = now + CERTIFICATE_LIFE;
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &ca)?;
        Ok((ca.pem(), certificate.pem(), key.serialize_pem()))
    }

    fn server_settings(&self) -> String {
        let database = match &self.database_url {
            Some(_) => "url_file = \"database.url\"\n",
            None => "# The URL comes from STRONGROOM_DATABASE_URL.\n",
        };
        let ca = if self.database_ca.is_some() { "ca = \"database-ca.crt\"\n" } else { "" };
        let anchor = self
            .anchor_config_map
            .as_ref()
            .map_or_else(String::new, |name| format!("\n[anchor]\nconfig_map = {name:?}\n"));
        format!(
            "# Made by `strongroom-server init`. Files are relative to this one.\n\
             instance = {instance:?}\nkind = {kind:?}\nlisten = {listen:?}\n\n\
             [database]\n{database}{ca}\n\
             [tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n\n\
             [root_key]\nfile = \"root.key\"\n{anchor}",
            instance = self.instance,
            kind = self.kind,
            listen = format!("{}:{}", self.listen, self.port),
        )
    }

    fn injector_settings(&self, ca: &str) -> String {
        let host = &self.hosts[0];
        let server = if host.contains(':') {
            format!("https://[{host}]:{}", self.port)
        } else {
            format!("https://{host}:{}", self.port)
        };
        format!(
            "# Made by `strongroom-server init`.\n\
             server = {server:?}\ninstance = {instance:?}\ncluster = {cluster:?}\nagent_image = {image:?}\n\
             ca_bundle = \"\"\"\n{ca}\"\"\"\n",
            instance = self.instance,
            cluster = self.cluster,
            image = self.agent_image,
        )
    }
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::SystemClock;

    fn init(directory: &Path) -> Init {
        Init {
            directory: directory.to_owned(),
            instance: "trial".into(),
            kind: "production",
            cluster: "lab".into(),
            hosts: vec!["localhost".into(), "127.0.0.1".into()],
            port: 8443,
            listen: "0.0.0.0".into(),
            database_url: Some(SecretBytes::new(b"postgres://localhost/x".to_vec())),
            database_ca: None,
            anchor_config_map: Some("strongroom/strongroom-anchor".into()),
            agent_image: "strongroom/agent:trial".into(),
        }
    }

    #[test]
    fn what_init_makes_loads_and_is_never_overwritten() {
        let directory = std::env::temp_dir().join(format!("strongroom-init-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        init(&directory).run(&SystemClock).unwrap();
        let settings = crate::Settings::load(&directory.join("server.toml")).unwrap();
        assert_eq!(settings.instance, "trial");
        crate::root::Root::open(&settings.root_key).unwrap();
        let before = std::fs::read(directory.join("tls.crt")).unwrap();
        assert!(init(&directory).run(&SystemClock).unwrap_err().to_string().contains("nothing was changed"));
        assert_eq!(std::fs::read(directory.join("tls.crt")).unwrap(), before);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
