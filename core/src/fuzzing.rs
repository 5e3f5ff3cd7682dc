//! What is fuzzed here, and its laws. Built for `cargo fuzz` and for tests only; `fuzz/` has the targets and their corpora, which the tests replay.

use crate::{
    FIELDS_MEDIA_TYPE, FolderPath, Identity, MemberPattern, Payload, PodIdentity, PrincipalRef, ProjectName, Reference,
    Scope, SecretBytes, SecretPath,
};
use uuid::Uuid;

/// Paths, folders, scopes and references: what parses prints as it was, and names nothing outside its project.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (secret, folder, scope) = (SecretPath::parse(text), FolderPath::parse(text), Scope::parse(text));
    assert!(secret.is_err() || folder.is_err(), "a secret and a folder");
    assert_eq!(scope.is_ok(), secret.is_ok() || folder.is_ok());
    if let Ok(scope) = &scope {
        assert_eq!(scope.to_string(), text);
        check_segments(text.strip_suffix('/').unwrap_or(text));
        assert!(text.starts_with(&format!("{}/", scope.project())));
        assert_eq!(ProjectName::parse(scope.project().as_str()), Ok(scope.project()));
    }
    if let Ok(path) = &secret {
        assert_eq!(path.to_string(), text);
        assert!(text.ends_with(&format!("/{}", path.name())));
        let folders: Vec<_> = path.folders().collect();
        assert_eq!(folders.len() + 2, text.split('/').count());
        for folder in folders {
            assert_eq!(FolderPath::parse(folder.as_str()).as_ref(), Ok(&folder));
            assert!(folder.contains(path) && !folder.is_project());
        }
        assert_eq!(Reference::parse(text).map(|reference| reference.path), Ok(path.clone()));
    }
    if let Ok(folder) = &folder {
        assert_eq!(folder.to_string(), text);
        assert_eq!(folder.is_project(), text.matches('/').count() == 1);
    }
    if let Ok(reference) = Reference::parse(text) {
        let printed = reference.to_string();
        assert_eq!(Reference::parse(&printed).as_ref(), Ok(&reference));
        // Zeros before a number and the alias that is meant anyway are the only two that print otherwise.
        let exact = text.rsplit_once('@').is_none_or(|(_, version)| version != "current" && !version.starts_with('0'));
        assert!(!exact || printed == text, "{printed}");
        assert!(text.starts_with(reference.path.as_str()));
    }
}

/// Principals and members of roles: what parses prints as it was, and a pattern without `*` means its own name and no other.
pub fn principal(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (principal, member) = (PrincipalRef::parse(text), MemberPattern::parse(text));
    if let Ok(principal) = &principal {
        assert_eq!(principal.to_string(), text);
        assert_eq!(Identity::check_principal(text).is_err(), matches!(principal, PrincipalRef::Role(_)));
    }
    if let Ok(member) = &member {
        assert_eq!(member.to_string(), text);
        assert_eq!(principal.is_ok(), !text.contains('*'), "only a pattern with `*` is no principal");
    }
    let Some(identity) = principal.ok().and_then(identity) else { return };
    assert_eq!(identity.principal(), text);
    assert!(member.expect("whoever is a principal and no role may be a member").matches(&identity));
    for stranger in ["user:stranger", "service:stranger", "workload:stranger/stranger/stranger"] {
        assert!(text == stranger || !MemberPattern::parse(stranger).expect("it is well-formed").matches(&identity));
    }
}

/// Stored payloads: what decodes encodes again, to what decodes to the same.
pub fn payload(data: &[u8]) {
    let Ok(decoded) = Payload::decode(FIELDS_MEDIA_TYPE, SecretBytes::new(data.to_vec())) else { return };
    assert_eq!(decoded.media_type(), FIELDS_MEDIA_TYPE);
    let encoded = decoded.encode();
    let again = Payload::decode(FIELDS_MEDIA_TYPE, encoded.duplicate()).expect("what was encoded decodes");
    assert_eq!(again.encode().expose_bytes(), encoded.expose_bytes());
    let (Payload::Fields(fields), Payload::Fields(again)) = (decoded, again) else { panic!("it became raw bytes") };
    assert_eq!(fields.len(), again.len());
    for ((name, value), (other_name, other)) in fields.iter().zip(&again) {
        assert_eq!((name, value.expose_bytes()), (other_name, other.expose_bytes()));
    }
    // What may be stored is what decodes, within the limits.
    if let Ok(allowed) = Payload::fields(fields) {
        assert_eq!(allowed.encode().expose_bytes(), encoded.expose_bytes());
    }
}

fn check_segments(text: &str) {
    assert!(text.len() <= 512);
    for segment in text.split('/') {
        assert!(!segment.is_empty() && segment != "." && segment != "..");
        assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{segment:?}");
    }
}

fn identity(principal: PrincipalRef) -> Option<Identity> {
    match principal {
        PrincipalRef::Role(_) => None,
        PrincipalRef::Workload(workload) => {
            let pod = PodIdentity { name: "pod".to_owned(), uid: Uuid::nil(), account_uid: Uuid::nil() };
            Some(Identity::Workload { workload, pod })
        }
        PrincipalRef::User(name) => Some(Identity::User { name }),
        PrincipalRef::Service(name) => Some(Identity::Service { name }),
    }
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, body: fn(&[u8])) {
        let files = std::fs::read_dir(format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let inputs: Vec<Vec<u8>> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 10, "the corpus of {target} is gone");
        for input in &inputs {
            body(input);
        }
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_paths() {
        replay("path", super::path);
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_principals() {
        replay("principal", super::principal);
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_payloads() {
        replay("payload", super::payload);
    }
}
