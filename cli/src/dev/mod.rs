//! `strongroom dev`: the whole loop on one machine, with nothing set up.
//!
//! What it is: a PostgreSQL, the real server with TLS on loopback, a stand-in cluster that issues service account tokens, and the real agent, all
//! in one process; what it needs lies in one private directory in memory and goes with it.
//! What it is not: a place to keep anything. Its root key is new each time and never outlives it.

mod directory;
mod guide;
mod progress;
mod tokens;
mod world;

use crate::{
    failure::{Exit, Failure},
    output::{remark, write},
};
use clap::Args;
use directory::Directory;
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};
use strongroom_local::Database;
use strongroom_server::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use world::World;

const HELP: &str = "\
Example: strongroom dev

PostgreSQL is a private one, of this machine's own programs, or the empty database that STRONGROOM_DATABASE_URL names. Ctrl-C ends everything.";

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The port to listen on; 0 is any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The address to listen on; loopback only.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// What server and agent log: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

/// Runs until Ctrl-C or SIGTERM, and leaves nothing behind.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.listen.is_loopback() {
        return Err(Failure::usage(
            format_args!(
                "`dev` does not listen on {}: its keys and its token are for this machine only",
                arguments.listen
            ),
            "Leave --listen out, or give 127.0.0.1 or ::1. To serve others, see `strongroom-server init`.",
        ));
    }
    process::log(&arguments.log)
        .map_err(|_| Failure::usage("--log has no such level", "Give off, error, warn, info, debug or trace."))?;
    process::harden(process::CoreDumps::Off);
    // These two outlive the runtime, so that no task has a connection to a database that is gone, or writes to a directory that is.
    let directory = Directory::make().map_err(|error| failure(&error))?;
    let mut database = None;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| failure(&error.into()))?;
    let result = runtime.block_on(until_signal(arguments, &directory, &mut database));
    drop(runtime);
    // A private PostgreSQL ends at once: its data go with it.
    drop(database);
    drop(directory);
    result.map_err(|error| failure(&error))?;
    remark("ended");
    Ok(())
}

fn failure(error: &anyhow::Error) -> Failure {
    let remedy = error.downcast_ref::<Remedy>().map(|remedy| remedy.0);
    let causes: Vec<String> = error.chain().skip(usize::from(remedy.is_some())).map(ToString::to_string).collect();
    match remedy {
        Some(remedy) => Failure::new(Exit::Failed, causes.join(": ")).remedy(remedy),
        None => Failure::advised(Exit::Failed, &causes.join(": ")),
    }
}

/// What to do about the error that this is the context of.
#[derive(Debug)]
struct Remedy(&'static str);

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

async fn until_signal(
    arguments: &Arguments,
    directory: &Directory,
    database: &mut Option<Database>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut world = tokio::select! {
        biased;
        () = signals.next() => {
            remark("\nending before it was up …");
            return Ok(());
        }
        world = World::start(arguments.listen, arguments.port, directory, database) => world?,
    };
    write(guide::text(&world, directory).as_bytes()).map_err(|_| anyhow::anyhow!("the output cannot be written"))?;
    let failed = tokio::select! {
        biased;
        () = signals.next() => None,
        error = world.watch() => Some(error),
    };
    remark("\nending …");
    tokio::select! {
        () = world.stop() => {}
        // Asked twice: what is left ends with the process.
        () = signals.next() => {}
    }
    failed.map_or(Ok(()), Err)
}

/// The signals that end it: Ctrl-C, SIGTERM, and the terminal's end.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
