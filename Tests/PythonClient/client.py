"""A client of keyring/1: the standard library, and what protoc makes of Protos/."""
import os
import socket
import ssl
import struct
import time

from keyring.v1 import keyring_pb2 as pb


class Refused(Exception):
    """The server answered, and its answer is no."""

    def __init__(self, status):
        super().__init__(f"{pb.Reason.Name(status.reason)}: {status.message}")
        self.code, self.reason = pb.Code.Name(status.code), pb.Reason.Name(status.reason)
        self.retry_after_ms = status.retry_after_ms


class Connection:
    """One connection; `send` any number of requests, then `wait` for each."""

    def __init__(self, host, port, certificate, key, authority, timeout=30):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the server's certificate and host name
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["keyring/1"])
        plain = socket.create_connection((host, port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=host)
        if self.socket.selected_alpn_protocol() != "keyring/1":
            raise ConnectionError("the server does not speak keyring/1")
        self.last_id, self.replies = 0, {}

    def send(self, **fields):
        """Sends a request, and says under which id."""
        self.last_id += 1
        message = pb.Request(id=self.last_id, **fields).SerializeToString()
        self.socket.sendall(struct.pack(">BI", 0, len(message)) + message)
        return self.last_id

    def wait(self, request_id):
        """The reply to a request; others that come before it are kept for those who wait for them."""
        while request_id not in self.replies:
            flags, length = struct.unpack(">BI", self._read(5))
            if flags != 0 or not 0 < length <= 64 * 1024:
                raise ConnectionError("the server broke the protocol")
            reply = pb.Reply.FromString(self._read(length))
            if reply.id == 0:  # about the connection, which now ends
                raise Refused(reply.status)
            self.replies[reply.id] = reply
        reply = self.replies.pop(request_id)
        if reply.status.code != pb.OK:
            raise Refused(reply.status)
        return reply

    def call(self, **fields):
        """Sends a request and waits for its reply."""
        return self.wait(self.send(**fields))

    def close(self):
        self.socket.close()

    def _read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data


def idempotency_id():
    """A UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, version, variant, random bits."""
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return value.to_bytes(16, "big")
