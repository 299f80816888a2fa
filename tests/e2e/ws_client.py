# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client of a few lines (RFC 6455), over a socket made inside a network namespace, and
events of a realtime session over it. For cases_realtime.py."""
import base64
import hashlib
import json
import os
import struct

from harness import check

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    def __init__(self, server, path, headers=None):
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock = server.socket()
        self.file = self.sock.makefile("rb")
        lines = [f"GET {path} HTTP/1.1", "host: here", "upgrade: websocket",
                 "connection: keep-alive, Upgrade", f"sec-websocket-key: {key}",
                 "sec-websocket-version: 13"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        if self.status == 101:
            wanted = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
            check(self.headers["sec-websocket-accept"] == wanted, "another key:", self.headers)

    def send(self, opcode, payload, fin=True, mask=b"\x01\x02\x03\x04"):
        size = len(payload)
        head = bytes([(0x80 if fin else 0) | opcode])
        head += (bytes([0x80 | size]) if size < 126 else
                 b"\xfe" + struct.pack(">H", size) if size < 65536 else
                 b"\xff" + struct.pack(">Q", size))
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def receive(self):
        """(opcode, payload); None at the connection's end."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        check(head[0] & 0x80 and not head[1] & 0x80, "a server's frame is whole and not masked")
        size = head[1]
        if size == 126:
            size = struct.unpack(">H", self.file.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.file.read(8))[0]
        return head[0] & 0x0f, self.file.read(size)

    def close(self):
        self.file.close()
        self.sock.close()


class Session(WebSocket):
    """Events of a realtime session."""

    def say(self, kind, **more):
        self.send(TEXT, json.dumps({"type": kind} | more).encode())

    def event(self):
        while True:
            opcode, payload = self.receive() or (CLOSE, b"")
            if opcode == TEXT:
                return json.loads(payload)
            check(opcode == PING, "no event but", opcode, payload)

    def until(self, kind):
        """Events up to the first of that type."""
        events = [self.event()]
        while events[-1]["type"] != kind:
            check(events[-1]["type"] != "error", "an error:", events[-1])
            events.append(self.event())
        return events

    def user_says(self, text):
        self.say("conversation.item.create", item={
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
        return self.until("conversation.item.added")[-1]["item"]

    def answer(self):
        """Asks for a response: (its text, response.done's response)."""
        self.say("response.create")
        events = self.until("response.done")
        text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        whole = [e["text"] for e in events if e["type"] == "response.output_text.done"]
        check(whole == [text], "text and deltas differ:", whole, text)
        return text, events[-1]["response"]
