# SPDX-License-Identifier: Apache-2.0
"""libweft as its users meet it: the example programs and the Python package (sdk_asks.py) against
a real mesh; Tokyo's worker is the example that echoes. See harness.py."""
import contextlib
import json
import os
import subprocess
import sys

from harness import LONG_PROMPT, MODEL, ROOT, MeshSpec, Skip, case, check, expect_served, wait_until

ONE = MeshSpec(workers="frankfurt")
ECHO = "echo"
ECHO_ROOM = 1000
ECHO_MS = 5
CANCELLED = -1009
SLOT_FREED_S = 1.0
READY_S = 10.0
RUN_S = 90
WORDS = " ".join(f"word{n}" for n in range(400))


def example(mesh, name):
    path = mesh.build_dir / "examples" / name
    if not path.exists():
        raise Skip(f"{path} is not built")
    return path


@contextlib.contextmanager
def echo_worker(mesh, step_ms=ECHO_MS):
    """The example worker at Tokyo, which has none; gone again afterwards."""
    command = [example(mesh, "echo_worker"), mesh.node("tokyo")["port"], ECHO, str(step_ms)]
    tries = []

    def attached():
        # The node says that it is busy while it still ends what a lost worker has left.
        if not tries or tries[-1].poll() is not None:
            tries.append(subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL))
        return mesh.room("tokyo") == ECHO_ROOM and mesh.sees_worker("frankfurt", "tokyo")
    try:
        wait_until(attached, READY_S, "the mesh knows the echo worker")
        yield tries[-1]
    finally:
        for worker in tries:
            worker.kill()
            worker.wait()
        wait_until(lambda: not mesh.sees_worker("frankfurt", "tokyo"), READY_S, "its end is known")


def node_of(mesh, name):
    return f"{mesh.node(name)['address']}:{mesh.facts['data_port']}"


def run_client(mesh, command, code=0):
    done = subprocess.run(mesh.in_netns(command), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=RUN_S, check=False)
    check(done.returncode == code, f"{command}: exit {done.returncode}:", done.stdout[-2000:],
          done.stderr[-2000:])
    return done.stdout


def python_command(mesh, what, model, prompt, ingress="tokyo"):
    library = mesh.build_dir / "lib" / "libweft.so.1"
    if not library.exists():
        raise Skip(f"{library} is not built")
    package = ROOT / "dataplane" / "client" / "python"
    return ["env", f"WEFT_LIBRARY={library}", f"PYTHONPATH={package}", "PYTHONDONTWRITEBYTECODE=1",
            sys.executable, ROOT / "tests" / "e2e" / "sdk_asks.py", what, node_of(mesh, ingress),
            model, prompt]


def python(mesh, what, model, prompt, ingress="tokyo"):
    return json.loads(run_client(mesh, python_command(mesh, what, model, prompt, ingress)))


def expect_freed(mesh, name, room):
    wait_until(lambda: mesh.room(name) == room, SLOT_FREED_S, f"the place at {name} is free again")


@case("sdk/examples_ask", ONE)
def examples_ask(mesh, _quick):
    """Ask and wait; many streams in one thread: the texts that `weft run` prints."""
    prompts = ["Say hello.", "Name a colour.", "Count to three."]
    texts = []
    for prompt in prompts:
        answer = mesh.ask(prompt, max_tokens=256)
        expect_served(answer, "frankfurt")
        texts.append(answer.json["text"])
    out = run_client(mesh, [example(mesh, "ask"), node_of(mesh, "tokyo"), MODEL, prompts[0]])
    check(out.startswith(texts[0] + "\n[frankfurt: "), "ask:", out)
    out = run_client(mesh, [example(mesh, "streams"), node_of(mesh, "tokyo"), MODEL, *prompts])
    for prompt, text in zip(prompts, texts):
        check(f"[{prompt}] frankfurt: {text}\n" in out, f"'{text}' not in streams:", out)


