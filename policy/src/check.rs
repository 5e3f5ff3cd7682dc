//! What a policy's text must be before it is stored.

use cedar_policy::{
    EntityUid, Policy, PolicyId as CedarId, PolicySet, PrincipalConstraint, ResourceConstraint, ValidationMode,
};
use miette::Diagnostic;
use std::{collections::BTreeSet, fmt};
use strongroom_core::{ProjectName, Scope};
use thiserror::Error;

use crate::{
    complexity::{self, Room, TooComplex},
    engine::Engine,
    entity::Named,
};

/// Longest policy text in bytes.
pub const MAX_POLICY_TEXT: usize = 16 * 1024;

/// Longest name of a policy in bytes.
pub const MAX_POLICY_NAME: usize = 128;

/// Longest quotation from a policy or message of the parser, in characters.
const MAX_QUOTED: usize = 300;

/// How deep a policy may look: the attributes of principal and resource. What it names otherwise is not in the request, so asking for its attributes errs.
const LEVEL: u32 = 1;

/// A place in a policy's text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl Position {
    fn at(text: &str, offset: usize) -> Self {
        let offset = (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a policy is refused. The message may quote the policy: it is for who wrote it, not for logs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyProblem {
    /// The name has other characters, none, or too many.
    #[error("a policy's name has 1 to {MAX_POLICY_NAME} characters of A-Z a-z 0-9 . _ - and is not . or ..")]
    Name,
    /// The text is too long.
    #[error("a policy has at most {MAX_POLICY_TEXT} bytes")]
    TooLong,
    /// The text could nest too deeply.
    #[error("the policy is too complex, split it: {0}")]
    TooComplex(#[from] TooComplex),
    /// It is not Cedar.
    #[error("the policy does not parse{}: {message}", place(*.position))]
    Syntax {
        /// Where.
        position: Option<Position>,
        /// What was wrong there.
        message: String,
    },
    /// It is none, or several.
    #[error("there must be exactly one policy in the text, not {count}")]
    NotOne {
        /// How many there are.
        count: usize,
    },
    /// It has slots.
    #[error("the policy is a template; name the principal and the resource instead of ?principal and ?resource")]
    Template,
    /// It does not fit the schema, or can never apply.
    #[error("the policy does not fit the schema{}: {message}", place(*.position))]
    Schema {
        /// Where, if Cedar knows.
        position: Option<Position>,
        /// What does not fit.
        message: String,
    },
    /// Its head does not bound the resource.
    #[error(
        "the policy's head does not bound its resource to the project; write `resource in Project::\"{project}\"`, or a folder or secret of it"
    )]
    Unbounded {
        /// The project.
        project: ProjectName,
    },
    /// It names something of another project, or of the instance.
    #[error(
        "{entity} is not of the project {project}; a project's policies can name only its own roles, folders and secrets"
    )]
    Foreign {
        /// What it names.
        entity: String,
        /// The project.
        project: ProjectName,
    },
    /// A character that no database text can hold.
    #[error("the policy holds a NUL character")]
    Nul,
    /// It names something that cannot exist, so that the rule would never apply.
    #[error(
        "{entity} can never exist: its type is unknown or its id malformed (a folder ends in `/`, a workload is cluster/namespace/account, a role is project/name)"
    )]
    Malformed {
        /// What it names.
        entity: String,
    },
}

/// A policy that may be stored.
#[derive(Clone, Debug)]
pub struct CheckedPolicy {
    project: Option<ProjectName>,
    name: String,
    text: String,
    principal_key: Option<String>,
}

impl CheckedPolicy {
    /// The project it is confined to; none for the instance.
    pub fn project(&self) -> Option<&ProjectName> {
        self.project.as_ref()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text, as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key of the one principal or role that the policy's head names, as [`crate::principal_keys`] writes it. `None` where the head
    /// names none: such a policy stands in every slice.
    pub fn principal_key(&self) -> Option<&str> {
        self.principal_key.as_deref()
    }
}

impl Engine {
    /// Checks a free-text policy before it is stored; without a project it is one for the whole instance.
    ///
    /// # Errors
    /// [`PolicyProblem`], with line and column where Cedar has them.
    pub fn check_policy(
        &self,
        project: Option<&ProjectName>,
        name: &str,
        text: &str,
    ) -> Result<CheckedPolicy, PolicyProblem> {
        check_name(name)?;
        if text.len() > MAX_POLICY_TEXT {
            return Err(PolicyProblem::TooLong);
        }
        let depth = complexity::bound(text)?;
        let principal_key = complexity::with_room(depth, |room| {
            let policy = parse_one(text, room)?;
            confine(&policy, project)?;
            self.validate(&policy, text)?;
            Ok::<_, PolicyProblem>(principal_key(&policy))
        })?;
        Ok(CheckedPolicy { project: project.cloned(), name: name.to_owned(), text: text.to_owned(), principal_key })
    }

