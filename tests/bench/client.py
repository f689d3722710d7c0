"""A client that costs next to nothing: it speaks just enough of the protocol to log in, ask, and swallow or send bytes.

psql spends more on a large result than any proxy does, and opening thousands of clients with libpq takes minutes.
"""

import base64
import functools
import hashlib
import hmac
import os
import socket
import struct


class ServerError(Exception):
    """An ErrorResponse, as text."""


@functools.lru_cache
def salted(password, salt, iterations):
    # One role has one salt: thousands of logins pay for the iterations once.
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


def digest(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


class Client:
    READY = b"Z\x00\x00\x00\x05I"

    def __init__(self, port, user, password, database):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        settings = b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
        self.socket.sendall(struct.pack("!II", len(settings) + 8, 196608) + settings)
        self.log_in(password)

    def message(self):
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack("!I", self.buffer[1:5])[0]:
            more = self.socket.recv(65536)
            if not more:
                raise ServerError("the connection was closed")
            self.buffer += more
        end = 1 + struct.unpack("!I", self.buffer[1:5])[0]
        tag, body, self.buffer = self.buffer[:1], self.buffer[5:end], self.buffer[end:]
        if tag == b"E":
            raise ServerError(body.replace(b"\0", b" ").decode(errors="replace"))
        return tag, body

    def send(self, tag, body):
        self.socket.sendall(tag + struct.pack("!I", len(body) + 4) + body)

    def log_in(self, password):
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = f"n=,r={nonce}"
        while True:
            tag, body = self.message()
            if tag == b"Z":
                return
            if tag != b"R":
                continue
            kind = struct.unpack("!I", body[:4])[0]
            if kind == 10:
                start = f"n,,{first}".encode()
                self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(start)) + start)
            elif kind == 11:
                theirs = body[4:].decode()
                fields = dict(part.split("=", 1) for part in theirs.split(","))
                key = salted(password, base64.b64decode(fields["s"]), int(fields["i"]))
                last = f"c=biws,r={fields['r']}"
                client_key = digest(key, b"Client Key")
                signature = digest(hashlib.sha256(client_key).digest(), f"{first},{theirs},{last}".encode())
                proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
                self.send(b"p", f"{last},p={proof}".encode())
            elif kind not in (0, 12):
                raise ServerError(f"authentication {kind} was asked for, this client knows SCRAM only")

    def ask(self, sql):
        self.send(b"Q", sql.encode() + b"\0")

    def until_ready(self):
        while self.message()[0] != b"Z":
            pass

    def swallow(self, sql):
        """Runs a statement and throws its answer away as fast as it comes; returns the number of bytes."""
        self.ask(sql)
        block, tail, size = bytearray(1 << 20), b"", 0
        view = memoryview(block)
        while True:
            count = self.socket.recv_into(block)
            if not count:
                raise ServerError("the connection was closed")
            size += count
            tail = (tail + bytes(view[max(0, count - 6):count]))[-6:]
            # The rows of our statements hold letters only, so these six bytes are the end and nothing else.
            if tail == self.READY:
                return size

    def copy_in(self, sql, size):
        """Sends about `size` bytes of rows as CopyData of 8 KiB, as psql does; returns the number of bytes."""
        self.ask(sql)
        while self.message()[0] != b"G":
            pass
        row = b"x" * 1023 + b"\n"
        block = (b"d" + struct.pack("!I", 8192 + 4) + row * 8) * 8
        sent = 0
        while sent < size:
            self.socket.sendall(block)
            sent += len(block)
        self.send(b"c", b"")
        self.until_ready()
        return sent

    def close(self):
        self.socket.close()
