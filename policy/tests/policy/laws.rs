//! Laws of the decision, over generated rules, against a small model of what the rules mean.

use crate::world::{ENGINE, Rules, SOME_SECRET, pod, service, user};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use strongroom_core::{Action, FolderPath, GrantId, Identity, PrincipalRef, ProjectName, RoleName, Scope, SecretPath};
use strongroom_policy::{DenialReason, Denied, Grant, GrantRule, GrantScope, Request, Resource, Slice, check_grant};
use uuid::Uuid;

const PRINCIPALS: [&str; 8] = [
    "workload:lab/ns/api",
    "workload:lab/other/api",
    "user:ada",
    "user:ci",
    "service:ci",
    "role:p/readers",
    "role:p/writers",
    "role:q/readers",
];
const SCOPES: [&str; 10] = ["p/", "p/f/", "p/f/g/", "p/ff/", "p/a", "p/f/a", "p/f/g/a", "p/ff/a", "q/", "q/f/a"];
const ROLES: [&str; 3] = ["p/readers", "p/writers", "q/readers"];

/// A policy whose meaning the model knows.
#[derive(Clone, Debug)]
struct Sketch {
    forbid: bool,
    head: Head,
    actions: Vec<Action>,
    scope: Scope,
    condition: Condition,
    of_instance: bool,
}

#[derive(Clone, Debug)]
enum Head {
    Anyone,
    Workloads,
    One(PrincipalRef),
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Always,
    Exists,
    Missing,
    Errs,
}

/// A request that owns what it is about.
#[derive(Clone, Debug)]
struct Question {
    identity: Identity,
    roles: Vec<RoleName>,
    action: Action,
    about: About,
}

#[derive(Clone, Debug)]
enum About {
    Secret { path: SecretPath, exists: bool },
    Folder(FolderPath),
    Project(ProjectName),
    Instance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    NoPermit,
    Forbidden,
    Errs,
    NotApplicable,
}

