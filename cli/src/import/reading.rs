//! What a source held: secrets that can be put, and what stands in the way of the others.

use std::{collections::BTreeMap, fmt};
use strongroom_core::{FIELDS_MEDIA_TYPE, FolderPath, Labels, Owner, Payload, SecretBytes, SecretPath};

/// What a source says of a secret beside its value. Policies can depend on it, so it is taken along only where asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    /// Labels as the source has them.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner: Option<Owner>,
}

/// A secret that can be put. Its value is kept as it would be sealed, in memory that is wiped.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Where it stands in the source, for people.
    pub(crate) origin: String,
    /// Where it goes.
    pub(crate) path: SecretPath,
    /// The labels it gets, where they were asked for.
    pub(crate) labels: Labels,
    /// Likewise.
    pub(crate) owner: Option<Owner>,
    media_type: String,
    /// How many fields; `None` for raw bytes.
    fields: Option<usize>,
    encoded: SecretBytes,
}

/// What is wrong with one secret of a source, and what to do. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// A secret that cannot be put.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Problem {
    /// Where it stands in the source.
    pub(crate) origin: String,
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// Everything a source held.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The folder that all candidates lie in.
    pub(crate) folder: FolderPath,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) problems: Vec<Problem>,
    /// What is no secret or is none any more, and how often it came.
    pub(crate) skipped: BTreeMap<&'static str, usize>,
    /// How many secrets have labels that were not asked for.
    pub(crate) labels_left: usize,
}

impl Candidate {
    pub(crate) fn new(origin: impl fmt::Display, path: SecretPath, payload: &Payload) -> Self {
        let fields = match payload {
            Payload::Fields(fields) => Some(fields.len()),
            Payload::Raw { .. } => None,
        };
        Self {
            origin: origin.to_string(),
            path,
            labels: Labels::default(),
            owner: None,
            media_type: payload.media_type().to_owned(),
            fields,
            encoded: payload.encode(),
        }
    }

    /// The value, for one try to put it.
    pub(crate) fn payload(&self) -> Payload {
        Payload::decode(&self.media_type, self.encoded.duplicate()).expect("it was encoded from a payload")
    }

    /// Whether `other` is the same value.
    pub(crate) fn is_same_value(&self, other: &Payload) -> bool {
        // Exposed to be compared; both sides are the person's own.
        other.media_type() == self.media_type && other.encode().expose_bytes() == self.encoded.expose_bytes()
    }

    /// Whether it gets labels or an owner.
    pub(crate) fn is_described(&self) -> bool {
        !self.labels.is_empty() || self.owner.is_some()
    }

    /// Number of fields; `None` for raw bytes.
    pub(crate) fn fields(&self) -> Option<usize> {
        debug_assert_eq!(self.fields.is_some(), self.media_type == FIELDS_MEDIA_TYPE);
        self.fields
    }

    /// Size of the value in bytes, as it is sealed.
    pub(crate) fn size(&self) -> usize {
        self.encoded.len()
    }
}

impl Trouble {
    pub(crate) fn new(what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { what: what.to_string(), remedy: remedy.to_string() }
    }
}

/// A path and a payload, or everything that is wrong with either.
pub(crate) fn both(
    path: Result<SecretPath, Trouble>,
    payload: Result<Payload, Trouble>,
) -> Result<(SecretPath, Payload), Trouble> {
    match (path, payload) {
        (Ok(path), Ok(payload)) => Ok((path, payload)),
        (Err(trouble), Ok(_)) | (Ok(_), Err(trouble)) => Err(trouble),
        (Err(path), Err(payload)) => Err(Trouble {
            what: format!("{}; and {}", path.what, payload.what),
            remedy: format!("{} And: {}", path.remedy, payload.remedy),
        }),
    }
}

impl Reading {
    pub(crate) fn new(folder: FolderPath) -> Self {
        Self { folder, candidates: vec![], problems: vec![], skipped: BTreeMap::new(), labels_left: 0 }
    }

    /// A secret, or what is wrong with it. Labels and owner are kept where they are `wanted`, counted where not.
    pub(crate) fn take(
        &mut self,
        origin: &str,
        description: Description,
        wanted: bool,
        read: Result<(SecretPath, Payload), Trouble>,
    ) {
        let (path, payload) = match read {
            Ok(read) => read,
            Err(trouble) => return self.refuse(origin, trouble),
        };
        let mut candidate = Candidate::new(origin, path, &payload);
        if wanted {
            match Labels::new(description.labels) {
                Ok(labels) => (candidate.labels, candidate.owner) = (labels, description.owner),
                Err(error) => {
                    let remedy = "Change its labels in the source, or import it without --labels.";
                    return self.refuse(origin, Trouble::new(format_args!("its labels: {error}"), remedy));
                }
            }
        } else if description != Description::default() {
            self.labels_left += 1;
        }
        self.candidates.push(candidate);
    }

