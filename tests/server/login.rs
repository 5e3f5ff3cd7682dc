//! Logging in by offline keys: one good token, and one vector for each way a token can be wrong.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use strongroom_api::{
    access::{NewCluster, Trust},
    routes,
};
use strongroom_core::{Clock as _, SystemClock};
use strongroom_local::{Issuer, Pod, TokenBuilder};
use strongroom_tests::{Answer, CLUSTER, INSTANCE, Raw, TestServer};
use time::Duration;

fn pod() -> Pod {
    Pod::of("shop", "api")
}

fn good(server: &TestServer) -> TokenBuilder<'_> {
    server.issuer.token(&pod(), &server.audience(), SystemClock.now())
}

async fn log_in(raw: &mut Raw, cluster: &str, token: &str) -> Answer {
    let body = json!({ "cluster": cluster, "token": token }).to_string();
    raw.request("POST", routes::LOGIN, None, Some(&body)).await
}

/// Tries each, and demands that all get the same 401 and that none leaves a trace in the database.
async fn all_are_refused_alike(server: &TestServer, vectors: Vec<(String, String)>) {
    let before = server.sql().await.dump().await;
    let mut raw = server.connect().await;
    assert_eq!(log_in(&mut raw, CLUSTER, "x").await.status, 401);
    let reference = log_in(&mut raw, CLUSTER, "x").await.without_id();
    assert!(vectors.len() > 1);
    for (name, token) in vectors {
        let answer = log_in(&mut raw, CLUSTER, &token).await;
        assert_eq!(answer.without_id(), reference, "{name}");
        assert!(!answer.text().contains("srs_"), "{name}");
    }
    assert_eq!(server.sql().await.dump().await, before);
    assert_eq!(log_in(&mut raw, CLUSTER, &good(server).sign()).await.status, 200, "the good token still logs in");
}

fn named(name: impl Into<String>, token: impl Into<String>) -> (String, String) {
    (name.into(), token.into())
}

#[tokio::test]
async fn a_good_token_gives_a_session_and_one_event_that_names_the_pod() {
    let server = TestServer::start().await;
    let mut raw = server.connect().await;
    let answer = log_in(&mut raw, CLUSTER, &good(&server).lifetime(Duration::minutes(10)).sign()).await;
    assert_eq!(answer.status, 200);
    let session = answer.json();
    assert_eq!(session["principal"], "workload:lab/shop/api");
    let seconds = session["expires_in_seconds"].as_u64().unwrap();
    assert!((590..=600).contains(&seconds), "never longer than the token: {seconds}");
    let whole_hour = log_in(&mut raw, CLUSTER, &good(&server).sign()).await.json();
    assert_eq!(whole_hour["expires_in_seconds"], 900, "and never longer than a quarter of an hour");

    let id = answer.header("x-request-id").unwrap();
    let events = server.sql().await.rows(&format!("SELECT * FROM audit_events WHERE request_id = '{id}'")).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["action"], "login");
    assert_eq!(events[0]["decision"], "allowed");
    assert_eq!(events[0]["outcome"], "ok");
    assert_eq!(events[0]["actor"], "workload:lab/shop/api");
    assert_eq!(events[0]["actor_pod"], "api-0");
    assert_eq!(events[0]["actor_pod_uid"], server.issuer.pod_uid(&pod()).to_string());
    assert_eq!(events[0]["source"], "127.0.0.1");
}

#[tokio::test]
async fn each_claim_that_is_missing_doubled_or_of_another_kind_is_refused() {
    let server = TestServer::start().await;
    let mut vectors = Vec::new();
    for claim in ["iss", "aud", "exp", "iat", "nbf", "sub", "kubernetes.io"] {
        let token = good(&server);
        vectors.push(named(format!("without {claim}"), token.clone().without(claim).sign()));
        let whole: Value = serde_json::from_str(&token.claims_text()).unwrap();
        let doubled = format!("{{\"{claim}\":{},{}", whole[claim], &token.claims_text()[1..]);
        vectors.push(named(format!("{claim} doubled"), server.issuer.sign(&token.header_text(), &doubled)));
        for value in [
            json!(null),
            json!(true),
            json!(""),
            json!("x"),
            json!("1"),
            json!(1.5),
            json!(1e300),
            json!(-1),
            json!(0),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
            json!([]),
            json!(["x"]),
            json!([null]),
            json!({}),
        ] {
            // 0 is a time like any other before which a token is not valid.
            if claim == "nbf" && value == json!(0) {
                continue;
            }
            vectors.push(named(format!("{claim} = {value}"), token.clone().claim(claim, value).sign()));
        }
    }
    for member in ["namespace", "pod", "serviceaccount"] {
        let mut without = good(&server);
        without.claims_mut()["kubernetes.io"].as_object_mut().unwrap().remove(member);
        vectors.push(named(format!("without {member}"), without.sign()));
        for value in [
            json!(null),
            json!(1),
            json!("x"),
            json!({}),
            json!(["x"]),
            json!({"name": "x"}),
            json!({"name": "x", "uid": "x"}),
        ] {
            let mut other = good(&server);
            other.claims_mut()["kubernetes.io"][member] = value.clone();
            vectors.push(named(format!("{member} = {value}"), other.sign()));
        }
        let token = good(&server);
        let claims =
            token.claims_text().replace("\"kubernetes.io\":{", &format!("\"kubernetes.io\":{{\"{member}\":null,"));
        vectors.push(named(format!("{member} doubled"), server.issuer.sign(&token.header_text(), &claims)));
    }
    all_are_refused_alike(&server, vectors).await;
}

