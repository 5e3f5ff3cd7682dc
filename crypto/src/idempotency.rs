//! Keyed hashes of requests that carry an idempotency key: of what the key stands for, and of what was asked.

use crate::keyring::Keyring;
use crate::mac::Purpose;
use ring::hmac;
use std::fmt;

/// Domain of the hash under which an answer is found again.
const KEY_LABEL: &str = "strongroom/idempotency-key/1";
/// Domain of the hash by which another request under the same key is told apart.
const REQUEST_LABEL: &str = "strongroom/idempotency-request/1";

/// A keyed hash that is fed as its content arrives, so that a value need not be held a second time.
///
/// Construction: HMAC-SHA256 with each generation of the row key over the label, the instance, each given part with its length before it, and last what was fed,
/// as it came. A plain hash would do for neither purpose: whoever reads the database could try values against it.
#[derive(Clone)]
pub struct RequestHash(Vec<hmac::Context>);

impl RequestHash {
    /// Feeds more.
    pub fn update(&mut self, bytes: &[u8]) {
        for context in &mut self.0 {
            context.update(bytes);
        }
    }

    /// The hashes of what was fed so far, one for each generation of the key, newest first.
    pub fn finish(self) -> Vec<Vec<u8>> {
        self.0.into_iter().map(|context| context.sign().as_ref().to_vec()).collect()
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestHash(..)")
    }
}

impl Keyring {
    /// The hashes under which the answer to a request may be found, one for each generation of the row key, newest first: of caller, route and key.
    pub fn idempotency_keys(&self, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        self.begin(KEY_LABEL, parts).finish()
    }

    /// Begins the hash of a request by what stands in its head; its body is fed afterwards.
    pub fn request_hash(&self, parts: &[&[u8]]) -> RequestHash {
        self.begin(REQUEST_LABEL, parts)
    }

    fn begin(&self, label: &str, parts: &[&[u8]]) -> RequestHash {
        let mut hash = RequestHash(
            self.mac_keys(Purpose::RowMac).newest_first().map(|(_, key)| hmac::Context::with_key(key)).collect(),
        );
        let instance = self.instance();
        for part in [label.as_bytes(), instance.0.as_bytes()].iter().chain(parts) {
            let length = u32::try_from(part.len()).expect("a part of a request's head is far below 4 GiB");
            hash.update(&length.to_be_bytes());
            hash.update(part);
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::INSTANCE;

    #[test]
    fn each_part_its_place_and_the_domain_count() {
        let keyring = Keyring::fixed(INSTANCE);
        let key = |parts: &[&[u8]]| keyring.idempotency_keys(parts);
        let base = key(&[b"user:ada", b"PUT", b"k"]);
        assert_eq!(base, key(&[b"user:ada", b"PUT", b"k"]));
        for other in
            [key(&[b"user:ad", b"aPUT", b"k"]), key(&[b"user:ada", b"PUTk"]), key(&[b"user:ada", b"PUT", b"l"])]
        {
            assert_ne!(base, other);
        }
        assert_ne!(base, keyring.request_hash(&[b"user:ada", b"PUT", b"k"]).finish());
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_a_body_arrives() {
        let keyring = Keyring::fixed(INSTANCE);
        let hash = |pieces: &[&[u8]]| {
            let mut hash = keyring.request_hash(&[b"PUT"]);
            for piece in pieces {
                hash.update(piece);
            }
            hash.finish()
        };
        assert_eq!(hash(&[b"abc"]), hash(&[b"a", b"", b"bc"]));
        assert_ne!(hash(&[b"abc"]), hash(&[b"abd"]));
    }
}
