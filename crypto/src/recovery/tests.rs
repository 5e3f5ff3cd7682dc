//! Tests of recovery shares.

use super::*;
use crate::testing::{hex, vectors};
use proptest::prelude::*;
use proptest::sample::Index;
use strongroom_core::SecretBytes;

static_assertions::assert_not_impl_any!(RecoveryShare: Clone, fmt::Display, PartialEq);

fn secret(text: &str) -> SecretBytes {
    SecretBytes::new(text.as_bytes().to_vec())
}

fn parse(text: &str) -> Result<RecoveryShare, BadShare> {
    RecoveryShare::parse(&secret(text))
}

/// By way of their texts, as shares travel.
fn copies(shares: &[&RecoveryShare]) -> Vec<RecoveryShare> {
    shares.iter().map(|share| RecoveryShare::parse(&share.expose_text()).unwrap()).collect()
}

fn text(share: &RecoveryShare) -> String {
    share.expose_text().expose_str().unwrap().to_owned()
}

#[test]
fn an_independent_implementation_gives_the_same_shares() {
    let file = vectors(include_str!("../../tests/vectors/recovery.json"));
    let key = || Key::from_slice(&hex(&file["key"])).unwrap();
    let given: Vec<Vec<u8>> = file["coefficients"].as_array().unwrap().iter().map(hex).collect();
    let zeros = vec![vec![0; KEY_LENGTH]];
    let splits = file["splits"].as_array().unwrap();
    assert_eq!(splits.len(), 4);
    for (split, coefficients) in
        splits.iter().map(|split| (split, &given)).chain([(&file["coefficient_of_zeros"], &zeros)])
    {
        let threshold = usize::try_from(split["threshold"].as_u64().unwrap()).unwrap();
        let coefficients: Vec<Key> =
            coefficients[..threshold - 1].iter().map(|bytes| Key::from_slice(bytes).unwrap()).collect();
        let texts: Vec<&str> = split["shares"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let set = hex(&split["set"]).try_into().unwrap();
        let made = split_with(&key(), set, &coefficients, u8::try_from(texts.len()).unwrap());
        assert_eq!(made.iter().map(text).collect::<Vec<_>>(), texts);
        let last: Vec<_> = texts.iter().rev().take(threshold).map(|text| parse(text).unwrap()).collect();
        assert_eq!(RootKey::combine(&last).unwrap().0.expose()[..], hex(&file["key"]));
    }
}

#[test]
fn a_share_may_be_typed_in_other_ways() {
    let file = vectors(include_str!("../../tests/vectors/recovery.json"));
    let expected = file["splits"][1]["shares"][0].as_str().unwrap();
    let typed = file["as_typed"].as_array().unwrap();
    assert_eq!(typed.len(), 4);
    for typed in typed {
        assert_eq!(text(&parse(typed.as_str().unwrap()).unwrap()), expected, "{typed}");
    }
}

#[test]
fn each_malformed_share_is_refused_with_its_own_error() {
    let file = vectors(include_str!("../../tests/vectors/recovery.json"));
    let malformed = file["malformed"].as_array().unwrap();
    assert_eq!(malformed.len(), 18);
    for vector in malformed {
        let error = parse(vector["text"].as_str().unwrap()).unwrap_err();
        assert_eq!(format!("{error:?}"), vector["error"].as_str().unwrap(), "{}", vector["name"]);
    }
}

#[test]
fn every_mistyped_exchanged_lost_or_doubled_character_is_found() {
    let share = text(&RootKey::generate().split(3, 2).unwrap()[1]);
    let places: Vec<usize> = (5..share.len()).filter(|at| share.as_bytes()[*at] != b'-').collect();
    assert_eq!(places.len(), 88);
    let mut tried = 0;
    for (number, &at) in places.iter().enumerate() {
        for other in b"0123456789abcdefghjkmnpqrstvwxyz".iter().filter(|other| **other != share.as_bytes()[at]) {
            let mut typed = share.clone().into_bytes();
            typed[at] = *other;
            assert_eq!(RecoveryShare::parse(&SecretBytes::new(typed)).unwrap_err(), BadShare::Checksum, "{at}");
            tried += 1;
        }
        let mut typed = share.clone().into_bytes();
        if let Some(&next) = places.get(number + 1).filter(|next| share.as_bytes()[**next] != share.as_bytes()[at]) {
            typed.swap(at, next);
            assert_eq!(RecoveryShare::parse(&SecretBytes::new(typed)).unwrap_err(), BadShare::Checksum, "{at}");
        }
        let (before, after) = share.split_at(at);
        assert_eq!(parse(&format!("{before}{}", &after[1..])).unwrap_err(), BadShare::Length { found: 87 });
        assert_eq!(parse(&format!("{before}{}{after}", &after[..1])).unwrap_err(), BadShare::Length { found: 89 });
    }
    assert_eq!(tried, 88 * 31);
}

#[test]
fn a_split_that_makes_no_sense_is_refused() {
    let key = RootKey::generate();
    for (shares, threshold) in [(0, 0), (1, 1), (3, 0), (3, 1), (1, 2), (3, 4)] {
        assert_eq!(key.split(shares, threshold).unwrap_err(), CannotSplit { shares, threshold });
    }
    assert_eq!(key.split(255, 255).unwrap().len(), 255);
}

#[test]
fn each_wrong_selection_of_shares_is_refused_with_its_own_error() {
    let key = RootKey::generate();
    let (shares, other) = (key.split(5, 3).unwrap(), key.split(5, 3).unwrap());
    let combine = |chosen: &[&RecoveryShare]| RootKey::combine(&copies(chosen)).map(|_| ()).unwrap_err();
    assert_eq!(combine(&[]), CombineError::TooFew { given: 0, needed: 2 });
    assert_eq!(combine(&[&shares[0], &shares[4]]), CombineError::TooFew { given: 2, needed: 3 });
    assert_eq!(combine(&[&shares[0], &shares[4], &shares[0]]), CombineError::Twice { number: 1 });
    // The same key, and the same threshold: only the set tells them apart.
    assert_eq!(combine(&[&shares[0], &shares[4], &other[3]]), CombineError::OtherSet { number: 4 });
}

/// With a right checksum, as whoever forges a share would give it.
#[test]
fn a_forged_share_gives_an_error_and_never_another_key() {
    let key = RootKey::generate();
    let shares = key.split(4, 2).unwrap();
    let forged = |change: &dyn Fn(&mut RecoveryShare)| {
        let mut given = copies(&[&shares[0], &shares[1]]);
        change(&mut given[1]);
        RootKey::combine(&given).map(|_| ()).unwrap_err()
    };
    assert_eq!(forged(&|share| share.values = Key::generate()), CombineError::WrongKey);
    assert_eq!(forged(&|share| share.number = 3), CombineError::WrongKey);
    assert_eq!(forged(&|share| share.label.threshold = 3), CombineError::OtherSet { number: 2 });
    assert_eq!(forged(&|share| share.label.commitment[0] ^= 1), CombineError::OtherSet { number: 2 });
    // Shares beyond the threshold are not passed over.
    let mut given = copies(&[&shares[0], &shares[1], &shares[2]]);
    given[2].values = Key::generate();
    assert_eq!(RootKey::combine(&given).map(|_| ()).unwrap_err(), CombineError::WrongKey);
    // All that have a share agree to need fewer of them: the threshold is part of the commitment.
    let mut given = copies(&key.split(3, 3).unwrap().iter().take(2).collect::<Vec<_>>());
    for share in &mut given {
        share.label.threshold = 2;
    }
    assert_eq!(RootKey::combine(&given).map(|_| ()).unwrap_err(), CombineError::WrongKey);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shares_of_the_threshold_or_more_give_the_key_and_fewer_do_not(
        (count, threshold) in (2_u8..12).prop_flat_map(|count| (Just(count), 2..=count)),
        picks in prop::collection::vec(any::<Index>(), 12),
        given in 1_usize..12,
    ) {
        let key = RootKey::generate();
        let shares = key.split(count, threshold).unwrap();
        let mut left: Vec<&RecoveryShare> = shares.iter().collect();
        let given = given.min(left.len());
        let chosen: Vec<_> = picks.iter().take(given).map(|pick| left.remove(pick.index(left.len()))).collect();
        match RootKey::combine(&copies(&chosen)) {
            Ok(combined) => {
                prop_assert!(given >= threshold.into());
                prop_assert!(combined.0.expose() == key.0.expose());
            }
            Err(error) => {
                prop_assert!(given < threshold.into());
                prop_assert_eq!(error, CombineError::TooFew { given, needed: threshold });
            }
        }
    }
}

/// A sanity check and no proof (the proof is Shamir's): over many splits of one key, the values of fewer shares than needed are uniform, alone and
/// together. The control is the bias of RUSTSEC-2024-0398, which must be seen.
#[test]
fn fewer_shares_than_needed_say_nothing_of_the_key() {
    const SPLITS: usize = 8_000;
    let key = RootKey(Key::from_slice(&[0x5a; KEY_LENGTH]).unwrap());
    let (mut alone, mut together, mut biased) = ([0_u32; 256], [0_u32; 256], [0_u32; 256]);
    for _ in 0..SPLITS {
        let shares = key.split(3, 3).unwrap();
        let coefficient = Key::fill::<()>(|bytes| {
            let Ok(()) = random(bytes);
            for byte in bytes {
                *byte = (*byte).max(1);
            }
            Ok(())
        });
        let without_zero = split_with(&key.0, [0; SET], &[coefficient.unwrap()], 1);
        for at in 0..KEY_LENGTH {
            let value = |share: &RecoveryShare| share.values.expose()[at];
            alone[usize::from(value(&shares[0]))] += 1;
            // As if two of the three gave the key.
            let two = multiply(2, value(&shares[0])) ^ value(&shares[1]);
            together[usize::from(two)] += 1;
            biased[usize::from(value(&without_zero[0]))] += 1;
        }
    }
    let [alone, together, biased] = [alone, together, biased].map(|counts| chi_squared(&counts));
    println!("χ² with 255 degrees of freedom: {alone:.0} alone, {together:.0} together, {biased:.0} biased");
    // 255 is expected with a deviation of 22.6; 400 is reached by chance once in some 10⁸ runs.
    assert!(alone < 400.0 && together < 400.0, "{alone} {together}");
    assert!(biased > 400.0, "the control must be seen: {biased}");
}

fn chi_squared(counts: &[u32; 256]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

#[test]
fn debug_shows_number_and_set_only() {
    let share = RecoveryShare {
        label: Label { set: *b"abcde", threshold: 2, commitment: [7; COMMITMENT] },
        number: 3,
        values: Key::generate(),
    };
    assert_eq!(format!("{share:?}"), "RecoveryShare(3 of set 6162636465, ..)");
}