#[tokio::test]
async fn each_token_for_another_place_another_time_or_another_subject_is_refused() {
    let server = TestServer::start().await;
    let (issuer, audience) = (server.issuer.url(), server.audience());
    let mut vectors = Vec::new();
    let text = |name: &str, claim: &str, value: Value| named(name, good(&server).claim(claim, value).sign());
    vectors.extend([
        text("a prefix of the issuer", "iss", json!(issuer[..issuer.len() - 1])),
        text("more than the issuer", "iss", json!(format!("{issuer}/"))),
        text("the issuer in capitals", "iss", json!(issuer.to_uppercase())),
        text("another issuer", "iss", json!("https://kubernetes.default.svc")),
        text("a list with the issuer", "iss", json!([issuer])),
        text("a prefix of the audience", "aud", json!([audience[..audience.len() - 1]])),
        text("more than the audience", "aud", json!([format!("{audience}/x")])),
        text("the audience of another instance", "aud", json!([format!("strongroom/other/{CLUSTER}")])),
        text("the audience of another cluster", "aud", json!([format!("strongroom/{INSTANCE}/other")])),
        text("the API server's audience", "aud", json!(["https://kubernetes.default.svc"])),
        text("the audience as a text", "aud", json!(audience)),
        text("the audience in a list in a list", "aud", json!([[audience]])),
        text("the audience beside a number", "aud", json!([audience, 1])),
        text("another account as the subject", "sub", json!("system:serviceaccount:shop:web")),
        text("another namespace as the subject", "sub", json!("system:serviceaccount:other:api")),
        text("a node as the subject", "sub", json!("system:node:node-1")),
        text("a subject with more", "sub", json!("system:serviceaccount:shop:api ")),
    ]);
    let now = SystemClock.now().unix_timestamp();
    let times = |name: &str, claims: &[(&str, i64)]| {
        let token = claims.iter().fold(good(&server), |token, (claim, value)| token.claim(claim, *value));
        named(name, token.sign())
    };
    vectors.extend([
        times("expired a second ago", &[("exp", now - 1)]),
        times("expired within any leeway", &[("exp", now - 29), ("iat", now - 600), ("nbf", now - 600)]),
        times("expired long ago", &[("exp", now - 86_400), ("iat", now - 90_000), ("nbf", now - 90_000)]),
        times("valid only later", &[("nbf", now + 60)]),
        times("issued in the future", &[("iat", now + 60), ("exp", now + 600)]),
        times("valid for two hours", &[("exp", now + 7_200)]),
        times("valid for a year", &[("exp", now + 31_536_000)]),
        times("issued an hour and more before its end", &[("iat", now - 3_600)]),
        times("issued after its end", &[("iat", now + 20), ("exp", now + 10)]),
    ]);
    let mut renamed = good(&server);
    renamed.claims_mut()["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
    vectors.push(named("another account in the binding", renamed.sign()));
    let mut moved = good(&server);
    moved.claims_mut()["kubernetes.io"]["namespace"] = json!("kube-system");
    vectors.push(named("another namespace in the binding", moved.sign()));
    for odd in ["sh op", "SHOP", "shop/api", "*", "..", "shop:api"] {
        let mut token = good(&server);
        token.claims_mut()["kubernetes.io"]["namespace"] = json!(odd);
        let token = token.claim("sub", format!("system:serviceaccount:{odd}:api"));
        vectors.push(named(format!("the namespace {odd:?}"), token.sign()));
    }
    all_are_refused_alike(&server, vectors).await;
}

#[tokio::test]
async fn each_header_that_chooses_its_own_key_or_algorithm_is_refused() {
    let server = TestServer::start().await;
    let attacker = Issuer::new(server.issuer.url());
    let mut vectors = Vec::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let token = good(&server).header("alg", none);
        vectors.push(named(format!("alg {none:?} without a signature"), token.without_signature()));
        vectors.push(named(format!("alg {none:?} with the signature"), token.sign()));
    }
    vectors.push(named("no signature", good(&server).without_signature()));
    let jwk = server.issuer.jwks()["keys"][0].clone();
    let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    for (name, key) in [
        ("the public point", server.issuer.public_key().to_vec()),
        ("its x", x),
        ("the key set's text", server.issuer.jwks().to_string().into_bytes()),
        ("the key's text", jwk.to_string().into_bytes()),
        ("nothing", Vec::new()),
    ] {
        for algorithm in ["HS256", "ES256"] {
            vectors
                .push(named(format!("{algorithm} with {name}"), good(&server).header("alg", algorithm).tag_with(&key)));
        }
    }
    for algorithm in ["ES384", "ES512", "RS256", "PS256", "EdDSA", "es256", "HS384"] {
        vectors.push(named(format!("signed, but alg {algorithm}"), good(&server).header("alg", algorithm).sign()));
    }
    for id in ["", "other", "../../../../dev/null", "/dev/null", "file:///dev/null", "' OR 1=1 --", "\u{0}", "*"] {
        vectors.push(named(format!("kid {id:?}"), good(&server).header("kid", id).sign()));
    }
    let attackers = || good(&server).header("kid", attacker.key_id());
    vectors.extend([
        named("an attacker's key under its own id", attackers().sign_with(&attacker)),
        named("an attacker's key under the registered id", good(&server).sign_with(&attacker)),
        named(
            "with the attacker's jwk",
            attackers().header("jwk", attacker.jwks()["keys"][0].clone()).sign_with(&attacker),
        ),
        named("with a jku", attackers().header("jku", "https://127.0.0.1:1/jwks").sign_with(&attacker)),
        named("with an x5u", attackers().header("x5u", "https://127.0.0.1:1/cert").sign_with(&attacker)),
        named("with an x5c", attackers().header("x5c", json!(["AAAA"])).sign_with(&attacker)),
        named("kid as a list", good(&server).header("kid", json!([server.issuer.key_id()])).sign()),
        named("kid as a number", good(&server).header("kid", 1).sign()),
        named("alg as a list", good(&server).header("alg", json!(["ES256"])).sign()),
    ]);
    for member in ["kid", "alg"] {
        let mut token = good(&server);
        token.header_mut().remove(member);
        vectors.push(named(format!("without {member}"), token.sign()));
    }
    all_are_refused_alike(&server, vectors).await;
}

