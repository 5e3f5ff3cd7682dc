//! What a decision carries, and that whatever is broken is a denial.

use crate::world::{ENGINE, SOME_SECRET, path, principal, project, role, user};
use strongroom_core::{Action, GrantId, Identity, PolicyId, Scope, SecretId};
use strongroom_policy::{
    About, DenialReason, Denied, Grant, GrantRule, GrantScope, PolicyProblem, Request, Resource, Slice, TextPolicy,
};
use uuid::Uuid;

const PERMIT: &str = r#"permit(principal, action, resource in Project::"p");"#;
const OVERFLOW: &str = "9223372036854775807 + 1 > 0";

fn row(id: u128, of: Option<&str>, name: &str, text: &str) -> TextPolicy {
    TextPolicy {
        id: PolicyId(Uuid::from_u128(id)),
        name: name.to_owned(),
        text: text.to_owned(),
        project: of.map(project),
    }
}

fn grant(id: u128, who: &str, scope: &str) -> GrantRule {
    GrantRule {
        id: GrantId(Uuid::from_u128(id)),
        principal: principal(who),
        actions: vec![Action::Read],
        scope: GrantScope::Within(Scope::parse(scope).unwrap()),
    }
}

fn decide(identity: &Identity, id: Option<SecretId>, slice: &Slice) -> Result<Grant, Denied> {
    let (path, roles) = (path("p/f/a"), [role("p/readers"), role("q/readers")]);
    let request = Request {
        identity,
        roles: &roles,
        action: Action::Read,
        resource: Resource::Secret { path: &path, id, version: id.map(|_| 7), about: About::default() },
    };
    ENGINE.authorize(&request, slice)
}

fn refusal(slice: &Slice) -> Denied {
    decide(&user("ada"), Some(SOME_SECRET), slice).expect_err("must be denied")
}

#[test]
fn a_grant_names_what_was_allowed_and_by_what() {
    let slice = Slice {
        grants: vec![grant(1, "user:ada", "p/f/a"), grant(2, "role:p/readers", "p/f/"), grant(3, "user:bob", "p/")],
        policies: vec![row(1, Some("p"), "all", PERMIT), row(2, None, "all", "permit(principal, action, resource);")],
    };
    let allowed = decide(&user("ada"), Some(SOME_SECRET), &slice).unwrap();
    assert_eq!((allowed.action(), allowed.resource()), (Action::Read, "p/f/a"));
    assert_eq!((allowed.secret_id(), allowed.version()), (Some(SOME_SECRET), Some(7)));
    assert_eq!(
        allowed.policies(),
        [
            "grant:00000000-0000-0000-0000-000000000001",
            "grant:00000000-0000-0000-0000-000000000002",
            "policy:all",
            "policy:p/all"
        ]
    );
    let missing = decide(&user("ada"), None, &slice).unwrap();
    assert_eq!((missing.secret_id(), missing.version()), (None, None));
}

#[test]
fn a_refusal_is_the_same_whether_or_not_the_secret_exists() {
    let slice = Slice { grants: vec![grant(1, "user:bob", "p/")], policies: Vec::new() };
    let (there, missing) = (decide(&user("ada"), Some(SOME_SECRET), &slice), decide(&user("ada"), None, &slice));
    assert_eq!(there.unwrap_err(), missing.unwrap_err());
}

#[test]
fn a_forbid_wins_and_is_named() {
    let forbid = r#"forbid(principal, action == Action::"read", resource in Folder::"p/f/");"#;
    let slice = Slice {
        grants: vec![grant(1, "user:ada", "p/")],
        policies: vec![row(1, Some("p"), "all", PERMIT), row(2, Some("p"), "no", forbid)],
    };
    let denied = refusal(&slice);
    assert_eq!(denied, Denied { policies: vec!["policy:p/no".to_owned()], reason: DenialReason::Forbidden });
    assert!(!denied.is_alarm());
}

