# SPDX-License-Identifier: Apache-2.0
"""weft-upstream in front of servers that go wrong (openai_mock.py): whole answers or explicit
errors, never a short one that looks whole; and not one packet to where none may go. See harness.py.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mesh_state
import openai_mock
from harness import (BOUND_S, EXIT_ERROR, EXIT_OK, ROOT, MeshSpec, Skip, case, check, expect_served,
                     wait_until)
from harness import MODEL as REAL_MODEL
from http_client import PORT as GATEWAY_PORT
from http_client import Stream, chat, gateway

TWO = MeshSpec(workers="none")
REAL = MeshSpec(workers="frankfurt")
MODEL = "mock"
MOCK_PORT = 8000
SERVERS = ("frankfurt", "newyork")
READY_S = 30.0
CUT_S = 30.0
SLOW_MS = 500
KEY = "sk-weft-test-0123456789"
CLOUD = "203.0.113.9"  # TEST-NET-3 (RFC 5737): nobody is there
VOCABULARY = Path("~/.cache/weft/SmolLM2-135M-Instruct.Q4_1.gguf").expanduser()


def client_python():
    return os.environ.get("WEFT_OPENAI_PYTHON", sys.executable)


class Bed:
    """Mock servers and weft-upstreams in the nodes' namespaces."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.program = mesh.build_dir / "bin" / "weft-upstream"
        if not self.program.exists():
            raise Skip(f"{self.program} is not built")
        self.folder = Path(mesh.folder)
        self.mocks, self.upstreams = {}, {}
        for log in self.folder.glob("*/upstream.log"):  # of the case before
            log.unlink()

    # ---- servers ----
    def set_mock(self, name, port=MOCK_PORT, **state):
        text = "".join(f"{key} {value}\n" for key, value in state.items())
        path = self.folder / name / f"mock{port}.state"
        path.with_suffix(".new").write_text(text, encoding="utf-8")
        path.with_suffix(".new").rename(path)

    def start_mock(self, name, port=MOCK_PORT, certificate=None, **state):
        self.set_mock(name, port, **state)
        out = open(self.folder / name / f"mock{port}.out", "wb")  # closed by the child's end
        command = self.mesh.in_netns(
            [sys.executable, "-B", ROOT / "tests" / "e2e" / "openai_mock.py", "127.0.0.1", port,
             self.folder / name / f"mock{port}.state", *([certificate] if certificate else [])],
            name)
        self.mocks[name, port] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                                  stderr=subprocess.DEVNULL)
        out.close()
        wait_until(lambda: self.lines(name, port), READY_S, "the mock listens")

    def kill_mock(self, name, port=MOCK_PORT):
        process = self.mocks.pop((name, port))
        process.kill()
        process.wait()

    def lines(self, name, port):
        text = (self.folder / name / f"mock{port}.out").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True)
                if line.endswith("\n")]

    def told(self, name, port=MOCK_PORT, posts=True):
        """What the mock has been asked."""
        return [line for line in self.lines(name, port)
                if "path" in line and ("request" in line) == posts]

    def wait_told(self, name, end):
        """What it has been asked last, once that has come to this end."""
        wait_until(lambda: self.told(name) and self.told(name)[-1]["end"] == end, READY_S,
                   f"the mock of {name} has ended a request: {end}")
        return self.told(name)[-1]

    # ---- weft-upstream ----
    def log(self, name):
        return (self.folder / name / "upstream.log").read_text(encoding="utf-8")

    def spawn(self, name, *options, environment=()):
        command = self.mesh.in_netns(["env", *environment, self.program, "--port",
                                      self.mesh.node(name)["port"], *options], name)
        with open(self.folder / name / "upstream.log", "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, name, *options, environment=(), ready=True):
        options = options or ("--endpoint", f"http://127.0.0.1:{MOCK_PORT}", "--model", MODEL)
        if ready:
            self.wait_gone(name)  # what is known of the one before would pass for this one's
        self.upstreams[name] = self.spawn(name, *options, environment=environment)
        if ready:
            self.wait_room(name)

    def kill(self, name):
        process = self.upstreams.pop(name)
        process.kill()
        process.wait()

    def close(self):
        for process in (*self.upstreams.values(), *self.mocks.values()):
            process.kill()
            process.wait()

    def wait_room(self, name):
        """Until the whole mesh knows that it would take requests."""
        for node in self.mesh.nodes():
            wait_until(lambda: self.members(node["name"]).get(name, {}).get("room"), READY_S,
                       f"{node['name']} knows that {name} has room")

    def members(self, name):
        return mesh_state.members_of({"status": self.mesh.status(name)})

    def wait_gone(self, name):
        for node in self.mesh.nodes():
            wait_until(lambda: not self.mesh.sees_worker(node["name"], name), READY_S,
                       f"{node['name']} knows that {name} has none")


@contextlib.contextmanager
def bed_of(mesh):
    bed = Bed(mesh)
    try:
        yield bed
    finally:
        bed.close()
    for name in bed.upstreams:
        bed.wait_gone(name)


def ask(mesh, prompt="Say hello.", count=12, **options):
    return mesh.ask(prompt, model=MODEL, max_tokens=count, **options)


def expect_words(answer, prompt, count, node=None):
    expect_served(answer, node)
    wanted = "".join(openai_mock.words_of(prompt, count))
    check(answer.json["text"] == wanted, f"wanted '{wanted}', got", answer)
    check(answer.json["tokens"] == count, f"{count} tokens, but", answer)


def ask_until_served(mesh, prompt):
    """A node may believe for a while that there is no room where there was none: it refuses."""
    answer = None

    def served():
        nonlocal answer
        answer = ask(mesh, prompt)
        return answer.status != "mesh_full"
    wait_until(served, READY_S, "somebody has room")
    expect_words(answer, prompt, 12)


def expect_error(answer, prompt, most):
    """Not whole, and it says so. What was shown is a beginning of the right words."""
    check(answer.code != EXIT_OK, "a cut answer looks whole:", answer)
    check(answer.status != "ok", "a cut answer is called whole:", answer)
    text = answer.json.get("text") or ""
    wanted = "".join(openai_mock.words_of(prompt, most))
    check(wanted.startswith(text), f"'{text}' is no beginning of '{wanted}'")


@case("upstream/answers", TWO)
def answers(mesh, _quick):
    """Chats, many at once, streamed or whole: every word, the server's count, one connection."""
    with bed_of(mesh) as bed:
        key = bed.folder / "frankfurt" / "key"
        key.write_text(KEY + "\n", encoding="utf-8")
        key.chmod(0o600)
        bed.start_mock("frankfurt")
        bed.start("frankfurt", "--endpoint", f"http://127.0.0.1:{MOCK_PORT}", "--model", MODEL,
                  "--key-file", key)
        for n in range(5):
            prompt = f"Prompt number {n}."
            expect_words(ask(mesh, prompt), prompt, 12, "frankfurt")
        wait_until(lambda: len(bed.told("frankfurt")) == 5, READY_S, "five requests")
        asked = bed.told("frankfurt")
        check(len({a["connection"] for a in asked}) == 1, "connections are not kept:", asked)
        check(all(a["authorization"] == f"Bearer {KEY}" for a in asked), "keys:", asked)
        check(KEY not in bed.log("frankfurt"), "the key is in the log")
        sent = asked[0]["request"]
        check(sent["stream"] and sent["stream_options"] == {"include_usage": True} and
              sent["max_tokens"] == 12 and asked[0]["path"] == "/v1/chat/completions", sent)
        bed.set_mock("frankfurt", pause_ms=50)
        prompts = [f"One of eight: {n}" for n in range(8)]
        running = [mesh.start_ask(p, model=MODEL, max_tokens=20, as_json=True) for p in prompts]
        for prompt, client in zip(prompts, running):
            answer = client.finish()
            answer.json = json.loads(answer.out)
            expect_words(answer, prompt, 20)
        words = openai_mock.words_of("Stop it.", 12)
        stop = "".join(words[4:6])[2:]  # across two pieces, and the mock knows nothing of it
        wanted = "".join(words).partition(stop)[0]
        answer = ask(mesh, "Stop it.", stop=stop)
        check(answer.json["text"] == wanted and answer.json["finish"] == "stop", answer)
        wait_until(lambda: bed.told("frankfurt")[-1]["request"].get("stop") == [stop], READY_S,
                   "the server is told too")
        bed.set_mock("frankfurt", whole=1)
        expect_words(ask(mesh, "Not streamed."), "Not streamed.", 12)


@case("upstream/truncation", TWO)
def truncation(mesh, _quick):
    """Streams that end without a reason, in every way there is: an explicit error each time."""
    shown = []
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt")
        bed.start("frankfurt", "--endpoint", f"http://127.0.0.1:{MOCK_PORT}", "--model", MODEL,
                  "--silence-s", "1", "--first-s", "2")
        for kind in ("cut", "end_early", "done_early", "error", "garble", "hang"):
            bed.set_mock("frankfurt", **{kind: 5})
            prompt = f"It will go wrong: {kind}."
            started = time.monotonic()
            expect_error(ask(mesh, prompt), prompt, 5)
            check(time.monotonic() - started < CUT_S, f"{kind} took too long")
            shown.append(f"{kind} {time.monotonic() - started:.1f} s")
            bed.set_mock("frankfurt")
            bed.wait_room("frankfurt")
            ask_until_served(mesh, "Well again.")
    return ", ".join(shown)


@case("upstream/elsewhere", TWO)
def elsewhere(mesh, _quick):
    """429, 500, 401, a redirect, a hang before the first word, nobody there: the next node."""
    nearest = {"ingress": "frankfurt"}
    with bed_of(mesh) as bed:
        for name in SERVERS:
            bed.start_mock(name)
            bed.start(name, "--endpoint", f"http://127.0.0.1:{MOCK_PORT}", "--model", MODEL,
                      "--first-s", "2")
        expect_words(ask(mesh, "Nearest.", **nearest), "Nearest.", 12)
        wait_until(lambda: any(bed.told(name) for name in SERVERS), READY_S, "it is told")
        for state in ({"status": 429, "retry_after": 2}, {"status": 500}, {"status": 401},
                      {"hang": 0}, {"redirect": f"http://{CLOUD}/v1/chat/completions"}):
            bed.set_mock("frankfurt")
            for name in SERVERS:
                bed.wait_room(name)
            bed.set_mock("frankfurt", **state)
            before = len(bed.told("frankfurt"))

            def asked():
                expect_words(ask(mesh, f"{state}", **nearest), f"{state}", 12, "newyork")
                return len(bed.told("frankfurt")) > before
            # What it has answered in a busy moment may speak against it for a while.
            wait_until(asked, 2 * READY_S, f"frankfurt is asked first, with {state}")
        bed.set_mock("frankfurt")
        wait_until(lambda: mesh.room("frankfurt"), READY_S, "frankfurt is well again")
        bed.kill_mock("frankfurt")
        expect_words(ask(mesh, "Nobody there.", **nearest), "Nobody there.", 12, "newyork")
        wait_until(lambda: mesh.room("frankfurt") == 0, READY_S, "no room where nobody is there")
        bed.start_mock("frankfurt")
        wait_until(lambda: mesh.room("frankfurt"), READY_S, "it is found again")


@case("upstream/slow_once", TWO)
def slow_once(mesh, _quick):
    """A server whose first answer was slow, as when it warms up, is not passed by for good because
    the other node's is quick."""
    with bed_of(mesh) as bed:
        for name in SERVERS:
            bed.start_mock(name)
            bed.start(name)
        bed.set_mock("frankfurt", first_ms=SLOW_MS)

        def told_after(prompt):
            expect_words(ask(mesh, prompt, ingress="frankfurt"), prompt, 12)
            return len(bed.told("frankfurt"))
        wait_until(lambda: told_after("Slow."), READY_S, "frankfurt is asked")
        bed.set_mock("frankfurt")
        before, began = len(bed.told("frankfurt")), time.monotonic()
        wait_until(lambda: told_after("Again.") > before, 2 * READY_S, "frankfurt is asked again")
        return f"asked again after {time.monotonic() - began:.1f} s"


@case("upstream/retry_after", TWO)
def retry_after(mesh, _quick):
    """429 with Retry-After: no room, and no request to the server, for so long."""
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt", status=429, retry_after=3)
        bed.start("frankfurt")
        answer = ask(mesh, "Too much.")
        check(answer.code not in (EXIT_OK,), "answered by nobody:", answer)
        bed.set_mock("frankfurt")
        wait_until(lambda: mesh.room("frankfurt"), READY_S, "it has room again")
        ask_until_served(mesh, "Later.")
        bed.wait_told("frankfurt", "complete")
        times = [asked["at"] for asked in bed.told("frankfurt")]
        pauses = [later - sooner for sooner, later in zip(times, times[1:])]
        check(pauses and min(pauses) >= 3.0, "asked again within the pause:", pauses)
        return "asked again after " + ", ".join(f"{pause:.1f}" for pause in pauses) + " s"


def needs_vocabulary():
    if not VOCABULARY.exists():
        raise Skip("no vocabulary; scripts/model-fetch gets one")
    return ("--endpoint", f"http://127.0.0.1:{MOCK_PORT}", "--model", MODEL, "--resume", "vllm",
            "--tokenizer", VOCABULARY)


@case("upstream/killed_resumes", TWO, dirty=True)
def killed_resumes(mesh, _quick):
    """SIGKILL of weft-upstream in mid-stream: the other node's goes on, to the byte."""
    options = needs_vocabulary()
    prompt = "Tell a long story."
    with bed_of(mesh) as bed:
        for name in SERVERS:
            bed.start_mock(name, pause_ms=50)
            bed.start(name, *options)
        client = mesh.start_ask(prompt, model=MODEL, max_tokens=40)
        client.wait_text()
        wait_until(lambda: any(bed.mesh.room(n) == 7 for n in SERVERS), READY_S, "who serves")
        serves = next(n for n in SERVERS if bed.mesh.room(n) == 7)
        bed.kill(serves)
        answer = client.finish()
        check(answer.code == EXIT_OK, "not gone on with:", answer)
        wanted = "".join(openai_mock.words_of(prompt, 40))
        check(answer.out.strip() == wanted.strip(), f"'{answer.out}' for '{wanted}'")
        other = [n for n in SERVERS if n != serves][0]
        resumed = bed.wait_told(other, "complete")
        check(resumed["request"].get("continue_final_message"), resumed)
    return f"killed at {serves}: {answer.err.strip()[-90:]}"


@case("upstream/unresumable", TWO, dirty=True)
def unresumable(mesh, _quick):
    """The same without a vocabulary: an explicit error in bounded time, not a wrong answer."""
    prompt = "Tell a long story."
    with bed_of(mesh) as bed:
        for name in SERVERS:
            bed.start_mock(name, pause_ms=50)
            bed.start(name)
        client = mesh.start_ask(prompt, model=MODEL, max_tokens=100)
        client.wait_text()
        wait_until(lambda: any(bed.mesh.room(n) == 7 for n in SERVERS), READY_S, "who serves")
        bed.kill(next(n for n in SERVERS if bed.mesh.room(n) == 7))
        killed = time.monotonic()
        answer = client.finish(BOUND_S)
        check(answer.code == EXIT_ERROR, "must be an error:", answer)
        check("incomplete" in answer.err, "must say that it is incomplete:", answer.err)
        return f"{time.monotonic() - killed:.1f} s after the kill: {answer.err.strip()[-90:]}"


@case("upstream/second_endpoint", TWO)
def second_endpoint(mesh, _quick):
    """Two servers behind one node: the second goes on where the first breaks, to the word."""
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt")
        bed.start_mock("frankfurt", MOCK_PORT + 1)
        bed.start("frankfurt", "--endpoint", f"http://127.0.0.1:{MOCK_PORT}", "--endpoint",
                  f"http://127.0.0.1:{MOCK_PORT + 1}", "--model", MODEL, "--resume", "vllm",
                  "--silence-s", "1")
        wait_until(lambda: bed.told("frankfurt", MOCK_PORT + 1, posts=False), READY_S, "a probe")
        for kind in ("cut", "end_early", "error", "garble", "hang"):
            bed.set_mock("frankfurt", **{kind: 5})
            prompt = f"The first breaks: {kind}."
            expect_words(ask(mesh, prompt), prompt, 12, "frankfurt")
        bed.kill_mock("frankfurt")
        expect_words(ask(mesh, "The first is gone."), "The first is gone.", 12, "frankfurt")


@case("upstream/cancel", TWO)
def cancel(mesh, _quick):
    """Ctrl-C, while words come and before the first: the call is broken off at once."""
    took = []
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt", pause_ms=20)
        bed.start("frankfurt")
        client = mesh.start_ask(model=MODEL, max_tokens=2000)
        client.wait_text()
        client.interrupt()
        began = time.monotonic()
        client.finish(BOUND_S)
        asked = bed.wait_told("frankfurt", "closed")
        took.append(f"streaming {1000 * (asked['at'] - began):.0f} ms")
        bed.set_mock("frankfurt", hang=0)
        client = mesh.start_ask(model=MODEL, max_tokens=20)
        wait_until(lambda: mesh.room("frankfurt") == 7, READY_S, "it is asked")
        time.sleep(0.3)
        client.interrupt()
        began = time.monotonic()
        client.finish(BOUND_S)
        wait_until(lambda: len(bed.told("frankfurt")) == 2, CUT_S, "the server sees it")
        asked = bed.told("frankfurt")[-1]
        check(asked["end"] == "closed", asked)
        took.append(f"waiting {1000 * (asked['at'] - began):.0f} ms")
        wait_until(lambda: mesh.room("frankfurt") == 8, READY_S, "its place is free")
    return ", ".join(took)


@case("upstream/drain", TWO)
def drain(mesh, _quick):
    """SIGTERM in mid-stream: what runs is finished, then the program ends."""
    prompt = "To the end."
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt", pause_ms=50)
        bed.start("frankfurt")
        client = mesh.start_ask(prompt, model=MODEL, max_tokens=20)
        client.wait_text()
        process = bed.upstreams["frankfurt"]
        process.send_signal(signal.SIGTERM)
        answer = client.finish()
        check(answer.code == EXIT_OK, "cut by the drain:", answer)
        wanted = "".join(openai_mock.words_of(prompt, 20)).strip()
        check(answer.out.strip() == wanted, answer)
        check(process.wait(READY_S) == 0, "exit status:", process.returncode)


ASK_VECTOR = """
import json, sys, weft
with weft.Client(sys.argv[1]) as client:
    answer = client.ask("A text.", model=sys.argv[2], embed="mean")
    print(json.dumps({"vector": list(answer.embedding), "tokens": answer.result.prompt_tokens}))
"""


@case("upstream/embeddings", TWO)
def embeddings(mesh, _quick):
    """A vector from the server: of length 1, with its tokens."""
    library = mesh.build_dir / "lib" / "libweft.so.1"
    if not library.exists():
        raise Skip(f"{library} is not built")
    package = ROOT / "dataplane" / "client" / "python"
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt")
        bed.start("frankfurt")
        done = subprocess.run(
            mesh.in_netns(["env", f"WEFT_LIBRARY={library}", f"PYTHONPATH={package}",
                           "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-c", ASK_VECTOR,
                           mesh.endpoint("tokyo"), MODEL]),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CUT_S, check=False)
        check(done.returncode == 0, done.stdout, done.stderr)
        got = json.loads(done.stdout)
        check([round(v, 4) for v in got["vector"]] == [0.6, 0, 0.8] and got["tokens"] == 5, got)
        asked = bed.wait_told("frankfurt", "embedding")
        check(asked["path"] == "/v1/embeddings" and asked["request"]["input"] == "A text.", asked)


def make_certificate(path):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
               "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out",
               path.with_suffix(".crt")]
    if not shutil.which("openssl"):
        raise Skip("no openssl")
    subprocess.run(command, check=True, capture_output=True)
    certificate = path.with_suffix(".crt").read_bytes()
    path.write_bytes(path.read_bytes() + certificate)