#[tokio::test]
async fn each_text_that_is_no_signed_token_is_refused() {
    let server = TestServer::start().await;
    let token = good(&server).sign();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("a token has three parts") };
    let flipped = |text: &str| {
        let last = if text.ends_with('A') { 'B' } else { 'A' };
        format!("{last}{}", &text[1..])
    };
    let mut larger = good(&server);
    larger.claims_mut().insert("padding".to_owned(), json!("x".repeat(8_192)));
    let vectors = vec![
        named("nothing", ""),
        named("one part", header),
        named("two parts", format!("{header}.{claims}")),
        named("four parts", format!("{token}.")),
        named("an encrypted token's five parts", format!("{header}.AAAA.AAAA.{claims}.{signature}")),
        named("five parts with the token first", format!("{token}.AAAA.AAAA")),
        named("twelve thousand dots", ".".repeat(12_000)),
        named("twelve thousand letters", "A".repeat(12_000)),
        named("two dots", ".."),
        named("a header that is not base64", format!("!.{claims}.{signature}")),
        named("a header that is not JSON", format!("AAAA.{claims}.{signature}")),
        named("claims that are not base64", format!("{header}.!.{signature}")),
        named("claims that are not JSON", format!("{header}.AAAA.{signature}")),
        named(
            "altered claims",
            format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(good(&server).claim("jti", "x").claims_text())),
        ),
        named(
            "an altered header",
            format!(
                "{}.{claims}.{signature}",
                URL_SAFE_NO_PAD.encode(good(&server).header("typ", "JWT").header_text())
            ),
        ),
        named("an altered signature", format!("{header}.{claims}.{}", flipped(signature))),
        named("a short signature", format!("{header}.{claims}.{}", &signature[..signature.len() - 4])),
        named("a long signature", format!("{header}.{claims}.{signature}AAAA")),
        named("a signature of zeros", format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
        named("padding", format!("{header}.{claims}.{signature}==")),
        named("a space before", format!(" {token}")),
        named("a line end after", format!("{token}\n")),
        named("the scheme's name", format!("Bearer {token}")),
        named("a NUL", format!("{token}\0")),
        named("more than 8 KiB", larger.sign()),
        named("an unprotected header in claims' place", format!("{claims}.{header}.{signature}")),
    ];
    all_are_refused_alike(&server, vectors).await;
    for token in [".".repeat(1_000_000), "A".repeat(1_000_000)] {
        let answer = log_in(&mut server.connect().await, CLUSTER, &token).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "a megabyte is not even read");
    }
}

