//! Import and export on a real server, and what they promise without one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/https.rs"]
mod https;
#[cfg(feature = "dev")]
#[path = "support/server.rs"]
mod server;
mod support;

use age::{secrecy::ExposeSecret as _, x25519::Identity};
use https::{Answer, HttpsServer};
use serde_json::json;
#[cfg(feature = "dev")]
use server::Server;
#[cfg(feature = "dev")]
use std::{fs, os::unix::fs::PermissionsExt as _};
use support::{Scratch, ended, program, run};

#[cfg(feature = "dev")]
const MANIFESTS: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: shop, labels: {app: shop}}
data: {password: aHVudGVyMg==}
stringData: {user: app}
---
kind: Secret
metadata: {name: store, namespace: shop}
data: {keystore: //4AAQ==, note: eA==}
---
kind: ConfigMap
metadata: {name: other}
";

#[cfg(feature = "dev")]
#[test]
fn each_source_arrives_as_it_was_and_nothing_is_overwritten_unasked() {
    let (server, scratch) = (Server::start(), Scratch::new("import"));
    let manifests = scratch.file("manifests.yaml", MANIFESTS);
    let kubernetes = ["import", "kubernetes", &manifests, "--to", "payments/k8s/", "--with-namespace"];
    let (printed, said) = ended(&server.run(&kubernetes, b""), 8);
    assert!(said.contains("--binary split") && said.contains("manifests of other kinds (1)"), "{said}");
    assert!(printed.is_empty() && server.paths("payments").is_empty());
    let kubernetes = [&kubernetes[..], &["--binary", "split"]].concat();
    assert_eq!(server.done(&kubernetes, b""), "3 created\n");
    assert_eq!(server.done(&["get", "payments/k8s/shop/db"], b""), "{\"password\":\"hunter2\",\"user\":\"app\"}\n");
    assert_eq!(server.run(&["get", "payments/k8s/shop/store/keystore"], b"").stdout, [0xff, 0xfe, 0, 1]);

    let env = b"export USER=app # name\nKEY=\"a\\n$HOME\"\n";
    let dotenv = ["import", "dotenv", "-", "--to", "payments/api"];
    assert_eq!(server.done(&dotenv, env), "1 created\n");
    assert_eq!(server.done(&["get", "payments/api#KEY"], b""), "a\n$HOME");

    // A second run leaves it as it is; --overwrite puts a version only where the value differs, and only one.
    let (printed, _) = ended(&server.run(&dotenv, b"USER=other\n"), 7);
    assert_eq!(printed, "1 skipped because they exist\n");
    assert_eq!(server.done(&["get", "payments/api#USER"], b""), "app");
    let overwrite = [&dotenv[..], &["--overwrite"]].concat();
    assert_eq!(server.done(&overwrite, env), "1 unchanged\n");
    assert_eq!(server.done(&overwrite, b"USER=other\n"), "1 overwritten\n");
    assert!(server.done(&["history", "payments/api"], b"").contains("previous"));

    // A deleted secret does not stand in the way.
    server.done(&["delete", "payments/api"], b"");
    assert_eq!(server.done(&dotenv, env), "1 created\n");

    let tree = br#"{"one":{"k":"hunter2"},"two/three":{"k":"v"}}"#;
    let json = ["import", "json", "-", "--tree", "--to", "payments/j/", "--output", "json"];
    let printed = server.done(&json, tree);
    let mut lines: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts = lines.pop().unwrap();
    assert!(counts["created"] == 2 && counts["total"] == 2 && counts["failed"] == 0, "{printed}");
    assert!(lines.iter().all(|line| line["result"] == "created" && line["version"] == 1), "{printed}");
    let plan: serde_json::Value =
        serde_json::from_str(&server.done(&[&json[..], &["--dry-run"]].concat(), tree)).unwrap();
    assert_eq!(plan["secrets"][0]["action"], "skip");
    assert!(!format!("{printed}{plan}").contains("hunter2"));
}

#[cfg(feature = "dev")]
#[test]
fn labels_come_along_where_asked_and_through_an_export() {
    let (server, scratch) = (Server::start(), Scratch::new("import-labels"));
    let described = |path: &str| {
        let listed: serde_json::Value =
            serde_json::from_str(&server.done(&["list", "payments/", "--output", "json"], b"")).unwrap();
        let found = listed.as_array().unwrap().iter().find(|entry| entry["path"] == path).unwrap();
        (found["labels"]["app"].as_str().map(str::to_owned), found["version"].as_u64().unwrap())
    };
    let kubernetes = ["import", "kubernetes", "-", "--to", "payments/k8s/"];
    let manifest = MANIFESTS.split("---").next().unwrap().as_bytes();
    let (_, said) = ended(&server.run(&kubernetes, manifest), 0);
    assert!(said.contains("left out: the labels of 1 secret"), "{said}");
    assert_eq!(described("payments/k8s/db"), (None, 1));
    let labelled = [&kubernetes[..], &["--labels"]].concat();
    ended(&server.run(&labelled, manifest), 7);
    assert_eq!(described("payments/k8s/db"), (None, 1), "what exists stays as it is");
    let overwrite = [&labelled[..], &["--overwrite"]].concat();
    assert_eq!(server.done(&overwrite, manifest), "1 unchanged\n");
    assert_eq!(described("payments/k8s/db"), (Some("shop".to_owned()), 1), "the value is the same");

    let spaced = br#"{"kind":"Secret","metadata":{"name":"s","labels":{"a key":"v"}},"stringData":{"a":"x"}}"#;
    let (_, said) = ended(&server.run(&labelled, spaced), 8);
    assert!(said.contains("its labels: a label's key has"), "{said}");

    let (identity, file) = (Identity::generate(), scratch.path("labelled.age"));
    let keys = scratch.file("labelled.key", identity.to_string().expose_secret());
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    server.done(&["export", "payments/", "--recipient", &identity.to_public().to_string(), "-o", &file], b"");
    for (more, label) in [(&[][..], None), (&["--labels"], Some("shop".to_owned()))] {
        let import = [
            "import",
            "export",
            &file,
            "--identity",
            &keys,
            "--to",
            if more.is_empty() { "payments/a/" } else { "payments/b/" },
        ];
        server.done(&[&import[..], more].concat(), b"");
        let path = if more.is_empty() { "payments/a/k8s/db" } else { "payments/b/k8s/db" };
        assert_eq!(described(path), (label, 1));
    }
}

#[cfg(feature = "dev")]
#[test]
fn what_one_secret_may_not_does_not_stop_the_others_and_a_refused_credential_does() {
    let (server, scratch) = (Server::start(), Scratch::new("import-refused"));
    let policy = br#"forbid(principal, action == Action::"write", resource in Folder::"payments/locked/");"#;
    server.done(&["policy", "put", "payments/locked", "-"], policy);
    let tree = br#"{"locked/a":{"k":"v"},"free":{"k":"v"}}"#;
    let (printed, said) = ended(&server.run(&["import", "json", "-", "--tree", "--to", "payments/"], tree), 1);
    assert_eq!(printed, "1 created, 1 failed\n");
    assert!(said.contains("failed: payments/locked/a: ") && said.contains("request id: "), "{said}");
    assert_eq!(server.paths("payments"), ["payments/free"]);

    // Where nothing at all is allowed it does not go on asking.
    let many: serde_json::Map<_, _> = (0..100).map(|n| (format!("s{n}"), serde_json::json!({"k": "v"}))).collect();
    let many = serde_json::to_vec(&many).unwrap();
    let (printed, said) = ended(&server.run(&["import", "json", "-", "--tree", "--to", "paymnets/"], &many), 3);
    let failed: usize = printed.trim().trim_end_matches(" failed").parse().unwrap();
    assert!((16..=16 + 8).contains(&failed) && said.contains("every one so far was refused"), "{printed}{said}");

    let token = scratch.file("token", "srt_none");
    let json = ["import", "json", "-", "--tree", "--to", "payments/new/", "--token-file", &token];
    let output = server.run(&json, tree);
    assert!(matches!(output.status.code(), Some(2 | 3)), "{output:?}");
    assert!(server.paths("payments/new").is_empty());
}

#[cfg(feature = "dev")]
#[test]
fn an_export_is_sealed_and_comes_back_as_it_was() {
    let (server, scratch) = (Server::start(), Scratch::new("export"));
    server.done(&["put", "payments/db", "--fields", "-"], br#"{"user":"app","password":"hunter2"}"#);
    server.done(&["put", "payments/f/raw", "--raw", "-", "--media-type", "application/x-pkcs12"], &[0, 255, 10]);
    server.done(&["put", "payments/locked/x", "password=-"], b"hunter2");
    let (own, other) = (Identity::generate(), Identity::generate());
    let recipient = own.to_public().to_string();
    let recipients = scratch.file("recipients", &format!("# ops\n{}\n", other.to_public()));
    let identity = scratch.file("identity", other.to_string().expose_secret());
    let file = scratch.path("payments.age");

    let export = ["export", "payments/", "--recipient", &recipient, "--recipients-file", &recipients, "-o", &file];
    assert!(server.done(&export, b"").ends_with("holds 3 secrets of payments/\n"));
    let sealed = fs::read(&file).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1") && !sealed.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, said) = ended(&server.run(&export, b""), 5);
    assert!(said.contains("never overwrite") && fs::read(&file).unwrap() == sealed, "{said}");

    let import = ["import", "export", &file, "--identity", &identity];
    assert_eq!(server.done(&[&import[..], &["--to", "payments/copy/"]].concat(), b""), "3 created\n");
    for path in ["payments/copy/db", "payments/copy/f/raw", "payments/copy/locked/x"] {
        let (copy, original) = (server.run(&["get", path], b""), server.run(&["get", &path.replace("copy/", "")], b""));
        assert!(copy.status.success() && copy.stdout == original.stdout, "{path}");
    }
    server.done(&["delete", "payments/db"], b"");
    let (printed, _) = ended(&server.run(&[&import[..], &["--to-same-paths"]].concat(), b""), 7);
    assert_eq!(printed, "1 created, 2 skipped because they exist\n");

    // What may be listed but not read is said, and is in the file as missing.
    let policy = br#"forbid(principal, action == Action::"read", resource in Folder::"payments/locked/");"#;
    server.done(&["policy", "put", "payments/locked", "-"], policy);
    let part = scratch.path("part.json");
    let (_, said) = ended(&server.run(&["export", "payments/", "--insecure-clear", "-o", &part], b""), 7);
    assert!(said.contains("not exported: payments/locked/x") && !said.contains("hunter2"), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&fs::read(&part).unwrap()).unwrap();
    assert_eq!(document["unread"][0]["path"], "payments/locked/x");
    assert_eq!(fs::metadata(&part).unwrap().permissions().mode() & 0o777, 0o600);

    // A pipe takes either form, and no half file stays behind where nothing could be listed.
    let piped = server.run(&["export", "payments/f/", "--recipient", &recipient, "-o", "-"], b"");
    assert!(piped.status.success() && piped.stdout.starts_with(b"age-encryption.org/v1"));
    let none = scratch.path("none.age");
    ended(&server.run(&["export", "elsewhere/", "--recipient", &recipient, "-o", &none], b""), 3);
    let left: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("none")), "{left:?}");
}

