"""What the servers of these tests share: a thread for each connection, on loopback, on a free port, which is printed."""

import os
import socket
import threading
import time


def end_with_parent():
    """Ends this process when the test's ends, in whatever way."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def serve(handle):
    """Calls handle(connection) for each connection, each on a thread."""
    end_with_parent()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)

    def run(connection):
        with connection:
            try:
                handle(connection)
            except OSError:
                pass  # the client went away, or its handshake failed

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=run, args=(connection,), daemon=True).start()


class Request:
    """One request, as its bytes were: nothing is decoded but lines and lengths."""

    def __init__(self, stream):
        line = stream.readline()
        self.is_there = bool(line)
        if not line:
            return
        self.method, self.target, _ = line.decode("latin-1").split(" ")
        self.headers = []
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, value = line.decode("latin-1").rstrip("\r\n").split(":", 1)
            self.headers.append((name, value[1:] if value[:1] == " " else value))
        self.body = stream.read(int(self.header("content-length") or 0))

    def header(self, name):
        return next((v for n, v in self.headers if n.lower() == name), None)


def response(status, body=b"", headers=()):
    lines = [f"HTTP/1.1 {status} Some words", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