#[test]
fn a_policy_that_errs_denies_whatever_it_is() {
    for effect in ["permit", "forbid"] {
        let text = format!("{effect}(principal, action, resource in Project::\"p\") when {{ {OVERFLOW} }};");
        assert!(ENGINE.check_policy(Some(&project("p")), "bad", &text).is_ok(), "only evaluation finds the error");
        let slice = Slice {
            grants: vec![grant(1, "user:ada", "p/")],
            policies: vec![row(1, Some("p"), "all", PERMIT), row(2, Some("p"), "bad", &text)],
        };
        let denied = refusal(&slice);
        assert_eq!(denied.reason, DenialReason::EvaluationError { count: 1 }, "{effect}");
        assert_eq!(denied.policies, ["policy:p/bad"]);
        assert!(denied.is_alarm());
    }
}

#[test]
fn a_stored_text_that_is_no_policy_denies() {
    let deep = format!(
        "permit(principal, action, resource in Project::\"p\") when {{ {}true{} }};",
        "(".repeat(5_000),
        ")".repeat(5_000)
    );
    let long = format!("// {}\n{PERMIT}", "x".repeat(16 * 1024));
    for text in [
        "",
        "nonsense",
        &format!("{PERMIT}{PERMIT}"),
        "permit(principal == ?principal, action, resource in Project::\"p\");",
        &deep,
        &long,
    ] {
        let slice = Slice { grants: vec![grant(1, "user:ada", "p/")], policies: vec![row(1, Some("p"), "bad", text)] };
        assert_eq!(refusal(&slice).reason, DenialReason::EvaluationError { count: 1 });
    }
}

#[test]
fn a_rule_of_another_project_in_the_slice_never_permits() {
    let foreign_permit = r#"permit(principal, action, resource in Project::"q");"#;
    for (name, slice) in [
        ("a policy", Slice { grants: vec![], policies: vec![row(1, Some("q"), "all", foreign_permit)] }),
        ("a policy whose text reaches out", Slice { grants: vec![], policies: vec![row(1, Some("q"), "all", PERMIT)] }),
        (
            "a policy without bounds",
            Slice { grants: vec![], policies: vec![row(1, Some("p"), "all", "permit(principal, action, resource);")] },
        ),
        (
            "a policy on another's role",
            Slice {
                grants: vec![],
                policies: vec![row(
                    1,
                    Some("p"),
                    "all",
                    r#"permit(principal in Role::"q/readers", action, resource in Project::"p");"#,
                )],
            },
        ),
        ("a grant", Slice { grants: vec![grant(1, "user:ada", "q/")], policies: vec![] }),
        ("a grant to another's role", Slice { grants: vec![grant(1, "role:q/readers", "p/")], policies: vec![] }),
        (
            "beside what permits",
            Slice { grants: vec![grant(1, "user:ada", "p/"), grant(2, "user:ada", "q/")], policies: vec![] },
        ),
    ] {
        let denied = refusal(&slice);
        assert_eq!(denied.reason, DenialReason::MisplacedRule { count: 1 }, "{name}");
        assert!(denied.is_alarm());
    }
}

#[test]
fn a_row_that_no_check_would_let_through_denies() {
    let reads_everything = GrantRule { scope: GrantScope::Instance, ..grant(1, "user:ada", "p/") };
    let nothing = GrantRule { actions: vec![], ..grant(1, "user:ada", "p/") };
    for grants in [vec![reads_everything], vec![nothing], vec![grant(1, "user:ada", "p/"), grant(1, "user:ada", "p/")]]
    {
        assert_eq!(refusal(&Slice { grants, policies: vec![] }).reason, DenialReason::MisplacedRule { count: 1 });
    }
    let twice =
        Slice { grants: vec![], policies: vec![row(1, Some("p"), "all", PERMIT), row(1, Some("p"), "all", PERMIT)] };
    assert_eq!(refusal(&twice).reason, DenialReason::MisplacedRule { count: 1 });
}