/// A server with two secrets: one has expired, the other was deleted since it was listed. Its puts are answered with what they were conditional on, as a version.
fn with_an_expired_secret() -> HttpsServer {
    let problem = |code: &str| json!({"title": "", "status": 404, "code": code, "remedy": "", "request_id": "00000000-0000-7000-8000-000000000001"});
    HttpsServer::start(move |request| {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let if_match = request.headers().get("if-match").map_or("0", |value| value.to_str().unwrap().trim_matches('"'));
        let version = if_match.parse::<u64>().unwrap();
        let listed =
            |path: &str, version: u64| json!({"path": path, "version": version, "updated_at": "2026-01-01T00:00:00Z"});
        let answer = match (request.method().as_str(), path.as_str()) {
            ("GET", "/api/v1/secrets") => {
                Answer::json(200, &json!({"secrets": [listed("shop/expired", 3), listed("shop/gone", 1)]}))
            }
            ("GET", _) if query.contains("gone") => Answer::json(404, &problem("secret_deleted")),
            ("GET", _) => Answer::json(404, &problem("secret_expired")),
            _ => Answer::json(
                200,
                &json!({"path": "shop/expired", "version": version + 1, "created_at": "2026-01-01T00:00:00Z"}),
            ),
        };
        std::future::ready(answer)
    })
}

