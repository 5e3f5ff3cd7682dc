//! Passwords: each character of the alphabet is as likely as any other, at each place.

use super::fill;
use crate::failure::Failure;
use std::collections::BTreeSet;
use strongroom_core::SecretBytes;
use zeroize::Zeroizing;

/// What a password is made of where nothing is said: letters, digits, and punctuation that needs no quoting in a shell, a URL or YAML within quotes.
const USUAL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+=@%:,";
/// Shortest and longest password in characters.
const LENGTHS: std::ops::RangeInclusive<u32> = 8..=1024;
/// Most characters of an alphabet.
const MAX_ALPHABET: usize = 256;
/// Least entropy of a password in bits.
const MIN_ENTROPY: f64 = 64.0;
/// How often a password without one of each class is thrown away. Where it is likely to be thrown away so often, the request is refused before.
const ATTEMPTS: usize = 10_000;

/// A password. With `each_class`, one that lacks a class is thrown away whole and another made, so that those that remain stay equally likely.
///
/// # Errors
/// [`Failure::Invalid`] for a length or an alphabet that cannot be, or where they give less than 64 bits.
pub(super) fn password(length: u32, alphabet: Option<&str>, each_class: bool) -> Result<SecretBytes, Failure> {
    let invalid = |text: String| Err(Failure::Invalid(text));
    if !LENGTHS.contains(&length) {
        return invalid(format!("length: {} to {} characters", LENGTHS.start(), LENGTHS.end()));
    }
    let alphabet: Vec<char> = alphabet.unwrap_or(USUAL).chars().collect();
    let different: BTreeSet<char> = alphabet.iter().copied().collect();
    let is_good = (2..=MAX_ALPHABET).contains(&alphabet.len())
        && different.len() == alphabet.len()
        && !alphabet.iter().any(|c| c.is_control());
    if !is_good {
        return invalid(format!("alphabet: 2 to {MAX_ALPHABET} different characters, and no control characters"));
    }
    let size = u32::try_from(alphabet.len()).expect("at most 256");
    let entropy = f64::from(length) * f64::from(size).log2();
    if entropy < MIN_ENTROPY {
        return invalid(format!(
            "length: these characters give {entropy:.0} bits; at least {MIN_ENTROPY:.0} are needed"
        ));
    }
    let classes: BTreeSet<Class> = alphabet.iter().map(|c| class(*c)).collect();
    let attempts = if each_class { ATTEMPTS } else { 1 };
    for _ in 0..attempts {
        let password = one(length, &alphabet);
        if !each_class || password.chars().map(class).collect::<BTreeSet<_>>() == classes {
            return Ok(SecretBytes::new(password.as_bytes().to_vec()));
        }
    }
    invalid(
        "each_class: too few passwords of this length and alphabet have one of each class; make it longer".to_owned(),
    )
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Lower,
    Upper,
    Digit,
    Other,
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' => Class::Lower,
        'A'..='Z' => Class::Upper,
        '0'..='9' => Class::Digit,
        _ => Class::Other,
    }
}

/// Characters chosen by rejection: a random byte beyond the largest multiple of the alphabet's size would favour its first characters, and is thrown away.
fn one(length: u32, alphabet: &[char]) -> Zeroizing<String> {
    let limit = 256 - 256 % alphabet.len();
    // Room for every character at its longest, so that the buffer never moves.
    let mut password = Zeroizing::new(String::with_capacity(4 * length as usize));
    let mut chosen = 0;
    let mut bytes = Zeroizing::new([0; 256]);
    while chosen < length {
        fill(&mut *bytes);
        for byte in bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < limit) {
            if chosen == length {
                break;
            }
            password.push(alphabet[byte % alphabet.len()]);
            chosen += 1;
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn made(length: u32, alphabet: Option<&str>, each_class: bool) -> String {
        password(length, alphabet, each_class).unwrap().expose_str().unwrap().to_owned()
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        // 10 does not divide 256: without rejection the first six would come 4 % more often than the last four.
        let mut counts: HashMap<char, f64> = HashMap::new();
        let (rounds, length) = (400, 1000);
        for _ in 0..rounds {
            for c in made(length, Some("0123456789"), false).chars() {
                *counts.entry(c).or_default() += 1.0;
            }
        }
        let expected = f64::from(rounds * length) / 10.0;
        let chi_square: f64 = counts.values().map(|count| (count - expected).powi(2) / expected).sum();
        // Nine degrees of freedom: above 45 once in a million runs. The bias of a plain remainder would give about 96.
        assert!(counts.len() == 10 && chi_square < 45.0, "{chi_square}");
    }

    #[test]
    fn a_password_has_its_length_its_alphabet_and_one_of_each_class() {
        assert_eq!(made(8, Some("äöü€abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZßé+#.,:;-_|<>!$%&/()=?*~^°'[]{}@\\µ§²³" ), false).chars().count(), 8);
        for _ in 0..200 {
            let password = made(12, None, true);
            assert!(password.chars().all(|c| USUAL.contains(c)));
            assert_eq!(password.chars().map(class).collect::<BTreeSet<_>>().len(), 4, "{password}");
        }
        assert_ne!(made(32, None, false), made(32, None, false));
    }

    #[test]
    fn each_request_for_a_bad_password_is_refused() {
        for (length, alphabet, each_class) in [
            (7, None, false),
            (1025, None, false),
            (32, Some(""), false),
            (32, Some("a"), false),
            (32, Some("abca"), false),
            (32, Some("ab\n"), false),
            (63, Some("ab"), false),
            (10, Some("0123456789"), false),
        ] {
            assert!(password(length, alphabet, each_class).is_err(), "{length} {alphabet:?}");
        }
        assert!(password(64, Some("ab"), false).is_ok());
    }
}
