#!/usr/bin/env python3
"""Reads keyring's files from docs/FILE_FORMAT.md alone: none of the server's code, no library beyond Python's own.

    read.py keyring FILE [--anchor FILE] [--wrapping-key ID=KEY ...]     verifies all of it, lists the operations
    read.py cmk FILE --root-key KEY                                      verifies a CMK file of the local provider
    read.py backup FILE [--wrapping-key ID=KEY ...]                      verifies a backup, lists what is in it

IDs and keys are hexadecimal digits. The exit status is 1, with one line on stderr, for whatever is not as the document has it.
"""
import argparse
import hashlib
import hmac
import sys


class Wrong(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Wrong(what)


def number(data):
    return int.from_bytes(data, "big")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def prefixed(*parts):
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def hkdf(secret, salt, info):
    """RFC 5869, SHA-256, 32 bytes: one block."""
    return mac(mac(salt, secret), info + b"\x01")


# Messages: {field: [value, ...]}, checked to be canonical.

VARINT, BYTES, TEXT, PACKED = "varint", "bytes", "text", "packed"
IDENTITY = {1: VARINT, 2: TEXT, 3: BYTES, 4: BYTES}
RECORD = {1: IDENTITY, 2: TEXT, 3: VARINT, 4: VARINT, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 9: BYTES}
WRAPPING_KEY = {1: BYTES, 2: TEXT, 3: TEXT, 4: BYTES, 5: VARINT, 6: VARINT, 7: BYTES}
IDEMPOTENCY = {1: BYTES, 2: BYTES, 3: PACKED, 4: TEXT, 5: VARINT, 6: VARINT}
SNAPSHOT = {1: [WRAPPING_KEY], 2: [RECORD], 3: [IDEMPOTENCY], 4: VARINT}
REPLACED = {1: VARINT, 2: BYTES}
OPERATION = {1: RECORD, 2: IDENTITY, 3: WRAPPING_KEY, 4: SNAPSHOT, 5: REPLACED}
BACKUP_CMK = {1: TEXT, 2: TEXT, 3: VARINT, 4: VARINT}
BACKUP_PART = {1: TEXT, 2: VARINT, 3: BYTES}
MANIFEST = {
    1: TEXT, 2: BYTES, 3: VARINT, 4: BYTES, 5: VARINT, 6: TEXT, 7: VARINT, 8: VARINT, 9: [BACKUP_CMK], 10: [BACKUP_PART],
    11: BYTES, 12: VARINT, 13: [BYTES],
}
COMMIT = {1: VARINT, 2: VARINT, 3: TEXT, 4: IDEMPOTENCY, 5: [OPERATION]}


def varint(data, at):
    value, shift = 0, 0
    while True:
        need(at < len(data) and shift < 70, "a varint does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            need(byte != 0 or shift == 7, "a varint is not in its shortest form")
            need(value < 1 << 64, "a varint is too large")
            return value, at


def message(data, fields):
    result, at, before = {}, 0, 0
    while at < len(data):
        tag, at = varint(data, at)
        field, wire = tag >> 3, tag & 7
        need(field in fields, f"an unknown field {field}")
        kind = fields[field]
        repeated = isinstance(kind, list)
        need(field > before or (repeated and field == before), "fields are not in order")
        before = field
        value, at = varint(data, at)
        if kind == VARINT:
            need(wire == 0 and value != 0, "a default is written out")
        else:
            need(wire == 2 and value <= len(data) - at, "a field is longer than its message")
            value, at = data[at : at + value], at + value
            if kind == PACKED:
                need(value, "a default is written out")
                numbers, place = [], 0
                while place < len(value):
                    item, place = varint(value, place)
                    numbers.append(item)
                value = numbers
            elif kind == [BYTES]:
                pass
            elif kind in (BYTES, TEXT):
                need(value, "a default is written out")
                value = value.decode("utf-8", "strict") if kind == TEXT else value
            else:
                value = message(value, kind[0] if repeated else kind)
        result.setdefault(field, []).append(value)
    return result


def one(fields, field, default):
    return fields[field][0] if field in fields else default


def identity_bytes(fields):
    scope, instance = one(fields, 1, 0), one(fields, 2, "").encode()
    owner, key_id = one(fields, 3, b""), one(fields, 4, b"")
    need(scope in (1, 2, 3) and (scope == 2) == bool(instance), "a scope that there is not")
    need(len(owner) <= 512 and 1 <= len(key_id) <= 255, "an owner or key id of an impossible length")
    parts = [bytes([scope, len(instance)]), instance, len(owner).to_bytes(2, "big"), owner, bytes([len(key_id)]), key_id]
    return b"".join(parts)


def show_identity(fields):
    scope = {1: "shared", 2: "instance " + one(fields, 2, ""), 3: "server"}[one(fields, 1, 0)]
    return f"({scope}, '{one(fields, 3, b'').decode()}', '{one(fields, 4, b'').decode()}')"


class Reader:
    def __init__(self, data, keys):
        self.data, self.keys = data, keys
        self.wrapping_keys, self.live, self.lines, self.positions = {}, {}, [], []

    def header(self):
        head = self.data[:176]
        need(len(head) == 176 and head[:8] == b"KEYRING\0", "not a storage file")
        need(sha256(head[:144]) == head[144:], "the header's checksum")
        need(number(head[8:10]) == 1, "the format version")
        self.tenant = head[11 : 11 + head[10]]
        need(1 <= head[10] <= 63 and head[11 + head[10] : 80] == bytes(69 - head[10]), "the tenant's name")
        self.keyring = head[80:96]
        self.origin = (number(head[104:112]), head[112:144])
        need(self.origin[0] < 1 << 63 and (self.origin[0] > 0 or self.origin[1] == bytes(32)), "where it was made")
        self.replaced = None if self.origin[0] else self.origin
        self.sequence, self.digest, self.begun = max(0, self.origin[0] - 1), head[144:], False
        self.lines.append(
            f"tenant {self.tenant.decode()} keyring {self.keyring.hex()} created {number(head[96:104])}"
            f" made at {self.origin[0]}"
        )

    def authenticated(self, purpose, sequence, count, previous, digest):
        return (
            purpose + b"\0" + (1).to_bytes(2, "big") + bytes([len(self.tenant)]) + self.tenant.ljust(77, b"\0")
            + self.keyring + sequence.to_bytes(8, "big") + count.to_bytes(4, "big") + previous + digest
        )

    def check_mac(self, wrapping_key_id, expected, text, what):
        need(wrapping_key_id in self.wrapping_keys, f"{what} names a wrapping key that is not there")
        if wrapping_key_id not in self.keys:
            return "unchecked"
        key = hkdf(self.keys[wrapping_key_id], b"keyring/1", prefixed(b"commit", self.tenant, self.keyring))
        need(mac(key, text) == expected, f"the HMAC of {what}")
        return "ok"

    def batch(self, at):
        head = self.data[at : at + 96]
        need(len(head) == 96 and head[:8] == b"KRBATCH\0", "a batch header")
        need(sha256(head[:64]) == head[64:], "a batch header's checksum")
        body, first, count = number(head[8:16]), number(head[16:24]), number(head[24:28])
        need(head[28:32] == bytes(4) and count >= 1, "a batch header's fields")
        need(first == self.sequence + 1, "a batch's sequence")
        need(head[32:64] == self.digest, "a batch does not continue the one before")
        end = at + 96 + body
        trailer = self.data[end : end + 96]
        need(len(trailer) == 96, "the file ends inside a batch")
        digest = sha256(self.digest, self.data[at:end])
        need(trailer[:32] == digest, "a batch's digest")
        need(number(trailer[80:88]) == body and trailer[88:] == b"KRTRAIL\0", "a batch's trailer")
        need(count == 1 or self.begun or self.origin[0] == 0, "a snapshot's batch has one commit")
        lines, self.lines = self.lines, []
        place = at + 96
        for _ in range(count):
            length = number(self.data[place : place + 4])
            need(place + 4 + length <= end, "a commit is longer than its batch")
            self.commit(message(self.data[place + 4 : place + 4 + length], COMMIT))
            place += 4 + length
        need(place == end, "a batch has more bytes than its commits")
        text = self.authenticated(b"keyring batch", first, count, self.digest, digest)
        verdict = self.check_mac(trailer[32:48], trailer[48:80], text, "a batch")
        lines.append(f"batch {first}..{self.sequence} digest {digest.hex()} hmac {trailer[32:48].hex()} {verdict}")
        self.lines = lines + self.lines
        self.digest = digest
        if self.replaced:
            self.positions.append((self.sequence, digest))
        return end + 96

    def commit(self, fields):
        need(one(fields, 1, 0) == self.sequence + 1, "a commit's sequence")
        operations = fields.get(5, [])
        snapshots = [operation for operation in operations if 4 in operation]
        begins = self.origin[0] > 0 and not self.begun
        need(len(snapshots) == (1 if begins else 0) and (not snapshots or len(operations) == 1), "a snapshot's place")
        self.begun = True
        for operation in operations:
            if 5 in operation:
                need(not self.replaced and len(operations) == 1, "what was replaced is said twice, or not alone")
                self.replaced = (one(operation[5][0], 1, 0), one(operation[5][0], 2, b""))
                need(self.replaced[0] == self.sequence and len(self.replaced[1]) == 32, "what was replaced")
        self.sequence += 1
        line = f"commit {self.sequence} at {one(fields, 2, 0)} by {one(fields, 3, '')}"
        if 4 in fields:
            need(not set(fields[4][0]) - {1, 2, 3}, "an idempotency entry of a commit")
            line += " " + self.idempotency(fields[4][0])
        self.lines.append(line)
        for operation in operations:
            need(len(operation) == 1, "an operation is one thing")
            self.operation(operation)

    def idempotency(self, fields):
        need(len(one(fields, 1, b"")) == 16 and len(one(fields, 2, b"")) == 32, "an idempotency entry")
        versions = ",".join(str(version) for version in one(fields, 3, []))
        return f"id {fields[1][0].hex()} hash {fields[2][0].hex()} versions {versions}"

    def operation(self, operation):
        if 1 in operation:
            self.put(operation[1][0])
        elif 2 in operation:
            name = identity_bytes(operation[2][0])
            need(name in self.live, "a remove of a key that is not there")
            del self.live[name]
            self.lines.append(f"  remove {show_identity(operation[2][0])}")
        elif 3 in operation:
            self.wrapping_key(operation[3][0])
        elif 4 in operation:
            self.snapshot(operation[4][0])
        else:
            self.lines.append(f"  replaced {self.replaced[0]} digest {self.replaced[1].hex()}")

    def put(self, record):
        need(1 in record, "a record without identity")
        name, kind, version = identity_bytes(record[1][0]), one(record, 2, ""), one(record, 3, 0)
        known = self.live.get(name)
        need(version <= 100_000, "a key has too many versions")
        need((known is None and version == 1) or known == (kind, version - 1), "a version does not follow")
        self.live[name] = (kind, version)
        need(len(record[6][0]) == 16 and len(record[8][0]) == 12, "a record's id or nonce")
        need(len(record[9][0]) == one(record, 4, 0) + 16 > 16, "a record's length")
        need(one(record, 7, b"") in self.wrapping_keys, "a record's wrapping key")
        self.lines.append(
            f"  put {show_identity(record[1][0])} {kind} version {version} length {record[4][0]}"
            f" created {one(record, 5, 0)} record {record[6][0].hex()} under {record[7][0].hex()}"
        )

    def wrapping_key(self, key):
        name = one(key, 1, b"")
        need(len(name) == 16 and name not in self.wrapping_keys, "a wrapping key's id")
        need(one(key, 3, "") in ("local", "aws") and len(one(key, 7, b"")) == 32, "a wrapping key")
        self.wrapping_keys[name] = key
        verdict = "unchecked"
        if name in self.keys:
            info = prefixed(b"commitment " + name.hex().encode(), self.tenant, self.keyring)
            need(hkdf(self.keys[name], b"keyring/1", info) == key[7][0], "a wrapping key's commitment")
            verdict = "ok"
        self.lines.append(
            f"  wrapping key {name.hex()} cmk {one(key, 2, '')} provider {key[3][0]} created {one(key, 5, 0)}"
            f" encryptions {one(key, 6, 0)} commitment {verdict}"
        )

    def snapshot(self, snapshot):
        for key in snapshot.get(1, []):
            self.wrapping_key(key)
        order = [(identity_bytes(one(record, 1, {})), one(record, 3, 0)) for record in snapshot.get(2, [])]
        need(order == sorted(order), "a snapshot's records are not sorted")
        for record in snapshot.get(2, []):
            self.put(record)
        for entry in snapshot.get(3, []):
            self.lines.append(
                f"  remembered {self.idempotency(entry)} by {one(entry, 4, '')} commit {one(entry, 5, 0)}"
                f" at {one(entry, 6, 0)}"
            )
        self.lines.append(f"  horizon {one(snapshot, 4, 0)}")

    def read(self):
        self.header()
        at = 176
        need(at < len(self.data), "there is no batch")
        while at < len(self.data):
            at = self.batch(at)
        need(self.replaced, "what was replaced is not said")

    def anchor(self, data):
        need(len(data) == 216 and data[:8] == b"KRANCHR\0", "not an anchor")
        need(sha256(data[:184]) == data[184:], "the anchor's checksum")
        head = (1).to_bytes(2, "big") + bytes([len(self.tenant)]) + self.tenant.ljust(69, b"\0") + self.keyring
        need(data[8:96] == head, "the anchor is another keyring's")
        position = (number(data[96:104]), data[104:136])
        is_creation = position[0] == 0 and self.origin[0] == 0 and len(self.positions) == 1
        need(is_creation or position == self.replaced or position in self.positions, "file and anchor do not agree")
        verdict = "none"
        if data[136:152] == bytes(16):
            need(data[152:184] == bytes(32), "an HMAC of nobody")
        elif position != self.replaced:
            text = self.authenticated(b"keyring anchor", position[0], 0, bytes(32), position[1])
            verdict = self.check_mac(data[136:152], data[152:184], text, "the anchor")
        self.lines.append(f"anchor {position[0]} digest {position[1].hex()} hmac {verdict}")


def read_cmk(data, root):
    text = data.decode("ascii", "strict")
    lines = text.split("\n")
    need(lines[-1] == "" and len(lines) >= 7 and lines[0] == "keyring-cmk 1", "not a CMK file")
    words = [line.split(" ") for line in lines[:-1]]
    names = [word[0] for word in words[1:5]]
    need(names == ["tenant", "id", "created", "state"], "the lines are not in order")
    need(all(len(word) == 2 for word in words[1:4]), "a line has too many words")
    tenant = words[1][1]

    def derive(*parts):
        return hkdf(root, b"keyring local provider", prefixed(*(part.encode() for part in parts)))

    body, last = text[: text.rindex("mac ")], words[-1]
    need(last == ["mac", mac(derive("cmk file", tenant), body.encode()).hex()], "the HMAC of the file")
    for index, word in enumerate(words[5:-1], 1):
        need(len(word) == 5 and word[:2] == ["version", str(index)], "the versions are not in order")
        need(len(bytes.fromhex(word[3])) == 12 and len(bytes.fromhex(word[4])) == 48, "a version's lengths")
    return [f"cmk {words[2][1]} tenant {tenant} {' '.join(words[4])} versions {len(words) - 6}"]


def part_limit(name):
    return {"keyring": 1 << 32, "tenant.yaml": 65536, "persisted.json": 65536}.get(name, 16 << 20)


def read_backup(data, keys):
    need(len(data) >= 96 and data[:8] == b"KRBCKUP\0", "not a backup")
    need(sha256(data[:-32]) == data[-32:], "the digest of the whole")
    size = number(data[12:16])
    need(data[8:12] == b"\0\1\0\0" and size <= 4 << 20 and 64 + size <= len(data) - 32, "the header")
    encoded = data[16 : 16 + size]
    fields = message(encoded, MANIFEST)
    at, parts = 64 + size, {}
    for part in fields[10]:
        name, length = part[1][0], one(part, 2, 0)
        need(name not in parts and length <= part_limit(name) and at + length <= len(data) - 32, "a part's length")
        parts[name] = data[at : at + length]
        need(sha256(parts[name]) == part[3][0], f"the digest of {name}")
        at += length
    need(at == len(data) - 32, "there is more than the parts")
    names = list(parts)
    fixed = ["keyring", "tenant.yaml"] + (["persisted.json"] if "persisted.json" in parts else [])
    cmks = [(one(cmk, 1, ""), one(cmk, 2, "")) for cmk in fields.get(9, [])]
    exported = names[len(fixed) :]
    need(names[: len(fixed)] == fixed and exported == sorted(exported), "the parts' order")
    need(all(("local", name[len("cmks/") :]) in cmks and name.startswith("cmks/") for name in exported), "a part's name")
    need(cmks == sorted(set(cmks)), "the CMKs' order")
    need(bool(exported) == (11 in fields) and len(one(fields, 11, bytes(16))) == 16, "the salt")
    unproved = fields.get(13, [])
    need(unproved == sorted(set(unproved)) and all(len(name) == 16 for name in unproved), "the unproved wrapping keys")

    reader = Reader(parts["keyring"], keys)
    reader.read()
    need(fields[1][0].encode() == reader.tenant and fields[2][0] == reader.keyring, "the manifest's tenant or keyring")
    need((fields[3][0], fields[4][0]) == (reader.sequence, reader.digest), "the manifest's position")
    live = {name: version for name, (_, version) in reader.live.items()}
    own = identity_bytes({1: [3], 4: [b"request-hash"]})
    need(one(fields, 7, 0) == len(live) - (own in live), "the manifest's number of keys")
    need(one(fields, 8, 0) == sum(live.values()), "the manifest's number of records")
    for key in reader.wrapping_keys.values():
        need((key[3][0], key[2][0]) in cmks, "a CMK is not in the manifest")
    place, verdict = 16 + size, "none"
    if data[place : place + 16] == bytes(16):
        need(data[place + 16 : place + 48] == bytes(32), "an HMAC of nobody")
    else:
        text = reader.authenticated(b"keyring backup", fields[3][0], 0, bytes(32), sha256(encoded))
        verdict = reader.check_mac(data[place : place + 16], data[place + 16 : place + 48], text, "the manifest")
    lines = [f"backup of {fields[1][0]} at {one(fields, 5, 0)} by {one(fields, 6, '')} sequence {fields[3][0]} hmac {verdict}"]
    lines += [f"part {name} {len(content)} sha256 {sha256(content).hex()}" for name, content in parts.items()]
    return lines + reader.lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["keyring", "cmk", "backup"])
    parser.add_argument("file")
    parser.add_argument("--anchor")
    parser.add_argument("--wrapping-key", action="append", default=[])
    parser.add_argument("--root-key", default="")
    options = parser.parse_args()
    with open(options.file, "rb") as file:
        data = file.read()
    if options.kind == "cmk":
        print("\n".join(read_cmk(data, bytes.fromhex(options.root_key))))
        return
    pairs = [text.split("=") for text in options.wrapping_key]
    keys = {bytes.fromhex(name): bytes.fromhex(key) for name, key in pairs}
    if options.kind == "backup":
        print("\n".join(read_backup(data, keys)))
        return
    reader = Reader(data, keys)
    reader.read()
    if options.anchor:
        with open(options.anchor, "rb") as file:
            reader.anchor(file.read())
    print("\n".join(reader.lines))


if __name__ == "__main__":
    try:
        main()
    except (Wrong, ValueError, KeyError, IndexError) as error:
        sys.exit(f"read.py: {type(error).__name__}: {error}")