#[tokio::test]
async fn a_token_logs_in_to_its_own_cluster_only() {
    let server = TestServer::start().await;
    let second = Issuer::new("https://second.test");
    let cluster = NewCluster {
        name: "second".to_owned(),
        issuer: second.url().to_owned(),
        trust: Trust::OfflineKeys { keys: second.jwks() },
    };
    server.admin().create_cluster(&cluster).await.unwrap();
    let now = SystemClock.now();
    let second_audience = format!("strongroom/{INSTANCE}/second");
    let mut raw = server.connect().await;
    let own = second.token(&pod(), &second_audience, now);
    let answer = log_in(&mut raw, "second", &own.sign()).await;
    assert_eq!((answer.status, answer.json()["principal"].as_str()), (200, Some("workload:second/shop/api")));
    let refused = log_in(&mut raw, CLUSTER, "x").await.without_id();
    for (name, cluster, token) in [
        ("the second cluster's token", CLUSTER, own.sign()),
        ("the second's key for the first's audience", CLUSTER, second.token(&pod(), &server.audience(), now).sign()),
        ("the second's key as the first", CLUSTER, good(&server).sign_with(&second)),
        ("the first's token", "second", good(&server).sign()),
        ("the first's key as the second", "second", own.sign_with(&server.issuer)),
        ("an unknown cluster", "third", good(&server).sign()),
        ("no cluster", "", good(&server).sign()),
        ("the cluster in capitals", "LAB", good(&server).sign()),
        ("the cluster with more", "lab ", good(&server).sign()),
        ("the cluster as a pattern", "%", good(&server).sign()),
    ] {
        assert_eq!(log_in(&mut raw, cluster, &token).await.without_id(), refused, "{name}");
    }
    server.admin().remove_cluster("second").await.unwrap();
    assert_eq!(log_in(&mut raw, "second", &own.sign()).await.without_id(), refused, "a removed cluster");
    let again = server.admin().create_cluster(&cluster).await.unwrap_err();
    assert_eq!(again.code(), Some(strongroom_api::ErrorCode::AlreadyExists), "names of clusters are never reused");
}

#[tokio::test]
async fn each_cluster_that_must_not_be_registered_is_refused() {
    let server = TestServer::start().await;
    let other = Issuer::new("https://other.test");
    let symmetric = json!({"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}]});
    let mut without_id = other.jwks();
    without_id["keys"][0].as_object_mut().unwrap().remove("kid");
    let mut doubled = other.jwks();
    let key = doubled["keys"][0].clone();
    doubled["keys"].as_array_mut().unwrap().push(key);
    let trust = |keys: &Value| Trust::OfflineKeys { keys: keys.clone() };
    let review =
        |api_url: &str, api_ca: &str| Trust::TokenReview { api_url: api_url.to_owned(), api_ca: api_ca.to_owned() };
    let ca = server.ca();
    for (name, cluster, issuer, trust) in [
        ("another cluster's key", "other", "https://other.test", trust(&server.issuer.jwks())),
        ("another cluster's issuer", "other", server.issuer.url(), trust(&other.jwks())),
        ("another cluster's name", CLUSTER, "https://other.test", trust(&other.jwks())),
        ("a symmetric key", "other", "https://other.test", trust(&symmetric)),
        ("no key", "other", "https://other.test", trust(&json!({"keys": []}))),
        ("no key set", "other", "https://other.test", trust(&json!("x"))),
        ("a key without an id", "other", "https://other.test", trust(&without_id)),
        ("a key twice", "other", "https://other.test", trust(&doubled)),
        ("a name in capitals", "Other", "https://other.test", trust(&other.jwks())),
        ("a name with a slash", "o/ther", "https://other.test", trust(&other.jwks())),
        ("a wildcard name", "*", "https://other.test", trust(&other.jwks())),
        ("no issuer", "other", "", trust(&other.jwks())),
        ("an issuer with a space", "other", "https://other test", trust(&other.jwks())),
        ("an API without TLS", "other", "https://other.test", review("http://127.0.0.1:1", &ca)),
        ("an API with a path", "other", "https://other.test", review("https://127.0.0.1:1/x", &ca)),
        ("an API with a user", "other", "https://other.test", review("https://u@127.0.0.1:1", &ca)),
        ("an API without a CA", "other", "https://other.test", review("https://127.0.0.1:1", "")),
    ] {
        let new = NewCluster { name: cluster.to_owned(), issuer: issuer.to_owned(), trust };
        let error = server.admin().create_cluster(&new).await.expect_err(name);
        assert!(matches!(error.code().map(strongroom_api::ErrorCode::status), Some(409 | 422)), "{name}: {error}");
    }
    assert_eq!(server.sql().await.count("clusters").await, 1);
}
