# SPDX-License-Identifier: Apache-2.0
"""Clients that share memory with their own node (`unix:` and its port socket) in place of UDP: the
same answers, several at once, dead ones and hostile ones. See harness.py and schemas/port.h."""
import array
import mmap
import os
import random
import resource
import socket
import stat
import struct
import subprocess
import time

from cases_system import cpu_seconds
from harness import (LONG_PROMPT, MeshSpec, Skip, case, check, expect_refusal, expect_served,
                     wait_until)

ONE = MeshSpec(workers="frankfurt")
LCORES = MeshSpec(workers="frankfurt", lcores=2)
DUAL = MeshSpec(workers="frankfurt", network="ipv6")
CLIENTS_MAX, WORKERS_MAX = 32, 8
BUSY = -16
GONE_S = 5.0
HELLO = struct.Struct("<IHH32s")
WELCOME = struct.Struct("<IHHiHBBI32s")
WORKER_HELLO = struct.Struct("<IHHIIII8s64s16s")
CLIENT_MAGIC, WORKER_MAGIC = 0x31435057, 0x31545057


def own(mesh, name):
    return f"unix:{mesh.node(name)['port']}"


def clients(mesh, name):
    return mesh.status(name)["clients"]


def counter(mesh, name, key):
    return mesh.status(name)["counters"][key]


def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(GONE_S)
    connection.connect(path)
    return connection


class Attached:
    """A client, or a worker, by hand: the socket, the welcome's status and the memory."""

    def __init__(self, path, hello=HELLO.pack(CLIENT_MAGIC, 1, HELLO.size, b"by hand"),
                 connection=None):
        self.socket = connection or connect(path)
        self.socket.send(hello)
        fds = array.array("i")
        data, control, _, _ = self.socket.recvmsg(WELCOME.size, socket.CMSG_SPACE(3 * 4))
        for _, _, body in control:
            fds.frombytes(body)
        self.status = WELCOME.unpack(data)[3] if len(data) == WELCOME.size else None
        self.memory = mmap.mmap(fds[0], WELCOME.unpack(data)[7]) if fds else None
        self.wake = fds[1] if len(fds) > 1 else -1
        if fds:
            os.close(fds[0])

    def close(self):
        self.socket.close()
        if self.memory is not None:
            self.memory.close()
            os.close(self.wake)


def same_text(mesh, prompt, **options):
    """Over UDP and through the port, at a node with a worker and at one without."""
    texts = set()
    for name in ("tokyo", "frankfurt"):
        taken = counter(mesh, name, "local_taken")
        for node in (mesh.endpoint(name), own(mesh, name)):
            answer = mesh.ask(prompt, node=node, **options)
            expect_served(answer, "frankfurt")
            texts.add(answer.json["text"])
        check(counter(mesh, name, "local_taken") > taken, "nothing came through the port of", name)
    check(len(texts) == 1, "different texts:", texts)


@case("local/same_answers", ONE)
def same_answers(mesh, _quick):
    """Short, in many fragments, refused; and what the status answer says of it."""
    same_text(mesh, "Name three colours.", max_tokens=12)
    same_text(mesh, "one two three four five six seven " * 40, max_tokens=2)
    refused = mesh.ask(node=own(mesh, "tokyo"), model="nobody-has-it")
    expect_refusal(refused, "unknown_model")
    mode = os.stat(mesh.node("tokyo")["port"]).st_mode
    check(stat.S_IMODE(mode) == 0o660, f"mode of the socket: {mode:o}")
    client = mesh.start_ask(node=own(mesh, "tokyo"))
    client.wait_text()
    seen = clients(mesh, "tokyo")
    check(len(seen) == 1 and seen[0]["program"] == "weft", "clients:", seen)
    check(seen[0]["pid"] == client.process.pid and seen[0]["uid"] == os.getuid(), seen)
    check(seen[0]["taken"] > 0 and seen[0]["given"] > 0, seen)
    client.interrupt()
    client.finish()
    wait_until(lambda: not clients(mesh, "tokyo"), GONE_S, "its port is closed")
    nowhere = mesh.start_ask(node="unix:/nowhere/at/all", max_tokens=4).finish()
    check(nowhere.code == 1 and "/nowhere/at/all" in nowhere.err, nowhere)


@case("local/lcores", LCORES)
def lcores(mesh, _quick):
    """Replies that another lcore receives find their way to the one that has the port."""
    for n in range(4):
        same_text(mesh, f"Count to {n + 3}.", max_tokens=12)


