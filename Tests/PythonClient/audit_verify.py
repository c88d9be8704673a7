#!/usr/bin/env python3
"""Checks an audit log as docs/AUDIT.md describes it, with nothing of the server's: audit_verify.py PUBLIC_KEY HEAD FILE...

Signatures are checked by openssl(1), everything else by Python's own library.
"""
import hashlib
import json
import subprocess
import sys
import tempfile


def is_signed(public_key, text, signature):
    with tempfile.NamedTemporaryFile() as message, tempfile.NamedTemporaryFile() as raw:
        message.write(text.encode())
        raw.write(bytes.fromhex(signature))
        message.flush()
        raw.flush()
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public_key, "-rawin"]
        command += ["-in", message.name, "-sigfile", raw.name]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def fail(what):
    print(f"not whole: {what}")
    sys.exit(1)


def main(public_key, head_path, paths):
    files = []
    for path in paths:
        with open(path, "rb") as file:
            content = file.read()
        if not content.endswith(b"\n"):
            fail(f"{path}: its last line is not ended")
        lines = content[:-1].split(b"\n")
        files.append((json.loads(lines[0])["file"], lines))
    files.sort()
    if [number for number, _ in files] != list(range(1, len(files) + 1)):
        fail("a file is missing, or there twice")
    serial, previous, since, opens, entries = 0, "0" * 64, 0, False, 0
    hashes = {}
    for number, lines in files:
        for index, raw in enumerate(lines):
            line = json.loads(raw)
            serial += 1 + (line["missing"] if line["type"] == "gap" else 0)
            if line["serial"] != serial or line["prev"] != previous:
                fail(f"file {number}, line {index + 1}: serial {line['serial']} does not follow")
            if (index == 0) != (line.get("file") == number) and line["type"] != "recovered":
                fail(f"file {number}, line {index + 1}: a file begins there")
            if opens and line["type"] != "checkpoint":
                fail(f"file {number}, line {index + 1}: no checkpoint")
            opens = line["type"] in ("begin", "continued", "recovered")
            since += 1
            if line["type"] == "checkpoint":
                text = f"keyring audit checkpoint v1\n{line['log']}\n{serial}\n{line['time']}\n{previous}\n"
                if not is_signed(public_key, text, line["signature"]):
                    fail(f"file {number}, line {index + 1}: the signature is not right")
                since = 0
            if since > 1024:
                fail(f"file {number}, line {index + 1}: no checkpoint in 1,024 lines")
            entries += line["type"] in ("call", "event")
            previous = hashlib.sha256(raw).hexdigest()
            hashes[serial] = previous
    with open(head_path, "rb") as file:
        head = json.load(file)
    text = "keyring audit head v1\n{log}\n{file}\n{serial}\n{time}\n{hash}\n".format(**head)
    if not is_signed(public_key, text, head["signature"]):
        fail("the head's signature is not right")
    if hashes.get(head["serial"]) != head["hash"]:
        fail("the line that the head knows is not there")
    print(f"whole: {entries} entries, last serial {serial}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
