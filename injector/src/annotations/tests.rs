use super::*;
use serde_json::json;

fn parse_all(pairs: &[(&str, &str)]) -> Result<Option<Injection>, BadAnnotation> {
    parse(&pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect())
}

fn opted_in(pairs: &[(&str, &str)]) -> Result<Injection, BadAnnotation> {
    let mut all = vec![("strongroom.dev/inject", "true")];
    all.extend_from_slice(pairs);
    parse_all(&all).map(|injection| injection.expect("the pod opted in"))
}

#[test]
fn a_pod_without_our_annotations_asks_for_nothing() {
    assert_eq!(parse_all(&[]), Ok(None));
    assert_eq!(
        parse_all(&[("vault.hashicorp.com/agent-inject", "true"), ("x.strongroom.dev/inject", "True")]),
        Ok(None)
    );
}

#[test]
fn false_is_an_opt_out_whatever_else_stands_there() {
    assert_eq!(parse_all(&[("strongroom.dev/inject", "false"), ("strongroom.dev/secret.db", "p/db#x")]), Ok(None));
}

#[test]
fn everything_that_can_be_asked_for_is_read() {
    let injection = opted_in(&[
        ("strongroom.dev/secret.password", "payments/db#password"),
        ("strongroom.dev/secret.db", "payments/db@previous"),
        ("strongroom.dev/format.db", "json"),
        ("strongroom.dev/file-mode.db", "0440"),
        ("strongroom.dev/role", "payments/readers"),
        ("strongroom.dev/containers", "app, worker"),
        ("strongroom.dev/mount-path", "/etc/app/secrets/"),
        ("strongroom.dev/log-level", "debug"),
    ])
    .unwrap();
    assert_eq!(injection.files.len(), 2);
    assert_eq!(
        (injection.files[0].name.as_str(), injection.files[0].format, injection.files[0].mode),
        ("db", Format::Json, Some(FileMode::GROUP))
    );
    assert_eq!(
        (injection.files[1].name.as_str(), injection.files[1].format, injection.files[1].mode),
        ("password", Format::Raw, None)
    );
    assert_eq!(injection.role.as_deref(), Some("payments/readers"));
    assert_eq!(injection.containers, Some(vec!["app".to_owned(), "worker".to_owned()]));
    assert_eq!(injection.mount_path.as_str(), "/etc/app/secrets");
    assert_eq!(injection.log_level.as_deref(), Some("debug"));
}

#[test]
fn each_malformed_opt_in_is_refused_by_name() {
    for value in ["True", "TRUE", "yes", "1", "", "true ", "enabled"] {
        assert_eq!(parse_all(&[("strongroom.dev/inject", value)]), Err(bad("inject", Problem::Inject)), "{value:?}");
    }
    assert_eq!(parse_all(&[("strongroom.dev/secret.db", "p/db#x")]), Err(bad("secret.db", Problem::NotOptedIn)));
    assert_eq!(parse_all(&[("strongroom.dev/inject", "true")]), Err(bad("inject", Problem::NoSecret)));
}

