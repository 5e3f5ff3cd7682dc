//! JSON read strictly: serde by itself takes an array for an object, its items for the members in the order of their declaration, and of two members of one
//! name in a map the last. Both are refused here, at every depth, whatever type is read.
//!
//! A deserializer around another one, which goes along into everything that is nested. What asks for a structure is given an object and nothing else; what
//! reads an object hears of a name that stands twice. Only what decides by its content (an enum with a tag inside) still has to say itself that it is an object.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::{collections::BTreeSet, fmt};

/// Reads a whole text.
pub(super) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Strict(&mut json))?;
    json.end()?;
    Ok(value)
}

/// A deserializer, a visitor, a seed or an access of serde's, with everything that it hands on made strict.
struct Strict<T>(T);

macro_rules! deserialize {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Strict(visitor))
        }
    )+};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
        deserialize_unit deserialize_seq deserialize_map deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Strict(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Strict(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Strict(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Strict(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Strict(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Strict(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $value:ty),+ $(,)?) => {$(
        fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )+};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str,
        visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(some))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Members { members, seen: BTreeSet::new() })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// The members of an object, with the names that came before.
struct Members<A> {
    members: A,
    seen: BTreeSet<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let Some(name) = self.members.next_key::<String>()? else { return Ok(None) };
        if self.seen.contains(&name) {
            return Err(A::Error::custom("a member stands twice"));
        }
        let key = seed.deserialize(name.as_str().into_deserializer())?;
        self.seen.insert(name);
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.members.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.members.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(variant, content)| (variant, Strict(content)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Strict(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        self.0.newtype_variant_seed(Object(visitor))
    }
}

/// A visitor that is shown an object.
struct Object<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Object<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_map(Strict(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::Value;
    use strongroom_api::{
        access::NewCluster,
        batch::WriteBatch,
        metadata::PatchMetadata,
        secrets::{PatchSecret, PutSecret},
        watch::Watch,
    };

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Everything {
        text: String,
        optional: Option<Box<Self>>,
        items: Vec<Option<u8>>,
        pair: Option<(u8, String)>,
        variant: Option<Variant>,
        free: Option<Value>,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Variant {
        Unit,
        Newtype(u64),
        Tuple(u8, i8),
        Struct { inner: bool },
    }

    #[test]
    fn whatever_is_well_formed_is_read_as_serde_reads_it() {
        for text in [
            r#"{"text":"a\u00e4\n","items":[1,null],"pair":[7,"b"],"variant":"unit","free":{"a":[1,-2.5,{"b":null}],"c":true}}"#,
            r#"{"text":"","optional":{"text":"b","items":[],"variant":{"newtype":18446744073709551615}},"items":[]}"#,
            r#"{"text":"","items":[],"variant":{"tuple":[1,-1]},"free":"x"}"#,
            r#"{"text":"","items":[],"variant":{"struct":{"inner":true}},"free":[]} "#,
        ] {
            let plain: Everything = serde_json::from_str(text).unwrap();
            assert_eq!(from_json::<Everything>(text.as_bytes()).unwrap(), plain, "{text}");
        }
        for bad in [r#"{"text":"a","items":[]}x"#, r#"{"text":1,"items":[]}"#, r#"{"text":"a"}"#, "", "{"] {
            let plain = serde_json::from_str::<Everything>(bad).unwrap_err().to_string();
            assert_eq!(from_json::<Everything>(bad.as_bytes()).unwrap_err().to_string(), plain, "{bad}");
        }
    }

    fn refused<T: DeserializeOwned>(text: &str) {
        assert!(from_json::<T>(text.as_bytes()).is_err(), "{text}");
    }

    #[test]
    fn an_array_is_nowhere_an_object() {
        refused::<Everything>(r#"["a",null,[],null,null,null]"#);
        refused::<Everything>(r#"{"text":"a","optional":["b",null,[],null,null,null],"items":[]}"#);
        refused::<Everything>(r#"{"text":"a","items":[],"variant":{"struct":[true]}}"#);
        refused::<Watch>("[[]]");
        refused::<Watch>(r#"{"secrets":[["shop/db",null,1,null]]}"#);
        refused::<WriteBatch>(r#"{"operations":[{"delete":["shop/db",null,null]}]}"#);
        refused::<WriteBatch>(r#"{"operations":[{"alias":{"path":"shop/db","alias":"blue","body":[1]}}]}"#);
        refused::<NewCluster>(r#"{"name":"lab","issuer":"https://lab","trust":["offline-keys",{"keys":{}}]}"#);
    }

    #[test]
    fn a_member_stands_once_at_every_depth() {
        refused::<PatchMetadata>(r#"{"labels":{"a":"1","a":"2"}}"#);
        refused::<PatchMetadata>(r#"{"labels":{"a":"1","\u0061":null}}"#);
        refused::<PatchMetadata>(r#"{"owner":"ada","owner":"bob"}"#);
        refused::<PutSecret>(r#"{"fields":{"a":"1"},"labels":{"a":"1","a":"2"}}"#);
        refused::<PatchSecret>(r#"{"fields":{"a":"1","a":null}}"#);
        refused::<WriteBatch>(
            r#"{"operations":[{"metadata":{"path":"shop/db","body":{"labels":{"a":"1","a":"1"}}}}]}"#,
        );
        refused::<NewCluster>(
            r#"{"name":"lab","issuer":"https://lab","trust":{"kind":"offline-keys","keys":{"keys":[{"kid":"a","kid":"b"}]}}}"#,
        );
    }
}
