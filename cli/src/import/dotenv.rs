//! `import dotenv`: the variables of one file become the fields of one secret.
//!
//! The dialects of these files differ. What they agree on is taken; what they read differently is refused, with its line. Nothing is expanded: a
//! value `$HOME` stays as it is.

use std::{collections::BTreeMap, fmt};
use strongroom_core::{FieldName, SecretBytes};

/// Why a file is refused, and in which line, from 1. Lines are never repeated: they hold values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadDotenv {
    pub(crate) line: usize,
    pub(crate) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NoAssignment,
    Name,
    /// The line in which the name stands first.
    Duplicate(usize),
    Unclosed,
    Escape,
    Trailing,
    Backtick,
}

impl Fault {
    /// What to do.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::NoAssignment => "Write NAME=VALUE, or # before a comment.",
            Self::Name => "Write NAME=VALUE; a name has the characters A-Z a-z 0-9 . _ -",
            Self::Duplicate(_) => "Keep one of the two.",
            Self::Unclosed => "Close the quote, or put the value into quotes of the other kind.",
            Self::Escape => "In double quotes write \\\\ for a backslash, or put the value into single quotes.",
            Self::Trailing => "Put the whole value into quotes, and # before a comment.",
            Self::Backtick => "Put the value into single quotes: tools read backticks differently.",
        }
    }
}

impl fmt::Display for BadDotenv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.fault {
            Fault::NoAssignment => f.write_str("there is no = in it"),
            Fault::Name => f.write_str("what stands before = is no name"),
            Fault::Duplicate(first) => write!(f, "its name stands in line {first} already"),
            Fault::Unclosed => f.write_str("a quote is opened and never closed"),
            Fault::Escape => f.write_str("a backslash stands before a character that it does not escape"),
            Fault::Trailing => f.write_str("something stands behind the closing quote"),
            Fault::Backtick => f.write_str("the value begins with a backtick"),
        }
    }
}

/// The variables of a file. A line's end within a value is a line feed, whatever the file has.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<FieldName, SecretBytes>, BadDotenv> {
    let mut variables = BTreeMap::new();
    let mut lines_of_names = BTreeMap::new();
    let mut rest = Rest { text: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    while !rest.text.is_empty() {
        let line = rest.line;
        let bad = |fault| BadDotenv { line, fault };
        let content = rest.peek_line().trim();
        if content.is_empty() || content.starts_with('#') {
            rest.next_line();
            continue;
        }
        let end = rest.peek_line().find('=').ok_or(bad(Fault::NoAssignment))?;
        let name = name(&rest.text[..end]).ok_or(bad(Fault::Name))?;
        if let Some(first) = lines_of_names.insert(name.clone(), line) {
            return Err(bad(Fault::Duplicate(first)));
        }
        rest.text = &rest.text[end + 1..];
        let value = value(&mut rest).map_err(bad)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// What has not been read yet.
struct Rest<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Rest<'a> {
    /// The rest of the line, without its end.
    fn peek_line(&self) -> &'a str {
        let line = self.text.split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn next_line(&mut self) -> &'a str {
        let line = self.peek_line();
        self.text = self.text.split_once('\n').map_or("", |(_, rest)| rest);
        self.line += 1;
        line
    }

    fn take(&mut self) -> Option<char> {
        let mut characters = self.text.chars();
        let c = characters.next()?;
        self.text = characters.as_str();
        if c == '\r' && self.text.starts_with('\n') {
            return self.take();
        }
        self.line += usize::from(c == '\n');
        Some(c)
    }
}

fn name(before: &str) -> Option<FieldName> {
    let before = before.trim();
    let name = before.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(before);
    FieldName::parse(name.trim()).ok()
}

fn value(rest: &mut Rest<'_>) -> Result<SecretBytes, Fault> {
    rest.text = rest.text.trim_start_matches([' ', '\t']);
    match rest.text.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            rest.take();
            let value = quoted(rest, quote)?;
            let behind = rest.next_line().trim();
            if behind.is_empty() || behind.starts_with('#') { Ok(value) } else { Err(Fault::Trailing) }
        }
        Some('`') => Err(Fault::Backtick),
        _ => {
            let line = rest.next_line();
            // A # is a comment where a space stands before it, so that `a#b` stays whole.
            let comment = line
                .char_indices()
                .find(|(at, c)| *c == '#' && line[..*at].chars().next_back().is_none_or(char::is_whitespace));
            let value = comment.map_or(line, |(at, _)| &line[..at]);
            Ok(SecretBytes::from(value.trim().to_owned()))
        }
    }
}

