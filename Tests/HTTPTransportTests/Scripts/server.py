"""An HTTP server, or with --certificate an HTTPS one, that answers, and misbehaves, as the path says."""

import argparse
import json
import ssl
import threading
import time

from listening import Request, response, serve

options = argparse.ArgumentParser()
options.add_argument("--certificate")
options.add_argument("--key")
options.add_argument("--old-tls", action="store_true", help="TLS 1.1 and nothing else")
options.add_argument("--mute", action="store_true", help="takes connections, and never says a byte")
options = options.parse_args()

context = None
if options.certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    if options.old_tls:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

waiting = threading.Condition()
waiting_count = 0
request_count = 0
open_connections = set()


def wait_for_all(count):
    """Returns once as many requests are here at once."""
    global waiting_count
    with waiting:
        waiting_count += 1
        waiting.notify_all()
        waiting.wait_for(lambda: waiting_count >= count)


def until_closed(connection):
    while connection.recv(4096):
        pass


def echo(request, connection):
    return response(
        200,
        json.dumps(
            {
                "peer": connection.getpeername()[1],
                "method": request.method,
                "target": request.target,
                "headers": request.headers,
                "body": request.body.hex(),
                "requests": request_count,
                "open": len(open_connections),
            }
        ).encode(),
    )


def answer(request, connection):
    """The bytes of the response, or None: the connection ends."""
    what, *arguments = request.target.split("?")[0].strip("/").split("/")
    number = int(arguments[0]) if arguments and arguments[0].isdigit() else 0
    send = connection.sendall
    if what == "redirect":
        return response(302, b"there", [("Location", "/echo")])
    if what == "status":
        return response(number)
    if what == "headers":
        kept = [(n, f"value of {n}") for n in arguments] + [("Set-Cookie", "a=b"), ("x-amz-id-2", "no")]
        return response(200, b"", kept)
    if what == "twice":
        return response(200, b"", [("X-Amzn-RequestId", "one"), ("x-amzn-requestid", " two\t")])
    if what == "control":
        return response(200, b"", [("X-Amzn-RequestId", "a\x1b[31mb"), ("Date", "caf\xc3\xa9")])
    if what == "large-head":
        return response(200, b"", [(f"x-{i}", "v" * 1000) for i in range(number)])
    if what == "sized":
        return response(200, b"x" * number)
    if what == "claimed":
        send(f"HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n".encode())
        until_closed(connection)
    if what == "chunked":
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, number, 1000):
            size = min(1000, number - start)
            send(b"%x\r\n%s\r\n" % (size, b"x" * size))
        return b"0\r\n\r\n"
    if what == "interim":
        send(b"HTTP/1.1 103 Early Hints\r\nDate: early\r\n\r\n")
        return response(200, b"late")
    if what == "unsized":
        send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
    if what == "half":
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
    if what == "half-chunk":
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf of it")
    if what == "bad-chunk":
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
    if what == "half-head":
        send(b"HTTP/1.1 200 OK\r\nContent-Le")
    if what == "garbage":
        send(bytes(range(256)) * 4)
    if what == "bad-length":
        send(b"HTTP/1.1 200 OK\r\nContent-Length: secret-looking\r\n\r\n")
    if what == "bad-status":
        send(b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n")
    if what == "silence":
        until_closed(connection)
    if what == "drip":
        send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while True:
            send(b"x")
            time.sleep(0.05)
    if what == "drip-body":
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        while True:
            send(b"x")
            time.sleep(0.05)
    if what == "wait":
        wait_for_all(number)
        return echo(request, connection)
    # The bytes that the tests look for in memory, made as they make them.
    marks = bytes(((i + 0x51) * 0x9D + i * i) & 0xFF for i in range(32))
    if what == "marked":
        return response(200, marks * number)
    if what == "marked-chunks":
        send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(number):
            send(b"20\r\n%s\r\n" % marks)
        return b"0\r\n\r\n"
    if what == "echo":
        return echo(request, connection)
    if what == "echo-and-close":
        send(echo(request, connection))
    return None


def handle(connection):
    open_connections.add(connection)
    try:
        converse(connection)
    finally:
        open_connections.discard(connection)


def converse(connection):
    global request_count
    if options.mute:
        return until_closed(connection)
    if context:
        connection = context.wrap_socket(connection, server_side=True)
    with connection, connection.makefile("rb") as stream:
        is_fresh = True
        while (request := Request(stream)).is_there:
            request_count += 1
            if request.target == "/fresh":
                reply = echo(request, connection) if is_fresh else None
            else:
                reply = answer(request, connection)
            is_fresh = False
            if reply is None:
                return
            connection.sendall(reply)


serve(handle)
