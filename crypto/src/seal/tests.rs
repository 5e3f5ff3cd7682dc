//! Tests of the envelope.

use super::*;
use crate::names::{DataKey, ProjectKeyNames, PurposeKeyNames, RootWrapped, Setting, Value};
use crate::testing::{INSTANCE, PROJECT, SECRET, hex, vectors};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use strongroom_core::{InstanceId, MAX_PAYLOAD, ProjectId, SecretId};
use uuid::Uuid;

const VALUE: Value<'static> = Value { instance: INSTANCE, secret: SECRET, version: 7, media_type: "application/json" };

fn key(bytes: &[u8]) -> Key {
    Key::from_slice(bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_sealed_opens(plaintext in prop::collection::vec(any::<u8>(), 0..300), version: u64, media_type in ".{0,20}") {
        let key = Key::generate();
        let names = Value { version, media_type: &media_type, ..VALUE };
        let envelope = seal(&key, &names, &plaintext);
        prop_assert_eq!(envelope.len(), OVERHEAD + plaintext.len());
        let opened = open(&key, &names, &envelope).unwrap();
        prop_assert_eq!(opened.expose_bytes(), &plaintext[..]);
    }

    #[test]
    fn what_was_never_sealed_does_not_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&key(&[1; 32]), &VALUE, &bytes).is_err());
        let claimed = [b"SR\x01\x01\0\0\0\0", &bytes[..]].concat();
        prop_assert!(open(&key(&[1; 32]), &VALUE, &claimed).is_err());
    }

    /// Every bit of one envelope is tried below; here it is any envelope.
    #[test]
    fn no_envelope_opens_with_any_of_its_bits_flipped(plaintext in prop::collection::vec(any::<u8>(), 0..5000), bit: prop::sample::Index) {
        let key = Key::generate();
        let mut envelope = seal(&key, &VALUE, &plaintext);
        let bit = bit.index(envelope.len() * 8);
        envelope[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&key, &VALUE, &envelope).is_err(), "bit {}", bit);
    }
}

/// Around AES's block, the smallest, and the largest payload there may be.
#[test]
fn every_size_at_an_edge_opens() {
    let key = Key::generate();
    for size in [0, 1, 15, 16, 17, 32, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1] {
        let mut plaintext = vec![0; size];
        let Ok(()) = random(&mut plaintext);
        let envelope = seal(&key, &VALUE, &plaintext);
        assert_eq!(envelope.len(), OVERHEAD + size);
        assert!(open(&key, &VALUE, &envelope).unwrap().expose_bytes() == plaintext, "{size} bytes");
    }
}

#[test]
fn an_independent_implementation_gives_the_same_envelopes() {
    let file = vectors(include_str!("../../tests/vectors/envelopes.json"));
    let key = key(&hex(&file["key"]));
    let salt: [u8; 32] = hex(&file["salt"]).try_into().unwrap();
    let project_key = ProjectKeyNames { instance: INSTANCE, project: PROJECT, generation: 3, term: 2 };
    let purpose_key = PurposeKeyNames { instance: INSTANCE, purpose: "session", generation: 1, term: 2 };
    let sealed = file["sealed"].as_array().unwrap();
    assert_eq!(sealed.len(), 8);
    for vector in sealed {
        let plaintext = hex(&vector["plaintext"]);
        let made = match vector["name"].as_str().unwrap() {
            "value" | "empty value" => seal_with_salt(&key, &VALUE, &plaintext, &salt),
            "data key" => {
                let names = DataKey { value: VALUE, project: PROJECT, generation: 3 };
                seal_with_salt(&key, &names, &plaintext, &salt)
            }
            "project key" => seal_with_salt(&key, &project_key, &plaintext, &salt),
            "purpose key" => seal_with_salt(&key, &purpose_key, &plaintext, &salt),
            "setting" => {
                let names = Setting { instance: INSTANCE, name: "cluster/lab/reviewer", term: 2 };
                seal_with_salt(&key, &names, &plaintext, &salt)
            }
            "term" => seal_with_salt(&key, &RootWrapped::Term { instance: INSTANCE, term: 2 }, &plaintext, &salt),
            "keyring mac key" => {
                seal_with_salt(&key, &RootWrapped::KeyringMacKey { instance: INSTANCE }, &plaintext, &salt)
            }
            name => panic!("unknown vector {name}"),
        };
        assert_eq!(made, hex(&vector["envelope"]), "{}", vector["name"]);
    }
}

