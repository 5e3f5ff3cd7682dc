//! Who may do what: grants, roles, policies, sessions narrowed to a role, and the walls between projects.

use serde_json::json;
use strongroom_api::{
    ErrorCode,
    access::{NewGrant, NewProject, Policy, Role},
};
use strongroom_client::{Client, ErrorKind, PutOptions};
use strongroom_core::{Action, Scope};
use strongroom_tests::{TestServer, fields, folder, path, project, reference};

/// A project `shop` with `shop/db` and `shop/mail/smtp`.
async fn shop() -> TestServer {
    let server = TestServer::start().await;
    server.project("shop").await;
    for name in ["shop/db", "shop/mail/smtp"] {
        server.admin().put(&path(name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    server
}

async fn reads(client: &Client, name: &str) -> bool {
    match client.read(&reference(name)).await {
        Ok(_) => true,
        Err(error) if error.code() == Some(ErrorCode::Forbidden) => false,
        Err(error) => panic!("neither allowed nor forbidden: {error}"),
    }
}

async fn put_role(server: &TestServer, name: &str, members: &[&str]) {
    let members = members.iter().map(|member| (*member).to_owned()).collect();
    server.admin().put_role(&Role { project: project("shop"), name: name.to_owned(), members }).await.unwrap();
}

async fn put_policy(server: &TestServer, name: &str, text: &str) {
    let policy = Policy { project: project("shop"), name: name.to_owned(), text: text.to_owned() };
    server.admin().put_policy(&policy).await.unwrap();
}

#[tokio::test]
async fn nothing_is_allowed_that_was_not_granted() {
    let server = shop().await;
    let pod = server.workload("shop", "api");
    let forbidden = Some(ErrorCode::Forbidden);
    assert_eq!(pod.whoami().await.unwrap().principal, "workload:lab/shop/api");
    assert_eq!(pod.read(&reference("shop/db")).await.unwrap_err().code(), forbidden);
    assert_eq!(pod.versions(&path("shop/db")).await.unwrap_err().code(), forbidden);
    assert_eq!(pod.list(&folder("shop/"), None).await.unwrap_err().code(), forbidden);
    assert_eq!(
        pod.put(&path("shop/db"), fields(&[("a", "2")]), PutOptions::default()).await.unwrap_err().code(),
        forbidden
    );
    assert_eq!(pod.delete(&path("shop/db")).await.unwrap_err().code(), forbidden);
    assert_eq!(pod.roles(&project("shop")).await.unwrap_err().code(), forbidden);
    assert_eq!(pod.grants(&project("shop")).await.unwrap_err().code(), forbidden);
    assert_eq!(pod.policies(&project("shop")).await.unwrap_err().code(), forbidden);
    assert_eq!(pod.clusters().await.unwrap_err().code(), forbidden);
    assert_eq!(pod.create_project(&NewProject { name: project("mine") }).await.unwrap_err().code(), forbidden);
    assert!(pod.projects().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_grant_reaches_its_principal_its_actions_and_its_scope_and_ends_when_revoked() {
    let server = shop().await;
    let (pod, other) = (server.workload("shop", "api"), server.workload("shop", "web"));
    let principal = "workload:lab/shop/api";

    let one = server.grant(principal, &[Action::Read], "shop/db").await;
    assert!(reads(&pod, "shop/db").await && !reads(&pod, "shop/mail/smtp").await && !reads(&other, "shop/db").await);
    let error = pod.put(&path("shop/db"), fields(&[("a", "2")]), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Forbidden), "reading is not writing");
    let error = pod.delete(&path("shop/db")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Forbidden), "reading is not deleting");

    let mail = server.grant(principal, &[Action::Read], "shop/mail/").await;
    assert!(
        reads(&pod, "shop/mail/smtp").await && !reads(&pod, "shop/mailbox").await && !reads(&pod, "shop/mail").await
    );

    server.admin().revoke_grant(&project("shop"), one.id).await.unwrap();
    assert!(!reads(&pod, "shop/db").await && reads(&pod, "shop/mail/smtp").await);
    server.admin().revoke_grant(&project("shop"), mail.id).await.unwrap();
    assert!(!reads(&pod, "shop/mail/smtp").await);
    assert_eq!(
        server.admin().revoke_grant(&project("shop"), one.id).await.unwrap_err().code(),
        Some(ErrorCode::NotFound)
    );

    server.grant(principal, &[Action::Write], "shop/").await;
    assert_eq!(pod.put(&path("shop/new"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap().version, 1);
    assert!(!reads(&pod, "shop/new").await, "writing is not reading, not even one's own");
}

#[tokio::test]
async fn the_first_admin_reads_nobodys_secrets() {
    let server = shop().await;
    let grants = server.admin().grants(&project("shop")).await.unwrap();
    let owner = grants.iter().find(|grant| grant.principal == "user:admin").unwrap();
    assert!(reads(&server.admin(), "shop/db").await, "as the project's owner");
    server.admin().revoke_grant(&project("shop"), owner.id).await.unwrap();
    assert!(!reads(&server.admin(), "shop/db").await, "but not as the instance's admin");
}

#[tokio::test]
async fn a_role_is_its_members_and_patterns_mean_whole_names_only() {
    let server = shop().await;
    put_role(&server, "readers", &["workload:lab/shop/api"]).await;
    server.grant("role:shop/readers", &[Action::Read], "shop/").await;
    let allowed = async |namespace: &str, account: &str| reads(&server.workload(namespace, account), "shop/db").await;
    assert!(allowed("shop", "api").await);
    for (namespace, account) in [("shop", "ap"), ("shop", "api2"), ("other", "api"), ("shop2", "api")] {
        assert!(!allowed(namespace, account).await, "{namespace}/{account}");
    }
    put_role(&server, "readers", &["workload:*/shop/*", "user:ada"]).await;
    assert!(allowed("shop", "anything").await);
    assert!(!allowed("shop2", "api").await && !allowed("sho", "api").await);
    put_role(&server, "readers", &["workload:other/shop/*"]).await;
    assert!(!allowed("shop", "api").await, "a pattern of another cluster");
    put_role(&server, "readers", &[]).await;
    assert!(!allowed("shop", "api").await);
    put_role(&server, "readers", &["workload:*/shop/api"]).await;
    assert!(allowed("shop", "api").await);
    server.admin().remove_role(&project("shop"), "readers").await.unwrap();
    assert!(!allowed("shop", "api").await, "a grant to a role that is gone reaches nobody");
}

#[tokio::test]
async fn a_forbid_wins_over_every_grant() {
    let server = shop().await;
    let pod = server.workload("shop", "api");
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    put_policy(&server, "no-mail", r#"forbid(principal, action == Action::"read", resource in Folder::"shop/mail/");"#)
        .await;
    assert!(reads(&pod, "shop/db").await && !reads(&pod, "shop/mail/smtp").await);
    assert!(!reads(&server.admin(), "shop/mail/smtp").await, "the owner is bound by it too");
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/mail/smtp").await;
    assert!(!reads(&pod, "shop/mail/smtp").await, "a later, narrower grant does not undo it");
    server.admin().remove_policy(&project("shop"), "no-mail").await.unwrap();
    assert!(reads(&pod, "shop/mail/smtp").await);
}

#[tokio::test]
async fn a_permit_written_as_text_allows_what_it_says() {
    let server = shop().await;
    let pod = server.workload("shop", "api");
    put_policy(
        &server,
        "api-reads",
        r#"permit(principal is Workload, action == Action::"read", resource in Project::"shop") when { principal.namespace == "shop" };"#,
    )
    .await;
    assert!(reads(&pod, "shop/db").await && !reads(&server.workload("other", "api"), "shop/db").await);
}

#[tokio::test]
async fn each_policy_that_reaches_outside_its_project_is_refused() {
    let server = shop().await;
    server.project("other").await;
    for text in [
        r#"permit(principal, action, resource in Project::"other");"#,
        "permit(principal, action, resource);",
        r#"permit(principal, action, resource in Instance::"instance");"#,
        r#"permit(principal, action, resource == Secret::"other/db");"#,
        r#"permit(principal in Role::"other/readers", action, resource in Project::"shop");"#,
        r#"permit(principal, action, resource in Project::"shop"); permit(principal, action, resource in Project::"shop");"#,
        "permit(",
        "",
    ] {
        let policy = Policy { project: project("shop"), name: "bad".to_owned(), text: text.to_owned() };
        let error = server.admin().put_policy(&policy).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BadPolicy), "{text}");
        assert!(error.detail().is_some_and(|detail| !detail.is_empty()), "{text}");
    }
    assert!(server.admin().policies(&project("shop")).await.unwrap().is_empty());
}

#[tokio::test]
async fn each_grant_that_cannot_be_is_refused() {
    let server = shop().await;
    for (principal, actions, scope) in [
        ("role:other/readers", vec![Action::Read], "shop/"),
        ("workload:lab/shop", vec![Action::Read], "shop/"),
        ("workload:*/shop/api", vec![Action::Read], "shop/"),
        ("nobody", vec![Action::Read], "shop/"),
        ("user:ada", vec![], "shop/"),
        ("user:ada", vec![Action::Read, Action::Read], "shop/"),
        ("user:ada", vec![Action::ManageGrants], "shop/mail/"),
        ("user:ada", vec![Action::ManageGrants], "shop/db"),
        ("user:ada", vec![Action::CreateProject], "shop/"),
        ("user:ada", vec![Action::Login], "shop/"),
    ] {
        let grant = NewGrant { principal: principal.to_owned(), actions, scope: Scope::parse(scope).unwrap() };
        let error = server.admin().create_grant(&grant).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnprocessableContent), "{principal} {scope}");
    }
    let again = NewGrant {
        principal: "user:ada".to_owned(),
        actions: vec![Action::Read],
        scope: Scope::parse("shop/").unwrap(),
    };
    server.admin().create_grant(&again).await.unwrap();
    assert_eq!(server.admin().create_grant(&again).await.unwrap_err().code(), Some(ErrorCode::AlreadyExists));
}

#[tokio::test]
async fn a_session_narrowed_to_a_role_has_that_roles_grants_only_and_every_forbid() {
    let server = shop().await;
    put_role(&server, "db", &["workload:lab/shop/api"]).await;
    put_role(&server, "mail", &["workload:lab/shop/api"]).await;
    put_role(&server, "foreign", &["workload:lab/other/api"]).await;
    server.grant("role:shop/db", &[Action::Read], "shop/db").await;
    server.grant("role:shop/mail", &[Action::Read], "shop/mail/").await;
    let whole = server.workload("shop", "api");
    assert!(reads(&whole, "shop/db").await && reads(&whole, "shop/mail/smtp").await);
    let narrow = server.workload_in_role("shop", "api", Some("shop/db"));
    assert!(reads(&narrow, "shop/db").await && !reads(&narrow, "shop/mail/smtp").await);
    assert_eq!(narrow.whoami().await.unwrap().role.as_deref(), Some("shop/db"));

    let everyone = r#"permit(principal, action == Action::"read", resource in Project::"shop");"#;
    put_policy(&server, "everyone", everyone).await;
    assert!(reads(&server.workload("other", "api"), "shop/mail/smtp").await);
    assert!(!reads(&narrow, "shop/mail/smtp").await, "a permit for anyone is not one for the role");
    let of_role = r#"permit(principal in Role::"shop/db", action == Action::"read", resource in Project::"shop");"#;
    put_policy(&server, "everyone", of_role).await;
    assert!(reads(&narrow, "shop/mail/smtp").await, "one for the role is");
    server.admin().remove_policy(&project("shop"), "everyone").await.unwrap();
    assert!(!reads(&narrow, "shop/mail/smtp").await);

    put_policy(
        &server,
        "not-mail",
        r#"forbid(principal in Role::"shop/mail", action == Action::"read", resource in Project::"shop");"#,
    )
    .await;
    assert!(!reads(&narrow, "shop/db").await, "the forbid of a role that the session is not narrowed to still binds");

    for (role, code) in [
        ("shop/foreign", ErrorCode::Forbidden),
        ("shop/none", ErrorCode::Forbidden),
        ("none/db", ErrorCode::Forbidden),
        ("shop", ErrorCode::UnprocessableContent),
        ("shop/db/x", ErrorCode::UnprocessableContent),
        ("", ErrorCode::UnprocessableContent),
    ] {
        let error = server.workload_in_role("shop", "api", Some(role)).whoami().await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{role:?}");
    }
}

#[tokio::test]
async fn a_narrowed_session_lacks_what_is_permitted_to_the_workload_itself_and_keeps_what_is_forbidden_to_it() {
    let server = shop().await;
    put_role(&server, "db", &["workload:lab/shop/api"]).await;
    server.grant("role:shop/db", &[Action::Read], "shop/db").await;
    put_policy(
        &server,
        "api-reads",
        r#"permit(principal == Workload::"lab/shop/api", action == Action::"read", resource in Project::"shop");"#,
    )
    .await;
    server.grant("workload:lab/shop/api", &[Action::Write], "shop/").await;
    let (whole, narrow) = (server.workload("shop", "api"), server.workload_in_role("shop", "api", Some("shop/db")));
    assert!(reads(&whole, "shop/mail/smtp").await && !reads(&narrow, "shop/mail/smtp").await);
    assert!(reads(&narrow, "shop/db").await);
    let put = async |client: &Client| client.put(&path("shop/db"), fields(&[("a", "2")]), PutOptions::default()).await;
    assert!(put(&whole).await.is_ok(), "the workload's own grant");
    assert_eq!(put(&narrow).await.unwrap_err().code(), Some(ErrorCode::Forbidden), "it is not the role's");
    put_policy(
        &server,
        "api-not-db",
        r#"forbid(principal == Workload::"lab/shop/api", action == Action::"read", resource == Secret::"shop/db");"#,
    )
    .await;
    assert!(!reads(&whole, "shop/db").await && !reads(&narrow, "shop/db").await);
    server.admin().remove_policy(&project("shop"), "api-not-db").await.unwrap();
    assert!(reads(&narrow, "shop/db").await);
}

#[tokio::test]
async fn a_list_shows_only_what_may_be_listed() {
    let server = shop().await;
    let pod = server.workload("shop", "api");
    server.grant("workload:lab/shop/api", &[Action::List], "shop/mail/").await;
    let names = async |of: &str| {
        let list = pod.list(&folder(of), None).await?;
        Ok::<_, strongroom_client::Error>(list.secrets.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(names("shop/").await.unwrap(), ["shop/mail/smtp"]);
    assert_eq!(names("shop/mail/").await.unwrap(), ["shop/mail/smtp"]);
    assert_eq!(names("shop/other/").await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(
        server.workload("shop", "web").list(&folder("shop/"), None).await.unwrap_err().kind(),
        ErrorKind::Forbidden
    );
}

#[tokio::test]
async fn a_refusal_is_the_same_whether_or_not_there_is_anything() {
    let server = shop().await;
    server.project("other").await;
    server.admin().put(&path("other/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    server.admin().put(&path("other/gone"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    server.admin().delete(&path("other/gone")).await.unwrap();
    let everything = [Action::Read, Action::Describe, Action::List, Action::Write, Action::Delete];
    server.grant("workload:lab/shop/api", &everything, "shop/").await;
    let session = server.session("shop", "api").await;
    let put = json!({"fields": {"a": "1"}}).to_string();
    let mut answers = Vec::new();
    for (method, route, body) in [
        ("GET", "/api/v1/secret?path=", None),
        ("PUT", "/api/v1/secret?path=", Some(put.as_str())),
        ("DELETE", "/api/v1/secret?path=", None),
        ("GET", "/api/v1/secret/versions?path=", None),
    ] {
        for name in ["other/db", "other/gone", "other/none", "none/db"] {
            let answer = server.request(method, &format!("{route}{name}"), Some(&session), body).await;
            assert_eq!(answer.status, 403, "{method} {route}{name}");
            answers.push(answer.without_id());
        }
        let own = server.request(method, &format!("{route}shop/none"), Some(&session), body).await;
        assert_ne!(own.status, 403, "{method} {route} in the own project");
    }
    for of in ["other/", "none/", "other/x/"] {
        answers.push(
            server.request("GET", &format!("/api/v1/secrets?folder={of}"), Some(&session), None).await.without_id(),
        );
    }
    for route in ["roles", "grants", "policies"] {
        for of in ["other", "none"] {
            answers.push(
                server
                    .request("GET", &format!("/api/v1/{route}?project={of}"), Some(&session), None)
                    .await
                    .without_id(),
            );
        }
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "{answers:#?}");
    assert_eq!(server.sql().await.count("secret_versions").await, 4 + 1, "only the own put was done");
}
