# SPDX-License-Identifier: Apache-2.0
"""A gateway beside a node of a mesh, and HTTP to it from here: a socket made inside a network
namespace stays there, whichever thread uses it. For cases_gateway.py."""
import contextlib
import ctypes
import http.client
import json
import os
import socket
import subprocess
import threading

from harness import Failed, Skip, check, wait_until

PORT = 8080
READY_S = 30.0
TIMEOUT_S = 60.0
CLONE_NEWNET = 0x40000000


def connect_inside(netns, address):
    """A TCP connection made inside that namespace."""
    made = []

    def run():
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            with open(f"/run/netns/{netns}", encoding="ascii") as file:
                if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_connection(address, timeout=TIMEOUT_S))
            made[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            made.append(error)
    thread = threading.Thread(target=run)  # its namespace ends with it
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


class Reply:
    """Status, headers and body of one response."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"no JSON: {self}") from None

    @property
    def error(self):
        return self.json.get("error", {})

    def __str__(self):
        return f"{self.status} {self.headers} {self.body[-800:]!r}"


class Server:
    """A program that serves HTTP in the namespace of a node."""

    def __init__(self, mesh, node, name, command):
        program = mesh.build_dir / "bin" / name
        if not program.exists():
            raise Skip(f"{program} is not built")
        self.netns = mesh.node(node)["netns"]
        self.log_path = f"{mesh.folder}/{node}/{name}.log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(mesh.in_netns(command(program), node),
                                            stdin=subprocess.DEVNULL, stderr=log)
        wait_until(self.answers, READY_S, f"{name} answers")

    def answers(self):
        check(self.process.poll() is None, "it ended:", self.log()[-2000:])
        with contextlib.suppress(OSError):
            return self.ask("GET", "/health").status == 200
        return False

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def socket(self):
        return connect_inside(self.netns, ("127.0.0.1", PORT))

    def connection(self):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S)
        connection.sock = self.socket()
        return connection

    def ask(self, method, path, body=None, headers=None, connection=None):
        connection = connection or self.connection()
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        return Reply(connection.getresponse())

    def cpu_ticks(self):
        """Processor time so far, in ticks of the kernel's clock."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def stop(self):
        self.process.terminate()
        return self.process.wait(READY_S)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Gateway(Server):
    """weft-gateway, attached to the node's port."""

    def __init__(self, mesh, node, *options):
        facts = mesh.node(node)
        super().__init__(mesh, node, "weft-gateway", lambda program: [
            program, "--node", f"unix:{facts['port']}", "--admin", facts["admin"], "--listen",
            str(PORT), *options])


class Stream:
    """Server-sent events, one at a time."""

    def __init__(self, gateway, path, body, headers=None):
        self.connection = gateway.connection()
        self.connection.request("POST", path, json.dumps(body | {"stream": True}), headers or {})
        self.response = self.connection.getresponse()
        check(self.response.status == 200, "no stream:", self.response.status,
              b"" if self.response.status == 200 else self.response.read())
        self.done = False
        self.comments = []

    def __iter__(self):
        return self

    def __next__(self):
        """The next event's JSON; ends at [DONE] or where the stream does."""
        while True:
            line = self.response.readline()
            if not line:
                raise StopIteration
            if line.startswith(b":"):
                self.comments.append(line.decode())
            elif line.strip() == b"data: [DONE]":
                self.done = True
            elif line.startswith(b"data: "):
                check(not self.done, "something follows [DONE]:", line)
                return json.loads(line[6:])

    def drop(self):
        """The client is gone, from one moment to the next."""
        self.connection.sock.close()
        self.response.close()


def chat(model, text, **more):
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def content(events):
    return "".join(choice["delta"].get("content") or "" for event in events
                   for choice in event.get("choices", ()))


@contextlib.contextmanager
def gateway(mesh, node="tokyo", *options):
    made = Gateway(mesh, node, *options)
    try:
        yield made
    finally:
        made.close()


def sent_whole(path):
    """`job NS` and `cancel NS` lines of a toy worker's log, as lists of seconds."""
    times = {"job": [], "cancel": []}
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            for line in file:
                what, _, at = line.partition(" ")
                if at.endswith("\n"):
                    times[what].append(int(at) / 1e9)
    return times
