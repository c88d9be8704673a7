"""A proxy for CONNECT, which prints every request that it is asked, all of its head in one line.

With an argument, it answers once there is a file of that path.
"""

import json
import os
import socket
import sys
import threading
import time

from listening import Request, response, serve


def relay(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def handle(connection):
    with connection.makefile("rb", buffering=0) as stream:
        request = Request(stream)
        if not request.is_there:
            return
        print(json.dumps({"line": f"{request.method} {request.target}", "headers": request.headers}), flush=True)
        if request.method != "CONNECT":
            return connection.sendall(response(400))
        while sys.argv[1:] and not os.path.exists(sys.argv[1]):
            time.sleep(0.01)
        host, port = request.target.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as target:
            connection.sendall(b"HTTP/1.1 200 Connected\r\nX-Amzn-RequestId: of the proxy\r\n\r\n")
            threading.Thread(target=relay, args=(connection, target), daemon=True).start()
            relay(target, connection)


serve(handle)
