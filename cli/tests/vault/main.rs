//! `strongroom import vault` against a fake of Vault's API.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(unreachable_pub, reason = "its items are public to the tests beside it")]

#[cfg_attr(not(feature = "dev"), expect(dead_code, reason = "some of it is for the tests with a server"))]
mod fake;
#[path = "../support/https.rs"]
mod https;
#[cfg(feature = "dev")]
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

use fake::FakeVault;
use serde_json::{Value, json};
#[cfg(feature = "dev")]
use server::Server;
use std::{net::TcpListener, process::Output};
use support::{Scratch, ended, program, run};

const TOKEN: &str = "hvs.hunter2-token";

/// What an import from this Vault is called with.
fn arguments<'a>(vault: &'a FakeVault, scratch: &Scratch, more: &[&'a str]) -> Vec<String> {
    let ca = scratch.file("vault-ca", &vault.server.ca);
    let url = vault.server.url();
    let fixed =
        ["import", "vault", "--address", &url, "--to", "payments/", "--vault-ca", &ca, "--vault-token-file", "-"];
    fixed.iter().chain(more).map(ToString::to_string).collect()
}

/// Against no server: for what fails before there is need of one.
fn alone(vault: &FakeVault, scratch: &Scratch, more: &[&str]) -> Output {
    let (ca, token) = (scratch.file("ca", &vault.server.ca), scratch.file("token", "srt_none"));
    let mut command = program();
    command.args(arguments(vault, scratch, more)).args([
        "--server",
        "https://localhost:1",
        "--ca",
        &ca,
        "--token-file",
        &token,
    ]);
    run(&mut command, format!("{TOKEN}\n").as_bytes())
}

