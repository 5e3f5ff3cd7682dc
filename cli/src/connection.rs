//! Where the server is, whom to trust, and what to show it.

use crate::{
    failure::Failure,
    input::{read_secret_file, read_text},
    profile::Profile,
};
use clap::Args;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};
use strongroom_client::{Client, Credential};
use strongroom_core::SecretBytes;

/// Options of every command that asks a server.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionOptions {
    /// The server's address [env: STRONGROOM_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// PEM of the CA of the server's certificate [env: STRONGROOM_CA]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with the token to show [env: STRONGROOM_TOKEN_FILE; or the token itself in STRONGROOM_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A file that holds all three, as `strongroom dev` writes it [env: STRONGROOM_PROFILE]
    #[arg(long, global = true, value_name = "FILE")]
    profile: Option<PathBuf>,
}

/// A server, and what was needed to reach it.
pub(crate) struct Connection {
    /// The client.
    pub(crate) client: Client,
    /// The server's address.
    pub(crate) server: String,
    /// PEM of its CA.
    pub(crate) ca_bundle: String,
}

/// Where a token comes from.
#[derive(Debug)]
enum Token {
    File(PathBuf),
    Text(SecretBytes),
}

/// What the options, the environment and the profile come to.
#[derive(Debug)]
struct Place {
    server: String,
    ca: PathBuf,
    token: Option<Token>,
}

impl ConnectionOptions {
    /// The server with a credential.
    pub(crate) fn open(&self) -> Result<Connection, Failure> {
        let place = self.place(&|name| env::var_os(name).filter(|value| !value.is_empty()))?;
        let token = match place.token {
            None => {
                return Err(Failure::usage(
                    "there is no token to show the server",
                    "Give --token-file FILE, or set STRONGROOM_TOKEN, STRONGROOM_TOKEN_FILE or STRONGROOM_PROFILE.",
                ));
            }
            Some(Token::Text(token)) => token,
            Some(Token::File(path)) => trimmed(&read_secret_file(&path, "the token")?),
        };
        if token.is_empty() {
            return Err(Failure::usage(
                "the token is empty",
                "Put the token into the file or the variable that is to hold it.",
            ));
        }
        connect(place.server, &place.ca, Some(token))
    }

    /// The server without a credential.
    pub(crate) fn open_without_credential(&self) -> Result<Connection, Failure> {
        let place = self.place(&|name| env::var_os(name).filter(|value| !value.is_empty()))?;
        connect(place.server, &place.ca, None)
    }

    /// Server, CA and token come from one place: a token that was made for one server must not reach another because two sources were mixed.
    /// Only what is named on the command line may replace a profile's CA or token.
    fn place(&self, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Place, Failure> {
        if self.profile.is_some() && self.server.is_some() {
            return Err(Failure::usage("--profile and --server both say where the server is", "Give one of them."));
        }
        let profile = match &self.server {
            Some(_) => None,
            None => self.profile.clone().or_else(|| variable("STRONGROOM_PROFILE").map(PathBuf::from)),
        };
        let named_token = self.token_file.clone().map(Token::File);
        if let Some(profile) = profile {
            let Profile { server, ca, token } = Profile::load(&profile)?;
            let token = named_token.or_else(|| token.map(|token| Token::Text(token.into_bytes())));
            return Ok(Place { server, ca: self.ca.clone().unwrap_or(ca), token });
        }
        let text = |name: &str| {
            let not_text = |_| Failure::usage(format_args!("{name} is not text"), "Set it anew.");
            variable(name).map(|value| value.into_string().map_err(not_text)).transpose()
        };
        let server = match &self.server {
            Some(server) => Some(server.clone()),
            None => text("STRONGROOM_SERVER")?,
        };
        let server = server.ok_or_else(|| {
            Failure::usage(
                "no server is named",
                "Give --server URL and --ca FILE, or --profile FILE, or set STRONGROOM_SERVER and STRONGROOM_CA, or STRONGROOM_PROFILE.",
            )
        })?;
        let ca = self.ca.clone().or_else(|| variable("STRONGROOM_CA").map(PathBuf::from)).ok_or_else(|| {
            Failure::usage(
                "the server's CA is not named, and the system's CAs are not trusted with secrets",
                "Give --ca FILE or set STRONGROOM_CA.",
            )
        })?;
        let token = match (named_token, text("STRONGROOM_TOKEN")?, variable("STRONGROOM_TOKEN_FILE")) {
            (Some(token), ..) => Some(token),
            (None, Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "STRONGROOM_TOKEN and STRONGROOM_TOKEN_FILE are both set",
                    "Keep one of them.",
                ));
            }
            (None, Some(token), None) => Some(Token::Text(SecretBytes::from(token))),
            (None, None, file) => file.map(|file| Token::File(file.into())),
        };
        Ok(Place { server, ca, token })
    }
}

fn connect(server: String, ca: &Path, token: Option<SecretBytes>) -> Result<Connection, Failure> {
    let ca_bundle = read_text(ca, "the CA")?;
    let mut builder = Client::builder(&server).ca_bundle(&ca_bundle);
    if let Some(token) = token {
        builder = builder.credential(Credential::Static(token));
    }
    Ok(Connection { client: builder.build()?, server, ca_bundle })
}

/// Without the line end that editors and `echo` leave.
fn trimmed(token: &SecretBytes) -> SecretBytes {
    // Exposed to be shown to the server.
    SecretBytes::new(token.expose_bytes().trim_ascii().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(options: &ConnectionOptions, variables: &[(&str, &str)]) -> Result<Place, Failure> {
        options.place(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn a_profile_in_the_environment_gives_no_token_to_a_server_named_on_the_command_line() {
        let options =
            ConnectionOptions { server: Some("https://other".into()), ca: Some("ca".into()), ..Default::default() };
        let place = place(&options, &[("STRONGROOM_PROFILE", "/nowhere/profile.toml")]).unwrap();
        assert!(place.token.is_none() && place.server == "https://other");
    }

    #[test]
    fn each_incomplete_or_doubled_source_is_wrong_usage() {
        let server = ConnectionOptions { server: Some("https://s".into()), ..Default::default() };
        let both =
            ConnectionOptions { server: Some("https://s".into()), profile: Some("p".into()), ..Default::default() };
        let none = ConnectionOptions::default();
        for (options, variables, word) in [
            (&none, &[][..], "no server"),
            (&server, &[][..], "CA"),
            (&both, &[][..], "--profile and --server"),
            (
                &server,
                &[("STRONGROOM_CA", "c"), ("STRONGROOM_TOKEN", "hunter2"), ("STRONGROOM_TOKEN_FILE", "f")][..],
                "both set",
            ),
            (&none, &[("STRONGROOM_PROFILE", "/nowhere/p")][..], "/nowhere/p"),
        ] {
            let failure = format!("{:?}", place(options, variables).unwrap_err());
            assert!(failure.contains(word) && failure.contains("Usage") && !failure.contains("hunter2"), "{failure}");
        }
    }

    #[test]
    fn a_token_file_named_on_the_command_line_comes_before_the_environment() {
        let options = ConnectionOptions { token_file: Some("t".into()), ..Default::default() };
        let variables = [("STRONGROOM_SERVER", "https://s"), ("STRONGROOM_CA", "c"), ("STRONGROOM_TOKEN", "x")];
        let place = place(&options, &variables).unwrap();
        assert!(matches!(place.token, Some(Token::File(path)) if path == Path::new("t")));
    }
}
