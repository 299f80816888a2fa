# SPDX-License-Identifier: Apache-2.0
"""Answers that are cut at a random token: complete to the byte, or an explicit error; never short,
never with a token missing or given twice. scripts/stream-trials runs the same trials in numbers.

A trial: ask, wait for the k-th piece, do something to who serves, read to the end, mend, compare
with what nobody cut. stream_asks.py is the client, toy_worker.c a runtime that can stand still and
write garbage. See harness.py."""
import contextlib
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from harness import MODEL, ROOT, Failed, MeshSpec, Skip, case, check, wait_until

REAL = MeshSpec()
TOYS = MeshSpec(workers="none")
SERVERS = ("frankfurt", "newyork")
INGRESS = "tokyo"
TOY = "toy"
TOY_STEP_MS = 10
ANSWER_S = 60.0
READY_S = 30.0
PROMPT = "Tell the story of a weaver who travels around the world."
SAMPLINGS = {"greedy": {}, "seeded": {"temperature": 0.8, "seed": 7}}
INTERFACE = "veth0"
NAP_S = (0.05, 1.5)
FRESH_EVERY = 8  # trials of one client: it has ten failovers to spend, then one in ten requests


class Asker:
    """A client process that stays; one answer at a time."""

    def __init__(self, mesh, ingresses=(INGRESS,)):
        library = mesh.build_dir / "lib" / "libweft.so.1"
        if not library.exists():
            raise Skip(f"{library} is not built")
        package = ROOT / "dataplane" / "client" / "python"
        nodes = ",".join(f"{mesh.node(name)['address']}:{mesh.facts['data_port']}"
                         for name in ingresses)
        self.process = subprocess.Popen(
            mesh.in_netns(["env", f"WEFT_LIBRARY={library}", f"PYTHONPATH={package}",
                           "PYTHONDONTWRITEBYTECODE=1", sys.executable,
                           ROOT / "tests" / "e2e" / "stream_asks.py", nodes]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.unread = b""

    def line(self, deadline):
        """One line, already parsed. A client that hangs fails the case."""
        while b"\n" not in self.unread:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            check(ready, f"no end within {ANSWER_S} s")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            check(data, "the client ended")
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return json.loads(line)

    def ask(self, query, at=None, then=None):
        """The answer as (text, status, result); calls then() behind `at` pieces."""
        self.process.stdin.write(json.dumps(query).encode() + b"\n")
        deadline = time.monotonic() + ANSWER_S
        pieces = []
        while True:
            told = self.line(deadline)
            if "piece" not in told:
                return "".join(pieces), told["status"], told["result"]
            pieces.append(told["piece"])
            if len(pieces) == at:
                then()

    def close(self):
        self.process.kill()
        self.process.wait()


class Toys:
    """Toy workers where the mesh has none."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.program = mesh.build_dir / "tests" / "toy_worker"
        if not self.program.exists():
            raise Skip(f"{self.program} is not built")
        self.workers = {}
        for name in SERVERS:
            self.start(name)

    def start(self, name):
        command = [self.program, self.mesh.node(name)["port"], TOY, str(TOY_STEP_MS),
                   self.log(name)]

        def attached():
            # A node is busy as long as it still ends what a lost worker has left.
            worker = self.workers.get(name)
            if worker is None or worker.poll() is not None:
                self.workers[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                                      stderr=subprocess.DEVNULL)
            return self.mesh.room(name)
        wait_until(attached, READY_S, f"the toy worker of {name} attached")

    def log(self, name):
        return f"{self.mesh.folder}/{name}/toy.log"

    def told(self, name, what):
        """When the worker was given jobs, or told to stop: seconds on the monotonic clock."""
        with open(self.log(name), encoding="utf-8") as file:
            lines = [line.split() for line in file]
        return [int(ns) / 1e9 for word, ns in lines if word == what]

    def pid(self, name):
        return self.workers[name].pid

    def reap(self, name):
        self.workers[name].wait()

    def close(self):
        for worker in self.workers.values():
            worker.kill()
            worker.wait()


class Workers:
    """The mesh's own weft-workers, with the same calls."""

    def __init__(self, mesh):
        self.mesh = mesh

    def start(self, name):
        self.mesh.start(name, "worker")

    def pid(self, name):
        return self.mesh.pid(name, "worker")

    def reap(self, name):
        wait_until(lambda: self.pid(name) is None, READY_S, f"the worker of {name} has gone")

    def close(self):
        pass


def send(number):
    return lambda bed, node: os.kill(bed.workers.pid(node), number)


def set_link(state):
    def link(bed, node):
        command = bed.mesh.in_netns(["ip", "link", "set", INTERFACE, state], node)
        subprocess.run(command, check=True, capture_output=True)
    return link


def start_again(bed, node):
    bed.workers.reap(node)
    bed.workers.start(node)


@dataclass(frozen=True)
class Kind:
    """What is done to the node that serves, and what mends it."""
    strike: object
    heal: object
    nap: bool = False  # mended while the answer may still run
    toy: bool = False  # only the toy worker can do it


KINDS = {
    "killed": Kind(send(signal.SIGKILL), start_again),
    "frozen": Kind(send(signal.SIGSTOP), send(signal.SIGCONT)),
    "napping": Kind(send(signal.SIGSTOP), send(signal.SIGCONT), nap=True),
    "cut_off": Kind(set_link("down"), set_link("up")),
    "stalled": Kind(send(signal.SIGUSR1), send(signal.SIGUSR1), toy=True),
    "garbled": Kind(send(signal.SIGUSR2), send(signal.SIGUSR2), toy=True),
}


@dataclass
class Tally:
    """What has come of the trials of one kind."""
    trials: int = 0
    complete: int = 0
    saved: int = 0     # complete, and gone on elsewhere
    truncated: int = 0  # shown as complete, and short: must not be
    wrong: int = 0     # a token missing, twice, or another: must not be
    failed: dict = field(default_factory=dict)
    gaps_ms: list = field(default_factory=list)
    worst: tuple = (0.0, 0)  # longest gap, and the piece behind which it was cut
    healthy_ms: list = field(default_factory=list)  # whole answers that nobody cut
    costs: list = field(default_factory=list)       # time against those

    def add(self, at, answer, clean, healthy_us):
        text, status, result = answer
        self.trials += 1
        self.healthy_ms.append(healthy_us / 1e3)
        short = clean != text and clean.startswith(text)
        if status == "ok" and text == clean:
            self.complete += 1
            if result["failovers"] != 0:
                self.saved += 1
                self.gaps_ms.append(result["gap_us"] / 1e3)
                self.worst = max(self.worst, (result["gap_us"] / 1e3, at))
                self.costs.append(result["total_us"] / healthy_us)
        elif status == "ok" and short:
            self.truncated += 1
        elif status != "ok" and (short or text == clean):
            self.failed[status] = self.failed.get(status, 0) + 1
        else:
            self.wrong += 1

    def figures(self):
        """For JSON and for people."""
        def quantile(values, q):
            ordered = sorted(values)
            return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3) if values else 0
        return {"trials": self.trials, "complete": self.complete, "saved": self.saved,
                "failed": self.failed, "silently_short": self.truncated, "wrong_text": self.wrong,
                "gap_p50_ms": quantile(self.gaps_ms, 0.5),
                "gap_p99_ms": quantile(self.gaps_ms, 0.99),
                "worst_cut_at": self.worst[1],
                "healthy_p50_ms": quantile(self.healthy_ms, 0.5),
                "cost_p50": quantile(self.costs, 0.5), "cost_p99": quantile(self.costs, 0.99)}


class Bed:
    """A mesh with two workers of one kind, a client, and what answers look like when nothing
    happens."""

    def __init__(self, mesh, toy, tokens, seed=1):
        self.mesh, self.toy, self.tokens = mesh, toy, tokens
        self.draw = random.Random(seed)
        self.workers = Toys(mesh) if toy else Workers(mesh)
        self.asker = Asker(mesh)
        self.home = None
        self.clean, self.healthy_us = {}, {}

    def query(self, sampling):
        return {"prompt": PROMPT, "model": TOY if self.toy else MODEL, "max_tokens": self.tokens,
                **SAMPLINGS[sampling]}

    def ready(self, names=SERVERS):
        """Every worker is known to the node that is asked, and idle."""
        for name in names:
            wait_until(lambda n=name: self.mesh.sees_worker(INGRESS, n) and
                       (self.mesh.room(n) or 0) == self.room, READY_S, f"{name} serves again")

    def learn(self, times=3):
        """The answers as nobody cuts them, and who gives them."""
        self.room = self.mesh.room(SERVERS[0])
        self.ready()
        for sampling in SAMPLINGS:
            took = []
            for _ in range(times):
                text, status, result = self.asker.ask(self.query(sampling))
                check(status == "ok" and result["failovers"] == 0, "not healthy:", status, result)
                check(self.clean.setdefault(sampling, text) == text, "not the same text again")
                check(self.home in (None, result["node"]), "served by another node:", result)
                self.home = result["node"]
                took.append(result["total_us"])
            self.healthy_us[sampling] = statistics.median(took)
        check(self.clean["greedy"] != self.clean["seeded"], "sampling changes nothing")

    def healthy(self, sampling):
        """How long the same answer takes now, uncut: the machine's load changes."""
        text, status, result = self.asker.ask(self.query(sampling))
        check(status == "ok" and text == self.clean[sampling], "uncut, yet:", status, result)
        return result["total_us"]

    def trial(self, kind, sampling, tally, paired):
        """One answer, cut at a random token; `paired`: beside one that is not. Leaves the mesh as
        it was."""
        struck = []
        healthy_us = self.healthy(sampling) if paired else self.healthy_us[sampling]

        def strike():
            kind.strike(self, self.home)
            struck.append(time.monotonic())
        at = self.draw.randint(1, max(1, self.tokens * 3 // 4))
        nap_s = self.draw.uniform(*NAP_S)
        query = self.query(sampling)
        if not kind.nap:
            answer = self.asker.ask(query, at, strike)
        else:
            def nap():
                strike()
                subprocess.Popen(["sh", "-c", f"sleep {nap_s:.3f}; kill -CONT "
                                  f"{self.workers.pid(self.home)}"]).poll()
            answer = self.asker.ask(query, at, nap)
        check(struck, "the answer was over too soon:", answer)
        tally.add(at, answer, self.clean[sampling], healthy_us)
        kind.heal(self, self.home)
        self.ready()

    def trials(self, name, count, paired=False, tally=None):
        tally = tally or Tally()
        for i in range(count):
            if i % FRESH_EVERY == 0:
                self.asker.close()
                self.asker = Asker(self.mesh)
            self.trial(KINDS[name], list(SAMPLINGS)[i % len(SAMPLINGS)], tally, paired)
        return tally

    def close(self):
        self.asker.close()
        self.workers.close()


@contextlib.contextmanager
def test_bed(mesh, toy, tokens, seed=1):
    bed = Bed(mesh, toy, tokens, seed)
    try:
        bed.learn()
        yield bed
    finally:
        bed.close()


def run_kinds(mesh, toy, tokens, names, count):
    remarks = []
    with test_bed(mesh, toy, tokens) as bed:
        for name in names:
            tally = bed.trials(name, count)
            figures = tally.figures()
            if tally.wrong or tally.truncated:
                raise Failed(f"{name}: {figures}")
            check(tally.complete == tally.trials, f"{name}: not all were saved:", figures)
            remarks.append(f"{name} {figures['gap_p50_ms']:.0f} ms")
    return f"{count} each, all complete; longest gap p50: " + ", ".join(remarks)


@case("streams/toy", TOYS, dirty=True)
def toys(mesh, quick):
    """Every way to cut an answer, at a random token: the answer goes on elsewhere."""
    return run_kinds(mesh, True, 60, KINDS, 2 if quick else 4)


def hedged_ask(bed, stuck):
    """One request that may be hedged, its worker's model standing still or not: how it ended, and
    how long behind the first token the loser was told, in ms."""
    if stuck:
        KINDS["stalled"].strike(bed, bed.home)
    before = len(bed.workers.told(bed.home, "cancel"))
    first = []
    text, status, result = bed.asker.ask(bed.query("greedy") | {"hedge": True}, 1,
                                         lambda: first.append(time.monotonic()))
    check(status == "ok" and text == bed.clean["greedy"], "not the answer:", status, result)
    check(result["failovers"] == 0, "lost instead of hedged:", result)
    told_ms = None
    if stuck:
        check(result["hedged"] and result["node"] != bed.home, "not served by the other:", result)
        told = wait_until(lambda: bed.workers.told(bed.home, "cancel")[before:], READY_S,
                          "the loser is told to stop")
        told_ms = (told[0] - first[0]) * 1e3
        KINDS["stalled"].heal(bed, bed.home)
        bed.ready()
    return result, told_ms


@case("streams/hedge", TOYS, dirty=True, alone=True)
def hedge(mesh, quick):
    """No token by the usual p95: a second copy elsewhere answers, the loser is told to stop at
    once, and all that costs one request in twenty at most."""
    count, every = (100, 25) if quick else (150, 30)
    with test_bed(mesh, True, 8) as bed:
        for _ in range(25):  # what is usual has to be known first
            bed.asker.ask(bed.query("greedy"))
        jobs = sum(len(bed.workers.told(name, "job")) for name in SERVERS)
        waits, told, hedged = [], [], 0
        for number in range(count):
            stuck = number % every == every - 1
            result, told_ms = hedged_ask(bed, stuck)
            hedged += result["hedged"]
            if stuck:
                waits.append(result["first_token_us"] / 1e3)
                told.append(told_ms)
        extra = sum(len(bed.workers.told(name, "job")) for name in SERVERS) - jobs - count
    check(extra <= count / 20 + 5, "more than one request in twenty was asked twice:", extra)
    return (f"{count} requests, {hedged} hedged, {100 * extra / count:.1f} % extra load; "
            f"stuck ones: first token after {statistics.median(waits):.0f} ms "
            f"(median of {len(waits)}), loser told {max(told):.1f} ms behind it at most")


@case("streams/model", REAL, dirty=True)
def model(mesh, quick):
    """The same with the real model, greedy and sampled."""
    return run_kinds(mesh, False, 48, ("killed", "frozen"), 2 if quick else 4)