@case("upstream/tls", TWO)
def tls(mesh, _quick):
    """A certificate that nobody vouches for, one for another name, and one that is trusted."""
    with bed_of(mesh) as bed:
        pem = bed.folder / "frankfurt" / "mock.pem"
        make_certificate(pem)
        bed.start_mock("frankfurt", certificate=pem)
        trusted = ("--model", MODEL, "--ca", pem.with_suffix(".crt"))
        for options in (("--endpoint", f"https://localhost:{MOCK_PORT}", "--model", MODEL),
                        ("--endpoint", f"https://127.0.0.1:{MOCK_PORT}", *trusted)):
            (bed.folder / "frankfurt" / "upstream.log").write_bytes(b"")
            bed.start("frankfurt", *options, ready=False)
            wait_until(lambda: "is left alone" in bed.log("frankfurt"), READY_S, "a refusal")
            check(not mesh.room("frankfurt") and "certificate" in bed.log("frankfurt").lower(),
                  bed.log("frankfurt"))
            check(not bed.told("frankfurt", posts=False), "it was asked all the same")
            bed.kill("frankfurt")
            bed.wait_gone("frankfurt")
        bed.start("frankfurt", "--endpoint", f"https://localhost:{MOCK_PORT}", *trusted)
        expect_words(ask(mesh, "In secret."), "In secret.", 12)


