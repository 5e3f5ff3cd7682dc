#!/usr/bin/env python3
"""Reads a Strongroom backup with the root key, without Strongroom.

Written from backup.md and sealing.md beside it, and from nothing else. It needs Python 3.9 or later and the package `cryptography`:

    python3 -m venv venv && venv/bin/pip install cryptography
    venv/bin/python read_backup.py --root-key root.key strongroom.backup             # lists what is there
    venv/bin/python read_backup.py --root-key root.key --out DIR strongroom.backup   # writes every secret's current value below DIR

It refuses a file whose SHA-256 or MAC is wrong, and stops at the first commitment or tag that does not fit. Values go to standard output with --print only, and
to a terminal with --print --to-terminal only. It reads the file twice and holds one line of it at a time.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import struct
import sys
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FIELDS = "application/vnd.strongroom.fields+json"


class Unreadable(Exception):
    """The backup is not as it was written, or the key is another."""


def lp(*parts):
    """Each part with its length before it, 32 bits, big-endian."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def u32(number):
    return struct.pack(">I", number)


def unseal(key, envelope, purpose, number, *names):
    """Opens an envelope: sealing.md, "The envelope"."""
    if len(envelope) < 88 or envelope[:4] != b"SR\x01\x01":
        raise Unreadable(f"a {purpose} is no envelope of format 1, suite 1")
    if envelope[4:8] != u32(number):
        raise Unreadable(f"a {purpose} was sealed by a key of another number")
    salt, commitment, sealed = envelope[8:40], envelope[40:72], envelope[72:]
    associated = lp(b"\x01", b"\x01", purpose.encode(), *names)
    info = b"strongroom/seal/1" + b"\x01" + hashlib.sha256(associated).digest()
    derived = HKDF(SHA256(), 64, salt, info).derive(key)
    if not hmac.compare_digest(derived[32:], commitment):
        raise Unreadable(f"a {purpose} was sealed by another key or for another place")
    try:
        return AESGCM(derived[:32]).decrypt(bytes(12), sealed, associated)
    except InvalidTag:
        raise Unreadable(f"a {purpose} was changed") from None


def unwrap_by_root(root, wrapped, *names):
    """Opens what the root key wraps: the names stand once more before the key, in the plaintext."""
    plaintext = unseal(root, wrapped, "root-wrapped", 0, *names)
    embedded = lp(b"\x01", b"\x01", b"root-wrapped", *names)
    if not plaintext.startswith(embedded) or len(plaintext) != len(embedded) + 32:
        raise Unreadable("a key that the root wraps holds other names")
    return plaintext[len(embedded):]


def lines(path):
    """The header, then each row's table and columns, then the last line; hashes what stands before that."""
    digest, count = hashlib.sha256(), {}
    with open(path, "rb") as file:
        header = file.readline()
        try:
            yield "header", json.loads(header)
        except ValueError:
            raise Unreadable("this is no backup") from None
        digest.update(header)
        before = len(header)
        for line in file:
            record = json.loads(line) if line.endswith(b"\n") else None
            if record is None or not ("end" in record or "table" in record):
                break
            if "end" in record:
                end = record["end"]
                if end["sha256"] != digest.hexdigest() or end["bytes"] != before or end["rows"] != count:
                    raise Unreadable("the file was damaged: its SHA-256 or its counts are wrong")
                if file.read(1):
                    raise Unreadable("something stands behind the last line")
                yield "end", dict(end, digest=digest.digest())
                return
            digest.update(line)
            before += len(line)
            count[record["table"]] = count.get(record["table"], 0) + 1
            yield record["table"], record["row"]
    raise Unreadable("the backup is incomplete: it has no last line")


