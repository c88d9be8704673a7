"""Makes every call that a database instance has, and prints one line for each; ends with 0 where all went as docs/WIRE_PROTOCOL.md says.

usage: calls.py HOST PORT CERTIFICATE KEY CA
"""
import socket
import ssl
import sys

from client import Connection, Refused, idempotency_id, pb
from keyring.v1 import admin_pb2


def own(key_id, owner=b""):
    return pb.KeyName(scope=pb.INSTANCE, owner=owner, key_id=key_id)


def shared(key_id):
    return pb.KeyName(scope=pb.SHARED, key_id=key_id)


def expect(is_so, what):
    if not is_so:
        raise SystemExit(f"not as expected: {what}")


def refusal(connection, **fields):
    try:
        reply = connection.call(**fields)
    except Refused as refused:
        return refused
    raise SystemExit(f"not refused: {fields} was answered {reply.WhichOneof('result')}")


def fetch(connection, name, version=0, **fields):
    return connection.call(fetch=pb.FetchRequest(name=name, version=version), **fields).fetch


def say(call, **what):
    print(call, *(f"{name}={value}" for name, value in what.items()), flush=True)


def who_am_i(connection):
    reply = connection.call(who_am_i=pb.WhoAmIRequest())
    me = reply.who_am_i
    expect(me.uri.endswith(f"/tenant/{me.tenant}/instance/{me.instance}"), "the URI names tenant and instance")
    expect(reply.sequence == 0, "no keyring was involved")
    say("WhoAmI", tenant=me.tenant, instance=me.instance)


def store_and_fetch(connection):
    secret = b"\0 any bytes \xff\0"
    absent = fetch(connection, own(b"stored"))
    expect(not absent.found and not absent.value and not absent.type, "an absent key")
    say("Fetch", answer="absent")
    stored = connection.call(store=pb.StoreRequest(name=own(b"stored"), type="SECRET", value=secret))
    expect(stored.sequence > 0, "a change has a sequence")
    say("Store", version=stored.store.version)
    present = connection.call(fetch=pb.FetchRequest(name=own(b"stored")), min_sequence=stored.sequence)
    expect(present.fetch.found and present.fetch.value == secret, "what was stored comes back")
    say("Fetch", answer="present", type=present.fetch.type, bytes=len(present.fetch.value))
    stale = refusal(connection, fetch=pb.FetchRequest(name=own(b"missing")), min_sequence=stored.sequence + 1000)
    say("Fetch", answer="error", code=stale.code, reason=stale.reason)
    again = refusal(connection, store=pb.StoreRequest(name=own(b"stored"), type="SECRET", value=b"other"))
    say("Store", code=again.code, reason=again.reason)
    expect(fetch(connection, own(b"stored")).value == secret, "the key was left as it was")


def generate_rotate_describe(connection):
    name = shared(b"generated")
    made = connection.call(generate=pb.GenerateRequest(name=name, type="AES", length=32))
    say("Generate", version=made.generate.version)
    first = fetch(connection, name)
    expect(len(first.value) == 32, "32 bytes were asked for")
    rotated = connection.call(rotate=pb.RotateRequest(name=name))
    say("Rotate", version=rotated.rotate.version)
    expect(fetch(connection, name).value != first.value, "a rotation makes another value")
    expect(fetch(connection, name, version=1).value == first.value, "the older version stays")
    expect(not fetch(connection, name, version=3).found, "there is no version 3")
    reply = connection.call(describe=pb.DescribeRequest(name=name, version=1))
    info = reply.describe.info
    expect(reply.describe.found and info.name == name and info.latest_version == 2, "version 1 of 2")
    expect(len(info.wrapping_key_id) == 32 and info.created_ms > 0, "wrapping key and time")
    say("Describe", type=info.type, length=info.length, version=info.version, latest=info.latest_version)
    expect(not connection.call(describe=pb.DescribeRequest(name=own(b"missing"))).describe.found, "absent")
    say("Describe", answer="absent")


def idempotent(connection):
    once = idempotency_id()
    request = pb.GenerateRequest(name=own(b"once"), type="AES", length=16)
    first = connection.call(generate=request, idempotency_id=once)
    value = fetch(connection, own(b"once")).value
    repeated = connection.call(generate=request, idempotency_id=once)
    expect(repeated.sequence == first.sequence, "the repeated request is answered as the first time")
    expect(fetch(connection, own(b"once")).value == value, "and not executed again")
    say("Generate", repeated="same-answer")
    other = refusal(connection, remove=pb.RemoveRequest(name=own(b"once")), idempotency_id=once)
    say("Remove", code=other.code, reason=other.reason)
    connection.call(remove=pb.RemoveRequest(name=own(b"once")), idempotency_id=idempotency_id())
    expect(not fetch(connection, own(b"once")).found, "the key was removed")
    say("Remove", answer="removed")
    gone = refusal(connection, remove=pb.RemoveRequest(name=own(b"once")))
    say("Remove", code=gone.code, reason=gone.reason)