    pub(crate) fn refuse(&mut self, origin: impl fmt::Display, trouble: Trouble) {
        self.problems.push(Problem { origin: origin.to_string(), what: trouble.what, remedy: trouble.remedy });
    }

    pub(crate) fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    /// In the order of paths. Where two would go to one path neither does: one would silently replace the other.
    pub(crate) fn settled(mut self) -> Self {
        let mut by_path: BTreeMap<SecretPath, Vec<Candidate>> = BTreeMap::new();
        for candidate in std::mem::take(&mut self.candidates) {
            by_path.entry(candidate.path.clone()).or_default().push(candidate);
        }
        for (path, mut candidates) in by_path {
            if candidates.len() == 1 {
                self.candidates.append(&mut candidates);
                continue;
            }
            let count = candidates.len();
            for candidate in candidates {
                let what = format!("{count} secrets of the source would go to {path}");
                self.refuse(
                    candidate.origin,
                    Trouble::new(what, "Rename all but one in the source, or import them apart."),
                );
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::FieldName;

    fn payload(value: &str) -> Payload {
        let name = FieldName::parse("a").unwrap();
        Payload::fields([(name, SecretBytes::from(value.to_owned()))].into()).unwrap()
    }

    #[test]
    fn two_at_one_path_are_both_refused_and_the_rest_is_in_order() {
        let mut reading = Reading::new(FolderPath::parse("p/").unwrap());
        for (origin, path) in [("1", "p/b"), ("2", "p/b"), ("3", "p/c"), ("4", "p/a")] {
            let path = SecretPath::parse(path).unwrap();
            reading.take(origin, Description::default(), false, Ok((path, payload("v"))));
        }
        let reading = reading.settled();
        let paths: Vec<_> = reading.candidates.iter().map(|candidate| candidate.path.as_str()).collect();
        let refused: Vec<_> = reading.problems.iter().map(|problem| problem.origin.as_str()).collect();
        assert_eq!((paths, refused), (vec!["p/a", "p/c"], vec!["1", "2"]));
    }

    #[test]
    fn labels_that_were_not_asked_for_are_counted_and_not_kept() {
        for wanted in [false, true] {
            let mut reading = Reading::new(FolderPath::parse("p/").unwrap());
            let description = described("team", "a");
            reading.take("1", description.clone(), wanted, Ok((SecretPath::parse("p/a").unwrap(), payload("v"))));
            let kept = if wanted { (description, 0) } else { (Description::default(), 1) };
            let candidate = &reading.candidates[0];
            let found = Description { labels: candidate.labels.as_map().clone(), owner: candidate.owner.clone() };
            assert_eq!((found, reading.labels_left), kept);
        }
    }

    #[test]
    fn labels_that_cannot_be_are_a_problem_where_they_were_asked_for() {
        for (wanted, problems) in [(false, 0), (true, 1)] {
            let mut reading = Reading::new(FolderPath::parse("p/").unwrap());
            let read = Ok((SecretPath::parse("p/a").unwrap(), payload("v")));
            reading.take("1", described("a key", "hunter2"), wanted, read);
            assert_eq!((reading.problems.len(), reading.candidates.len()), (problems, 1 - problems));
            assert!(!format!("{:?}", reading.problems).contains("hunter2"));
        }
    }

    fn described(key: &str, value: &str) -> Description {
        let owner = Some(Owner::parse("team-a").unwrap());
        Description { labels: [(key.to_owned(), value.to_owned())].into(), owner }
    }

    #[test]
    fn a_candidate_gives_its_value_again_and_knows_it() {
        let candidate = Candidate::new("1", SecretPath::parse("p/a").unwrap(), &payload("v"));
        assert!(candidate.is_same_value(&candidate.payload()) && !candidate.is_same_value(&payload("w")));
        let raw = Payload::raw("text/plain", candidate.payload().encode()).unwrap();
        assert!(!candidate.is_same_value(&raw), "the media type is part of the value");
        assert!(!format!("{candidate:?}").contains("\"v\""));
    }
}
