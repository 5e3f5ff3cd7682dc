//! What is parsed once and kept: the schema, the grants' templates, and policies' texts.

use cedar_policy::{Authorizer, Effect, Policy, PolicyId as CedarId, PolicySet, Schema, Template, Validator};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, RwLock},
};
use strongroom_core::{Action, PolicyId};

use crate::{
    check,
    complexity::{self, Depth, Room},
    entity::EntityTypes,
    rule::TextPolicy,
};

/// Most parsed policies that are kept; the texts are at most 16 KiB each.
const MAX_KEPT: usize = 2_048;

/// The policy engine: made once, shared by all requests.
pub struct Engine {
    pub(crate) validator: Validator,
    pub(crate) authorizer: Authorizer,
    pub(crate) types: EntityTypes,
    /// For each action that can be granted, a set with that action's template.
    grants: HashMap<Action, (CedarId, PolicySet)>,
    kept: RwLock<HashMap<PolicyId, Arc<Kept>>>,
}

/// A policy's text and what became of it.
struct Kept {
    source: TextPolicy,
    outcome: Result<(Policy, Depth), Unusable>,
}

/// Why a stored policy cannot take part in a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is no policy.
    Unreadable,
    /// It reaches outside its project.
    Unconfined,
}

impl Engine {
    /// Parses the schema and the templates. It costs about a millisecond.
    pub fn new() -> Self {
        let schema = schema();
        let grants = Action::ON_SECRETS.into_iter().chain(Action::ON_PROJECTS).chain(Action::ON_INSTANCE);
        Self {
            validator: Validator::new(schema),
            authorizer: Authorizer::new(),
            types: EntityTypes::new(),
            grants: grants.map(|action| (action, grant_template(action))).collect(),
            kept: RwLock::default(),
        }
    }

    pub(crate) fn schema(&self) -> &Schema {
        self.validator.schema()
    }

    /// The template that grants of this action link, and a set that holds it; none for an action that is never granted.
    pub(crate) fn grant_template(&self, action: Action) -> Option<&(CedarId, PolicySet)> {
        self.grants.get(&action)
    }

    /// Whether a stored policy forbids. One that cannot be used is taken for one: whoever asks wants to be careful with forbids.
    pub fn forbids(&self, row: &TextPolicy) -> bool {
        self.usable(row).map_or(true, |(policy, _)| policy.effect() == Effect::Forbid)
    }

