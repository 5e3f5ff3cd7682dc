//! The permission model, printed: who may do what where. A change of a cell is a change of the product, to be reviewed as one.

use crate::world::{ENGINE, Rules, SOME_SECRET, path, pod, principal, project, role, service, user};
use std::fmt::Write as _;
use strongroom_core::{Action, FolderPath, GrantId, Identity, RoleName, Scope};
use strongroom_policy::{About, DenialReason, GrantRule, GrantScope, Request, Resource};
use uuid::Uuid;

fn rules() -> Rules {
    let grant = |id: u128, who: &str, actions: &[Action], scope: &str| GrantRule {
        id: GrantId(Uuid::from_u128(id)),
        principal: principal(who),
        actions: actions.to_vec(),
        scope: GrantScope::Within(Scope::parse(scope).unwrap()),
    };
    let id = |id: u128| GrantId(Uuid::from_u128(id));
    let mut rules = Rules {
        grants: vec![
            grant(1, "workload:lab/payments/api", &[Action::Read, Action::Write], "payments/api/db"),
            grant(2, "role:payments/readers", &[Action::Read, Action::Describe, Action::List], "payments/api/"),
            grant(3, "service:ci", &[Action::Read, Action::Write, Action::Describe], "payments/"),
            GrantRule::project_owner(id(4), principal("user:olga"), &project("payments")).unwrap(),
            GrantRule::project_owner(id(5), principal("user:bob"), &project("billing")).unwrap(),
            GrantRule::instance_admin(id(6), principal("user:admin")).unwrap(),
        ],
        policies: Vec::new(),
    };
    for (of, name, text) in [
        (
            Some("payments"),
            "pods-do-not-write",
            r#"forbid(principal is Workload, action in [Action::"write", Action::"delete"], resource in Project::"payments");"#,
        ),
        (
            Some("payments"),
            "frozen",
            r#"forbid(principal, action, resource is Secret in Folder::"payments/frozen/") unless { principal in Role::"payments/break-glass" };"#,
        ),
        (
            Some("payments"),
            "public",
            r#"permit(principal is Workload, action == Action::"read", resource == Secret::"payments/ca") when { resource.exists };"#,
        ),
        (None, "services-only-write", r#"forbid(principal is Service, action == Action::"read", resource);"#),
    ] {
        assert!(rules.add(of, name, text), "{name}");
    }
    rules
}

#[test]
fn the_permission_model_as_a_table() {
    let callers: [(&str, Identity, Vec<RoleName>); 11] = [
        ("pod with a grant of its own", pod("lab", "payments", "api"), vec![]),
        ("pod of that account's name in another namespace", pod("lab", "default", "api"), vec![]),
        ("pod of that account's name in another cluster", pod("prod", "payments", "api"), vec![]),
        ("pod in the role payments/readers", pod("lab", "payments", "reports"), vec![role("payments/readers")]),
        (
            "pod in a role of that name in another project",
            pod("lab", "billing", "reports"),
            vec![role("billing/readers")],
        ),
        ("user who owns payments", user("olga"), vec![]),
        ("user who owns payments, in payments/break-glass", user("olga"), vec![role("payments/break-glass")]),
        ("user who owns billing", user("bob"), vec![]),
        ("user who administers the instance", user("admin"), vec![]),
        ("service with a grant on all of payments", service("ci"), vec![]),
        ("user without any grant", user("eve"), vec![]),
    ];
    let (own, neighbour, missing, top, frozen, public, foreign) = (
        path("payments/api/db"),
        path("payments/api/cache"),
        path("payments/api/none"),
        path("payments/top"),
        path("payments/frozen/key"),
        path("payments/ca"),
        path("billing/api/db"),
    );
    let (folder, other_folder) =
        (FolderPath::parse("payments/api/").unwrap(), FolderPath::parse("payments/web/").unwrap());
    let (payments, billing) = (project("payments"), project("billing"));
    let there = |path| Resource::Secret { path, id: Some(SOME_SECRET), version: Some(1), about: About::default() };
    let resources = [
        ("own", there(&own)),
        ("same folder", there(&neighbour)),
        ("missing", Resource::Secret { path: &missing, id: None, version: None, about: About::default() }),
        ("same project", there(&top)),
        ("other folder", there(&frozen)),
        ("public", there(&public)),
        ("other project", there(&foreign)),
        ("folder", Resource::Folder(&folder)),
        ("folder beside", Resource::Folder(&other_folder)),
        ("project", Resource::Project(&payments)),
        ("project beside", Resource::Project(&billing)),
        ("instance", Resource::Instance),
    ];

    let rules = rules();
    let mut table = String::from(
        "yes: permitted   -: nothing permits it   NO: a policy forbids it   (blank): the action is not one on this\n",
    );
    for (who, identity, roles) in &callers {
        write!(table, "\n{who}\n{:16}", "").unwrap();
        for (name, _) in &resources {
            write!(table, " {name:15}").unwrap();
        }
        for action in Action::ALL {
            write!(table, "\n{:16}", action.as_str()).unwrap();
            for (_, resource) in &resources {
                let request = Request { identity, roles, action, resource: *resource };
                let cell = match ENGINE.authorize(&request, &rules.slice(&request)).map_err(|denied| denied.reason) {
                    Ok(_) => "yes",
                    Err(DenialReason::NoPermit) => "-",
                    Err(DenialReason::Forbidden) => "NO",
                    Err(DenialReason::NotApplicable) => "",
                    Err(_) => "ALARM",
                };
                write!(table, " {cell:15}").unwrap();
            }
        }
        table += "\n";
    }
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