    /// Warnings refuse too: a policy that can never apply, or whose letters only look alike, is a mistake or a trap.
    fn validate(&self, policy: &Policy, text: &str) -> Result<(), PolicyProblem> {
        let set = PolicySet::from_policies([policy.clone()]).expect("one policy cannot conflict with itself");
        let result = self.validator.validate_with_level(&set, ValidationMode::Strict, LEVEL);
        // Cedar gives them in no order: the first in the text is shown, and each author's mistake always gets the same answer.
        let errors = result.validation_errors().map(|error| schema_problem(text, error)).min_by_key(Problem::order);
        let warnings =
            result.validation_warnings().map(|warning| schema_problem(text, warning)).min_by_key(Problem::order);
        errors
            .or(warnings)
            .map_or(Ok(()), |Problem { position, message }| Err(PolicyProblem::Schema { position, message }))
    }
}

/// What Cedar found, and where.
struct Problem {
    position: Option<Position>,
    message: String,
}

impl Problem {
    fn order(&self) -> (Option<Position>, String) {
        (self.position, self.message.clone())
    }
}

/// Checks that a policy cannot decide on anything outside its project, and that what it names can exist.
pub(crate) fn confine(policy: &Policy, project: Option<&ProjectName>) -> Result<(), PolicyProblem> {
    let resource = match policy.resource_constraint() {
        ResourceConstraint::Eq(entity) | ResourceConstraint::In(entity) | ResourceConstraint::IsIn(_, entity) => {
            Some(entity)
        }
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
    };
    let Some(project) = project else {
        return literals(policy).iter().try_for_each(|entity| meaning(entity).map(|_| ()));
    };
    let resource = resource.ok_or_else(|| PolicyProblem::Unbounded { project: project.clone() })?;
    let foreign =
        |entity: &EntityUid| PolicyProblem::Foreign { entity: quoted(&entity.to_string()), project: project.clone() };
    match meaning(&resource)? {
        Named::Within(scope) if scope.project() == *project => {}
        Named::Within(_) | Named::Instance | Named::Principal(_) | Named::Action => return Err(foreign(&resource)),
    }
    for entity in literals(policy) {
        if meaning(&entity)?.project().is_some_and(|of| of != *project) {
            return Err(foreign(&entity));
        }
    }
    Ok(())
}

/// The key of the one principal that the policy's head names; sound because a principal is `in` only itself and its roles.
fn principal_key(policy: &Policy) -> Option<String> {
    match policy.principal_constraint() {
        PrincipalConstraint::Eq(entity) | PrincipalConstraint::In(entity) | PrincipalConstraint::IsIn(_, entity) => {
            match Named::parse(&entity) {
                Some(Named::Principal(principal)) => Some(principal.to_string()),
                _ => None,
            }
        }
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
    }
}

fn check_name(name: &str) -> Result<(), PolicyProblem> {
    // A name is a segment of a path, in every respect but its length.
    match Scope::parse(&format!("p/{name}")) {
        Ok(Scope::Secret(path)) if path.name() == name && name.len() <= MAX_POLICY_NAME => Ok(()),
        _ => Err(PolicyProblem::Name),
    }
}

fn parse_one(text: &str, _: &Room) -> Result<Policy, PolicyProblem> {
    let set: PolicySet = text.parse().map_err(|error: cedar_policy::ParseErrors| PolicyProblem::Syntax {
        position: position(text, &error),
        message: quoted(&error.to_string()),
    })?;
    if set.num_of_templates() > 0 {
        return Err(PolicyProblem::Template);
    }
    let mut policies = set.policies();
    match (policies.next(), policies.next()) {
        (Some(policy), None) => Ok(policy.new_id(CedarId::new("policy"))),
        _ => Err(PolicyProblem::NotOne { count: set.num_of_policies() }),
    }
}

/// Every entity that the policy names, in its head and in its conditions.
fn literals(policy: &Policy) -> BTreeSet<EntityUid> {
    policy.entity_literals().into_iter().collect()
}

fn meaning(entity: &EntityUid) -> Result<Named, PolicyProblem> {
    Named::parse(entity).ok_or_else(|| PolicyProblem::Malformed { entity: quoted(&entity.to_string()) })
}

fn schema_problem<E: Diagnostic>(text: &str, error: &E) -> Problem {
    let message = error.to_string();
    let message = message.strip_prefix("for policy `policy`, ").unwrap_or(&message);
    Problem { position: position(text, error), message: quoted(message) }
}

fn position<E: Diagnostic>(text: &str, error: &E) -> Option<Position> {
    error.labels()?.next().map(|label| Position::at(text, label.offset()))
}

fn place(position: Option<Position>) -> String {
    position.map_or_else(String::new, |position| format!(" ({position})"))
}

fn quoted(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<CheckedPolicy, PolicyProblem> {
        Engine::new().check_policy(Some(&ProjectName::parse("p").unwrap()), "rule", text)
    }

    fn refusal(text: &str) -> String {
        check(text).expect_err(text).to_string()
    }

    #[test]
    fn policies_within_their_project_are_taken_with_their_principal_key() {
        for (text, key) in [
            (r#"permit(principal, action, resource in Project::"p");"#, None),
            (r#"forbid(principal is Workload, action == Action::"read", resource in Folder::"p/prod/");"#, None),
            (
                r#"permit(principal == User::"ada", action == Action::"read", resource == Secret::"p/a");"#,
                Some("user:ada"),
            ),
            (
                r#"permit(principal in Role::"p/readers", action, resource is Secret in Project::"p");"#,
                Some("role:p/readers"),
            ),
            (r#"permit(principal is Workload in Role::"p/r", action, resource in Project::"p");"#, Some("role:p/r")),
            (
                r#"permit(principal == Workload::"lab/ns/api", action, resource in Project::"p");"#,
                Some("workload:lab/ns/api"),
            ),
            (
                r#"permit(principal == Service::"ci", action, resource is Folder in Folder::"p/f/");"#,
                Some("service:ci"),
            ),
            (
                r#"@why("audit") forbid(principal is Workload, action in [Action::"read", Action::"write"], resource is Secret in Project::"p")
                   when { principal.namespace == "dev" && resource.exists } unless { principal in Role::"p/break-glass" };"#,
                None,
            ),
        ] {
            let checked = check(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!(checked.principal_key(), key, "{text}");
            assert_eq!((checked.text(), checked.name()), (text, "rule"));
        }
    }

    #[test]
    fn each_refused_policy_has_its_own_answer() {
        let vectors = [
            "",
            "permit",
            "permit(principal, action, resource in Project::\"p\")",
            "permit(principal, action,\n  resource inn Project::\"p\");",
            "permit(principal, action, resource in Project::\"p\") when { \"open };",
            "grant(principal, action, resource in Project::\"p\");",
            "permit(principal, action, resource in Project::\"p\"); permit(principal, action, resource in Project::\"p\");",
            "permit(principal == ?principal, action, resource in Project::\"p\");",
            "permit(principal, action, resource in ?resource);",
            "permit(principal, action, resource);",
            "permit(principal, action, resource is Secret);",
            "permit(principal, action, resource) when { resource in Project::\"p\" };",
            "permit(principal, action, resource in Instance::\"instance\");",
            "permit(principal, action, resource == Instance::\"instance\");",
            "permit(principal, action, resource in Project::\"q\");",
            "permit(principal, action, resource in Folder::\"q/f/\");",
            "permit(principal, action, resource == Secret::\"q/a\");",
            "permit(principal, action, resource is Secret in Project::\"q\");",
            "permit(principal, action, resource in Project::\"P\");",
            "permit(principal, action, resource in Folder::\"p\");",
            "permit(principal, action, resource in Folder::\"p/\");",
            "permit(principal, action, resource in Folder::\"p/f\");",
            "permit(principal, action, resource == Secret::\"p/../q/a\");",
            "permit(principal, action, resource == Secret::\"p\");",
            "permit(principal, action, resource in Role::\"p/readers\");",
            "permit(principal in Role::\"q/readers\", action, resource in Project::\"p\");",
            "permit(principal in Role::\"readers\", action, resource in Project::\"p\");",
            "permit(principal == Role::\"p/readers\", action, resource in Project::\"p\");",
            "permit(principal == User::\"Ada\", action, resource in Project::\"p\");",
            "permit(principal == Workload::\"*/ns/api\", action, resource in Project::\"p\");",
            "permit(principal == Robot::\"x\", action, resource in Project::\"p\");",
            "permit(principal in Project::\"p\", action, resource in Project::\"p\");",
            "permit(principal, action, resource in Project::\"p\") when { principal in Role::\"q/readers\" };",
            "permit(principal, action, resource in Project::\"p\") unless { resource in Folder::\"q/f/\" };",
            "permit(principal, action == Action::\"raed\", resource in Project::\"p\");",
            "permit(principal, action == Action::\"login\", resource in Project::\"p\");",
            "permit(principal, action == Action::\"create-project\", resource in Project::\"p\");",
            "permit(principal, action == Action::\"manage-grants\", resource in Folder::\"p/f/\");",
            "permit(principal, action, resource in Project::\"p\") when { resource.exists };",
            "permit(principal is User, action, resource in Project::\"p\") when { principal.namespace == \"x\" };",
            "permit(principal, action, resource is Secret in Project::\"p\")\nwhen { resource.colour == \"x\" };",
            "permit(principal, action, resource is Secret in Project::\"p\") when { resource.labels == \"x\" };",
            "permit(principal, action, resource in Project::\"p\") when { context.ip == \"x\" };",
            "permit(principal, action, resource in Project::\"p\") when { Secret::\"p/a\".exists };",
            "permit(principal, action, resource in Project::\"p\") when { false };",
            "permit(principal, action, resource in Project::\"p\") when { ip(\"nonsense\").isIpv4() };",
            "permit(principal is Workload, action, resource in Project::\"p\") when { principal.namespace == \"p\u{430}yments\" };",
            "permit(principal, action, resource in Project::\"p\") when { 1 + \"\u{e9}\" == 2 };",
        ];
        let printed: Vec<String> = vectors.iter().map(|text| format!("{text}\n  => {}", refusal(text))).collect();
        insta::assert_snapshot!(printed.join("\n\n"));
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a\u{e9}b\nc\u{e9}d";
        for (offset, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 1, 2), (3, 1, 3), (5, 2, 1), (8, 2, 3), (9, 2, 4), (99, 2, 4)]
        {
            assert_eq!(Position::at(text, offset), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn a_bad_name_is_refused() {
        let engine = Engine::new();
        let text = r#"permit(principal, action, resource in Project::"p");"#;
        for name in ["", ".", "..", "a/b", "a b", "\u{e9}", "a/", "/a", &"a".repeat(129)] {
            let refused = engine.check_policy(Some(&ProjectName::parse("p").unwrap()), name, text);
            assert_eq!(refused.unwrap_err(), PolicyProblem::Name, "{name:?}");
        }
        assert!(engine.check_policy(Some(&ProjectName::parse("p").unwrap()), &"a".repeat(128), text).is_ok());
    }

    #[test]
    fn a_policy_for_the_instance_may_reach_all_projects_but_must_name_what_can_exist() {
        let engine = Engine::new();
        let check = |text: &str| engine.check_policy(None, "rule", text);
        assert!(check(r#"forbid(principal is Workload, action == Action::"write", resource);"#).is_ok());
        let frozen = check(r#"forbid(principal in Role::"q/x", action, resource in Project::"p");"#).unwrap();
        assert_eq!((frozen.principal_key(), frozen.project()), (Some("role:q/x"), None));
        let typo = check(r#"forbid(principal, action, resource in Folder::"p/f");"#).unwrap_err();
        assert_eq!(typo, PolicyProblem::Malformed { entity: r#"Folder::"p/f""#.to_owned() });
        assert!(matches!(
            check(r#"permit(principal, action, resource in Instance::"other");"#),
            Err(PolicyProblem::Malformed { .. })
        ));
    }

    #[test]
    fn a_text_that_is_too_long_or_too_complex_is_refused_before_it_is_parsed() {
        let long =
            format!("// {}\npermit(principal, action, resource in Project::\"p\");", "x".repeat(MAX_POLICY_TEXT));
        assert_eq!(check(&long).unwrap_err(), PolicyProblem::TooLong);
        assert_eq!(check(&"(".repeat(MAX_POLICY_TEXT)).unwrap_err(), PolicyProblem::TooComplex(TooComplex::Brackets));
    }
}
