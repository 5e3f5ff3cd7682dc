//! As which user the agent runs, and with which mode it writes: no more people than needed can read a file, and fsGroup is never changed.

use crate::pod::{Container, Pod};
use strongroom_api::agent::FileMode;

/// The agent's user and group where the app's is not known.
pub(crate) const AGENT_ID: i64 = 65532;

/// Who owns the files, and who can read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The agent runs as the app's user; only that user reads.
    SameUser {
        /// The app's user, not 0.
        user: i64,
        /// The app's group where it is explicit and not 0.
        group: Option<i64>,
    },
    /// The app's user is mixed, unknown or 0; the pod's fsGroup reads.
    PodGroup,
    /// The same without fsGroup: everyone in the containers that mount the volume.
    Everyone,
}

impl Ownership {
    pub(crate) fn decide(pod: &Pod<'_>, mounting: &[&Container<'_>]) -> Self {
        match agreed(pod, mounting, "runAsUser") {
            Some(user) => Self::SameUser { user, group: agreed(pod, mounting, "runAsGroup") },
            None if pod.security_number("fsGroup").is_some() => Self::PodGroup,
            None => Self::Everyone,
        }
    }

    pub(crate) const fn mode(self) -> FileMode {
        match self {
            Self::SameUser { .. } => FileMode::OWNER,
            Self::PodGroup => FileMode::GROUP,
            Self::Everyone => FileMode::ALL,
        }
    }

    pub(crate) const fn user(self) -> i64 {
        match self {
            Self::SameUser { user, .. } => user,
            Self::PodGroup | Self::Everyone => AGENT_ID,
        }
    }

    pub(crate) const fn group(self) -> i64 {
        match self {
            Self::SameUser { group: Some(group), .. } => group,
            _ => AGENT_ID,
        }
    }
}

/// The one id, not 0, that all containers with the files have explicitly, by themselves or from the pod. Init containers count: a migration
/// that runs as another user than the app would find files it cannot open. To leave one out, the pod names those that get the files.
fn agreed(pod: &Pod<'_>, mounting: &[&Container<'_>], field: &str) -> Option<i64> {
    let of_pod = pod.security_number(field);
    let mut ids = mounting.iter().map(|container| container.security_number(field).or(of_pod));
    let first = ids.next()??;
    (first > 0 && ids.all(|id| id == Some(first))).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decide(spec: &Value) -> Ownership {
        let pod = json!({"spec": spec});
        let pod = Pod::read(&pod).unwrap();
        let mounting: Vec<_> = pod.containers.iter().collect();
        Ownership::decide(&pod, &mounting)
    }

    fn user(id: &Value) -> Value {
        json!({"name": "c", "securityContext": {"runAsUser": id}})
    }

    #[test]
    fn the_matrix_of_users_and_groups() {
        let plain = json!({"name": "c"});
        let same = |user| Ownership::SameUser { user, group: None };
        for (what, spec, expected) in [
            ("nothing explicit", json!({"containers": [plain]}), Ownership::Everyone),
            (
                "nothing explicit, fsGroup",
                json!({"securityContext": {"fsGroup": 2000}, "containers": [plain]}),
                Ownership::PodGroup,
            ),
            ("container's user", json!({"containers": [user(&json!(1000))]}), same(1000)),
            ("pod's user", json!({"securityContext": {"runAsUser": 1000}, "containers": [plain]}), same(1000)),
            (
                "container over pod",
                json!({"securityContext": {"runAsUser": 1000}, "containers": [user(&json!(2000))]}),
                same(2000),
            ),
            (
                "user and fsGroup",
                json!({"securityContext": {"runAsUser": 1000, "fsGroup": 2000}, "containers": [plain]}),
                same(1000),
            ),
            ("root", json!({"containers": [user(&json!(0))]}), Ownership::Everyone),
            (
                "root of the pod",
                json!({"securityContext": {"runAsUser": 0}, "containers": [plain]}),
                Ownership::Everyone,
            ),
            (
                "root, fsGroup",
                json!({"securityContext": {"fsGroup": 2000}, "containers": [user(&json!(0))]}),
                Ownership::PodGroup,
            ),
            ("mixed", json!({"containers": [user(&json!(1000)), user(&json!(2000))]}), Ownership::Everyone),
            (
                "mixed, fsGroup",
                json!({"securityContext": {"fsGroup": 1}, "containers": [user(&json!(1000)), user(&json!(2000))]}),
                Ownership::PodGroup,
            ),
            ("one unknown", json!({"containers": [user(&json!(1000)), plain]}), Ownership::Everyone),
            (
                "one root",
                json!({"securityContext": {"runAsUser": 1000}, "containers": [user(&json!(0)), plain]}),
                Ownership::Everyone,
            ),
            (
                "init container differs",
                json!({"containers": [user(&json!(1000))], "initContainers": [user(&json!(1))]}),
                Ownership::Everyone,
            ),
            (
                "init container agrees",
                json!({"containers": [user(&json!(1000))], "initContainers": [user(&json!(1000))]}),
                same(1000),
            ),
            ("not a number", json!({"containers": [user(&json!("1000"))]}), Ownership::Everyone),
            ("negative", json!({"containers": [user(&json!(-1))]}), Ownership::Everyone),
        ] {
            assert_eq!(decide(&spec), expected, "{what}");
        }
    }

    #[test]
    fn an_explicit_group_is_kept_unless_it_is_root_or_mixed() {
        let spec = |pod: Option<i64>, one: Option<i64>, two: Option<i64>| {
            json!({"securityContext": {"runAsUser": 1000, "runAsGroup": pod}, "containers": [
                {"name": "a", "securityContext": {"runAsGroup": one}}, {"name": "b", "securityContext": {"runAsGroup": two}}]})
        };
        for (spec, group) in [
            (spec(Some(3000), None, None), 3000),
            (spec(None, Some(4000), Some(4000)), 4000),
            (spec(Some(0), None, None), AGENT_ID),
            (spec(Some(3000), Some(4000), None), AGENT_ID),
        ] {
            assert_eq!(decide(&spec).group(), group);
        }
    }
}