@case("upstream/gateway", REAL)
def before_a_gateway(mesh, _quick):
    """A real server with a real model behind it: weft-gateway. The text is the model's own."""
    with gateway(mesh, "tokyo"), bed_of(mesh) as bed:
        bed.start("tokyo", "--endpoint", f"http://127.0.0.1:{GATEWAY_PORT}", "--model", "fronted",
                  "--upstream-model", REAL_MODEL)
        for prompt in ("Name three colours.", "Write one sentence about Zürich and 東京."):
            wanted = mesh.ask(prompt, max_tokens=24)
            expect_served(wanted, "frankfurt")
            answer = mesh.ask(prompt, model="fronted", max_tokens=24)
            expect_served(answer, "tokyo")
            for key in ("text", "finish", "prompt_tokens", "tokens"):
                check(answer.json[key] == wanted.json[key], f"{key}:", answer, wanted)
        raw = mesh.ask("Once upon a time", model="fronted", max_tokens=8, raw=True)
        expect_served(raw, "tokyo")
        client = mesh.start_ask(model="fronted", max_tokens=400)
        client.wait_text()
        client.interrupt()
        began = time.monotonic()
        client.finish(BOUND_S)
        wait_until(lambda: mesh.room("frankfurt") == mesh.spec.slots + mesh.spec.queue, BOUND_S,
                   "the worker behind it is free again")
        return f"cancelled to the model in {1000 * (time.monotonic() - began):.0f} ms"