    /// The parsed policy of a row. What was parsed is kept by the row's id, and used only while its text, name and project are the row's.
    pub(crate) fn usable(&self, row: &TextPolicy) -> Result<(Policy, Depth), Unusable> {
        let found = self.kept.read().expect("no holder of this lock panics").get(&row.id).cloned();
        if let Some(kept) = found.filter(|kept| kept.source == *row) {
            return kept.outcome.clone();
        }
        let outcome = parse(row);
        let entry = Arc::new(Kept { source: row.clone(), outcome: outcome.clone() });
        let mut kept = self.kept.write().expect("no holder of this lock panics");
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(row.id, entry);
        outcome
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

fn schema() -> Schema {
    let (schema, _warnings) = Schema::from_cedarschema_str(include_str!("schema.cedarschema"))
        .expect("the schema is part of this crate and tested");
    schema
}

fn grant_template(action: Action) -> (CedarId, PolicySet) {
    let id = CedarId::new(format!("template:{action}"));
    // `in` holds for the entity itself too, so that one form serves roles and identities, folders and secrets.
    let text = format!("permit(principal in ?principal, action == Action::\"{action}\", resource in ?resource);");
    let template = Template::parse(Some(id.clone()), text).expect("the template is part of this crate and tested");
    let mut set = PolicySet::new();
    set.add_template(template).expect("the set was empty");
    (id, set)
}

/// Nothing is believed because it was checked when it was written: the bounds and the confinement are checked again.
fn parse(row: &TextPolicy) -> Result<(Policy, Depth), Unusable> {
    if row.text.len() > check::MAX_POLICY_TEXT {
        return Err(Unusable::Unreadable);
    }
    let depth = complexity::bound(&row.text).map_err(|_| Unusable::Unreadable)?;
    complexity::with_room(depth, |room| {
        let policy = policy_of(row, room).ok_or(Unusable::Unreadable)?;
        check::confine(&policy, row.project.as_ref()).map_err(|_| Unusable::Unconfined)?;
        Ok((policy, depth))
    })
}

fn policy_of(row: &TextPolicy, _: &Room) -> Option<Policy> {
    Policy::parse(Some(CedarId::new(row.label())), &row.text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::ProjectName;
    use uuid::Uuid;

    #[test]
    fn the_schema_has_exactly_the_actions_that_can_be_granted() {
        let engine = Engine::new();
        let mut declared: Vec<String> =
            engine.schema().actions().map(|action| action.id().unescaped().to_owned()).collect();
        declared.sort();
        let mut granted: Vec<String> = engine.grants.keys().map(ToString::to_string).collect();
        granted.sort();
        assert_eq!(declared, granted);
    }

    #[test]
    fn the_schema_comes_without_warnings() {
        let (_, warnings) = Schema::from_cedarschema_str(include_str!("schema.cedarschema")).unwrap();
        assert_eq!(warnings.count(), 0);
    }

    #[test]
    fn the_templates_fit_the_schema() {
        let engine = Engine::new();
        for (_, set) in engine.grants.values() {
            let result = engine.validator.validate(set, cedar_policy::ValidationMode::Strict);
            assert!(result.validation_passed_without_warnings(), "{result}");
        }
    }

    fn row(id: u128, text: &str) -> TextPolicy {
        TextPolicy {
            id: PolicyId(Uuid::from_u128(id)),
            name: "x".to_owned(),
            text: text.to_owned(),
            project: Some(ProjectName::parse("p").unwrap()),
        }
    }

    #[test]
    fn whether_a_policy_forbids_is_read_from_what_was_parsed_before() {
        let engine = Engine::new();
        let (permit, forbid) = (
            row(0, r#"permit(principal, action, resource in Project::"p");"#),
            row(0, r#"forbid(principal, action, resource in Project::"p");"#),
        );
        assert!(!engine.forbids(&permit));
        assert!(engine.forbids(&forbid));
        // What is kept of a row answers for it, whatever the text says: it was not parsed again.
        let parsed = engine.usable(&forbid);
        engine.kept.write().unwrap().insert(permit.id, Arc::new(Kept { source: permit.clone(), outcome: parsed }));
        assert!(engine.forbids(&permit));
    }

    #[test]
    fn what_cannot_be_used_is_taken_for_a_forbid_and_cannot_overflow_the_stack() {
        let engine = Engine::new();
        let deep =
            format!("permit(principal, action, resource) when {{ {} }};", "(".repeat(check::MAX_POLICY_TEXT / 2));
        for text in ["nonsense", "permit(principal, action, resource);", &deep] {
            assert!(engine.forbids(&row(0, text)));
        }
    }

    #[test]
    fn a_changed_row_is_parsed_anew_and_the_store_is_bounded() {
        let engine = Engine::new();
        let good = r#"permit(principal, action, resource in Project::"p");"#;
        assert!(engine.usable(&row(0, good)).is_ok());
        assert_eq!(engine.usable(&row(0, "nonsense")).unwrap_err(), Unusable::Unreadable);
        assert_eq!(engine.usable(&row(0, "permit(principal, action, resource);")).unwrap_err(), Unusable::Unconfined);
        for id in 0..=MAX_KEPT as u128 {
            assert!(engine.usable(&row(id, good)).is_ok());
        }
        assert!(engine.kept.read().unwrap().len() <= MAX_KEPT);
    }
}