@case("local/ipv6", DUAL)
def ipv6(mesh, _quick):
    """The nodes have no IPv4 among themselves."""
    same_text(mesh, "Name three animals.", max_tokens=12)


@case("local/dead_and_frozen", ONE, dirty=True)
def dead_and_frozen(mesh, _quick):
    """Of four that stream one is killed and one stands still: the others and the node go on."""
    baseline = mesh.room("frankfurt")
    running = [mesh.start_ask(LONG_PROMPT, node=own(mesh, "frankfurt"), max_tokens=120, json=True)
               for _ in range(4)]
    wait_until(lambda: len(clients(mesh, "frankfurt")) == 4, GONE_S, "four are attached")
    wait_until(lambda: mesh.room("frankfurt") < baseline, GONE_S, "the worker is asked")
    running[0].process.kill()
    running[1].process.send_signal(19)  # SIGSTOP
    for client in running[2:]:
        answer = client.finish()
        check(answer.code == 0, "one of those that go on:", answer)
    expect_served(mesh.ask(ingress="frankfurt"), "frankfurt")
    wait_until(lambda: len(clients(mesh, "frankfurt")) == 1, GONE_S, "two have ended, one is dead")
    running[1].process.send_signal(18)  # SIGCONT
    thawed = running[1].finish()
    check(thawed.code == 0 or "incomplete" in thawed.err or thawed.code == 1, thawed)
    wait_until(lambda: not clients(mesh, "frankfurt"), GONE_S, "all are gone")
    wait_until(lambda: mesh.room("frankfurt") == baseline, 20, "the places at the worker are free")
    return f"frozen one: exit {thawed.code}"


@case("local/node_starts_again", ONE, dirty=True)
def node_starts_again(mesh, _quick):
    """Its node is killed in mid-answer: an explicit end, and the next client is served again."""
    client = mesh.start_ask(node=own(mesh, "tokyo"))
    client.wait_text()
    mesh.kill("tokyo", "node")
    answer = client.finish()
    check(answer.code == 1, "not an error:", answer)
    refused = mesh.start_ask(node=own(mesh, "tokyo"), max_tokens=4).finish()
    check(refused.code == 1, "nobody is there:", refused)
    # The next of a list is asked when one's own node is not there.
    answer = mesh.ask(node=f"{own(mesh, 'tokyo')},{mesh.endpoint('frankfurt')}")
    expect_served(answer, "frankfurt")
    mesh.start("tokyo", "node")
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), 20, "tokyo knows the worker again")
    expect_served(mesh.ask(node=own(mesh, "tokyo")), "frankfurt")


@case("local/limit_and_nonsense", ONE)
def limit_and_nonsense(mesh, _quick):
    """As many as there may be; hellos that are none; rings full of anything."""
    path = mesh.node("tokyo")["port"]
    many = [Attached(path) for _ in range(CLIENTS_MAX)]
    check(all(c.status == 0 for c in many), "not attached:", [c.status for c in many])
    late = Attached(path)
    check(late.status == BUSY, "one too many:", late.status)
    expect_served(mesh.ask(), "frankfurt")
    rng = random.Random(7)
    for client in many[:8]:
        client.memory[:] = rng.randbytes(len(client.memory))
        os.eventfd_write(client.wake, 1)
        os.set_blocking(client.wake, True)
    for number, client in enumerate(many[8:16]):  # entries that the node takes, of any content
        slots = 2 * 128
        head = 128
        for slot in range(1024):
            at = slots + (1024 + slot) * 1536
            client.memory[at:at + 4] = struct.pack("<I", rng.choice((0, 5, 64, 96, 200, 1472)))
        client.memory[head:head + 4] = struct.pack("<I", 1024 - number)
        os.eventfd_write(client.wake, 1)
    expect_served(mesh.ask(), "frankfurt")
    for client in many:
        client.close()
    for hello in (b"", b"x", HELLO.pack(WORKER_MAGIC, 1, HELLO.size, b""), os.urandom(40),
                  HELLO.pack(CLIENT_MAGIC, 9, HELLO.size, b"")):
        try:
            check(Attached(path, hello).status != 0, "attached by", hello)
        except OSError:
            pass
    wait_until(lambda: not clients(mesh, "tokyo"), GONE_S, "all are gone")
    expect_served(mesh.ask(node=own(mesh, "tokyo")), "frankfurt")
    return f"dropped {sum(mesh.drops('tokyo').values())} datagrams"