def transact(connection):
    changes = [
        pb.Change(generate=pb.GenerateRequest(name=own(b"a", b"u@h"), type="AES", length=16)),
        pb.Change(rotate=pb.RotateRequest(name=own(b"a", b"u@h"))),
        pb.Change(store=pb.StoreRequest(name=own(b"b", b"u@h"), type="SECRET", value=b"x" * 4096)),
        pb.Change(remove=pb.RemoveRequest(name=own(b"stored"))),
    ]
    reply = connection.call(transact=pb.TransactRequest(changes=changes), idempotency_id=idempotency_id())
    say("Transact", versions=list(reply.transact.versions))
    failed = refusal(connection, transact=pb.TransactRequest(changes=[
        pb.Change(generate=pb.GenerateRequest(name=own(b"never"), type="AES", length=16)),
        pb.Change(remove=pb.RemoveRequest(name=own(b"missing"))),
    ]))
    expect(not fetch(connection, own(b"never")).found, "nothing of a failed transaction stays")
    say("Transact", code=failed.code, reason=failed.reason)
    # Over the 64 KiB of other calls: 40 values of 4,096 bytes.
    many = [pb.Change(store=pb.StoreRequest(name=own(b"many-%03d" % n), type="SECRET", value=b"v" * 4096)) for n in range(40)]
    reply = connection.call(transact=pb.TransactRequest(changes=many), idempotency_id=idempotency_id())
    say("Transact", changes=len(reply.transact.versions))


def listing(connection):
    names, token, pages, sequences = [], b"", 0, set()
    while True:
        reply = connection.call(list=pb.ListRequest(scope=pb.INSTANCE, page_size=10, page_token=token))
        names += [(info.name.owner, info.name.key_id) for info in reply.list.keys]
        sequences.add(reply.sequence)
        token, pages = reply.list.next_page_token, pages + 1
        if not token:
            break
    expect(names == sorted(names) and len(sequences) == 1, "in order, and of one snapshot")
    say("List", keys=len(names), pages=pages)
    request = pb.ListRequest(scope=pb.INSTANCE, owner=pb.OwnerFilter(owner=b"u@h"))
    say("List", owner="u@h", keys=[info.name.key_id.decode() for info in connection.call(list=request).list.keys])
    over = refusal(connection, list=pb.ListRequest(scope=pb.INSTANCE, page_token=b"unknown"))
    say("List", code=over.code, reason=over.reason)


def pipelined(connection):
    ids = [connection.send(fetch=pb.FetchRequest(name=own(b"many-%03d" % (n % 40)))) for n in range(200)]
    ids += [connection.send(describe=pb.DescribeRequest(name=own(b"many-%03d" % n))) for n in range(40)]
    replies = [connection.wait(request_id) for request_id in reversed(ids)]
    expect([reply.id for reply in replies] == ids[::-1], "every request has its own reply")
    expect(all(reply.fetch.found or reply.describe.found for reply in replies), "all of them are there")
    say("Pipelined", replies=len(replies))


def refused_calls(connection):
    refused = refusal(connection, tenant_list=admin_pb2.TenantListRequest())
    say("TenantList", code=refused.code, reason=refused.reason)
    nothing = refusal(connection)
    say("Nothing", code=nothing.code, reason=nothing.reason)
    unnamed = refusal(connection, fetch=pb.FetchRequest(name=own(b"")))
    say("Fetch", code=unnamed.code, reason=unnamed.reason)
    connection.call(who_am_i=pb.WhoAmIRequest())  # refused requests leave the connection as it was


def handshake(host, port, certificate, key, authority, protocols=(), version=ssl.TLSVersion.TLSv1_3):
    """What becomes of a connection with these parameters, and of a WhoAmI on it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    context.load_verify_locations(authority)
    if certificate:
        context.load_cert_chain(certificate, key)
    if protocols:
        context.set_alpn_protocols(protocols)
    message = pb.Request(id=1, who_am_i=pb.WhoAmIRequest()).SerializeToString()
    try:
        with socket.create_connection((host, port), 30) as plain:
            with context.wrap_socket(plain, server_hostname=host) as connection:
                connection.sendall(bytes([0, 0, 0, 0, len(message)]) + message)
                return "answered" if connection.recv(1) else "refused"
    except (ssl.SSLError, ConnectionError):
        return "refused"


def handshakes(host, port, certificate, key, authority):
    names = ["h2", "keyring/1"]
    say("Handshake", with_all=handshake(host, port, certificate, key, authority, names))
    say("Handshake", without_alpn=handshake(host, port, certificate, key, authority))
    say("Handshake", other_alpn=handshake(host, port, certificate, key, authority, ["h2"]))
    say("Handshake", without_certificate=handshake(host, port, None, None, authority, names))
    older = ssl.TLSVersion.TLSv1_2
    say("Handshake", older_tls=handshake(host, port, certificate, key, authority, names, older))


def main(host, port, certificate, key, authority):
    connection = Connection(host, int(port), certificate, key, authority)
    who_am_i(connection)
    store_and_fetch(connection)
    generate_rotate_describe(connection)
    idempotent(connection)
    transact(connection)
    listing(connection)
    pipelined(connection)
    refused_calls(connection)
    connection.close()
    handshakes(host, int(port), certificate, key, authority)


if __name__ == "__main__":
    main(*sys.argv[1:])
