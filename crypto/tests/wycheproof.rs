//! The primitives, as this crate uses them, against Project Wycheproof: known attacks and edge cases.
//!
//! Each test states how many vectors it ran, so that a renamed algorithm or an emptied file is no silent success.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use ring::{hkdf, hmac, signature};
use wycheproof::{TestResult, aead, eddsa, hkdf as hkdf_vectors, mac};

/// Detached and in place, as `src/seal.rs` calls it. Only its sizes: 256-bit keys, 96-bit nonces, 128-bit tags; its types admit no others.
#[test]
fn aes_256_gcm_gives_and_takes_what_it_should() {
    let (mut valid, mut invalid) = (0, 0);
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    for group in set.test_groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128)) {
        for test in &group.tests {
            let cipher = Aes256Gcm::new_from_slice(&test.key).unwrap();
            let (nonce, tag) = (Nonce::try_from(&test.nonce[..]).unwrap(), Tag::try_from(&test.tag[..]).unwrap());
            let mut buffer = test.ct.to_vec();
            let opened = cipher.decrypt_inout_detached(&nonce, &test.aad, buffer.as_mut_slice().into(), &tag);
            let mut sealed = test.pt.to_vec();
            let made = cipher.encrypt_inout_detached(&nonce, &test.aad, sealed.as_mut_slice().into()).unwrap();
            if test.result == TestResult::Valid {
                opened.unwrap();
                assert_eq!(buffer, *test.pt, "vector {}", test.tc_id);
                assert_eq!((&sealed[..], &made[..]), (&test.ct[..], &test.tag[..]), "vector {}", test.tc_id);
                valid += 1;
            } else {
                assert!(opened.is_err(), "vector {} opened: {}", test.tc_id, test.comment);
                // RUSTSEC-2023-0096: what a wrong tag covers must not come out as plaintext.
                assert_eq!(buffer, *test.ct, "vector {} was decrypted", test.tc_id);
                invalid += 1;
            }
        }
    }
    assert_eq!((valid, invalid), (39, 27));
}

#[test]
fn hkdf_sha256_derives_what_it_should() {
    struct Size(usize);
    impl hkdf::KeyType for Size {
        fn len(&self) -> usize {
            self.0
        }
    }

    let (mut valid, mut invalid) = (0, 0);
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt).extract(&test.ikm);
        let info: [&[u8]; 1] = [&test.info];
        let mut out = vec![0; test.size];
        let filled = extracted.expand(&info, Size(test.size)).and_then(|okm| okm.fill(&mut out));
        if test.result == TestResult::Invalid {
            assert!(filled.is_err(), "vector {} was derived: {}", test.tc_id, test.comment);
            invalid += 1;
        } else {
            filled.unwrap();
            assert_eq!(out, *test.okm, "vector {}", test.tc_id);
            valid += 1;
        }
    }
    assert_eq!((valid, invalid), (83, 3));
}

/// Verification takes whole tags only: a truncated one, though it is the right beginning, is as wrong as any other.
#[test]
fn hmac_sha256_verifies_whole_right_tags_only() {
    let (mut valid, mut invalid, mut truncated) = (0, 0, 0);
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    for group in &set.test_groups {
        for test in &group.tests {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &test.key);
            let verified = hmac::verify(&key, &test.msg, &test.tag).is_ok();
            let is_right = hmac::sign(&key, &test.msg).as_ref().starts_with(&test.tag);
            assert_eq!(is_right, test.result == TestResult::Valid, "vector {}", test.tc_id);
            assert_eq!(verified, is_right && group.tag_size == 256, "vector {}", test.tc_id);
            match (group.tag_size, is_right) {
                (256, true) => valid += 1,
                (256, false) => invalid += 1,
                _ => truncated += 1,
            }
        }
    }
    assert_eq!((valid, invalid, truncated), (33, 54, 87));
}

#[test]
fn ed25519_verifies_what_it_should() {
    let (mut valid, mut invalid) = (0, 0);
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in &set.test_groups {
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, &group.key.pk[..]);
        for test in &group.tests {
            let verified = key.verify(&test.msg, &test.sig).is_ok();
            assert_eq!(verified, test.result == TestResult::Valid, "vector {}: {}", test.tc_id, test.comment);
            if verified {
                valid += 1;
            } else {
                invalid += 1;
            }
        }
    }
    assert_eq!((valid, invalid), (88, 63));
}