#[test]
fn what_has_expired_is_missing_in_an_export_and_in_the_way_of_an_import() {
    let (server, scratch) = (with_an_expired_secret(), Scratch::new("expired"));
    let (url, ca, token) = (server.url(), scratch.file("ca", &server.ca), scratch.file("token", "srt_none"));
    let place = ["--server", &url, "--ca", &ca, "--token-file", &token];
    let file = scratch.path("export.json");
    let export = ["export", "shop/", "--insecure-clear", "-o", &file];
    let (_, said) = ended(&run(program().args(export).args(place), b""), 7);
    assert!(said.contains("not exported: shop/expired: The secret has expired."), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let unread: Vec<_> = document["unread"].as_array().unwrap().iter().map(|unread| &unread["path"]).collect();
    assert_eq!(unread, ["shop/expired"], "what was deleted meanwhile is no secret any more");

    let import = ["import", "json", "-", "--to", "shop/expired", "--overwrite", "--output", "json"];
    let (printed, _) = ended(&run(program().args(import).args(place), br#"{"k":"v"}"#), 0);
    let first: serde_json::Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({"path": "shop/expired", "result": "overwritten", "version": 4}));
}

#[test]
fn a_history_says_that_there_is_more_of_it() {
    let scratch = Scratch::new("history");
    let server = HttpsServer::start(|request| {
        let query = request.uri().query().unwrap_or_default();
        let (version, next) = if query.contains("before=7") { (6, json!(null)) } else { (7, json!(7)) };
        let entry = json!({"version": version, "author": "user:ada", "created_at": "2026-01-01T00:00:00Z", "media_type": "a/b"});
        let page = json!({"path": "shop/db", "current": 7, "deleted": false, "versions": [entry], "next_before": next});
        std::future::ready(Answer::json(200, &page))
    });
    let (url, ca, token) = (server.url(), scratch.file("ca", &server.ca), scratch.file("token", "srt_none"));
    let history = |more: &[&str]| {
        let place = ["--server", &url, "--ca", &ca, "--token-file", &token];
        ended(&run(program().args(["history", "shop/db"]).args(more).args(place), b""), 0)
    };
    let (printed, said) = history(&[]);
    assert!(printed.contains("\n7 ") && said.contains("strongroom history shop/db --before 7"), "{printed}{said}");
    let (printed, said) = history(&["--before", "7"]);
    assert!(printed.contains("\n6 ") && said.is_empty(), "{printed}{said}");
}

#[test]
fn each_wrong_usage_says_what_and_what_to_do() {
    let scratch = Scratch::new("import-usage");
    let place = [
        "--server",
        "https://localhost:1",
        "--ca",
        &scratch.file("ca", include_str!("contract/ca.crt")),
        "--token-file",
        &scratch.file("token", "srt_hunter2"),
    ];
    let private = Identity::generate().to_string();
    let private = private.expose_secret();
    let (keys, open) = (scratch.file("keys", private), scratch.file("open", private));
    fs_mode(&open, 0o644);
    let exists = scratch.file("exists", "");
    let large = scratch.file("large", &"#".repeat(16 * 1024 * 1024 + 1));
    let bomb = scratch.file("bomb", "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n");
    let sealed = scratch.file("sealed", "age-encryption.org/v1\n");
    let wanting = |source: &[&'static str], words: &'static str| (source.to_vec(), words);
    let to = ["--to", "p/"];
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["import", "kubernetes", &exists], "--to"),
        (vec!["import", "kubernetes", &exists, "--to", "payments"], "with the slash"),
        (vec!["import", "kubernetes", &exists, "--to", "p/../q/"], "segment"),
        (vec!["import", "kubernetes", "/nowhere/m", to[0], to[1]], "/nowhere/m"),
        (vec!["import", "kubernetes", &large, to[0], to[1]], "larger than 16777216"),
        (vec!["import", "kubernetes", &bomb, to[0], to[1]], "aliases"),
        (vec!["import", "dotenv", &exists, to[0], to[1]], "PROJECT/NAME"),
        (vec!["import", "json", &exists, "--to", "p/s"], "not JSON"),
        (vec!["import", "json", &exists, "--to", "p/s", "--tree"], "with the slash"),
        (vec!["import", "vault", "--address", "https://v", to[0], to[1]], "no token to show Vault"),
        (vec!["import", "vault", "--address", "http://v", to[0], to[1], "--vault-token-file", &keys], "TLS only"),
        (vec!["import", "vault", "--address", "https://v", to[0], to[1], "--vault-token", "t"], "unexpected argument"),
        (vec!["import", "export", &exists], "--to"),
        (vec!["import", "export", &exists, to[0], to[1], "--to-same-paths"], "cannot be used with"),
        (vec!["import", "export", &sealed, to[0], to[1]], "Give --identity"),
        (vec!["import", "export", &sealed, to[0], to[1], "--identity", &open], "chmod 600"),
        (vec!["import", "export", &sealed, to[0], to[1], "--identity", &exists], "no age key file"),
        (vec!["import", "export", "-", to[0], to[1], "--identity", "-"], "cannot both be"),
        (vec!["export", "p/", "-o", "/nowhere/x"], "nobody could open"),
        (vec!["export", "p", "-o", "/nowhere/x"], "with the slash"),
        (vec!["export", "p/", "--recipient", "age1x", "-o", "/nowhere/x"], "recipient number 1"),
        (vec!["export", "p/", "--recipient", private, "-o", "/nowhere/x"], "private key"),
        (vec!["export", "p/", "--recipients-file", &keys, "-o", "/nowhere/x"], "private key"),
        (vec!["export", "p/", "--recipients-file", &exists, "-o", "/nowhere/x"], "names nobody"),
        (vec!["export", "p/", "--insecure-clear", "-o", "/nowhere/x"], "cannot be made"),
        (vec!["export", "p/", "--insecure-clear", "--recipient", "age1x", "-o", "x"], "cannot be used with"),
        (vec!["export", "p/", "--reveal-at-terminal", "-o", "-"], "--insecure-clear"),
        wanting(&["export", "p/"], "--to-file"),
    ];
    for (arguments, words) in cases {
        let (printed, said) = ended(&run(program().args(&arguments).args(place), b""), 2);
        assert!(said.contains(words) && printed.is_empty(), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2") && !said.contains(private), "{arguments:?}: {said}");
    }
    // What exists is never written to, whoever could open it.
    let (_, said) =
        ended(&run(program().args(["export", "p/", "--insecure-clear", "-o", &exists]).args(place), b""), 5);
    assert!(said.contains("never overwrite"), "{said}");
}

fn fs_mode(path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
