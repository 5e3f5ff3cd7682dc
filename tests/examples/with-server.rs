//! Runs a command with a server of its own: `cargo run -p strongroom-tests --example with-server -- COMMAND [ARGUMENT…]`.
//!
//! The command finds it in `STRONGROOM_URL`, `STRONGROOM_CA_FILE` and `STRONGROOM_TOKEN` (the admin's). There is a project `payments` with a secret, a role,
//! a grant and a policy. The server and its data are gone when the command ends.

use std::process::{Command, ExitCode};
use strongroom_api::access::{Policy, Role};
use strongroom_client::PutOptions;
use strongroom_core::Action;
use strongroom_tests::{TestServer, fields, path};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: with-server COMMAND [ARGUMENT…]");
        return Ok(ExitCode::from(2));
    };
    let server = TestServer::start().await;
    let project = server.project("payments").await;
    let admin = server.admin();
    admin.put(&path("payments/db"), fields(&[("password", "example")]), PutOptions::default()).await?;
    let members = vec!["workload:lab/payments/api".to_owned()];
    admin.put_role(&Role { project: project.clone(), name: "readers".to_owned(), members }).await?;
    server.grant("role:payments/readers", &[Action::Read], "payments/").await;
    let text = r#"forbid(principal, action, resource in Secret::"payments/never");"#.to_owned();
    admin.put_policy(&Policy { project, name: "never".to_owned(), text }).await?;

    let ca = server.directory().join("ca.crt");
    let mut command = Command::new(&program);
    command
        .args(words)
        .env("STRONGROOM_URL", format!("https://{}", server.address()))
        .env("STRONGROOM_CA_FILE", ca)
        .env("STRONGROOM_TOKEN", server.admin_token());
    // On a thread of its own: the server answers on this one's runtime.
    let status = tokio::task::spawn_blocking(move || command.status()).await??;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