#[test]
fn a_changed_policy_is_never_decided_by_its_old_text() {
    let slice = |text: &str| Slice { grants: vec![], policies: vec![row(77, Some("p"), "all", text)] };
    assert!(decide(&user("ada"), None, &slice(PERMIT)).is_ok());
    let forbid = r#"forbid(principal, action, resource in Project::"p");"#;
    assert_eq!(refusal(&slice(forbid)).reason, DenialReason::Forbidden);
    assert!(decide(&user("ada"), None, &slice(PERMIT)).is_ok());
}

#[test]
fn what_is_only_audited_is_never_decided() {
    let identity = user("ada");
    let slice = Slice { grants: vec![], policies: vec![row(1, None, "all", "permit(principal, action, resource);")] };
    for action in [Action::Login, Action::ClaimAdmin, Action::WhoAmI] {
        let denied = ENGINE
            .authorize(&Request { identity: &identity, roles: &[], action, resource: Resource::Instance }, &slice)
            .unwrap_err();
        assert_eq!(denied, Denied { policies: vec![], reason: DenialReason::NotApplicable });
    }
}

/// On a thread with a quarter of the stack that a server's workers have. Without bounds and room this test ends the process, or policies err that were taken.
#[test]
fn the_deepest_policies_that_are_taken_evaluate_on_a_small_stack() {
    // The braces around the body are one open bracket, the head and they are two operators.
    let (open, ifs, operators) = (11, 8, 198);
    let nested = |start: &str, middle: &str, end: &str, times: usize| {
        format!("{}{middle}{}", start.repeat(times), end.repeat(times))
    };
    let bodies = [
        nested("(", "true", ")", open),
        nested("!!!!(", "true", ")", open),
        nested("true && (1 == 1 && ", "true", ")", open),
        nested("(if true then true else ", "true", ")", ifs),
        nested("(if true then true else true) && (", "true", ")", ifs),
        nested("if true then ", &nested("(", "true", ")", open), " else true", ifs),
        nested("", "if false then true else ", "if false then true else ", ifs - 1) + "true",
        nested("", "true", " && principal == principal", operators / 2),
        nested("", "false", " || principal in Role::\"p/readers\"", operators / 2),
        nested("", "1", " + 1", operators) + " == 199",
        nested("", "2", " - 1", operators - 1) + " == 2 - 197",
        nested("", "1", " * 1", operators) + " == 1",
        nested("[", "true", "].contains(true)", open),
        nested("", "true", " } when { true", operators),
        nested("(", &nested("", "true", " && true", (operators - 3 * open) / 2), " && true)", open),
    ];
    let refused = [
        nested("", "principal", ".a", operators) + " == 1",
        nested("", "principal has a", ".a", operators),
        nested("", "principal", "[\"a\"]", operators) + " == 1",
        nested("{a: ", "1", "}", open) + " == 1",
        nested("ip(", "1", ")", open) + " == 1",
    ];
    let text = |body: &str| format!("permit(principal, action, resource in Project::\"p\") when {{ {body} }};");
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(move || {
        for body in &bodies {
            let checked = ENGINE.check_policy(Some(&project("p")), "deep", &text(body));
            assert!(checked.is_ok(), "{body}: {checked:?}");
            let slice = Slice { grants: vec![], policies: vec![row(9, Some("p"), "deep", &text(body))] };
            let decided = decide(&user("ada"), None, &slice);
            assert!(decided.is_ok(), "{body}: {decided:?}");
        }
        for body in &refused {
            let refused = ENGINE.check_policy(Some(&project("p")), "deep", &text(body)).unwrap_err();
            assert!(!matches!(refused, PolicyProblem::TooComplex(_)), "within the bounds: {body}");
        }
    });
    thread.unwrap().join().unwrap();
}