class Backup:
    """The keys of a backup, after a first pass that checks the file as a whole."""

    def __init__(self, path, root):
        self.path, self.root = path, root
        self.terms, self.project_keys, self.secrets = {}, {}, {}
        for kind, row in lines(path):
            if kind == "header":
                if row.get("strongroom_backup") != 1:
                    raise Unreadable("this is no backup of format 1")
                self.header = row
            elif kind == "instance":
                self.instance = uuid.UUID(row["id"]).bytes
                self.mac_key = unwrap_by_root(root, b64(row["keyring_mac_key"]), b"keyring-mac-key", self.instance)
            elif kind == "keyring_terms" and row["state"] != "destroyed":
                term = row["term"]
                self.terms[term] = unwrap_by_root(root, b64(row["wrapped"]), b"term", self.instance, u32(term))
            elif kind == "project_keys" and row["state"] != "destroyed":
                project, generation, term = uuid.UUID(row["project_id"]).bytes, row["generation"], row["term"]
                names = (self.instance, project, u32(generation), b"term", u32(term))
                self.project_keys[project, generation] = unseal(
                    self.terms[term], b64(row["wrapped"]), "project-key", term, *names
                )
            elif kind == "secrets":
                self.secrets[row["id"]] = row
            elif kind == "end":
                content = lp(b"strongroom/backup/1", self.instance, row["digest"])
                if not hmac.compare_digest(hmac.digest(self.mac_key, content, "sha256"), b64(row["mac"])):
                    raise Unreadable("the MAC is wrong: somebody changed the backup")

    def values(self):
        """Each secret's row, version's row and value; those that are destroyed are left out."""
        for kind, row in lines(self.path):
            if kind != "secret_versions" or row["state"] == "destroyed":
                continue
            secret = self.secrets[row["secret_id"]]
            project, generation = uuid.UUID(secret["project_id"]).bytes, row["project_key_generation"]
            if (project, generation) not in self.project_keys:
                continue  # The project was shredded.
            value = (self.instance, uuid.UUID(secret["id"]).bytes, struct.pack(">Q", row["version"]), row["media_type"].encode())
            wrapping = (project, b"project-key", u32(generation))
            project_key = self.project_keys[project, generation]
            data_key = unseal(project_key, b64(row["wrapped_key"]), "data-key", generation, *value, *wrapping)
            yield secret, row, unseal(data_key, b64(row["sealed_value"]), "value", 0, *value)


def b64(text):
    return base64.b64decode(text, validate=True)


def write_files(directory, path, row, value):
    """One file a secret, or for named fields a directory with one file a field."""
    place = os.path.join(directory, *path.split("/"))
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    if row["media_type"] != FIELDS:
        write_file(place + ".raw", value)
        return
    os.makedirs(place + ".fields", mode=0o700)
    for name, text in json.loads(value).items():
        if "/" in name or name in ("", ".", ".."):
            raise Unreadable("a field's name is none")
        write_file(os.path.join(place + ".fields", name), text.encode())


def write_file(path, content):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def shown(row, value):
    if row["media_type"] == FIELDS:
        return {"fields": json.loads(value)}
    return {"media_type": row["media_type"], "raw": base64.b64encode(value).decode()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backup")
    parser.add_argument("--root-key", required=True, help="file with the 32 bytes of the root key")
    parser.add_argument("--out", help="directory to write current values to; it must not exist")
    parser.add_argument("--print", action="store_true", help="print values, one JSON object a line")
    parser.add_argument("--to-terminal", action="store_true", help="print values even to a terminal")
    parser.add_argument("--all-versions", action="store_true", help="not only what is current, and deleted secrets too")
    given = parser.parse_args()
    if given.print and sys.stdout.isatty() and not given.to_terminal:
        parser.error("standard output is a terminal: values would stay in its history; use --out, or add --to-terminal")
    if given.out and given.all_versions:
        parser.error("--out writes current values only")
    with open(given.root_key, "rb") as file:
        root = file.read()
    if len(root) != 32:
        parser.error("the root key has 32 bytes")
    backup = Backup(given.backup, root)
    if given.out:
        os.mkdir(given.out, 0o700)
    for secret, row, value in backup.values():
        current = row["version"] == secret["current_version"] and secret["state"] == "live" and row["state"] == "live"
        if not current and not given.all_versions:
            continue
        record = {"path": secret["path"], "version": row["version"], "created_at": row["created_at"]}
        if given.out:
            write_files(given.out, secret["path"], row, value)
        if given.print:
            print(json.dumps({**record, **shown(row, value)}))
        elif not given.out:
            print(json.dumps({**record, "bytes": len(value)}))


if __name__ == "__main__":
    try:
        main()
    except (Unreadable, OSError) as error:
        sys.exit(f"error: {error}")
