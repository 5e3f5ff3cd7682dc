//! The commands as they are typed.

use crate::{
    backup,
    clusters::ClusterVerb,
    connection::ConnectionOptions,
    export,
    failure::{Exit, Failure},
    get, grants, import,
    keys::KeyVerb,
    output::{Output, Printer},
    policies::PolicyVerb,
    projects::ProjectVerb,
    put,
    roles::RoleVerb,
    secrets, session,
};
use clap::{Parser, Subcommand};

/// What stands below every `strongroom --help`.
const EXIT_CODES: &str = "\
Where the server is, and who you are, comes from one place: --profile, or --server with --ca and a token, or the \
environment (STRONGROOM_PROFILE, or STRONGROOM_SERVER with STRONGROOM_CA). A token is never an argument, because other users of the machine can \
see arguments: it comes from --token-file, STRONGROOM_TOKEN, STRONGROOM_TOKEN_FILE or the profile.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (401, 403), 4 not found, 5 conflict, 6 unavailable, 7 done but \
for what was left out (import, export), 8 nothing done because of problems (import).

Example: strongroom --server https://strongroom.example:8443 --ca ca.crt --token-file token get payments/db#password";

/// Strongroom keeps secrets and puts each one where it is needed, and nowhere else.
#[derive(Parser)]
#[command(name = "strongroom", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Command {
    /// How lists and results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Put a new version of a secret; values come from files, standard input or a prompt.
    ///
    /// The new version holds exactly the fields given here. Values are stored as they are, a line's end too.
    Put(put::Arguments),
    /// Read a secret, or one field of it.
    ///
    /// One field, or raw bytes, are printed exactly as they are, at a terminal with a line's end behind them. A whole secret is a JSON object of its
    /// fields; at a terminal a table with hidden values. `--output json` prints everything: path, version, time and values.
    Get(get::Arguments),
    /// List the secrets of a folder and below.
    List(secrets::ListArguments),
    /// Delete a secret; its versions stay, and a new put brings it back.
    Delete(secrets::DeleteArguments),
    /// Show a secret's versions, without values.
    History(secrets::HistoryArguments),
    /// Import secrets from elsewhere; --dry-run shows what would be done. Nothing is overwritten unasked.
    Import {
        #[command(subcommand)]
        source: import::Source,
    },
    /// Export the current versions of a folder's secrets, sealed to age recipients.
    Export(export::Arguments),
    /// Projects: the first segment of a path, the unit of tenancy.
    Project {
        #[command(subcommand)]
        verb: ProjectVerb,
    },
    /// Clusters whose service accounts may log in.
    Cluster {
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// A project's named groups of workloads, people or services.
    Role {
        #[command(subcommand)]
        verb: RoleVerb,
    },
    /// Allow somebody something: who may do what where.
    Grant(grants::GrantArguments),
    /// Take a grant back.
    Revoke(grants::RevokeArguments),
    /// List a project's grants.
    Grants(grants::ListArguments),
    /// A project's free-text Cedar policies.
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Take a backup of everything, sealed as it is, into a file.
    ///
    /// The file can be read with the root key only, which is not in it: keep that elsewhere. `strongroom-server backup verify` says whether a backup is whole,
    /// unchanged, and opens; `strongroom-server restore` puts it into an empty database.
    Backup(backup::Arguments),
    /// The instance's keys: what there is, and making them anew.
    Keys {
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// Show who the server takes you for.
    #[command(after_help = "Example: strongroom whoami")]
    Whoami,
    /// Ask whether the server can serve; needs no credential.
    #[command(after_help = "Example: strongroom --server https://localhost:8443 --ca ca.crt status")]
    Status,
    /// Run everything on this machine: server, PostgreSQL, a stand-in cluster, an agent, a sample secret.
    #[cfg(feature = "dev")]
    Dev(crate::dev::Arguments),
}

impl Command {
    /// Does what was typed.
    pub(crate) fn run(self) -> Result<(), Failure> {
        #[cfg(feature = "dev")]
        if let Verb::Dev(arguments) = self.verb {
            return crate::dev::run(&arguments);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Failed, format!("this machine gives no event loop: {error}")))?;
        runtime.block_on(self.ask())
    }

    async fn ask(self) -> Result<(), Failure> {
        let Self { connection, output, verb } = self;
        let printer = Printer::new(output);
        match verb {
            Verb::Put(arguments) => put::run(arguments, &connection, &printer).await,
            Verb::Get(arguments) => get::run(&arguments, &connection, &printer).await,
            Verb::List(arguments) => secrets::list(&arguments, &connection, &printer).await,
            Verb::Delete(arguments) => secrets::delete(&arguments, &connection, &printer).await,
            Verb::History(arguments) => secrets::history(&arguments, &connection, &printer).await,
            Verb::Import { source } => import::run(source, &connection, &printer).await,
            Verb::Export(arguments) => export::run(&arguments, &connection, &printer).await,
            Verb::Project { verb } => verb.run(&connection, &printer).await,
            Verb::Cluster { verb } => verb.run(&connection, &printer).await,
            Verb::Role { verb } => verb.run(&connection, &printer).await,
            Verb::Grant(arguments) => grants::grant(&arguments, &connection, &printer).await,
            Verb::Revoke(arguments) => grants::revoke(&arguments, &connection, &printer).await,
            Verb::Grants(arguments) => grants::list(&arguments, &connection, &printer).await,
            Verb::Policy { verb } => verb.run(&connection, &printer).await,
            Verb::Backup(arguments) => backup::run(arguments, &connection, &printer).await,
            Verb::Keys { verb } => verb.run(&connection, &printer).await,
            Verb::Whoami => session::whoami(&connection, &printer).await,
            Verb::Status => session::status(&connection, &printer).await,
            #[cfg(feature = "dev")]
            Verb::Dev(_) => unreachable!("run() takes it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_fit_together_and_each_has_an_example() {
        let mut command = Command::command();
        command.clone().debug_assert();
        command.build();
        let mut open = vec![&command];
        while let Some(command) = open.pop() {
            let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") || !verbs.is_empty(), "{} has no example", command.get_name());
            open.extend(verbs);
        }
    }

    #[test]
    fn no_option_takes_a_token_or_a_value() {
        let command = Command::command();
        let mut open = vec![&command];
        while let Some(command) = open.pop() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(!["token", "password", "value", "secret"].contains(&name), "{name}");
            }
            open.extend(command.get_subcommands());
        }
    }
}