#[test]
fn each_malformed_annotation_is_refused_by_name_and_without_its_value() {
    let secret = ("strongroom.dev/secret.db", "hunter2/db#x");
    let whole = ("strongroom.dev/secret.all", "hunter2/db");
    let db = FileName::parse("db").unwrap();
    let long = "x".repeat(300);
    let vectors = [
        (vec![secret, ("strongroom.dev/Secret.x", "hunter2")], "Secret.x", Problem::Unknown),
        (vec![secret, ("strongroom.dev/secrets.x", "hunter2")], "secrets.x", Problem::Unknown),
        (vec![secret, ("strongroom.dev/secret", "hunter2")], "secret", Problem::Unknown),
        (vec![secret, ("strongroom.dev/", "hunter2")], "", Problem::Unknown),
        (vec![secret, ("strongroom.dev/server", "https://hunter2")], "server", Problem::Unknown),
        (vec![secret, ("strongroom.dev/template.db", "hunter2")], "template.db", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/env.DB", "hunter2")], "env.DB", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/optional.db", "hunter2")], "optional.db", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/on-change.db", "hunter2")], "on-change.db", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/file.db", "hunter2")], "file.db", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/agent", "hunter2")], "agent", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/agent-cpu", "hunter2")], "agent-cpu", Problem::NotSupported),
        (vec![secret, ("strongroom.dev/agent-memory", "hunter2")], "agent-memory", Problem::NotSupported),
        (vec![("strongroom.dev/secret.", "hunter2/db#x")], "secret.", Problem::FileName(BadFile::Name)),
        (vec![("strongroom.dev/secret...data", "hunter2/db#x")], "secret...data", Problem::FileName(BadFile::Name)),
        (vec![("strongroom.dev/secret.a/b", "hunter2/db#x")], "secret.a/b", Problem::FileName(BadFile::Name)),
        (
            vec![("strongroom.dev/secret.db", "hunter2")],
            "secret.db",
            Problem::Reference(Reference::parse("hunter2").unwrap_err()),
        ),
        (vec![("strongroom.dev/secret.db", "")], "secret.db", Problem::Reference(Reference::parse("").unwrap_err())),
        (
            vec![("strongroom.dev/secret.db", "hunter2/../x#y")],
            "secret.db",
            Problem::Reference(Reference::parse("a/../x#y").unwrap_err()),
        ),
        (vec![("strongroom.dev/secret.db", "hunter2/db#")], "secret.db", Problem::Reference(BadReference::Field)),
        (vec![("strongroom.dev/secret.db", "hunter2/db@0")], "secret.db", Problem::Reference(BadReference::Alias)),
        (vec![("strongroom.dev/secret.db", "hunter2/db")], "secret.db", Problem::FormatMissing(db)),
        (vec![secret, ("strongroom.dev/format.db", "yaml")], "format.db", Problem::Format),
        (vec![secret, ("strongroom.dev/format.db", "RAW")], "format.db", Problem::Format),
        (vec![secret, ("strongroom.dev/format.db", "dir")], "format.db", Problem::FormatOfField),
        (vec![secret, ("strongroom.dev/format.db", "json")], "format.db", Problem::FormatOfField),
        (vec![secret, ("strongroom.dev/format.other", "raw")], "format.other", Problem::NoSuchFile),
        (vec![secret, ("strongroom.dev/file-mode.other", "0400")], "file-mode.other", Problem::NoSuchFile),
        (
            vec![whole, ("strongroom.dev/format.all", "raw"), ("strongroom.dev/file-mode.all", "0644")],
            "file-mode.all",
            Problem::FileMode(BadFile::Mode),
        ),
        (vec![secret, ("strongroom.dev/file-mode.db", "400")], "file-mode.db", Problem::FileMode(BadFile::Mode)),
        (vec![secret, ("strongroom.dev/role", "hunter2")], "role", Problem::Role),
        (vec![secret, ("strongroom.dev/role", "hunter2/a/b")], "role", Problem::Role),
        (vec![secret, ("strongroom.dev/containers", "")], "containers", Problem::Containers),
        (vec![secret, ("strongroom.dev/containers", "hunter2,")], "containers", Problem::Containers),
        (vec![secret, ("strongroom.dev/containers", "hunter2,hunter2")], "containers", Problem::Containers),
        (vec![secret, ("strongroom.dev/log-level", "INFO")], "log-level", Problem::LogLevel),
        (vec![secret, ("strongroom.dev/mount-path", &long)], "mount-path", Problem::MountPath(BadMountPath::Form)),
    ];
    for (pairs, name, problem) in vectors {
        let error = opted_in(&pairs).unwrap_err();
        assert_eq!(error, bad(name, problem), "{pairs:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("annotation strongroom.dev/{name}: ")), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_value_that_is_not_text_is_refused() {
    let annotations = json!({"strongroom.dev/inject": true});
    assert_eq!(parse(annotations.as_object().unwrap()), Err(bad("inject", Problem::NotText)));
}

#[test]
fn mount_paths_that_hide_the_system_or_leave_it_are_refused() {
    for text in
        ["", "secrets", "./a", "/a/../b", "/a//b", "/a/.", "/..", "//a", "/a:b", "/a b", "/a\0", "/\u{e9}", "/a/b//"]
    {
        assert_eq!(MountPath::parse(text), Err(BadMountPath::Form), "{text:?}");
    }
    for text in [
        "/etc",
        "/etc/",
        "/proc",
        "/proc/1",
        "/sys/fs",
        "/dev/shm",
        "/run/secrets",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/usr",
        "/usr/local",
        "/usr/local/",
        "/usr/lib/x",
        "/usr/lib64",
        "/usr/local/bin/app",
        "/usr/local/lib",
        "/usr/share/zoneinfo",
        "/lib32/x",
        "/lib64/x",
        "/tmp",
    ] {
        assert_eq!(MountPath::parse(text), Err(BadMountPath::System), "{text:?}");
    }
    assert!(MountPath::parse("/").is_err());
    for text in [
        "/secrets",
        "/vault/secrets",
        "/etc/app",
        "/run/secrets/strongroom",
        "/processes",
        "/var/run/app",
        "/usr/local/app/secrets",
        "/usr/src/app",
    ] {
        assert_eq!(MountPath::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn a_name_with_control_characters_is_escaped_and_cut() {
    let name = format!("x\n\u{1b}[31m{}", "y".repeat(500));
    let error = opted_in(&[(&format!("strongroom.dev/{name}"), "")]).unwrap_err().to_string();
    assert!(error.contains("x\\n\\u{1b}[31m") && error.len() < 350, "{error}");
}

#[test]
fn every_annotation_is_documented() {
    let documentation = include_str!("../../../docs/annotations.md");
    // The names are those that the parser's own text compares with.
    let (_, parser) = include_str!("../annotations.rs").split_once("match ").unwrap();
    let names = ["inject", "role", "containers", "mount-path", "log-level", "secret", "format", "file-mode"];
    for name in names {
        assert!(parser.contains(&format!("\"{name}\"")), "{name} is no annotation any more");
        assert!(
            documentation.contains(&format!("| `{name}` |")) || documentation.contains(&format!("| `{name}.<file>` |")),
            "docs/annotations.md lacks {name}"
        );
    }
}
