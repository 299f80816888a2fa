# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end cases share: meshes from scripts/mesh, clients in their namespace, waits.

cases_*.py register their cases here with @case; `run` runs them. oracle.py is the independent
opinion on routing. Standard library only.
"""
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts" / "lib"))
import mesh_state  # noqa: E402  (the path above makes it visible)

MODEL = "smollm2-135m-instruct"
LONG_PROMPT = "Write a very long story about a weaver who travels around the world."
ASK_TIMEOUT_S = 60.0
# A client gives a silent mesh up after 5 s (weft/client.h); twice that and some is "bounded".
BOUND_S = 13.0
EXIT_OK, EXIT_ERROR, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 3, 130


class Skip(Exception):
    """The case cannot run here; the text says why."""


class Failed(AssertionError):
    """What was expected did not happen."""


def check(condition, *text):
    if not condition:
        raise Failed(" ".join(str(part) for part in text))


def wait_until(condition, timeout_s, text):
    """Polls until condition() is true and returns its value; fails after timeout_s."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"not within {timeout_s} s: {text}")
        time.sleep(0.02)


def status_table():
    """schemas/status.def as {name in lower case: sentence}."""
    text = (ROOT / "schemas" / "status.def").read_text(encoding="utf-8")
    return {name.lower(): sentence
            for name, sentence in re.findall(r'STATUS\((\w+), -\d+, "([^"]*)"\)', text)}


@dataclass(frozen=True)
class MeshSpec:
    """The mesh that a case wants; cases with equal specs share one."""
    nodes: int = 3
    workers: str = "default"
    slots: int = 4
    queue: int = 32
    lcores: int = 1
    driver: str = "af_packet"
    network: str = ""  # ipv6, dual or "": an option of scripts/mesh
    gossip: bool = False
    zone_members: int = 96


@dataclass
class Answer:
    """How one `weft run --json` ended."""
    code: int
    out: str
    err: str
    seconds: float
    json: dict = field(default_factory=dict)

    @property
    def status(self):
        return self.json.get("status")

    @property
    def node(self):
        return self.json.get("node")

    def __str__(self):
        return f"exit {self.code}, {self.out.strip()[-600:]} | {self.err.strip()[-600:]}"


class Client:
    """A running `weft run` whose text can be watched as it comes."""

    def __init__(self, command):
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.text = b""

    def wait_text(self, timeout_s=ASK_TIMEOUT_S):
        """Waits for the first piece of text: the stream runs."""
        os.set_blocking(self.process.stdout.fileno(), False)

        def more():
            self.text += self.process.stdout.read() or b""
            return self.text or self.process.poll() is not None
        wait_until(more, timeout_s, "first text of the answer")
        if self.process.poll() is not None:
            raise Failed(f"the client ended before its answer was under way: {self.finish()}")

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout_s=ASK_TIMEOUT_S):
        """Waits for the end; a client that does not end is killed and fails the case."""
        os.set_blocking(self.process.stdout.fileno(), True)
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise Failed(f"the client still hung after {timeout_s} s") from None
        out = (self.text + out).decode("utf-8", "replace")
        return Answer(self.process.returncode, out, err.decode("utf-8", "replace"),
                      time.monotonic() - self.started)


