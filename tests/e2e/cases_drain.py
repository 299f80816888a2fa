# SPDX-License-Identifier: Apache-2.0
"""Nodes and workers that stop in good order while they are in use, and a node that does not: toys
(weft-bench toy) in every city, `weft-bench load` as the clients. See harness.py."""
import contextlib
import json
import os
import signal
import subprocess
import time

import mesh_state
from harness import (BOUND_S, Failed, MeshSpec, Skip, case, check, expect_refusal, expect_served,
                     wait_until)

TOY = "bench-toy"
GOSSIP = MeshSpec(workers="none", gossip=True)
ONE = MeshSpec(nodes=1, workers="none")
FRANKFURT, NEW_YORK = (50.1, 8.7), (40.7, -74.0)
READY_S = 60.0
STOP_S = 30.0
LIMIT_S = 120.0


class Toys:
    """Toy workers at some nodes of a mesh, by name."""

    def __init__(self, mesh, names, *options):
        self.mesh, self.options, self.running = mesh, options, {}
        self.bench = mesh.build_dir / "bin" / "weft-bench"
        if not self.bench.exists():
            raise Skip("weft-bench is not built")
        for name in names:
            self.start(name)
        for node in mesh.nodes():
            for name in names:
                if name != node["name"]:
                    wait_until(lambda n=name, o=node["name"]: mesh.sees_worker(o, n), READY_S,
                               f"{node['name']} sees the worker of {name}")

    def start(self, name):
        command = [self.bench, "toy", "--port", self.mesh.node(name)["port"], "--model", TOY,
                   *self.options]

        def attached():
            toy = self.running.get(name)
            if toy is None or toy.poll() is not None:
                self.running[name] = subprocess.Popen(
                    [str(word) for word in command], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return self.mesh.room(name)
        wait_until(attached, READY_S, f"the toy of {name} attached")

    def end(self, name):
        toy = self.running.pop(name)
        toy.kill()
        toy.wait()

    def close(self):
        for name in list(self.running):
            self.end(name)


@contextlib.contextmanager
def toys(mesh, names, *options):
    all_of_them = Toys(mesh, names, *options)
    try:
        yield all_of_them
    finally:
        all_of_them.close()


class Load:
    """A run of weft-bench load in the clients' namespace."""

    def __init__(self, mesh, bench, ingresses, *options):
        nodes = ",".join(mesh.endpoint(name) for name in ingresses)
        command = mesh.in_netns([bench, "load", "--node", nodes, "--model", TOY, "--json",
                                 "--no-floor", *options])
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def finish(self):
        try:
            out, _ = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Failed("weft-bench load hangs") from None
        finally:
            self.close()
        return json.loads(out)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def terminate(mesh, name):
    """SIGTERM to a node, which was asked to end then. Returns its pid."""
    pid = mesh.pid(name)
    os.kill(pid, signal.SIGTERM)
    return pid


def wait_ended(mesh, name, pid):
    wait_until(lambda: not mesh_state.process_alive(pid), STOP_S, f"weftd of {name} ended")
    os.unlink(f"{mesh.node(name)['folder']}/node.pid")


@case("drain/leave_under_load", GOSSIP, dirty=True)
def leave_under_load(mesh, _quick):
    """The node that clients ask first leaves: new requests go to their next node, streams through
    it, longer than the good-bye, end first; none fails, and no failover is paid."""
    with toys(mesh, ["tokyo", "frankfurt", "newyork"], "--pace-ms", 10) as t:
        load = Load(mesh, t.bench, ["frankfurt", "newyork", "tokyo"], "--rate", 30, "--seconds", 4,
                    "--max-tokens", 150, "--near", "40.7,-74.0")
        try:
            time.sleep(2.0)
            began = time.monotonic()
            pid = terminate(mesh, "frankfurt")
            wait_ended(mesh, "frankfurt", pid)
            ended = time.monotonic() - began
            report = load.finish()
        finally:
            load.close()
        check(report["answered"] == report["requests"], "not all were answered:",
              report["statuses"])
        check(report["failovers"] == 0, "failovers were paid:", report["failovers"])
        return f"{report['requests']} requests, weftd ended after {ended:.1f} s"


@case("drain/worker_says_so", ONE, dirty=True)
def worker_says_so(mesh, _quick):
    """A worker that ends what it has is not full: new requests are told that it drains."""
    with toys(mesh, ["tokyo"], "--pace-ms", 20) as t:
        client = mesh.start_ask(max_tokens=200, model=TOY, ingress="tokyo")
        client.wait_text()
        t.running["tokyo"].send_signal(signal.SIGTERM)
        wait_until(lambda: mesh.room("tokyo") == 0, READY_S, "it takes nothing new")
        answer = mesh.ask(model=TOY, ingress="tokyo", timeout_s=BOUND_S)
        expect_refusal(answer, "draining")
        last = client.finish(BOUND_S)
        check(last.code == 0, "what was under way did not end well:", last)


@case("drain/suspect_is_passed_by", GOSSIP, dirty=True)
def suspect_is_passed_by(mesh, _quick):
    """SIGKILL of a node: the request that was just sent there goes elsewhere as soon as somebody
    misses it, not once it is found dead."""
    with toys(mesh, ["frankfurt", "newyork"], "--pace-ms", 1):
        wait_until(lambda: mesh.ask(model=TOY, near=FRANKFURT).node == "frankfurt", READY_S,
                   "frankfurt serves")  # a busy machine's round trips may speak against it
        mesh.kill("frankfurt", "node")
        answer = mesh.ask(model=TOY, near=FRANKFURT, timeout_s=BOUND_S)
        expect_served(answer, "newyork")
        return f"first request {answer.seconds:.2f} s"
