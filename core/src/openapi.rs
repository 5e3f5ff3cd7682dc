//! The rules of texts as JSON Schema, for the OpenAPI document (feature `openapi`).
//!
//! A pattern takes what the type's `parse` takes, without look-around, so that every engine reads it the same; the suite compares the two. Only what
//! a pattern cannot say well (an alias is no number) is wider than the rule.

use crate::{
    AliasName, FieldName, FolderPath, Labels, Moment, Owner, ProjectName, Reference, Scope, SecretPath, VersionSelector,
};
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, SchemaFormat, schema::Type},
};

/// One segment that is neither `.` nor `..`.
const SEGMENT: &str = r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*|\.[A-Za-z0-9_-][A-Za-z0-9._-]*|\.\.[A-Za-z0-9._-]+)";
/// The same with at most 128 characters: a project's name, a field's, an alias.
const NAME: &str =
    r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}|\.[A-Za-z0-9_-][A-Za-z0-9._-]{0,126}|\.\.[A-Za-z0-9._-]{1,126})";

macro_rules! texts {
    ($($name:ident: $max:literal, $pattern:expr, $example:literal, $meaning:literal;)+) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text($max, $pattern, $example, $meaning).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )+};
}

texts! {
    ProjectName: 128, format!("^{NAME}$"), "payments",
        "The first segment of a path: the unit of tenancy.";
    SecretPath: 512, format!("^{NAME}(?:/{SEGMENT})+$"), "payments/db",
        "`project/folder/name`: at least two segments of `A-Z a-z 0-9 . _ -`, none of them `.` or `..`; case-sensitive; a project's name has at most 128 characters.";
    FolderPath: 513, format!("^{NAME}/(?:{SEGMENT}/)*$"), "payments/",
        "`project/folder/` with its trailing slash; `project/` alone is the whole project.";
    FieldName: 128, format!("^{NAME}$"), "password",
        "A field's name; also the name of its file.";
    AliasName: 128, format!("^{NAME}$"), "stable",
        "A free name that points at a version; not a number, nor `current`, `previous` or `pending`.";
    VersionSelector: 128, format!("^{NAME}$"), "previous",
        "A version's number from 1, `current`, `previous`, `pending`, or a free alias.";
    Owner: 128, r"^[A-Za-z0-9._:@/+-]+$".to_owned(), "team:payments",
        "Who answers for a secret.";
    Reference: 770, format!("^{NAME}(?:/{SEGMENT})+(?:#{NAME})?(?:@{NAME})?$"), "payments/db#password@previous",
        "`project/name[#field][@version]`.";
}

impl PartialSchema for Scope {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(Ref::from_schema_name("FolderPath"))
            .item(Ref::from_schema_name("SecretPath"))
            .description(Some("What a grant covers: one secret, or a folder with everything below it."))
            .into()
    }
}

impl ToSchema for Scope {}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .pattern(Some("^(?:19[7-9]|[2-9][0-9]{2})[0-9]-"))
            .examples(["2026-07-01T00:00:00Z"])
            .description(Some("A time in the years 1970 to 9999 of UTC; what is finer than a microsecond is cut off."))
            .into()
    }
}

impl ToSchema for Moment {}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(Type::String).max_length(Some(256));
        ObjectBuilder::new()
            .additional_properties(Some(Schema::from(value)))
            .max_properties(Some(crate::MAX_LABELS))
            .description(Some("Labels by key: at most 128 characters of `A-Z a-z 0-9 . _ / -`."))
            .into()
    }
}

impl ToSchema for Labels {}

fn text(max: usize, pattern: String, example: &str, meaning: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(max))
        .pattern(Some(pattern))
        .examples([example])
        .description(Some(meaning))
        .build()
}