fn quoted(rest: &mut Rest<'_>, quote: char) -> Result<SecretBytes, Fault> {
    // Room up to the next quote, so that it rarely moves and leaves a copy behind.
    let mut value = Vec::with_capacity(rest.text.find(quote).unwrap_or_default().max(64));
    let result = loop {
        let c = match rest.take() {
            None => break Err(Fault::Unclosed),
            Some(c) if c == quote => break Ok(()),
            Some('\\') if quote == '"' => match rest.take() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(c @ ('\\' | '"' | '\'' | '$' | '`')) => c,
                None => break Err(Fault::Unclosed),
                Some(_) => break Err(Fault::Escape),
            },
            Some(c) => c,
        };
        value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    };
    let value = SecretBytes::new(value);
    result.map(|()| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let variables = parse(text).unwrap();
        variables.iter().map(|(name, value)| (name.to_string(), value.expose_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn each_form_of_a_value_is_read() {
        for (text, expected) in [
            ("A=b", "b"),
            ("A=", ""),
            ("A=\"\"", ""),
            ("\u{feff}A=b\n", "b"),
            ("  export  A = b  ", "b"),
            ("export\tA=b", "b"),
            ("A=b c # comment", "b c"),
            ("A=b#c", "b#c"),
            ("A=#c", ""),
            ("A=$HOME/${X}$(y)", "$HOME/${X}$(y)"),
            ("A=\"$HOME\"", "$HOME"),
            ("A=\"\\$HOME \\\"q\\\" \\\\ \\n\\t\\r\"", "$HOME \"q\" \\ \n\t\r"),
            ("A='a\\n $b \"c\"' # comment", "a\\n $b \"c\""),
            ("A=\"one\ntwo\"\n", "one\ntwo"),
            ("A=\"one\r\ntwo\"\r\n", "one\ntwo"),
            ("A='one\r\ntwo'\r\n", "one\ntwo"),
            ("A=C:\\path\\new", "C:\\path\\new"),
            ("A=a=b==", "a=b=="),
            ("# comment\r\n\r\nA=b\r\n", "b"),
            ("A=\"\u{e4}#\" # \u{e4}", "\u{e4}#"),
            ("A=it's", "it's"),
        ] {
            assert_eq!(read(text), [("A".to_owned(), expected.to_owned())], "{text:?}");
        }
        assert_eq!(read("exported=1\nA.b-c=2").len(), 2);
        assert!(read("\n# nothing\n").is_empty());
    }

    #[test]
    fn each_malformed_file_is_refused_with_its_line_and_without_its_value() {
        for (text, line, fault) in [
            ("hunter2", 1, Fault::NoAssignment),
            ("A=1\nexport B", 2, Fault::NoAssignment),
            ("=hunter2", 1, Fault::Name),
            ("A B=hunter2", 1, Fault::Name),
            ("\u{e4}=hunter2", 1, Fault::Name),
            ("A=1\n\nB=2\nA=hunter2", 4, Fault::Duplicate(1)),
            ("B=\"1\n2\n3\"\nA=1\nA=2", 5, Fault::Duplicate(4)),
            ("A=\"hunter2", 1, Fault::Unclosed),
            ("A=1\nB='hunter2\n\n", 2, Fault::Unclosed),
            ("A=\"hunter2\\", 1, Fault::Unclosed),
            ("A=\"C:\\path\"", 1, Fault::Escape),
            ("A=\"hunter2\\\n\"", 1, Fault::Escape),
            ("A=\"a\"hunter2", 1, Fault::Trailing),
            ("A='a' 'b'", 1, Fault::Trailing),
            ("A=`hunter2`", 1, Fault::Backtick),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, BadDotenv { line, fault }, "{text:?}");
            assert!(!format!("{error} {}", error.fault.remedy()).contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_single_quotes_comes_back(value in "[^'\r]{0,40}") {
            prop_assert_eq!(read(&format!("A='{value}'\nB=2")), [("A".to_owned(), value), ("B".to_owned(), "2".to_owned())]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\PC\r\n\"'\\\\=#`]{0,60}") {
            let _ = parse(&text);
        }
    }
}
