//! How much memory a JSON text takes as a `serde_json::Value`, from above, before it is one. `{"a":1}` takes a hundred times its length: three
//! megabytes of it would end this process.

/// A map with its first leaf, in bytes.
const OBJECT: usize = 640;
/// One more element of a list, while the list grows, or one more entry of a map.
const ELEMENT: usize = 128;
/// The allocation of one text, besides its bytes.
const TEXT: usize = 32;

/// The most bytes that `text`, which need not be JSON, takes when it is parsed.
pub(crate) fn weight(text: &[u8]) -> usize {
    let mut weight = text.len();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                weight += if *byte == b'{' && bytes.as_slice().first() != Some(&b'}') { OBJECT } else { ELEMENT }
            }
            b',' => weight += ELEMENT,
            b'"' => {
                weight += TEXT;
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What a value takes: the sizes that BTreeMap, Vec and String really allocate are at least these.
    fn least(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(|item| 32 + least(item)).sum(),
            Value::Object(members) if members.is_empty() => 0,
            Value::Object(members) => {
                let leaves = members.len().div_ceil(11) * 632;
                leaves + members.iter().map(|(key, item)| key.len() + least(item)).sum::<usize>()
            }
            _ => 0,
        }
    }

    #[test]
    fn the_weight_is_never_below_what_is_taken() {
        for text in [
            "null",
            "[]",
            "{}",
            r#"{"a":1}"#,
            r#"[{"a":1},{"a":1},{"a":"\"{,"}]"#,
            r#"{"a":{"b":{"c":[[[[1,2,3]]]]}}}"#,
            &format!("[{}0]", "0,".repeat(1000)),
            &format!("[{}{{}}]", r#"{"name":"a"},"#.repeat(1000)),
            &format!("{{{}}}", (0..1000).map(|n| format!("\"k{n}\":\"v\"")).collect::<Vec<_>>().join(",")),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(weight(text.as_bytes()) >= least(&value), "{text}");
        }
    }

    #[test]
    fn what_stands_in_texts_does_not_count() {
        assert_eq!(weight(br#""{{{{,,,,\"{{""#), 14 + TEXT);
        assert_eq!(weight(b"{\"a"), 3 + OBJECT + TEXT, "a text that is cut off");
        assert_eq!(weight(b"\"\\"), 2 + TEXT);
    }
}
