//! A share as text that a person can write down and type.

use super::{COMMITMENT, Label, RECOVERY_THRESHOLDS, RecoveryShare, SET};
use crate::key::{KEY_LENGTH, Key};
use strongroom_core::SecretBytes;
use thiserror::Error;
use zeroize::Zeroizing;

const PREFIX: &str = "srr1-";
/// What the checksum covers before the share's bytes: the prefix without its hyphen.
const FORMAT: &[u8] = b"srr1";
/// Crockford's base32: without i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CHECKSUM: usize = 4;
const BYTES: usize = SET + 2 + COMMITMENT + KEY_LENGTH + CHECKSUM;
/// Five bytes are eight characters, and nothing is left over: each share has one text.
const CHARACTERS: usize = BYTES / 5 * 8;
const GROUP: usize = 4;

/// Why a text is no share. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadShare {
    /// Without `srr1-`.
    #[error("a share begins with srr1-")]
    Prefix,
    /// A format of another version of Strongroom.
    #[error("it is a share of another format; this version of Strongroom reads srr1")]
    UnknownFormat,
    /// A character that stands in no share.
    #[error("character {position} (counted from 1, without hyphens and spaces, after srr1-) stands in no share")]
    Character {
        /// Which one, from 1.
        position: usize,
    },
    /// Cut off, or with something appended.
    #[error("a share has {CHARACTERS} characters after srr1-, without hyphens and spaces; this one has {found}")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// Mistyped.
    #[error("the share's checksum is wrong: at least one character was mistyped")]
    Checksum,
    /// The checksum is right, but a split gives no such share.
    #[error("no split gives such a share: its number or threshold is impossible")]
    Impossible,
}

impl RecoveryShare {
    /// Parses a typed share. Upper case, spaces, line ends and hyphens make no difference, nor do o for 0 and i or l for 1.
    ///
    /// Not in constant time: it is done by a person, at a machine of their own.
    pub fn parse(text: &SecretBytes) -> Result<Self, BadShare> {
        // Exposed to be decoded into buffers that are wiped.
        let text = text.expose_bytes().trim_ascii();
        let (prefix, rest) = text.split_at_checked(PREFIX.len()).ok_or(BadShare::Prefix)?;
        if !prefix.eq_ignore_ascii_case(PREFIX.as_bytes()) {
            let is_ours = prefix[..3].eq_ignore_ascii_case(&FORMAT[..3]) && prefix[3].is_ascii_alphanumeric();
            return Err(if is_ours && prefix[4] == b'-' { BadShare::UnknownFormat } else { BadShare::Prefix });
        }
        let bytes = decode(rest)?;
        let (content, sum) = bytes.split_at(BYTES - CHECKSUM);
        if sum != checksum(content) {
            return Err(BadShare::Checksum);
        }
        let (set, content) = content.split_first_chunk::<SET>().expect("the length was checked");
        let (&[threshold, number], content) = content.split_first_chunk::<2>().expect("the length was checked");
        let (commitment, values) = content.split_first_chunk::<COMMITMENT>().expect("the length was checked");
        if number == 0 || !RECOVERY_THRESHOLDS.contains(&threshold) {
            return Err(BadShare::Impossible);
        }
        let values = Key::from_slice(values).expect("the length was checked");
        Ok(Self { label: Label { set: *set, threshold, commitment: *commitment }, number, values })
    }

    /// The share's text: `srr1-` and 22 groups of four characters. For the person who keeps it.
    pub fn expose_text(&self) -> SecretBytes {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        bytes.extend_from_slice(&self.label.set);
        bytes.extend_from_slice(&[self.label.threshold, self.number]);
        bytes.extend_from_slice(&self.label.commitment);
        bytes.extend_from_slice(self.values.expose());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut text = Vec::with_capacity(PREFIX.len() + CHARACTERS + CHARACTERS / GROUP);
        text.extend_from_slice(PREFIX.as_bytes());
        for (at, character) in encode(&bytes).enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push(b'-');
            }
            text.push(character);
        }
        SecretBytes::new(text)
    }
}

#[cfg(any(test, fuzzing))]
impl RecoveryShare {
    /// What is fuzzed: any content, with the checksum that is its own.
    pub(crate) fn with_checksum(content: &[u8]) -> SecretBytes {
        let whole = [content, &checksum(content)].concat();
        SecretBytes::new([PREFIX.as_bytes(), &encode(&whole).collect::<Vec<_>>()].concat())
    }
}

fn encode(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.chunks(5).flat_map(|five| {
        let word = five.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        (0..8).rev().map(move |at| ALPHABET[usize::try_from(word >> (5 * at) & 31).expect("five bits")])
    })
}

fn decode(text: &[u8]) -> Result<Zeroizing<[u8; BYTES]>, BadShare> {
    let is_filler = |character: &u8| *character == b'-' || character.is_ascii_whitespace();
    let mut bits = Zeroizing::new([0_u8; CHARACTERS]);
    let mut found = 0;
    for character in text.iter().filter(|character| !is_filler(character)) {
        let five = five_bits(*character).ok_or(BadShare::Character { position: found + 1 })?;
        if let Some(place) = bits.get_mut(found) {
            *place = five;
        }
        found += 1;
    }
    if found != CHARACTERS {
        return Err(BadShare::Length { found });
    }
    let mut bytes = Zeroizing::new([0; BYTES]);
    for (eight, five) in bits.chunks(8).zip(bytes.chunks_mut(5)) {
        let word = eight.iter().fold(0_u64, |word, bits| word << 5 | u64::from(*bits));
        five.copy_from_slice(&word.to_be_bytes()[3..]);
    }
    Ok(bytes)
}

fn five_bits(character: u8) -> Option<u8> {
    let character = match character.to_ascii_lowercase() {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|known| *known == character).and_then(|at| u8::try_from(at).ok())
}

/// CRC-32 finds every single mistyped character and every exchange of neighbours for certain, and all else but one in 2³².
fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(FORMAT);
    hasher.update(content);
    hasher.finalize().to_be_bytes()
}