#[cfg(feature = "dev")]
fn import(server: &Server, vault: &FakeVault, scratch: &Scratch, more: &[&str]) -> Output {
    let arguments = arguments(vault, scratch, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    server.run(&arguments, format!("{TOKEN}\n").as_bytes())
}

#[cfg(feature = "dev")]
#[test]
fn a_mount_is_planned_and_imported_and_a_second_run_finds_everything_there() {
    let (server, vault, scratch) = (Server::start(), FakeVault::start(), Scratch::new("vault"));
    vault.set(|state| {
        state.put("db", &json!({"user": "app", "password": "hunter2\n\u{e4}"}), &Value::Null);
        state.put("team a/api@v2", &json!({"key": "hunter2"}), &json!({"owner": "a"}));
        state.put("team a/deep/er/x", &json!({"port": 5432, "tls": true, "hosts": ["a", "b"]}), &Value::Null);
        state.put("empty", &json!({}), &Value::Null);
        state.put_gone("deleted", false);
        state.put_gone("destroyed", true);
    });

    // Two have problems: nothing is done, with or without --dry-run.
    for more in [&["--dry-run"][..], &[]] {
        let (printed, said) = ended(&import(&server, &vault, &scratch, more), 8);
        assert!(said.contains("payments/team-a/api-v2") && said.contains("--stringify"), "{said}");
        assert!(
            said.contains("secrets whose current version is deleted (1)")
                && said.contains("secrets whose current version is destroyed (1)"),
            "{said}"
        );
        assert!(!format!("{printed}{said}").contains("hunter2"), "{printed}{said}");
        assert!(server.paths("payments").is_empty());
    }

    let rules = ["--map-names", "--stringify"];
    let (printed, said) = ended(&import(&server, &vault, &scratch, &[&rules[..], &["--dry-run"]].concat()), 0);
    assert!(printed.contains("payments/team-a/api-v2") && printed.contains("create"), "{printed}");
    assert!(said.contains("the labels of 1 secret"), "{said}");
    assert!(server.paths("payments").is_empty(), "a dry run changes nothing");

    let (printed, _) = ended(&import(&server, &vault, &scratch, &rules), 0);
    assert_eq!(printed, "3 created\n");
    assert_eq!(server.paths("payments"), ["payments/db", "payments/team-a/api-v2", "payments/team-a/deep/er/x"]);
    assert_eq!(server.done(&["get", "payments/db#password"], b""), "hunter2\n\u{e4}");
    assert_eq!(
        server.done(&["get", "payments/team-a/deep/er/x"], b""),
        "{\"hosts\":\"[\\\"a\\\",\\\"b\\\"]\",\"port\":\"5432\",\"tls\":\"true\"}\n"
    );
    assert!(server.done(&["history", "payments/db"], b"").contains("imported from Vault"));

    let (printed, said) = ended(&import(&server, &vault, &scratch, &rules), 7);
    assert_eq!(printed, "3 skipped because they exist\n");
    assert!(said.contains("--overwrite"), "{said}");
    for (path, headers) in vault.seen() {
        assert!(path.starts_with("/v1/") && headers["x-vault-token"] == TOKEN, "{path}");
        assert!(!headers.contains_key("authorization"), "Strongroom's credential is not Vault's");
    }
}

#[cfg(feature = "dev")]
#[test]
fn what_the_token_may_not_see_is_a_problem_that_can_be_skipped() {
    let (server, vault, scratch) = (Server::start(), FakeVault::start(), Scratch::new("vault-locked"));
    vault.set(|state| {
        state.put("open", &json!({"k": "v"}), &Value::Null);
        state.put("locked/x", &json!({"k": "v"}), &Value::Null);
        state.put("a b", &json!({"k": "v"}), &Value::Null);
        state.put("a-b", &json!({"k": "v"}), &Value::Null);
        state.secrets.insert("unreadable".into(), (403, json!({"errors": ["permission denied"]})));
        state.locked.insert("locked/".into());
    });
    let (_, said) = ended(&import(&server, &vault, &scratch, &["--map-names"]), 8);
    for words in [
        "vault locked/: the Vault token may not list",
        "vault unreadable: the Vault token may not read",
        "would go to payments/a-b",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (printed, _) = ended(&import(&server, &vault, &scratch, &["--map-names", "--skip-problems"]), 7);
    assert!(printed.starts_with("1 created, 4 not imported"), "{printed}");
    assert_eq!(server.paths("payments"), ["payments/open"]);
}

#[test]
fn a_redirect_is_not_followed_and_the_token_reaches_nobody_else() {
    let (vault, scratch) = (FakeVault::start(), Scratch::new("vault-redirect"));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let to = format!("https://localhost:{}/v1/secret", other.local_addr().unwrap().port());
    vault.set(|state| state.always = Some((307, Some(to))));
    let (_, said) = ended(&alone(&vault, &scratch, &[]), 1);
    assert!(said.contains("redirect, which is never followed") && !said.contains("hunter2"), "{said}");
    assert_eq!(vault.seen().len(), 1);
    assert_eq!(other.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn the_token_is_shown_only_to_a_server_that_proves_who_it_is() {
    let (vault, other, scratch) = (FakeVault::start(), FakeVault::start(), Scratch::new("vault-ca"));
    let ca = scratch.file("other-ca", &other.server.ca);
    // The last one counts: the CA is another one's.
    let mut arguments = arguments(&vault, &scratch, &[]);
    let place = arguments.iter().position(|argument| argument == "--vault-ca").unwrap();
    arguments[place + 1] = ca.clone();
    let token = scratch.file("token", "srt_none");
    let mut command = program();
    command.args(arguments).args(["--server", "https://localhost:1", "--ca", &ca, "--token-file", &token]);
    let (_, said) = ended(&run(&mut command, TOKEN.as_bytes()), 6);
    assert!(said.contains("certificate") && !said.contains("hunter2"), "{said}");
    assert!(vault.seen().is_empty());
}

#[test]
fn a_vault_that_cannot_serve_is_asked_again_and_then_given_up() {
    let (vault, scratch) = (FakeVault::start(), Scratch::new("vault-sealed"));
    vault.set(|state| state.always = Some((503, None)));
    let (_, said) = ended(&alone(&vault, &scratch, &[]), 6);
    assert!(said.contains("503") && said.contains("unsealed") && !said.contains("canary"), "{said}");
    assert_eq!(vault.seen().len(), 5);
}

#[test]
fn each_mount_that_cannot_be_imported_says_why() {
    let (vault, scratch) = (FakeVault::start(), Scratch::new("vault-mount"));
    vault.set(|state| state.kv_version = Some("1"));
    assert!(ended(&alone(&vault, &scratch, &[]), 2).1.contains("KV version 1"));
    vault.set(|state| state.kv_version = None);
    assert!(ended(&alone(&vault, &scratch, &[]), 2).1.contains("KV version 1"));
    assert!(ended(&alone(&vault, &scratch, &["--mount", "other"]), 3).1.contains("does not accept the Vault token"));
    vault.set(|state| {
        state.kv_version = Some("2");
        state.secrets.insert("odd".into(), (200, json!({"data": "hunter2"})));
    });
    let (_, said) = ended(&alone(&vault, &scratch, &[]), 1);
    assert!(said.contains("does not fit Vault's API") && !said.contains("hunter2"), "{said}");
}

#[test]
fn the_tokens_file_may_be_named_by_the_environment() {
    let (vault, scratch) = (FakeVault::start(), Scratch::new("vault-environment"));
    vault.set(|state| state.always = Some((403, None)));
    let mut arguments = arguments(&vault, &scratch, &[]);
    let place = arguments.iter().position(|argument| argument == "--vault-token-file").unwrap();
    arguments.drain(place..place + 2);
    let (ca, token) = (scratch.file("ca", &vault.server.ca), scratch.file("token", "srt_none"));
    let mut command = program();
    command.env("VAULT_TOKEN_FILE", scratch.file("vault-token", &format!("{TOKEN}\n"))).args(arguments);
    command.args(["--server", "https://localhost:1", "--ca", &ca, "--token-file", &token]);
    ended(&run(&mut command, b""), 3);
    assert_eq!(vault.seen()[0].1["x-vault-token"], TOKEN);
}

#[test]
fn a_namespace_goes_along_and_a_folder_narrows() {
    let (vault, scratch) = (FakeVault::start(), Scratch::new("vault-namespace"));
    vault.set(|state| state.put("a/b", &json!({"k": "v"}), &Value::Null));
    // It fails afterwards, for there is no server to import to.
    ended(&alone(&vault, &scratch, &["--namespace", "team/a", "--below", "a"]), 6);
    let seen = vault.seen();
    let paths: Vec<_> = seen.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/v1/sys/internal/ui/mounts/secret", "/v1/secret/metadata/a/?list=true", "/v1/secret/data/a/b"]);
    assert!(seen.iter().all(|(_, headers)| headers["x-vault-namespace"] == "team/a"));
}
