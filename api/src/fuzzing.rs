//! What is fuzzed here, and its laws. Built for `cargo fuzz` and for tests only; `fuzz/` has the targets and their corpora, which the tests replay.

use crate::secrets::PutSecret;
use strongroom_core::{MAX_PAYLOAD, Payload};

/// The body of a put: what is taken is within the limits, decodes from what is stored of it, and goes over the wire again unchanged.
pub fn put_secret(data: &[u8]) {
    let Ok(mut body) = serde_json::from_slice::<PutSecret>(data) else { return };
    let Ok(payload) = body.take_payload() else { return };
    let reason = body.reason;
    let stored = payload.encode();
    assert!(stored.len() <= MAX_PAYLOAD);
    let media_type = payload.media_type().to_owned();
    let read = Payload::decode(&media_type, stored.duplicate()).expect("what was taken decodes");
    assert_eq!(read.encode().expose_bytes(), stored.expose_bytes());

    let sent = serde_json::to_vec(&PutSecret::new(read, reason.clone())).expect("a body is JSON");
    let mut received: PutSecret = serde_json::from_slice(&sent).expect("what was sent is a body");
    let payload = received.take_payload().expect("what was sent is a payload");
    assert_eq!(payload.encode().expose_bytes(), stored.expose_bytes());
    assert_eq!((payload.media_type(), received.reason), (media_type.as_str(), reason));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_laws_hold_for_the_corpus_of_bodies() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/put_secret")).unwrap();
        let inputs: Vec<Vec<u8>> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 10, "the corpus is gone");
        for input in &inputs {
            super::put_secret(input);
        }
    }
}