/// One file for each: a comment that says what is wrong, the expected error, and the envelope.
#[test]
fn each_malformed_envelope_is_refused_with_its_own_error() {
    let key = key(&hex(&vectors(include_str!("../../tests/vectors/envelopes.json"))["key"]));
    let mut seen = BTreeMap::<String, usize>::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/malformed")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [_, error, envelope] = lines[..] else { panic!("{} has not three lines", path.display()) };
        // As a key, because what opens and is none is an error of its own; all others are those of `open`.
        let found = open_key(&key, &VALUE, &hex(&envelope.into())).map(|_| ()).unwrap_err();
        assert_eq!(format!("# error: {found:?}"), error, "{}", path.display());
        *seen.entry(format!("{found:?}")).or_default() += 1;
    }
    assert_eq!(seen.values().sum::<usize>(), 62);
    assert_eq!(seen.len(), 8, "every error has its files: {seen:?}");
}

#[test]
fn any_flipped_bit_is_found() {
    let key = Key::generate();
    let envelope = seal(&key, &VALUE, b"hunter2");
    for bit in 0..envelope.len() * 8 {
        let mut changed = envelope.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&key, &VALUE, &changed).is_err(), "bit {bit}");
    }
}

/// Every level with each of its names changed: no envelope stands in for another.
#[test]
fn an_envelope_opens_under_its_own_names_only() {
    let other = Uuid::from_u128(9);
    let values = [
        VALUE,
        Value { instance: InstanceId(other), ..VALUE },
        Value { secret: SecretId(other), ..VALUE },
        Value { version: 8, ..VALUE },
        Value { media_type: "application/jso", ..VALUE },
    ];
    let key = Key::generate();
    let sealed = seal(&key, &VALUE, b"hunter2");
    for names in &values[1..] {
        assert_eq!(open(&key, names, &sealed).unwrap_err(), EnvelopeError::OtherKeyOrNames);
    }
    assert!(open(&key, &values[0], &sealed).is_ok());

    let mut encodings: Vec<Vec<u8>> = values.iter().map(Names::encode).collect();
    for value in values {
        encodings.push(DataKey { value, project: PROJECT, generation: 1 }.encode());
    }
    encodings.push(DataKey { value: VALUE, project: ProjectId(other), generation: 1 }.encode());
    encodings.push(DataKey { value: VALUE, project: PROJECT, generation: 2 }.encode());
    for (instance, generation, term) in
        [(INSTANCE, 1, 1), (InstanceId(other), 1, 1), (INSTANCE, 2, 1), (INSTANCE, 1, 2)]
    {
        encodings.push(ProjectKeyNames { instance, project: PROJECT, generation, term }.encode());
        for purpose in ["token", "session"] {
            encodings.push(PurposeKeyNames { instance, purpose, generation, term }.encode());
        }
    }
    encodings.push(ProjectKeyNames { instance: INSTANCE, project: ProjectId(other), generation: 1, term: 1 }.encode());
    for (instance, name, term) in
        [(INSTANCE, "a", 1), (InstanceId(other), "a", 1), (INSTANCE, "b", 1), (INSTANCE, "a", 2)]
    {
        encodings.push(Setting { instance, name, term }.encode());
    }
    for instance in [INSTANCE, InstanceId(other)] {
        encodings.push(RootWrapped::KeyringMacKey { instance }.encode());
        for term in [1, 2] {
            encodings.push(RootWrapped::Term { instance, term }.encode());
        }
    }
    let count = encodings.len();
    assert_eq!(encodings.into_iter().collect::<HashSet<_>>().len(), count);
}

/// RUSTSEC-2023-0068 and CVE-2023-4680 were repeated nonces; here the salt is what must not repeat.
#[test]
fn a_hundred_thousand_salts_are_unique() {
    let salts: HashSet<[u8; 32]> = (0..100_000).map(|_| fresh_salt()).collect();
    assert_eq!(salts.len(), 100_000);
    let sealed: HashSet<Vec<u8>> = (0..100).map(|_| seal(&key(&[1; 32]), &VALUE, b"")[SALT].to_vec()).collect();
    assert_eq!(sealed.len(), 100);
}