class Mesh:
    """One mesh of scripts/mesh, seen from outside: its state folder, its sockets, its clients."""

    def __init__(self, name, spec, build_dir):
        self.name, self.spec, self.build_dir = name, spec, Path(build_dir)
        self.folder = f"/run/weft/{name}"
        self.clients = []
        self.facts = {}

    # ---- life ----
    def script(self, *args, check_status=True):
        command = [str(ROOT / "scripts" / "mesh"), *args, "--name", self.name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        if check_status and done.returncode != 0:
            raise Failed(f"scripts/mesh {args[0]} failed:\n{done.stderr[-4000:]}")

    def up(self):
        self.script("down", check_status=False)
        self.script("up", "--nodes", str(self.spec.nodes), "--workers", self.spec.workers,
                    "--slots", str(self.spec.slots), "--queue", str(self.spec.queue),
                    "--lcores", str(self.spec.lcores), "--driver", self.spec.driver,
                    "--build-dir", str(self.build_dir),
                    *([f"--{self.spec.network}"] if self.spec.network else []),
                    *(["--gossip", "--zone-members", str(self.spec.zone_members)]
                      if self.spec.gossip else []))
        with open(f"{self.folder}/mesh.json", encoding="utf-8") as file:
            self.facts = json.load(file)

    def down(self, keep_logs=False):
        self.script("down", *(["--keep-logs"] if keep_logs else []), check_status=False)

    def start(self, node, program):
        self.script("start", node, program, "--build-dir", str(self.build_dir), "--slots",
                    str(self.spec.slots), "--queue", str(self.spec.queue))

    def kill(self, node, program, sig="KILL"):
        self.script("kill", node, program, "--signal", sig)

    def fallen(self):
        """Programs that ended although nobody asked them to."""
        return mesh_state.dead(mesh_state.load(self.folder))

    # ---- facts ----
    def node(self, name):
        return next(n for n in self.facts["nodes"] if n["name"] == name)

    def nodes(self):
        return self.facts["nodes"]

    def status(self, name):
        return mesh_state.ask_admin(self.node(name)["admin"])

    def pid(self, name, program="node"):
        return mesh_state.read_pid(f"{self.node(name)['folder']}/{program}.pid")

    def room(self, name):
        """What the node's own workers would still accept."""
        workers = self.status(name).get("workers") or []
        return sum(worker["room"] for worker in workers) if workers else None

    def drops(self, name):
        """Drop counters by name, without the kernel's own traffic that passes by."""
        drops = dict(self.status(name)["counters"]["drops"])
        drops.pop("not_ours", None)
        return drops

    def sees_worker(self, ingress, name):
        record = mesh_state.members_of({"status": self.status(ingress)}).get(name, {})
        return bool(record.get("alive") and record.get("models"))

    # ---- clients ----
    def in_netns(self, command, host="client"):
        space = self.facts["client_netns"] if host == "client" else self.node(host)["netns"]
        return ["ip", "netns", "exec", space, *map(str, command)]

    def endpoint(self, name, second=False):
        """Where clients reach a node, as the SDK takes it; `second`: over the other family."""
        address = self.node(name)["second" if second else "address"]
        host = f"[{address}]" if ":" in address else address
        return f"{host}:{self.facts['data_port']}"

    def run_command(self, prompt, ingress="tokyo", near=None, tiers=None, model=MODEL,
                    max_tokens=8, as_json=True, second=False, **options):
        command = [self.build_dir / "bin" / "weft", "run", "--node",
                   self.endpoint(ingress, second), "--model", model, "--max-tokens", max_tokens]
        if near:
            command += ["--near", f"{near[0]},{near[1]}"]
        if tiers:
            command += ["--tier", f"{tiers[0]}-{tiers[1]}"]
        for key, value in options.items():
            if value is True:
                command.append("--" + key.replace("_", "-"))
            elif value is not None:
                command += ["--" + key.replace("_", "-"), value]
        if as_json:
            command.append("--json")
        return self.in_netns([*command, prompt])

    def start_ask(self, prompt=LONG_PROMPT, **options):
        """A client that streams text; for cases that interfere."""
        options.setdefault("max_tokens", 800)
        options.setdefault("as_json", False)
        client = Client(self.run_command(prompt, **options))
        self.clients.append(client)
        return client

    def ask(self, prompt="Say hello.", timeout_s=ASK_TIMEOUT_S, **options):
        """Asks and waits; the answer's JSON is parsed."""
        client = self.start_ask(prompt, as_json=True, **({"max_tokens": 8} | options))
        answer = client.finish(timeout_s)
        try:
            answer.json = json.loads(answer.out)
        except ValueError:
            raise Failed(f"not one JSON object: {answer}") from None
        return answer

    def end_clients(self):
        for client in self.clients:
            if client.process.poll() is None:
                client.process.kill()
                client.process.wait()
        self.clients.clear()


@dataclass
class Case:
    name: str
    spec: MeshSpec
    dirty: bool  # leaves the mesh other than it was: the next case gets a fresh one
    alone: bool  # judges times or CPU: nothing else of the suite may run beside it
    function: object


CASES = []


def case(name, spec=MeshSpec(), dirty=False, alone=False):
    """Registers function(mesh, quick) as the case `name`."""
    def register(function):
        CASES.append(Case(name, spec, dirty, alone, function))
        return function
    return register


def expect_refusal(answer, status):
    """A refusal: its status, the status's own sentence, no text, the exit status of a refusal."""
    check(answer.status == status, f"expected {status}:", answer)
    check(answer.code == EXIT_REFUSED, f"exit status of {status}:", answer)
    check(not answer.json.get("text"), "a refusal with text:", answer)
    sentence = status_table()[status]
    check(sentence in json.dumps(answer.json), f"without its sentence '{sentence}':", answer)


def expect_served(answer, node=None):
    check(answer.code == EXIT_OK and answer.status == "ok", "not answered:", answer)
    check(answer.json.get("text"), "an answer without text:", answer)
    if node:
        check(answer.node == node, f"served by {answer.node}, expected {node}:", answer)
