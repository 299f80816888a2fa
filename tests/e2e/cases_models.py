# SPDX-License-Identifier: Apache-2.0
"""What computes: figures that workers tell of their models, how fast each model is, a model on
several processes one of which is killed, workers that compute in different ways. See harness.py."""
import contextlib
import glob
import json
import os
import signal
import subprocess

from cases_gossip import weft
from cases_streams import Asker
from cases_trace import URL, attributes, collector_of
from harness import MODEL, ROOT, MeshSpec, case, check, expect_served, wait_until
from http_client import Stream, chat, gateway

ONE = MeshSpec(workers="frankfurt")
NONE = MeshSpec(workers="none")
INGRESS = "tokyo"
READY_S = 60.0
PROMPT = "Tell the story of a weaver who travels around the world."
CUT_AT = 5  # pieces


class Worker:
    """A weft-worker with options of its own at a node that has none."""

    def __init__(self, mesh, node, *options, cpu=""):
        model = subprocess.run([ROOT / "scripts" / "model-fetch"], capture_output=True, text=True,
                               check=True).stdout.strip()
        self.mesh, self.node = mesh, node
        command = [mesh.build_dir / "bin" / "weft-worker", "--port", mesh.node(node)["port"],
                   "--model", model, "--backend", "cpu", "--threads", "1", "--slots", "2",
                   "--context", "512", *options]
        with open(f"{mesh.folder}/{node}/worker.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=os.environ | {"WEFT_CPU": cpu})

    def ready(self):
        wait_until(lambda: self.mesh.sees_worker(INGRESS, self.node) and self.mesh.room(self.node),
                   READY_S, f"the worker of {self.node} serves")

    def ranks(self):
        """The processes that compute with it, whichever thread has started them."""
        found = []
        for children in glob.glob(f"/proc/{self.process.pid}/task/*/children"):
            with contextlib.suppress(FileNotFoundError), open(children, encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
        return found

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def workers_of(mesh, *made):
    try:
        for worker in made:
            worker.ready()
        yield made
    finally:
        for worker in made:
            worker.kill()
        wait_until(lambda: not any(mesh.sees_worker(INGRESS, w.node) for w in made), READY_S,
                   "the mesh has forgotten the workers")


@case("models/figures", ONE)
def figures(mesh, _quick):
    """How a model is served: in the node's status, and in /metrics of its gateway."""
    def told():
        return mesh.status("frankfurt")["workers"][0]
    idle = told()
    check(idle["loaded"] == 1 and idle["slots"] == mesh.spec.slots, "slots:", idle)
    check(idle["kv_pages"] > 0 and idle["memory_mib"] > 50, "memory:", idle)
    speeds = [idle[key] for key in ("prefill_tps", "decode_tps", "decode_tps_2", "decode_tps_4")]
    check(min(speeds) > 0, "speeds:", idle)
    stream = mesh.start_ask()
    stream.wait_text()
    wait_until(lambda: told()["running"] == 1 and 0 < told()["kv_pages_used"] <= idle["kv_pages"],
               READY_S, "one is running and holds pages")
    stream.interrupt()
    stream.finish()
    wait_until(lambda: told()["running"] == told()["waiting"] == told()["kv_pages_used"] == 0,
               READY_S, "nothing is running, nothing is held")
    for _ in range(2):
        expect_served(mesh.ask(PROMPT * 3, max_tokens=2), "frankfurt")
    after = told()
    check(after["prefix_hits"] > idle["prefix_hits"] and
          after["prefix_queries"] > after["prefix_hits"], "the prefix cache:", idle, after)
    with gateway(mesh, "frankfurt") as g:
        text = g.ask("GET", "/metrics").body.decode()
    labels = f'{{model_name="{MODEL}",pid="{after["pid"]}"'
    for line in (f"vllm:kv_cache_usage_perc{labels}}} 0",
                 f"vllm:prefix_cache_hits_total{labels}}} {after['prefix_hits']}",
                 f"weft_worker_slots{labels}}} {mesh.spec.slots}",
                 f"weft_worker_decode_tokens_per_second{labels},streams=\"4\"}} "):
        check(f"\n{line}" in text, "not in /metrics:", line)
    return f"prefill {speeds[0]}, decode {speeds[1:]} tokens/s"


@case("models/rank_killed", NONE)
def rank_killed(mesh, _quick):
    """A model on two processes: kill -9 of one in the middle of an answer is not seen in it."""
    query = {"prompt": PROMPT, "model": MODEL, "max_tokens": 32}
    worker = Worker(mesh, "frankfurt", "--shards", "2")
    with workers_of(mesh, worker), contextlib.closing(Asker(mesh)) as asker:
        clean, status, result = asker.ask(query)
        check(status == "ok" and result["failovers"] == 0, "not healthy:", status, result)
        before = worker.ranks()
        check(len(before) == 1, "ranks:", before)
        text, status, result = asker.ask(query, CUT_AT,
                                         lambda: os.kill(before[0], signal.SIGKILL))
        check(status == "ok" and text == clean, "cut:", status, result, text, "|", clean)
        check(result["failovers"] == 1 and result["mixed"] == 0, "not gone on:", result)
        check(worker.process.poll() is None, "the worker has ended")
        after = worker.ranks()
        check(len(after) == 1 and after != before, "ranks:", before, after)
        text, status, again = asker.ask(query)
        check(status == "ok" and text == clean and again["failovers"] == 0, "after it:", again)
    return f"longest gap {result['gap_us'] / 1e3:.0f} ms"


@case("models/arithmetic", NONE)
def arithmetic(mesh, _quick):
    """Integers in Tokyo and New York, float32 in Frankfurt, between them: an answer that began with
    integers goes on with them, and only if there are none with float32. That is told."""
    query = {"prompt": PROMPT, "model": MODEL, "max_tokens": 32}
    by_name = {name: Worker(mesh, name, cpu="exact" if name == "frankfurt" else "")
               for name in ("tokyo", "frankfurt", "newyork")}
    with workers_of(mesh, *by_name.values()), collector_of(mesh) as collector, \
            gateway(mesh, INGRESS, "--otlp", URL) as g:
        with contextlib.closing(Asker(mesh)) as asker:
            def served_by_integers():  # which are quicker, but for a busy machine's moods
                text, status, result = asker.ask(query)
                check(status == "ok", "not healthy:", status, result)
                return result["node"] != "frankfurt" and (text, result["node"])
            clean, home = wait_until(served_by_integers, READY_S, "served by integers")
            twin = "newyork" if home == "tokyo" else "tokyo"
            text, status, result = asker.ask(query, CUT_AT, by_name[home].kill)
        check(status == "ok" and text == clean, "another text:", status, result, text, "|", clean)
        check(result["node"] == twin and result["failovers"] == 1 and result["mixed"] == 0,
              "gone on elsewhere:", result)
        gap_ms = result["gap_us"] / 1e3
        wait_until(lambda: not mesh.sees_worker(INGRESS, home), READY_S, f"{home} has none")
        # Now there is one of each. Who serves is the router's choice; the other one goes on.
        stream = Stream(g, "/v1/chat/completions", chat(MODEL, PROMPT, max_tokens=200,
                                                                 temperature=0))
        pieces = iter(stream)
        for _ in range(CUT_AT):
            next(pieces)
        serving = next(name for name in ("frankfurt", twin)
                       if mesh.status(name)["workers"][0]["running"])
        by_name[serving].kill()
        check(list(pieces) and stream.done, "the answer is not whole")
        spans = wait_until(lambda: [s for s in collector.spans() if s["name"] == f"chat {MODEL}"],
                           READY_S, "the trace")
        told = attributes(spans[-1])
        check(told.get("weft.failovers") == "1" and told.get("weft.mixed_arithmetic") == "1",
              "the trace does not say so:", told)
    return f"longest gap {gap_ms:.0f} ms"


@contextlib.contextmanager
def toys_of(mesh, steps):
    """Toy workers, {node: {model: milliseconds a token}}, until the ingress knows them all."""
    toys = [subprocess.Popen([mesh.build_dir / "tests" / "toy_worker", mesh.node(node)["port"],
                              model, str(step)], stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
            for node, models in steps.items() for model, step in models.items()]

    def known():
        told = {m["name"]: {s["model"] for s in m["speeds"] if s["decode_tps"]}
                for m in mesh.status(INGRESS)["members"]}
        return all(set(models) == told[node] for node, models in steps.items())
    try:
        wait_until(known, READY_S, "the ingress knows how fast all of them are")
        yield
    finally:
        for toy in toys:
            toy.kill()
            toy.wait()


def query(mesh, model, tokens, budget_ms):
    """What `weft query` says of a request whose whole answer is to come within the budget."""
    words = ["--model", model, "--max-tokens", str(tokens), "--budget-ms", str(budget_ms), "--e2e"]
    done = weft(mesh, "query", INGRESS, *words)
    check(done.returncode == 0, "weft query:", done.stdout, done.stderr)
    return json.loads(done.stdout)


@case("models/speeds", NONE)
def speeds(mesh, _quick):
    """Two nodes with two models each, of which one is quick and one slow, the other way round:
    predictions are the model's, and each request goes to the node that is quick with its model.
    Taken as a whole both nodes are equally slow."""
    steps = {"frankfurt": {"one": 5, "two": 50}, "newyork": {"one": 50, "two": 5}}
    tokens, ms = 20, 900  # 1,000 ms where it is slow
    told = []
    with toys_of(mesh, steps):
        members = {m["name"]: m for m in mesh.status(INGRESS)["members"]}
        check(all(members[node]["decode_tps"] == 20 for node in steps), "as a whole:", members)
        for model in ("one", "two"):
            quick, slow = sorted(steps, key=lambda node: steps[node][model])
            answer = query(mesh, model, tokens, 60_000)
            check(answer["would_choose"] == quick, model, answer)
            for found in answer["candidates"]:
                member = members[found["name"]]
                rate = next(s for s in member["speeds"] if s["model"] == model)["stream_tps"]
                check(abs(rate * steps[found["name"]][model] / 1000 - 1) < 0.06, "told:", member)
                wanted = tokens * 1000 / rate + (member["rtt_us"] or 0) / 1e3
                check(abs(found["predicted_ms"] - wanted) < wanted / 10, found, wanted)
                told.append(f"{found['name']} {model} {found['predicted_ms']:.0f} ms")
            answer = query(mesh, model, tokens, ms)
            late = {e["name"]: e["verdict"] for e in answer["excluded"]}.get(slow)
            check(answer["found"] == 1 and late == "budget", "within the budget:", answer)
            for near in ((50.1, 8.7), (40.7, -74.0)):
                expect_served(mesh.ask("Hi", near=near, model=model, max_tokens=tokens, e2e=True,
                                       budget_ms=ms), quick)
    return ", ".join(told)
