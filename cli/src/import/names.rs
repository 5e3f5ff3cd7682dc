//! Names of other systems, which may hold characters that a path or a field cannot.

use super::reading::Trouble;
use strongroom_core::{FieldName, FolderPath, SecretPath};

/// What to do with names that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// Refuse them, and say what they would become.
    Exact,
    /// Put `-` in the place of each character that cannot be.
    Mapped,
}

/// The path of a secret below `folder`, from the segments of its name elsewhere.
pub(crate) fn path_below<'a>(
    folder: &FolderPath,
    segments: impl Iterator<Item = &'a str>,
    rule: NameRule,
) -> Result<SecretPath, Trouble> {
    let mut exact = true;
    let mut text = folder.as_str().to_owned();
    for (number, segment) in segments.enumerate() {
        let name = mapped(segment);
        exact &= name == segment;
        if number > 0 {
            text.push('/');
        }
        text += &name;
    }
    let path = SecretPath::parse(&text).map_err(|error| {
        Trouble::new(
            format_args!("its name cannot be a path: {error}"),
            "Rename it in the source, or import into a shorter folder.",
        )
    })?;
    if exact || rule == NameRule::Mapped {
        Ok(path)
    } else {
        Err(Trouble::new(
            "its name has characters that no path can hold",
            format_args!("With --map-names it becomes {path}; or rename it in the source."),
        ))
    }
}

/// A field's name, from its name elsewhere.
pub(crate) fn field(name: &str, rule: NameRule) -> Result<FieldName, Trouble> {
    let text = mapped(name);
    let field = FieldName::parse(&text)
        .map_err(|error| Trouble::new(format_args!("a field's name cannot be: {error}"), "Rename it in the source."))?;
    if text == name || rule == NameRule::Mapped {
        Ok(field)
    } else {
        Err(Trouble::new(
            format_args!("the name of its field {name} has characters that no field can have"),
            format_args!("With --map-names it becomes {field}; or rename it in the source."),
        ))
    }
}

/// The name with `-` for each character that cannot be. `.` and `..` are no names either.
fn mapped(name: &str) -> String {
    if matches!(name, "." | "..") {
        return "-".repeat(name.len());
    }
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn below(name: &str, rule: NameRule) -> Result<String, Trouble> {
        let folder = FolderPath::parse("payments/old/").unwrap();
        path_below(&folder, name.split('/'), rule).map(|path| path.to_string())
    }

    #[test]
    fn names_that_can_be_stay_as_they_are() {
        for rule in [NameRule::Exact, NameRule::Mapped] {
            assert_eq!(below("a/b_c.d-E", rule).unwrap(), "payments/old/a/b_c.d-E");
            assert_eq!(field("tls.crt", rule).unwrap().as_str(), "tls.crt");
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused_with_what_they_would_become() {
        let trouble = below("a b/c@d", NameRule::Exact).unwrap_err();
        assert!(trouble.remedy.contains("payments/old/a-b/c-d"), "{trouble:?}");
        let trouble = field("pass word", NameRule::Exact).unwrap_err();
        assert!(trouble.remedy.contains("pass-word"), "{trouble:?}");
    }

    #[test]
    fn dots_cannot_leave_the_folder() {
        assert_eq!(below("../../x", NameRule::Mapped).unwrap(), "payments/old/--/--/x");
        assert!(below("../x", NameRule::Exact).is_err());
    }

    #[test]
    fn empty_and_long_names_have_no_mapping() {
        for name in ["", "a//b", "/a", "a/"] {
            assert!(below(name, NameRule::Mapped).is_err(), "{name:?}");
        }
        assert!(below(&"a".repeat(600), NameRule::Mapped).is_err());
        assert!(field("", NameRule::Mapped).is_err());
        assert!(field(&"a".repeat(129), NameRule::Mapped).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_mapped_lies_in_the_folder(name in ".{1,40}") {
            let folder = FolderPath::parse("payments/old/").unwrap();
            if let Ok(path) = path_below(&folder, name.split('/'), NameRule::Mapped) {
                prop_assert!(folder.contains(&path));
            }
        }
    }
}
