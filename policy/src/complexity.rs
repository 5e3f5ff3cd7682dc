//! How deeply a policy can nest: bounded before any parser sees it, and given the stack that the bound needs.
//!
//! Cedar's conversions and its validator recurse without a limit: tried here, 36 brackets in each other overflow a thread's stack of 2 MiB in a
//! debug build, which ends the process; and its evaluator gives up as many levels deep, which would deny everything in the policy's project.
//! Whoever may write policies in one project must not be able to stop the server for all, and what was taken must evaluate on any thread.

use thiserror::Error;

/// Most brackets `( [ {` that are open at once; the braces of `when { … }` are one of them.
const MAX_OPEN: usize = 12;

/// Most `if` in one policy. Cedar's level check takes twice as long with each one more in another: with 24, tried here, some ten seconds.
const MAX_IFS: usize = 8;

/// Most operators in one policy, each of the characters `& | + - * ! . < [ ( {`.
const MAX_OPERATORS: usize = 200;

/// Stack that one level of nesting needs, in bytes: about 65 KiB in a debug build, in parser and evaluator alike, and far less in a release build.
const LEVEL: usize = 80 * 1024;

/// Stack that anything needs, in bytes: a head's four levels, entities, messages.
const BASE: usize = 512 * 1024;

/// The stack that is made where a thread's own is too small, in bytes: room for the deepest policy. Only touched pages cost memory.
const STACK: usize = 32 * 1024 * 1024;

const _: () = assert!(BASE + (MAX_OPERATORS + MAX_IFS) * LEVEL < STACK, "the deepest policy has room");

/// Which bound a policy exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TooComplex {
    /// Too many brackets in each other.
    #[error("it has more than {MAX_OPEN} brackets open at once")]
    Brackets,
    /// Too many conditionals.
    #[error("it has more than {MAX_IFS} `if`")]
    Ifs,
    /// Too many operators.
    #[error("it has more than {MAX_OPERATORS} of the characters & | + - * ! . < [ ( {{")]
    Operators,
}

/// No policy's tree is deeper than this many levels, beyond its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Depth(usize);

/// The word that the stack is large enough, for as long as it is lent. Whatever parses asks for it: nothing can parse on a stack that nobody measured.
#[derive(Debug)]
pub(crate) struct Room(());

/// Runs what recurses into policies of this depth on a stack that is large enough.
pub(crate) fn with_room<T>(depth: Depth, work: impl FnOnce(&Room) -> T) -> T {
    stacker::maybe_grow(BASE + depth.0 * LEVEL, STACK, || work(&Room(())))
}

/// A bound on the depth of the policy's tree, whatever its form: each bracket, operator and `if` can deepen it by one. Texts and comments are read as Cedar's lexer reads them; where a text is not closed,
/// counting goes on: that is no policy anyway.
pub(crate) fn bound(text: &str) -> Result<Depth, TooComplex> {
    let bytes = text.as_bytes();
    let (mut open, mut ifs, mut operators, mut at) = (0_usize, 0, 0, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = text_end(bytes, at).unwrap_or(at),
            b'/' if bytes.get(at) == Some(&b'/') => {
                let length = bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r'));
                at = length.map_or(bytes.len(), |length| at + length);
            }
            b'(' | b'[' | b'{' => {
                open += 1;
                operators += 1;
            }
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'&' | b'|' | b'+' | b'-' | b'*' | b'!' | b'.' | b'<' => operators += 1,
            b'i' if bytes.get(at) == Some(&b'f') => ifs += 1,
            _ => {}
        }
        match (open > MAX_OPEN, ifs > MAX_IFS, operators > MAX_OPERATORS) {
            (true, _, _) => return Err(TooComplex::Brackets),
            (_, true, _) => return Err(TooComplex::Ifs),
            (_, _, true) => return Err(TooComplex::Operators),
            (false, false, false) => {}
        }
    }
    Ok(Depth(operators + ifs))
}

/// Where the text that was opened just before `from` is closed.
fn text_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_holds_exactly() {
        for (part, most, expected) in [
            ("(", MAX_OPEN, TooComplex::Brackets),
            ("[", MAX_OPEN, TooComplex::Brackets),
            ("{", MAX_OPEN, TooComplex::Brackets),
            ("if ", MAX_IFS, TooComplex::Ifs),
            ("+", MAX_OPERATORS, TooComplex::Operators),
            (".", MAX_OPERATORS, TooComplex::Operators),
            ("()", MAX_OPERATORS, TooComplex::Operators),
        ] {
            assert_eq!(bound(&part.repeat(most)), Ok(Depth(most)), "{part}");
            assert_eq!(bound(&part.repeat(most + 1)), Err(expected), "{part}");
        }
    }

    #[test]
    fn texts_and_comments_do_not_count() {
        let many = "(".repeat(50);
        for text in [
            format!("\"{many}\""),
            format!("\"\\\"{many}\""),
            format!("// {many}"),
            format!("// \"\n// {many}\r// {many}"),
        ] {
            assert_eq!(bound(&text), Ok(Depth(0)), "{text:?}");
        }
    }

    #[test]
    fn neither_a_quote_in_a_comment_nor_an_open_text_hides_anything() {
        let many = "(".repeat(50);
        for text in [
            format!("// \"\n{many}"),
            format!("// \"\r{many}"),
            format!("\"{many}"),
            format!("\"\\\"{many}"),
            format!("\"\\\\\"{many}"),
            format!("\"//\"{many}"),
            format!("/ {many}"),
        ] {
            assert_eq!(bound(&text), Err(TooComplex::Brackets), "{text:?}");
        }
    }
}
