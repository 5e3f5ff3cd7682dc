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


# --- Recovery shares ---

# Powers of the generator 3 and their logarithms: src/gf256.rs multiplies bit by bit instead.
EXPONENTS, LOGARITHMS = [0] * 255, {}
element = 1
for power in range(255):
    EXPONENTS[power], LOGARITHMS[element] = element, power
    element ^= (element << 1) ^ (0x11B if element & 0x80 else 0)
BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def times(left, right):
    return EXPONENTS[(LOGARITHMS[left] + LOGARITHMS[right]) % 255] if left and right else 0


def polynomial(coefficients, at):
    """By powers, lowest first."""
    total, power = 0, 1
    for coefficient in coefficients:
        total, power = total ^ times(coefficient, power), times(power, at)
    return total


def share_text(content, prefix="srr1", checksum=None):
    crc = struct.pack(">I", zlib.crc32(b"srr1" + content)) if checksum is None else checksum
    whole = int.from_bytes(content + crc, "big")
    length = len(content + crc) * 8 // 5
    characters = "".join(BASE32[whole >> 5 * at & 31] for at in reversed(range(length)))
    return prefix + "-" + "-".join(characters[at:at + 4] for at in range(0, length, 4))


def shares(key, set_id, coefficients, count):
    threshold = len(coefficients) + 1
    commitment = hmac.digest(key, b"strongroom/recovery/1" + set_id + bytes([threshold]), "sha256")[:12]
    return [
        set_id + bytes([threshold, x]) + commitment
        + bytes(polynomial([key[at]] + [c[at] for c in coefficients], x) for at in range(32))
        for x in range(1, count + 1)
    ]


def make_recovery():
    key = hashlib.sha256(b"a root key for tests").digest()
    coefficients = [hashlib.sha256(b"coefficient %d" % n).digest() for n in range(1, 5)]
    splits = []
    for set_id, threshold, count in [(b"set-a", 2, 2), (b"set-b", 3, 5), (b"set-c", 5, 7), (b"set-d", 2, 255)]:
        contents = shares(key, set_id, coefficients[:threshold - 1], count)
        splits.append({"set": set_id.hex(), "threshold": threshold, "shares": [share_text(c) for c in contents]})
    # A coefficient of zeros is as good as any other.
    contents = shares(key, b"set-e", [bytes(32)], 3)
    zeros = {"set": b"set-e".hex(), "threshold": 2, "shares": [share_text(c) for c in contents]}
    content = shares(key, b"set-b", coefficients[:2], 5)[0]
    good = share_text(content)
    impossible = lambda at, new: share_text(patched(content, at, bytes([new])))
    malformed_shares = [
        ("empty", "Prefix", ""),
        ("no prefix", "Prefix", good[5:]),
        ("a token's prefix", "Prefix", "srt_" + good[4:]),
        ("prefix without its hyphen", "Prefix", "srr1" + good[5:].replace("-", "")),
        ("format 2", "UnknownFormat", "srr2" + good[4:]),
        ("prefix alone", "Length { found: 0 }", "srr1-"),
        ("one character lost", "Length { found: 87 }", good[:-1]),
        ("one character too many", "Length { found: 89 }", good + "0"),
        ("two shares in one", "Length { found: 176 }", good + good[5:]),
        ("a letter that is not in the alphabet", "Character { position: 6 }", good[:11] + "u" + good[12:]),
        ("a letter with an accent", "Character { position: 1 }", "srr1-\u00e9" + good[6:]),
        ("checksum of zeros", "Checksum", share_text(content, checksum=bytes(4))),
        ("checksum without the format", "Checksum", share_text(content, checksum=struct.pack(">I", zlib.crc32(content)))),
        ("two groups exchanged", "Checksum", good[:5] + good[10:14] + "-" + good[5:9] + good[14:]),
        ("all zeros", "Checksum", "srr1-" + "0" * 88),
        ("number 0", "Impossible", impossible(6, 0)),
        ("threshold 0", "Impossible", impossible(5, 0)),
        ("threshold 1", "Impossible", impossible(5, 1)),
    ]
    write_json("recovery.json", {
        "note": "Made by make.py. All keys here are for tests.",
        "key": key.hex(),
        "coefficients": [coefficient.hex() for coefficient in coefficients],
        "splits": splits,
        "coefficient_of_zeros": zeros,
        "as_typed": [
            good.upper(),
            f"\t srr1-{good[5:].replace('-', ' ')} \r\n",
            "srr1-" + good[5:].replace("-", "").replace("0", "o").replace("1", "I"),
            "SRR1-" + good[5:].replace("0", "O").replace("1", "l"),
        ],
        "malformed": [{"name": name, "error": error, "text": text} for name, error, text in malformed_shares],
    })


def write_json(name, content):
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    make_envelopes()
    make_recovery()
