"""A WebSocket to a server, as far as messages of text need it (RFC 6455): no extensions, no subprotocols."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from urllib.parse import urlsplit

_SALT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
MOST_BYTES = 64 << 20
"""Of one message."""
_LONGEST_HEAD = 16 << 10


class WebSocket:
    """One connection, for one thread at a time.

    Args:
        url: `ws://`, `wss://`, or the same server's `http://` or `https://`, with the path.
        headers: further headers of the opening request.
        timeout: seconds without an answer.

    Raises:
        OSError: the server cannot be reached, or takes too long.
        ValueError: it answers with no WebSocket.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        if not parts.hostname or parts.scheme not in ("ws", "wss", "http", "https"):
            raise ValueError(f"{url!r} is no address of a server")
        port = parts.port or (443 if secure else 80)
        plain = socket.create_connection((parts.hostname, port), timeout)
        try:
            self._socket = (
                ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) if secure else plain
            )
            self._read = b""
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            self._open(path, parts.netloc.rpartition("@")[2], headers or {})
        except BaseException:
            plain.close()
            raise

    def send(self, text: str) -> None:
        """Sends a message.

        Raises:
            OSError: the connection is broken.
        """
        self._send(_TEXT, text.encode())

    def receive(self) -> str:
        """The next message.

        Raises:
            OSError: the connection is broken, the server closed it, or takes too long.
            ValueError: the message is no text, or too long.
        """
        whole = b""
        while True:
            head = self._bytes(2)
            last, kind, length = head[0] & 0x80, head[0] & 0x0F, head[1] & 0x7F
            if length > 125:
                length = int.from_bytes(self._bytes(2 if length == 126 else 8), "big")
            if len(whole) + length > MOST_BYTES or head[1] & 0x80 or head[0] & 0x70:
                raise ValueError("the server sends a frame that is too long or masked, or uses an extension")
            data = self._bytes(length)
            if kind == _PING:
                self._send(_PONG, data)
            elif kind == _CLOSE:
                raise ConnectionResetError(f"the server closed the connection: {data[2:].decode(errors='replace')}")
            elif kind == _BINARY:
                raise ValueError("the server sends bytes, and text was expected")
            elif kind != _PONG:
                whole += data
                if last:
                    return whole.decode()

    def close(self) -> None:
        """Closes the connection; a broken one too."""
        try:
            self._send(_CLOSE, struct.pack("!H", 1000))
        except OSError:
            # It is broken already: there is nobody to say goodbye to.
            pass
        finally:
            self._socket.close()

    def _open(self, path: str, host: str, headers: Mapping[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13", **headers,
        }  # fmt: skip
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._read:
            if len(self._read) > _LONGEST_HEAD:
                raise ValueError("the server's answer has no end")
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        accepted = base64.b64encode(hashlib.sha1((key + _SALT).encode(), usedforsecurity=False).digest()).decode()
        if first.split(" ")[1:2] != ["101"] or named.get("sec-websocket-accept") != accepted:
            raise ValueError(f"the server opens no WebSocket at {path}: {first}")

    def _send(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 0x80 | 127, size)
        mask = os.urandom(4)
        # One operation on large numbers masks all bytes at once.
        stream = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
        self._socket.sendall(head + mask + masked)

    def _bytes(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        data, self._read = self._read[:size], self._read[size:]
        return data

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the server ended the connection")
        self._read += data
