//! A Pod as it came: borrowed views of the raw JSON, so that fields we do not know stay as they are.

use crate::mutate::Refusal;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The parts of a Pod that injection looks at.
pub(crate) struct Pod<'a> {
    pub(crate) spec: &'a Object,
    /// The pod's own init containers and containers, in their order.
    pub(crate) containers: Vec<Container<'a>>,
    pub(crate) volumes: Vec<&'a Object>,
    /// Whether the API server copied it from a node's static pod.
    pub(crate) mirror: bool,
}

/// Which list a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    Init,
    Main,
}

impl List {
    pub(crate) const fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Main => "containers",
        }
    }
}

/// One container.
pub(crate) struct Container<'a> {
    pub(crate) list: List,
    pub(crate) index: usize,
    pub(crate) name: &'a str,
    pub(crate) fields: &'a Object,
    pub(crate) mounts: Vec<&'a Object>,
}

impl<'a> Pod<'a> {
    pub(crate) fn read(pod: &'a Value) -> Result<Self, Refusal> {
        let spec = pod.get("spec").and_then(Value::as_object).ok_or_else(|| malformed("spec"))?;
        let mut containers = Vec::new();
        for list in [List::Init, List::Main] {
            for (index, fields) in objects(spec, list.field(), "spec")?.into_iter().enumerate() {
                let at = format!("spec.{}[{index}]", list.field());
                let name =
                    fields.get("name").and_then(Value::as_str).ok_or_else(|| malformed(&format!("{at}.name")))?;
                containers.push(Container { list, index, name, fields, mounts: objects(fields, "volumeMounts", &at)? });
            }
        }
        let mirror =
            pod.pointer("/metadata/annotations").is_some_and(|all| all.get("kubernetes.io/config.mirror").is_some());
        Ok(Self { spec, containers, volumes: objects(spec, "volumes", "spec")?, mirror })
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&'a Object> {
        self.volumes.iter().copied().find(|volume| text(volume, "name") == Some(name))
    }

    /// A number of the pod's security context.
    pub(crate) fn security_number(&self, field: &str) -> Option<i64> {
        security_number(self.spec, field)
    }

    /// Whether every container makes this a Guaranteed pod: it is the last to be evicted, and may have whole cores for itself. An agent that
    /// asks for less than its limit would end that.
    pub(crate) fn is_guaranteed(&self) -> bool {
        !self.containers.is_empty() && self.containers.iter().all(Container::is_guaranteed)
    }

    pub(crate) fn has_list(&self, field: &str) -> bool {
        self.spec.get(field).is_some_and(Value::is_array)
    }
}

impl Container<'_> {
    /// A number of the container's security context.
    pub(crate) fn security_number(&self, field: &str) -> Option<i64> {
        security_number(self.fields, field)
    }

    /// Whether processor time and memory have limits, and the requests are the same; without a request the limit is one. The API server has
    /// written amounts in one form before they come here, so texts are compared.
    fn is_guaranteed(&self) -> bool {
        let amount = |list: &str, resource| self.fields.get("resources")?.get(list)?.get(resource);
        ["cpu", "memory"].into_iter().all(|resource| {
            let limit = amount("limits", resource).filter(|limit| *limit != "0");
            limit.is_some() && amount("requests", resource).is_none_or(|request| Some(request) == limit)
        })
    }

    pub(crate) fn has_mounts(&self) -> bool {
        self.fields.get("volumeMounts").is_some_and(Value::is_array)
    }
}

/// A member that is text.
pub(crate) fn text<'a>(object: &'a Object, field: &str) -> Option<&'a str> {
    object.get(field).and_then(Value::as_str)
}

fn security_number(object: &Object, field: &str) -> Option<i64> {
    object.get("securityContext")?.get(field)?.as_i64()
}

/// A list of objects; one that is missing or null is empty.
fn objects<'a>(parent: &'a Object, field: &str, at: &str) -> Result<Vec<&'a Object>, Refusal> {
    match parent.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let item = |(index, item): (usize, &'a Value)| {
                item.as_object().ok_or_else(|| malformed(&format!("{at}.{field}[{index}]")))
            };
            items.iter().enumerate().map(item).collect()
        }
        Some(_) => Err(malformed(&format!("{at}.{field}"))),
    }
}

fn malformed(at: &str) -> Refusal {
    Refusal::Malformed { at: at.to_owned() }
}
