#!/usr/bin/env python3
"""Makes envelopes.json, malformed/ and recovery.json: an implementation of its own, written from the constructions in src/seal.rs and src/recovery.rs.

It shares no code with them: AES-GCM is OpenSSL's (through `cryptography`), HKDF is written out with hashlib's HMAC, the field of the recovery shares
works with logarithm tables. Needed only to make the files anew (`python3 make.py`, with `pip install cryptography`); the tests read the files.
The other vectors here were made the same way. All keys are for tests.
"""

import hashlib
import hmac
import json
import struct
import zlib
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = Path(__file__).parent
INSTANCE, PROJECT, SECRET = (UUID(f"018f0000-0000-7000-8000-00000000000{n}").bytes for n in (1, 3, 4))
KEY = bytes(range(32))
SALT = bytes(range(100, 132))


# --- The envelope ---

def hkdf(key, salt, info, length):
    pseudorandom = hmac.digest(salt, key, "sha256")
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        out, counter = out + block, counter + 1
    return out[:length]


def fields(*parts):
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def names(purpose, *parts):
    return fields(b"\x01", b"\x01", purpose, *parts)


def number(value):
    return struct.pack(">i", value)


def value_fields(instance=INSTANCE, secret=SECRET, version=7, media_type=b"application/json"):
    return (instance, secret, struct.pack(">Q", version), media_type)


VALUE = names(b"value", *value_fields())


def derived(key, aad, salt=SALT, label=b"strongroom/seal/1"):
    return hkdf(key, salt, label + b"\x01" + hashlib.sha256(aad).digest(), 64)


def seal(aad, plaintext, key_number=0, key=KEY, nonce=bytes(12), gcm_aad=None, label=b"strongroom/seal/1"):
    okm = derived(key, aad, label=label)
    ciphertext = AESGCM(okm[:32]).encrypt(nonce, plaintext, aad if gcm_aad is None else gcm_aad)
    return b"SR\x01\x01" + number(key_number) + SALT + okm[32:] + ciphertext


SEALED = [
    ("value", 0, VALUE, b"hunter2"),
    ("empty value", 0, VALUE, b""),
    ("data key", 3, names(b"data-key", *value_fields(), PROJECT, b"project-key", number(3)), b"\x5a" * 32),
    ("project key", 2, names(b"project-key", INSTANCE, PROJECT, number(3), b"term", number(2)), b"\x5b" * 32),
    ("purpose key", 2, names(b"purpose-key", INSTANCE, b"session", number(1), b"term", number(2)), b"\x5c" * 32),
    ("setting", 2, names(b"setting", INSTANCE, b"cluster/lab/reviewer", b"term", number(2)), b"token"),
    ("term", 0, names(b"root-wrapped", b"term", INSTANCE, number(2)), b"\x5d" * 32),
    ("keyring mac key", 0, names(b"root-wrapped", b"keyring-mac-key", INSTANCE), b"\x5e" * 32),
]


def patched(envelope, at, new):
    return envelope[:at] + new + envelope[at + len(new):]


def flipped(envelope, at):
    at %= len(envelope)
    return patched(envelope, at, bytes([envelope[at] ^ 1]))