@case("local/two_workers", ONE)
def two_workers(mesh, _quick):
    """Two workers with a model each at one node: each gets its own, also through another node; what
    becomes of one does not concern the other."""
    toy = mesh.build_dir / "tests" / "toy_worker"
    if not toy.exists():
        raise Skip(f"{toy} is not built")
    log = f"{mesh.folder}/frankfurt/two.log"
    second = subprocess.Popen([toy, mesh.node("frankfurt")["port"], "second", "2", log],
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(mesh.status("frankfurt")["workers"]) == 2, GONE_S, "two workers")
        def known():
            members = {m["name"]: m for m in mesh.status("tokyo")["members"]}
            return len(members["frankfurt"]["models"]) == 2
        wait_until(known, GONE_S, "tokyo knows of two models")
        for _ in range(5):
            first = mesh.ask("What does a loom do?", max_tokens=8)
            expect_served(first, "frankfurt")
            other = mesh.ask("What does a loom do?", model="second", max_tokens=8)
            expect_served(other, "frankfurt")
            check(other.json["text"] != first.json["text"], "the same worker answered both")
        stream = mesh.start_ask()
        stream.wait_text()
        second.kill()
        second.wait()
        answer = stream.finish()
        check(answer.code == 0, "the other worker's end cut it:", answer)
        wait_until(lambda: len(mesh.status("frankfurt")["workers"]) == 1, GONE_S, "one is left")
        wait_until(lambda: mesh.ask("Hello", model="second", max_tokens=2).code == 3, GONE_S,
                   "its model is refused")
        expect_served(mesh.ask(max_tokens=4), "frankfurt")
    finally:
        second.kill()
        second.wait()


@case("local/worker_follows_worker", ONE)
def worker_follows_worker(mesh, _quick):
    """Who comes right behind a worker that has just ended gets its place, not "busy"."""
    path = mesh.node("tokyo")["port"]
    hello = WORKER_HELLO.pack(WORKER_MAGIC, 1, WORKER_HELLO.size, 4096, 1000, 80, os.getpid(),
                              bytes(8), b"by-hand", b"echo")
    for number in range(40):
        worker = Attached(path, hello)
        check(worker.status == 0, "number", number, "was refused:", worker.status)
        worker.close()
    many = [Attached(path, hello) for _ in range(WORKERS_MAX)]
    check(all(w.status == 0 for w in many), "not attached:", [w.status for w in many])
    check(Attached(path, hello).status == BUSY, "one too many was attached")
    many[3].close()
    check(Attached(path, hello).status == 0, "the one behind it was not attached")
    expect_served(mesh.ask(), "frankfurt")


@case("local/client_follows_client", ONE)
def client_follows_client(mesh, _quick):
    """All come at once, and who comes right behind one that has just ended gets its place."""
    path = mesh.node("tokyo")["port"]
    early = [connect(path) for _ in range(CLIENTS_MAX)]
    many = [Attached(path, connection=connection) for connection in early]
    check(all(c.status == 0 for c in many), "not attached:", [c.status for c in many])
    for number in range(40):
        many.pop(0).close()
        many.append(Attached(path))
        check(many[-1].status == 0, "number", number, "was refused:", many[-1].status)
    check(Attached(path).status == BUSY, "one too many was attached")
    for client in many:
        client.close()
    wait_until(lambda: not clients(mesh, "tokyo"), GONE_S, "all are gone")


@case("local/no_descriptors", ONE)
def no_descriptors(mesh, _quick):
    """With no descriptor left a node serves those it has; who comes waits, and costs no time."""
    pid, path = mesh.pid("tokyo"), mesh.node("tokyo")["port"]
    client = Attached(path)
    check(client.status == 0, "not attached:", client.status)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    try:
        numbers = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
        free = min(set(range(len(numbers) + 1)) - numbers)  # none can be had from there on
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
        late = connect(path)
        before = cpu_seconds(pid)
        time.sleep(1.0)
        took = cpu_seconds(pid) - before
        check(took < 0.08, f"{took:.2f} s of processor time in a second")
        expect_served(mesh.ask(), "frankfurt")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    check(Attached(path, connection=late).status == 0, "who has waited was not attached")
    late.close()
    client.close()
    return f"{took:.2f} s of processor time in a second"