fn config() -> Config {
    Config { cases: 300, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn decisions_are_those_of_the_model(rules in rules(), question in question()) {
        let (stored, kept) = store(&rules);
        prop_assert_eq!(verdict(&question.decide(&|request| stored.slice(request))), question.model(&stored.grants, &kept));
    }

    #[test]
    fn the_callers_slice_decides_as_all_rules_would(rules in rules(), question in question()) {
        let (stored, _) = store(&rules);
        let slice = question.decide(&|request| stored.slice(request));
        let all = question.decide(&|request| stored.of_project(request));
        match (slice, all) {
            (Ok(slice), Ok(all)) => prop_assert_eq!(slice.policies(), all.policies()),
            (Err(slice), Err(all)) => prop_assert_eq!(slice, all),
            (slice, all) => prop_assert!(false, "{slice:?} differs from {all:?}"),
        }
    }

    #[test]
    fn where_a_reach_decides_it_decides_as_the_engine(rules in rules(), question in question(), only_lists in any::<bool>()) {
        // Often without policies that concern the action: then the reach decides everything.
        let rules = if only_lists { (rules.0, rules.1.into_iter().filter(|sketch| !sketch.actions.is_empty() && !sketch.actions.contains(&question.action)).collect()) } else { rules };
        let (stored, _) = store(&rules);
        let on_projects = Action::ON_PROJECTS.contains(&question.action);
        let Some(project) = question.about.project().filter(|_| on_projects || Action::ON_SECRETS.contains(&question.action)) else { return Ok(()) };
        let request = Request { identity: &question.identity, roles: &question.roles, action: question.action, resource: Resource::Project(&project) };
        let slice = stored.slice(&request);
        let reach = ENGINE.reach(&question.identity, &question.roles, question.action, &project, &slice);
        let decided = question.decide(&|_| slice.clone()).is_ok();
        let by_reach = match &question.about {
            About::Secret { path, .. } => reach.decides(path),
            About::Folder(folder) if question.action == Action::List => reach.decides_folder(folder),
            About::Project(_) if question.action == Action::List || on_projects => reach.decides_folder(&FolderPath::parse(&format!("{project}/")).unwrap()),
            _ => None,
        };
        if let Some(by_reach) = by_reach {
            prop_assert_eq!(by_reach, decided, "{:?}", reach);
        }
        if let About::Secret { path, .. } = &question.about && decided {
            // Whatever is allowed lies in what a list looks through, in whichever folder the list begins.
            for folder in path.folders().chain([FolderPath::parse(&format!("{project}/")).unwrap()]) {
                let looked = reach.within(&folder).iter().any(|scope| question.about.lies_in(scope));
                prop_assert!(looked, "{:?} in {}", reach, folder);
            }
        }
        if only_lists && question.about.project() == Some(project) && by_reach.is_none() {
            prop_assert!(!matches!(question.about, About::Secret { .. }), "no policy concerns the action, but {:?} does not decide", reach);
        }
    }

    #[test]
    fn a_forbid_more_never_widens(rules in rules(), more in sketch(), question in question()) {
        let mut wider = rules.clone();
        wider.1.push(Sketch { forbid: true, ..more });
        let ((before, _), (after, _)) = (store(&rules), store(&wider));
        if question.decide(&|request| after.slice(request)).is_ok() {
            prop_assert!(question.decide(&|request| before.slice(request)).is_ok());
        }
    }

    #[test]
    fn the_order_of_rules_never_matters((rules, shuffled) in rules().prop_flat_map(|rules| {
        let shuffled = (Just(rules.0.clone()).prop_shuffle(), Just(rules.1.clone()).prop_shuffle());
        (Just(rules), shuffled)
    }), question in question()) {
        let ((one, _), (other, _)) = (store(&rules), store(&shuffled));
        prop_assert_eq!(verdict(&question.decide(&|request| one.slice(request))), verdict(&question.decide(&|request| other.slice(request))));
    }

    #[test]
    fn without_rules_nothing_is_allowed(question in question()) {
        prop_assert!(question.decide(&|_| Slice::default()).is_err());
    }

    #[test]
    fn a_rule_of_another_project_in_the_slice_denies_everything(rules in rules(), question in question()) {
        let (stored, _) = store(&rules);
        let project = question.about.project();
        let elsewhere = |of: Option<ProjectName>| of.is_some() && of != project;
        let grants = stored.grants.iter().filter(|grant| elsewhere(grant.scope.project())).count();
        let policies = stored.policies.iter().filter(|(row, _)| elsewhere(row.project.clone())).count();
        if grants + policies > 0 {
            let whole = Slice { grants: stored.grants.clone(), policies: stored.policies.iter().map(|(row, _)| row.clone()).collect() };
            let denied = question.decide(&|_| whole.clone()).unwrap_err();
            let expected = [DenialReason::MisplacedRule { count: grants + policies }, DenialReason::NotApplicable];
            prop_assert!(expected.contains(&denied.reason), "{denied:?}");
        }
    }
}

/// Stores what the checks let through, as the server does; the sketches that were stored come back for the model.
fn store((grants, sketches): &(Vec<GrantRule>, Vec<Sketch>)) -> (Rules, Vec<Sketch>) {
    let allowed = |grant: &&GrantRule| check_grant(&grant.principal, &grant.actions, &grant.scope).is_ok();
    let mut rules = Rules { grants: grants.iter().filter(allowed).cloned().collect(), policies: Vec::new() };
    let mut kept: Vec<Sketch> = Vec::new();
    for sketch in sketches {
        let (text, project) = (sketch.text(), sketch.scope.project());
        let of = if sketch.of_instance { None } else { Some(project.as_str()) };
        // The name follows from the text, so that shuffling renames nothing; a policy that is there already is left out.
        let name =
            format!("n{:x}", text.bytes().fold(7u64, |hash, b| hash.wrapping_mul(0x0100_0193).wrapping_add(b.into())));
        let doubled = rules
            .policies
            .iter()
            .any(|(row, _)| row.name == name && row.project.as_ref().map(ProjectName::as_str) == of);
        if !doubled && rules.add(of, &name, &text) {
            kept.push(sketch.clone());
        }
    }
    (rules, kept)
}

fn verdict(outcome: &Result<Grant, Denied>) -> Verdict {
    match outcome.as_ref().map_err(|denied| denied.reason) {
        Ok(_) => Verdict::Allowed,
        Err(DenialReason::NoPermit) => Verdict::NoPermit,
        Err(DenialReason::Forbidden) => Verdict::Forbidden,
        Err(DenialReason::EvaluationError { .. }) => Verdict::Errs,
        Err(DenialReason::NotApplicable) => Verdict::NotApplicable,
        Err(reason) => panic!("the slice was built by the rules, but: {reason}"),
    }
}

impl Question {
    fn decide(&self, slice: &dyn Fn(&Request<'_>) -> Slice) -> Result<Grant, Denied> {
        let resource = match &self.about {
            About::Secret { path, exists } => Resource::Secret {
                path,
                id: exists.then_some(SOME_SECRET),
                version: None,
                about: strongroom_policy::About::default(),
            },
            About::Folder(folder) => Resource::Folder(folder),
            About::Project(project) => Resource::Project(project),
            About::Instance => Resource::Instance,
        };
        let request = Request { identity: &self.identity, roles: &self.roles, action: self.action, resource };
        ENGINE.authorize(&request, &slice(&request))
    }

    /// The permission model in plain words.
    fn model(&self, grants: &[GrantRule], sketches: &[Sketch]) -> Verdict {
        let applies = match &self.about {
            About::Secret { .. } => Action::ON_SECRETS.contains(&self.action),
            About::Folder(folder) if folder.is_project() => {
                self.action == Action::List || Action::ON_PROJECTS.contains(&self.action)
            }
            About::Folder(_) => self.action == Action::List,
            About::Project(_) => self.action == Action::List || Action::ON_PROJECTS.contains(&self.action),
            About::Instance => Action::ON_INSTANCE.contains(&self.action),
        };
        if !applies {
            return Verdict::NotApplicable;
        }
        let matching: Vec<&Sketch> = sketches
            .iter()
            .filter(|sketch| {
                let head = match &sketch.head {
                    Head::Anyone => true,
                    Head::Workloads => matches!(self.identity, Identity::Workload { .. }),
                    Head::One(principal) => self.is(principal),
                };
                head && (sketch.actions.is_empty() || sketch.actions.contains(&self.action))
                    && self.about.lies_in(&sketch.scope)
            })
            .collect();
        let holds = |sketch: &&&Sketch| match (sketch.condition, &self.about) {
            (Condition::Always, _) => true,
            (Condition::Exists, About::Secret { exists, .. }) => *exists,
            (Condition::Missing, About::Secret { exists, .. }) => !exists,
            (Condition::Exists | Condition::Missing | Condition::Errs, _) => false,
        };
        let granted = grants.iter().any(|grant| {
            let within = match &grant.scope {
                GrantScope::Within(scope) => self.about.lies_in(scope),
                GrantScope::Instance => matches!(self.about, About::Instance),
            };
            within && self.is(&grant.principal) && grant.actions.contains(&self.action)
        });
        // Conditions on existence stand only in policies on secrets.
        if matching.iter().any(|sketch| matches!(sketch.condition, Condition::Errs)) {
            Verdict::Errs
        } else if matching.iter().filter(holds).any(|sketch| sketch.forbid) {
            Verdict::Forbidden
        } else if granted || matching.iter().any(|sketch| holds(&sketch)) {
            Verdict::Allowed
        } else {
            Verdict::NoPermit
        }
    }

    fn is(&self, principal: &PrincipalRef) -> bool {
        match principal {
            PrincipalRef::Role(role) => self.roles.contains(role),
            other => *other == PrincipalRef::from(&self.identity),
        }
    }
}

impl About {
    fn project(&self) -> Option<ProjectName> {
        match self {
            Self::Secret { path, .. } => Some(path.project()),
            Self::Folder(folder) => Some(folder.project()),
            Self::Project(project) => Some(project.clone()),
            Self::Instance => None,
        }
    }

    /// By comparing texts, which is another way than the engine's.
    fn lies_in(&self, scope: &Scope) -> bool {
        let text = match self {
            Self::Secret { path, .. } => path.to_string(),
            Self::Folder(folder) => folder.to_string(),
            Self::Project(project) => format!("{project}/"),
            Self::Instance => return false,
        };
        match scope {
            Scope::Secret(path) => text == path.as_str(),
            Scope::Folder(folder) => text.starts_with(folder.as_str()),
        }
    }
}

impl Sketch {
    fn text(&self) -> String {
        let effect = if self.forbid { "forbid" } else { "permit" };
        let head = match &self.head {
            Head::Anyone => "principal".to_owned(),
            Head::Workloads => "principal is Workload".to_owned(),
            Head::One(principal) => {
                let text = principal.to_string();
                let (kind, id) = text.split_once(':').unwrap();
                match kind {
                    "role" => format!("principal in Role::\"{id}\""),
                    "workload" => format!("principal == Workload::\"{id}\""),
                    "user" => format!("principal == User::\"{id}\""),
                    _ => format!("principal in Service::\"{id}\""),
                }
            }
        };
        let actions: Vec<String> = self.actions.iter().map(|action| format!("Action::\"{action}\"")).collect();
        let action =
            if actions.is_empty() { "action".to_owned() } else { format!("action in [{}]", actions.join(", ")) };
        let is = if matches!(self.condition, Condition::Exists | Condition::Missing) { " is Secret" } else { "" };
        let scope = match &self.scope {
            Scope::Folder(folder) if folder.is_project() => format!("Project::\"{}\"", folder.project()),
            Scope::Folder(folder) => format!("Folder::\"{folder}\""),
            Scope::Secret(path) => format!("Secret::\"{path}\""),
        };
        let condition = match self.condition {
            Condition::Always => "",
            Condition::Exists => " when { resource.exists }",
            Condition::Missing => " unless { resource.exists }",
            Condition::Errs => " when { 9223372036854775807 + 1 > 0 }",
        };
        format!("{effect}({head}, {action}, resource{is} in {scope}){condition};")
    }
}

/// Often none, which means all.
fn actions() -> impl Strategy<Value = Vec<Action>> {
    let some = prop::sample::subsequence([&Action::ON_SECRETS[..], &Action::ON_PROJECTS[..]].concat(), 1..6);
    prop_oneof![Just(Vec::new()), some]
}

/// Often a wide one, so that rules meet.
fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![prop::sample::select(&SCOPES[..2]), prop::sample::select(&SCOPES[..])]
        .prop_map(|scope| Scope::parse(scope).unwrap())
}

fn principal() -> impl Strategy<Value = PrincipalRef> {
    prop::sample::select(&PRINCIPALS[..]).prop_map(|principal| PrincipalRef::parse(principal).unwrap())
}

fn grants() -> impl Strategy<Value = Vec<GrantRule>> {
    let within =
        (scope(), prop::sample::subsequence([&Action::ON_SECRETS[..], &Action::ON_PROJECTS[..]].concat(), 1..6))
            .prop_map(|(scope, actions)| (GrantScope::Within(scope), actions));
    let of_instance = prop::sample::subsequence(Action::ON_INSTANCE.to_vec(), 1..=2)
        .prop_map(|actions| (GrantScope::Instance, actions));
    let one = (principal(), prop_oneof![6 => within, 1 => of_instance]);
    prop::collection::vec(one, 0..20).prop_map(|grants| {
        let grants = grants.into_iter().enumerate().map(|(id, (principal, (scope, actions)))| GrantRule {
            id: GrantId(Uuid::from_u128(id as u128)),
            principal,
            actions,
            scope,
        });
        grants.collect()
    })
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let one = || principal().prop_map(Head::One);
    let head = prop_oneof![Just(Head::Anyone), Just(Head::Workloads), one(), one()];
    let condition = prop_oneof![
        6 => Just(Condition::Always), 2 => Just(Condition::Exists), 2 => Just(Condition::Missing), 1 => Just(Condition::Errs),
    ];
    (prop::bool::weighted(0.3), head, actions(), scope(), condition, prop::bool::weighted(0.2)).prop_map(
        |(forbid, head, actions, scope, condition, of_instance)| Sketch {
            forbid,
            head,
            actions,
            scope,
            condition,
            of_instance,
        },
    )
}

fn rules() -> impl Strategy<Value = (Vec<GrantRule>, Vec<Sketch>)> {
    (grants(), prop::collection::vec(sketch(), 0..9))
}

fn question() -> impl Strategy<Value = Question> {
    let identity = prop::sample::select(vec![
        pod("lab", "ns", "api"),
        pod("lab", "other", "api"),
        user("ada"),
        user("ci"),
        service("ci"),
    ]);
    let roles = prop::sample::subsequence(ROLES.map(|role| RoleName::parse(role).unwrap()).to_vec(), 0..=3);
    (identity, roles, about(), 0..20_usize, any::<prop::sample::Index>()).prop_map(
        |(identity, roles, about, fit, at)| {
            // Mostly an action that this can have, sometimes any.
            let fitting: &[Action] = match (&about, fit) {
                (_, 0) => &Action::ALL,
                (About::Secret { .. }, _) => &Action::ON_SECRETS,
                (About::Folder(_), _) => &[Action::List],
                (About::Project(_), _) => {
                    &[Action::List, Action::ManageRoles, Action::ManageGrants, Action::ManagePolicies]
                }
                (About::Instance, _) => &Action::ON_INSTANCE,
            };
            let action = fitting[at.index(fitting.len())];
            Question { identity, roles, action, about }
        },
    )
}

fn about() -> impl Strategy<Value = About> {
    let path = prop::sample::select(vec!["p/a", "p/f/a", "p/f/b", "p/f/g/a", "p/ff/a", "p/n", "q/f/a"]);
    let folder = prop::sample::select(vec!["p/", "p/f/", "p/f/g/", "p/ff/", "q/"]);
    prop_oneof![
        6 => (path, any::<bool>()).prop_map(|(path, exists)| About::Secret { path: SecretPath::parse(path).unwrap(), exists }),
        2 => folder.prop_map(|folder| About::Folder(FolderPath::parse(folder).unwrap())),
        2 => prop::sample::select(vec!["p", "q"]).prop_map(|project| About::Project(ProjectName::parse(project).unwrap())),
        1 => Just(About::Instance),
    ]
}