def malformed():
    good = seal(VALUE, b"hunter2")
    header, body = good[:72], good[72:]
    okm = derived(KEY, VALUE)
    other = lambda **changed: seal(names(b"value", *value_fields(**changed)), b"hunter2")
    reordered = names(b"value", SECRET, INSTANCE, *value_fields()[2:])
    return [
        # Too short, wherever it was cut.
        ("empty", "TooShort", b""),
        ("one-byte", "TooShort", b"S"),
        ("magic-alone", "TooShort", b"SR"),
        ("header-alone", "TooShort", header),
        ("no-tag", "TooShort", header + body[:-16]),
        ("cut-before-the-tag-is-whole", "TooShort", header + body[:8]),
        ("one-byte-shorter-than-an-envelope-of-nothing", "TooShort", seal(VALUE, b"")[:-1]),
        # Not an envelope.
        ("another-magic", "NotAnEnvelope", patched(good, 0, b"X")),
        ("second-byte-of-the-magic-changed", "NotAnEnvelope", patched(good, 1, b"S")),
        ("magic-in-lower-case", "NotAnEnvelope", patched(good, 0, b"sr")),
        ("magic-reversed", "NotAnEnvelope", patched(good, 0, b"RS")),
        ("all-zeros", "NotAnEnvelope", bytes(88)),
        ("one-byte-in-front", "NotAnEnvelope", b"\0" + good),
        ("first-byte-lost", "NotAnEnvelope", good[1:]),
        ("byte-order-mark-in-front", "NotAnEnvelope", b"\xef\xbb\xbf" + good),
        ("hexadecimal-text-of-an-envelope", "NotAnEnvelope", good.hex().encode()),
        # Formats and suites that do not exist.
        ("format-0", "UnknownFormat", patched(good, 2, b"\x00")),
        ("format-2", "UnknownFormat", patched(good, 2, b"\x02")),
        ("format-255", "UnknownFormat", patched(good, 2, b"\xff")),
        ("format-written-as-a-digit", "UnknownFormat", patched(good, 2, b"1")),
        ("suite-0", "UnknownSuite", patched(good, 3, b"\x00")),
        ("suite-2", "UnknownSuite", patched(good, 3, b"\x02")),
        ("suite-255", "UnknownSuite", patched(good, 3, b"\xff")),
        # Another key's number.
        ("key-number-1", "OtherKeyNumber", patched(good, 4, number(1))),
        ("key-number-in-the-other-byte-order", "OtherKeyNumber", patched(good, 4, struct.pack("<i", 1))),
        ("key-number-negative", "OtherKeyNumber", patched(good, 4, number(-1))),
        ("key-number-smallest", "OtherKeyNumber", patched(good, 4, number(-2**31))),
        # What the commitment finds.
        ("salt-first-bit", "OtherKeyOrNames", flipped(good, 8)),
        ("salt-last-bit", "OtherKeyOrNames", flipped(good, 39)),
        ("salt-of-zeros", "OtherKeyOrNames", patched(good, 8, bytes(32))),
        ("commitment-first-bit", "OtherKeyOrNames", flipped(good, 40)),
        ("commitment-last-bit", "OtherKeyOrNames", flipped(good, 71)),
        ("commitment-of-zeros", "OtherKeyOrNames", patched(good, 40, bytes(32))),
        ("salt-and-commitment-exchanged", "OtherKeyOrNames", header[:8] + header[40:] + header[8:40] + body),
        ("key-in-the-commitments-place", "OtherKeyOrNames", patched(good, 40, okm[:32])),
        ("one-byte-lost-in-the-salt", "OtherKeyOrNames", good[:20] + good[21:] + b"\0"),
        ("by-another-key", "OtherKeyOrNames", seal(VALUE, b"hunter2", key=KEY[::-1])),
        ("with-another-label", "OtherKeyOrNames", seal(VALUE, b"hunter2", label=b"strongroom/seal/2")),
        ("for-another-version", "OtherKeyOrNames", other(version=8)),
        ("for-another-instance", "OtherKeyOrNames", other(instance=PROJECT)),
        ("for-another-secret", "OtherKeyOrNames", other(secret=PROJECT)),
        ("for-another-media-type", "OtherKeyOrNames", other(media_type=b"text/plain")),
        ("for-another-purpose", "OtherKeyOrNames", seal(names(b"data-key", *value_fields()), b"hunter2")),
        ("for-names-in-another-order", "OtherKeyOrNames", seal(reordered, b"hunter2")),
        ("for-names-without-lengths", "OtherKeyOrNames", seal(b"\x01\x01value" + b"".join(value_fields()), b"hunter2")),
        ("for-no-names", "OtherKeyOrNames", seal(b"", b"hunter2")),
        # What only the tag finds.
        ("ciphertext-first-bit", "Changed", flipped(good, 72)),
        ("ciphertext-last-bit", "Changed", flipped(good, -17)),
        ("tag-first-bit", "Changed", flipped(good, -16)),
        ("tag-last-bit", "Changed", flipped(good, -1)),
        ("tag-of-zeros", "Changed", good[:-16] + bytes(16)),
        ("tag-in-front-of-the-ciphertext", "Changed", header + body[-16:] + body[:-16]),
        ("ciphertext-left-out", "Changed", header + body[-16:]),
        ("plaintext-in-clear", "Changed", header + b"hunter2" + body[-16:]),
        ("one-byte-cut-off-the-end", "Changed", good[:-1]),
        ("one-byte-appended", "Changed", good + b"\0"),
        ("two-envelopes-in-one", "Changed", good + good),
        ("nonce-1", "Changed", seal(VALUE, b"hunter2", nonce=bytes(11) + b"\x01")),
        ("without-associated-data", "Changed", seal(VALUE, b"hunter2", gcm_aad=b"")),
        # A right envelope of what is no key, where a key is due.
        ("no-key-empty", "UnexpectedContent", seal(VALUE, b"")),
        ("no-key-31-bytes", "UnexpectedContent", seal(VALUE, bytes(31))),
        ("no-key-33-bytes", "UnexpectedContent", seal(VALUE, bytes(33))),
    ]


def make_envelopes():
    write_json("envelopes.json", {
        "note": "Made by make.py. All keys here are for tests.",
        "key": KEY.hex(),
        "salt": SALT.hex(),
        "sealed": [
            {"name": name, "plaintext": plaintext.hex(), "envelope": seal(aad, plaintext, key_number).hex()}
            for name, key_number, aad, plaintext in SEALED
        ],
    })
    directory = HERE / "malformed"
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.hex"):
        old.unlink()
    for at, (name, error, envelope) in enumerate(malformed(), 1):
        text = f"# {name.replace('-', ' ')}\n# error: {error}\n{envelope.hex()}\n"
        (directory / f"{at:02}-{name}.hex").write_text(text)


def write_json(name, content):
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    make_envelopes()
