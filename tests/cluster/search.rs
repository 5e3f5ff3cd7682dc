//! Finding a text however it was written: as it is, as hex, as base64 at each of its three alignments.
//!
//! The texts are letters and digits, for which base64 and base64url are the same, and which no JSON or log escapes.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use memchr::memmem::Finder;
use std::fmt::Write as _;

/// The forms, by name: a control is planted in each, and found by each.
pub(crate) const FORMS: [&str; 6] = ["raw", "hex", "hex in capitals", "base64 at 0", "base64 at 1", "base64 at 2"];

/// What betrays a text, in each form.
#[derive(Debug)]
pub(crate) struct Needles(Vec<(&'static str, Finder<'static>)>);

impl Needles {
    /// What betrays `text`.
    pub(crate) fn of(text: &str) -> Self {
        let needle = |form: &'static str| match alignment(form) {
            Some(offset) => base64_core(text, offset),
            None => plain(form, text),
        };
        Self(FORMS.into_iter().map(|form| (form, Finder::new(&needle(form)).into_owned())).collect())
    }

    /// The forms of the text that stand in `haystack`.
    pub(crate) fn found_in(&self, haystack: &[u8]) -> Vec<&'static str> {
        self.0.iter().filter(|(_, finder)| finder.find(haystack).is_some()).map(|(form, _)| *form).collect()
    }
}

/// `text` in every form, in base64 amid other bytes as a leak would be: one line.
pub(crate) fn planted(text: &str) -> String {
    let forms = FORMS.into_iter().map(|form| match alignment(form) {
        Some(offset) => BASE64.encode(format!("{}{text}zz", &"aa"[..offset])),
        None => plain(form, text),
    });
    forms.collect::<Vec<_>>().join(" ")
}

/// The characters that stand for `text` at this alignment whatever stands around it: the first ones hold bits of what is before, the last of what follows.
fn base64_core(text: &str, offset: usize) -> String {
    let whole = BASE64.encode([&[0; 2][..offset], text.as_bytes()].concat());
    let start = [0, 2, 3][offset];
    let end = whole.len() - usize::from(!(offset + text.len()).is_multiple_of(3));
    whole[start..end].to_owned()
}

fn alignment(form: &str) -> Option<usize> {
    form.strip_prefix("base64 at ").map(|offset| offset.parse().expect("the forms of base64 end in a digit"))
}

fn plain(form: &str, text: &str) -> String {
    let hex = || {
        text.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        })
    };
    match form {
        "hex" => hex(),
        "hex in capitals" => hex().to_uppercase(),
        _ => text.to_owned(),
    }
}