class Capture:
    """tcpdump at a node's interface: what leaves or reaches its machine."""

    def __init__(self, bed, name, what):
        self.path = bed.folder / name / "capture.txt"
        command = bed.mesh.in_netns(["tcpdump", "-n", "-l", "--immediate-mode", "-i", "veth0",
                                     what], name)
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.PIPE)
        line = self.process.stderr.readline()
        while line and b"listening on" not in line:
            line = self.process.stderr.readline()
        if not line:
            raise Skip("tcpdump cannot capture here")

    def lines(self):
        return self.path.read_text(encoding="utf-8").splitlines()

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()


CONFIG = f"""model: {MODEL}
cloud_endpoints:
  - {{url: "http://{CLOUD}:8000", name: cloud}}
  - {{url: "http://127.0.0.1:{MOCK_PORT}", name: here}}
"""


@case("upstream/local_only", TWO)
def local_only(mesh, _quick):
    """INFERENCE_ALLOWED_PROVIDERS=local: not one packet of HTTP or DNS leaves the machine."""
    local = ("INFERENCE_ALLOWED_PROVIDERS=local",)
    with bed_of(mesh) as bed:
        config = bed.folder / "frankfurt" / "upstream.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        for url in (f"http://{CLOUD}:8000", "https://api.example.com/v1", "http://[2001:db8::1]"):
            bed.folder.joinpath("frankfurt", "upstream.log").write_bytes(b"")
            refused = bed.spawn("frankfurt", "--endpoint", url, "--model", MODEL,
                                environment=local)
            check(refused.wait(READY_S) == 2, f"started with {url}:", bed.log("frankfurt"))
            check("INFERENCE_ALLOWED_PROVIDERS=local forbids" in bed.log("frankfurt"),
                  bed.log("frankfurt"))
        subprocess.run(mesh.in_netns(["ip", "route", "replace", CLOUD, "dev", "veth0"],
                                     "frankfurt"), check=True, capture_output=True)
        bed.start_mock("frankfurt")
        capture = Capture(bed, "frankfurt", f"tcp or port 53 or arp host {CLOUD}")
        try:
            # The environment's proxy would be a way round as well.
            proxy = (f"http_proxy=http://{CLOUD}:3128", f"https_proxy=http://{CLOUD}:3128")
            bed.start("frankfurt", "--config", config, environment=local + proxy)
            expect_words(ask(mesh, "At home."), "At home.", 12, "frankfurt")
            bed.set_mock("frankfurt", redirect=f"http://{CLOUD}:8000/v1/chat/completions")
            check(ask(mesh, "Elsewhere?").code != EXIT_OK, "a redirect was followed")
            check("is not used: INFERENCE_ALLOWED_PROVIDERS=local" in bed.log("frankfurt"),
                  "startup does not say so:", bed.log("frankfurt"))
            check(not capture.lines(), "packets left:", capture.lines())
            bed.kill("frankfurt")
            bed.wait_gone("frankfurt")
            # The capture can see: without the rule the same file dials the cloud.
            bed.start("frankfurt", "--config", config, ready=False)
            wait_until(capture.lines, READY_S, "without the rule a packet leaves")
        finally:
            capture.close()
    return f"0 packets with it, {len(capture.lines())} without"


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@case("upstream/tools", TWO, dirty=True)
def tools(mesh, _quick):
    """Tools go to the server, its calls come back, whole and as events, and results go there; the
    official client agrees where it is installed."""
    with bed_of(mesh) as bed:
        bed.start_mock("frankfurt")
        bed.start("frankfurt")
        with gateway(mesh) as g:
            asked = chat(MODEL, "How warm?", tools=[TOOL], tool_choice="required", max_tokens=64)
            message = g.ask("POST", "/v1/chat/completions", asked).json["choices"][0]["message"]
            calls = [(c["function"]["name"], json.loads(c["function"]["arguments"]))
                     for c in message["tool_calls"]]
            check(calls == [("weather", {"city": f"</tool_call> {city}", "unit": "C"})
                            for city in ("Paris", "Rome")], message)
            sent = bed.wait_told("frankfurt", "called")["request"]
            check(sent["tools"] == [TOOL] and sent["tool_choice"] == "required", sent)
            ids = [c["id"] for c in message["tool_calls"]]
            check(ids == ["id0", "id1"], "not the server's own ids:", message)
            stream = Stream(g, "/v1/chat/completions", asked | {"stream": True})
            told = [call["id"] for event in stream for choice in event["choices"]
                    for call in choice["delta"].get("tool_calls", ()) if "id" in call]
            check(stream.done and told == ids, "not the server's own ids:", told)
            # In another order than they were called, one with a name.
            results = [{"role": "tool", "tool_call_id": "id1", "name": "rome", "content": "id1"},
                       {"role": "tool", "tool_call_id": "id0", "content": "id0"}]
            asked["messages"] += [message, *results]
            last = g.ask("POST", "/v1/chat/completions", asked | {"tool_choice": "auto"})
            check(last.json["choices"][0]["message"]["content"], last)
            sent = bed.wait_told("frankfurt", "complete")["request"]["messages"]
            check([c["id"] for c in sent[-3]["tool_calls"]] == ids, sent)
            check({m["tool_call_id"]: (m["content"], m.get("name")) for m in sent[-2:]} ==
                  {"id0": ("id0", None), "id1": ("id1", "rome")}, sent)
            done = subprocess.run(mesh.in_netns(
                [client_python(), "-B", ROOT / "tests" / "e2e" / "openai_client.py",
                 f"http://127.0.0.1:{GATEWAY_PORT}", MODEL, "tools", "tools_stream",
                 "responses_tools", "responses_tools_stream"], "tokyo"),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
            check(done.returncode in (0, 77), done.stdout[-4000:], done.stderr[-2000:])
            return done.stdout.strip()


def promise(mesh, port, name="frankfurt", **more):
    """What a service at a port of that node's machine registers, promising what the node does."""
    node = mesh.node(name)
    return {"url": f"http://127.0.0.1:{port}/v1", "models": ["other", MODEL], "tags": node["tags"],
            "jurisdiction": node["jurisdiction"]} | more


@case("upstream/registered", TWO, dirty=True)
def registered(mesh, _quick):
    """Services that register at a gateway are asked for their models while they are registered, say
    that they have room and promise what the node does."""
    at = "/v1/compute/peers"
    json_type = {"content-type": "application/json"}
    with bed_of(mesh) as bed, gateway(mesh, "tokyo", "--listen", f"0.0.0.0:{GATEWAY_PORT}") as g:
        for port in (MOCK_PORT, MOCK_PORT + 1):
            bed.start_mock("frankfurt", port)
        bed.start("frankfurt", "--registry",
                  f"http://{mesh.node('tokyo')['address']}:{GATEWAY_PORT}", "--model", MODEL,
                  ready=False)

        def room():
            return bed.members("tokyo").get("frankfurt", {}).get("room")

        def ask():
            return g.ask("POST", "/v1/chat/completions", chat(MODEL, "hi", max_tokens=4))

        def tell(port, **more):
            told = g.ask("POST", at, promise(mesh, port, **more), json_type)
            check(told.status == 200, told)
            return told.json["id"]
        check(tell(MOCK_PORT, tags=[]), "it promises less than its node")
        good = tell(MOCK_PORT + 1, load={"room": 2})
        wait_until(room, READY_S, "the service's room is known")
        check(room() <= 2, "more than it has told:", room())
        check([ask().status for _ in range(3)] == [200] * 3, "not served")
        # The server tells of a request behind its answer.
        wait_until(lambda: len(bed.told("frankfurt", MOCK_PORT + 1)) == 3, READY_S, "it is asked")
        check(not bed.lines("frankfurt", MOCK_PORT)[1:], "the other was spoken to")
        tell(MOCK_PORT + 1, load={"room": 0})
        wait_until(lambda: room() == 0, READY_S, "it has no room")
        check(ask().error.get("code") == "mesh_full", "it has no room")
        tell(MOCK_PORT + 1, load={"room": 4})
        wait_until(room, READY_S, "it has room again")
        check(ask().status == 200, "not served again")
        check(g.ask("DELETE", f"{at}/{good}").status == 200, "not removed")
        wait_until(lambda: room() == 0, READY_S, "nobody is registered")
        last = ask()
        check(last.error.get("code") == "mesh_full", "asked although it is not registered:", last)
        wait_until(lambda: len(bed.told("frankfurt", MOCK_PORT + 1)) == 4, READY_S, "no fifth time")


@case("upstream/all_models", TWO, dirty=True)
def all_models(mesh, _quick):
    """One weft-upstream serves whatever models services register that promise enough."""
    at = "/v1/compute/peers"
    json_type = {"content-type": "application/json"}
    with bed_of(mesh) as bed, gateway(mesh, "frankfurt") as g:
        for port in (MOCK_PORT, MOCK_PORT + 1):
            bed.start_mock("frankfurt", port)

        def tell(port, **more):
            told = g.ask("POST", at, promise(mesh, port, **more), json_type)
            check(told.status == 200, told)
            return told.json["id"]

        def models():
            return set(bed.members("frankfurt").get("frankfurt", {}).get("models", ()))

        def ask(model):
            return g.ask("POST", "/v1/chat/completions", chat(model, "hi", max_tokens=4))
        first = tell(MOCK_PORT, models=["a", "b"])
        bed.start("frankfurt", "--registry", f"http://127.0.0.1:{GATEWAY_PORT}", "--all-models",
                  ready=False)
        tell(MOCK_PORT + 1, models=["c"])
        tell(MOCK_PORT + 2, models=["elsewhere"], tags=[])
        wait_until(lambda: models() == {"a", "b", "c"}, READY_S, "all models that may be served")
        for model, port in (("a", MOCK_PORT), ("b", MOCK_PORT), ("c", MOCK_PORT + 1)):
            wait_until(lambda m=model: ask(m).status == 200, READY_S, f"{model} is served")
            wait_until(lambda m=model, p=port: m in [line["request"]["model"] for line
                                                     in bed.told("frankfurt", p)], READY_S,
                       f"its server was asked for {model}")
        check(ask("elsewhere").status == 404, "it promises less than its node")
        check(g.ask("DELETE", f"{at}/{first}").status == 200, "not removed")
        wait_until(lambda: ask("a").error.get("code") == "mesh_full", READY_S, "nobody has it now")
        tell(MOCK_PORT, models=["d"])
        wait_until(lambda: "d" in models() and ask("d").status == 200, READY_S, "a new model")
        check(ask("c").status == 200, "what others have is served as before")
