//! Values that the server makes.

use strongroom_api::{
    ErrorCode,
    generate::{Encoding, Fields, Generate, Kind},
};
use strongroom_client::{Client, PutOptions};
use strongroom_core::{Action, FieldName, Payload};
use strongroom_tests::{TestServer, field, fields, path, reference};

async fn shop() -> (TestServer, Client) {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    (server, admin)
}

#[tokio::test]
async fn who_may_only_write_makes_values_that_he_never_sees() {
    let (server, admin) = shop().await;
    server.grant("workload:lab/shop/rotator", &[Action::Write], "shop/").await;
    let rotator = server.workload("shop", "rotator");
    for (name, request) in [
        ("password", Generate { length: Some(40), each_class: true, ..Generate::new(Kind::Password) }),
        ("bytes", Generate { length: Some(16), encoding: Some(Encoding::Hex), ..Generate::new(Kind::Bytes) }),
        ("uuid", Generate::new(Kind::Uuid)),
    ] {
        let secret = path(&format!("shop/{name}"));
        let made = rotator.generate(&secret, &request, Some(0)).await.unwrap();
        assert_eq!((made.version, made.unchanged), (1, false));
        let first = field(&admin.read(&reference(&format!("shop/{name}"))).await.unwrap(), name);
        assert_eq!(
            first.len(),
            match name {
                "password" => 40,
                "bytes" => 32,
                _ => 36,
            },
            "{name}"
        );
        rotator.generate(&secret, &request, Some(1)).await.unwrap();
        let second = field(&admin.read(&reference(&format!("shop/{name}"))).await.unwrap(), name);
        assert_ne!(first, second, "{name}");
        let stale = rotator.generate(&secret, &request, Some(1)).await.unwrap_err();
        assert_eq!(stale.code(), Some(ErrorCode::VersionConflict), "{name}");
    }
    let answer = server
        .request(
            "POST",
            "/api/v1/secret/generate?path=shop/seen",
            Some(server.admin_token()),
            Some(r#"{"kind":"password"}"#),
        )
        .await;
    let value = field(&admin.read(&reference("shop/seen")).await.unwrap(), "password");
    assert!(answer.status == 200 && answer.header("etag") == Some("\"1\"") && !answer.text().contains(&value));
    server.grant("workload:lab/shop/reader", &[Action::Read], "shop/").await;
    for kind in [Kind::Password, Kind::Rsa, Kind::Ed25519] {
        let refused = server.workload("shop", "reader").generate(&path("shop/x"), &Generate::new(kind), None).await;
        assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::Forbidden));
    }
}

#[tokio::test]
async fn a_generated_field_replaces_the_others_or_joins_them() {
    let (_server, admin) = shop().await;
    let secret = path("shop/db");
    admin.put(&secret, fields(&[("user", "app"), ("password", "old")]), PutOptions::default()).await.unwrap();
    let merge = Generate { fields: Fields::Merge, activate: false, ..Generate::new(Kind::Password) };
    assert_eq!(admin.generate(&secret, &merge, None).await.unwrap().version, 2);
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "password"), "old", "it is pending");
    let pending = admin.read(&reference("shop/db@pending")).await.unwrap();
    assert!(field(&pending, "user") == "app" && field(&pending, "password").len() == 32);
    admin.generate(&secret, &Generate::new(Kind::Password), None).await.unwrap();
    let read = admin.read(&reference("shop/db")).await.unwrap();
    assert!(matches!(&read.payload, Payload::Fields(fields) if fields.len() == 1));
}

#[tokio::test]
async fn key_pairs_are_pem_and_of_their_kind() {
    let (_server, admin) = shop().await;
    admin.generate(&path("shop/ed"), &Generate::new(Kind::Ed25519), None).await.unwrap();
    let rsa = Generate {
        bits: Some(2048),
        field: Some(FieldName::parse("key").unwrap()),
        public_field: Some(FieldName::parse("key.pub").unwrap()),
        ..Generate::new(Kind::Rsa)
    };
    admin.generate(&path("shop/rsa"), &rsa, None).await.unwrap();
    for (name, private, public) in [("shop/ed", "private_key", "public_key"), ("shop/rsa", "key", "key.pub")] {
        let read = admin.read(&reference(name)).await.unwrap();
        assert!(field(&read, private).starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(field(&read, public).starts_with("-----BEGIN PUBLIC KEY-----\n"));
        rcgen::KeyPair::from_pem(&field(&read, private)).unwrap();
    }
    for request in [
        Generate { bits: Some(1024), ..Generate::new(Kind::Rsa) },
        Generate { length: Some(4), ..Generate::new(Kind::Password) },
        Generate { public_field: Some(FieldName::parse("private_key").unwrap()), ..Generate::new(Kind::Ed25519) },
    ] {
        let refused = admin.generate(&path("shop/bad"), &request, None).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::UnprocessableContent), "{request:?}");
    }
}