@case("sdk/examples_worker", ONE)
def examples_worker(mesh, _quick):
    """A runtime of sixty lines attaches, answers many at once, and stops when told to."""
    with echo_worker(mesh):
        expect_served(mesh.ask("one two three", ingress="frankfurt", model=ECHO), "tokyo")
        short = mesh.ask("one two three", model=ECHO, max_tokens=2)
        check(short.json["text"] == "one two " and short.json["finish"] == "length", short)
        prompts = [f"{n} bottles of beer" for n in range(50)]
        out = run_client(mesh, [example(mesh, "streams"), node_of(mesh, "tokyo"), ECHO, *prompts])
        wanted = {f"[{prompt}] tokyo: {prompt}" for prompt in prompts}
        check(set(out.splitlines()) == wanted, "echoes:", out)
        out = run_client(mesh, [example(mesh, "cancel"), node_of(mesh, "frankfurt"), ECHO, WORDS,
                                "3"])
        check(out.startswith("word0 word1 word2 \n[") and "cancelled" in out, "cancel:", out)
        expect_freed(mesh, "tokyo", ECHO_ROOM)


@case("sdk/python_text", ONE)
def python_text(mesh, _quick):
    """Python, blocking and asyncio, whole and streamed: the text that `weft run` prints."""
    prompt = "Write one sentence about Zürich and 東京."
    answer = mesh.ask(prompt, max_tokens=24)
    expect_served(answer, "frankfurt")
    got = python(mesh, "text", MODEL, prompt)
    check(set(got["texts"]) == {answer.json["text"]}, answer.json["text"], "but Python:", got)
    check(got["node"] == "frankfurt" and got["tokens"] == answer.json["tokens"] and
          got["pieces"] > 1, "account:", got, answer)
    return f"{len(got['texts'])} ways, {got['pieces']} pieces"


@case("sdk/python_cancel", ONE)
def python_cancel(mesh, _quick):
    """close(), a dropped stream, a cancelled task, a timeout: each frees the worker's place."""
    room = mesh.room("frankfurt")
    got = python(mesh, "close", MODEL, LONG_PROMPT)
    check(got["status"] == [CANCELLED, CANCELLED] and got["after"] is None, "close:", got)
    check(max(got["tokens"]) < 200 and got["seconds"] < SLOT_FREED_S, "close:", got)
    expect_freed(mesh, "frankfurt", room)
    tasks = python(mesh, "task", MODEL, LONG_PROMPT)
    check(tasks["kinds"] == ["CancelledError", "timeout"] and tasks["status"] == CANCELLED and
          tasks["open"] == 0, "tasks:", tasks)
    expect_freed(mesh, "frankfurt", room)
    return f"closed in {got['seconds'] * 1e3:.1f} ms"


@case("sdk/python_error", ONE)
def python_error(mesh, _quick):
    """An exception for each status: refused with its constraint, cut off with its text so far."""
    got = python(mesh, "error", "no-such-model", "Hi")
    check(got["type"] == "UnknownModelError" and "RefusedError" in got["families"], got)
    got = python(mesh, "refused", MODEL, "Hi")
    check(got["type"] == "NoCapableNodeError" and "radius" in got["constraint"] and
          got["best"].endswith(" km"), got)
    with echo_worker(mesh) as worker:
        client = subprocess.Popen(
            [str(part) for part in mesh.in_netns(python_command(mesh, "error", ECHO, WORDS))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = client.stderr.readline()
            check(line == "begun\n", "no text came:", line)
            worker.kill()
            got = json.loads(client.communicate(timeout=RUN_S)[0])
        finally:
            client.kill()
            client.wait()
    check("IncompleteError" in got["families"] and got["status"] < -1000, got)
    check(got["text"] and WORDS.startswith(got["text"]) and got["text"] != WORDS, "so far:", got)
    return f"{got['name']} after {len(got['text'].split())} words"


@case("sdk/python_hundred", ONE)
def python_hundred(mesh, _quick):
    """A hundred streams side by side in one event loop: each gets its own text, whole."""
    with echo_worker(mesh):
        got = python(mesh, "hundred", ECHO, "w", ingress="frankfurt")
        check(got["right"] == 100 and got["pieces"] == 2000, "streams mixed up or cut:", got)
        check(got["together"], "one after the other:", got)
        expect_freed(mesh, "tokyo", ECHO_ROOM)
    return f"2000 tokens in {got['seconds']:.2f} s"


@case("sdk/python_slow", ONE)
def python_slow(mesh, _quick):
    """An answer that is not read does not pile up in the program, and is whole when it is read."""
    with echo_worker(mesh, step_ms=0):
        got = python(mesh, "slow", ECHO, "w", ingress="frankfurt")
        check(got["right"] == [True] * 4 and got["held"], "slow reader:", got)
        check(got["most"] <= got["limit"] < 60000, "piled up:", got)
    return f"at most {got['most']} of 60000 pieces waited"
