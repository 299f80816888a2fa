# SPDX-License-Identifier: Apache-2.0
"""What the client sees when something dies, freezes or is interrupted: an explicit error in bounded
time, never a silently short answer. See harness.py."""
import os
import signal
import subprocess
import time

import mesh_state
from harness import (BOUND_S, EXIT_ERROR, EXIT_INTERRUPTED, MeshSpec, case, check, expect_served,
                     status_table, wait_until)

ONE = MeshSpec(workers="frankfurt")
TWO = MeshSpec(workers="frankfurt,newyork")
SLOT_FREED_S = 1.0
READY_S = 20.0
PASSED_OVER_S = 3.0


def expect_incomplete(answer, *statuses):
    """An error exit, and the sentence of one of the statuses."""
    check(answer.code == EXIT_ERROR, "an incomplete answer must be an error:", answer)
    sentences = [status_table()[s] for s in statuses]
    check(any(s in answer.err for s in sentences), f"none of {sentences} in:", answer)


def last_line(answer):
    return answer.err.strip().rpartition("\n")[2]


@case("failure/worker_killed", ONE, dirty=True)
def worker_killed(mesh, _quick):
    """SIGKILL of the worker while it streams: WORKER_LOST at once."""
    client = mesh.start_ask()
    client.wait_text()
    killed = time.monotonic()
    mesh.kill("frankfurt", "worker")
    answer = client.finish(BOUND_S)
    expect_incomplete(answer, "worker_lost")
    return f"error {time.monotonic() - killed:.2f} s after the kill: {last_line(answer)}"


@case("failure/worker_frozen", ONE, dirty=True)
def worker_frozen(mesh, _quick):
    """A worker that stands still while it streams: an error in bounded time; it recovers."""
    baseline = mesh.room("frankfurt")
    client = mesh.start_ask()
    client.wait_text()
    frozen = time.monotonic()
    mesh.kill("frankfurt", "worker", "STOP")
    answer = client.finish(BOUND_S)
    seconds = time.monotonic() - frozen
    mesh.kill("frankfurt", "worker", "CONT")
    expect_incomplete(answer, "stalled", "worker_lost")
    wait_until(lambda: mesh.room("frankfurt") == baseline, BOUND_S, "the thawed worker's slot free")
    expect_served(mesh.ask(), "frankfurt")
    return f"error {seconds:.2f} s after the freeze: {last_line(answer)}"


@case("failure/frozen_is_passed_over", TWO, dirty=True, alone=True)
def frozen_is_passed_over(mesh, _quick):
    """New requests for a node whose worker reads nothing are served by the next one: the first
    soon, the others, once it is known, as if the frozen one were not there."""
    first = mesh.ask("Hi", max_tokens=2)
    expect_served(first)
    home, other = first.node, {"frankfurt": "newyork", "newyork": "frankfurt"}[first.node]
    mesh.kill(home, "worker", "STOP")
    times = []
    for _ in range(4):
        began = time.monotonic()
        expect_served(mesh.ask("Hi", max_tokens=2, timeout_s=BOUND_S), other)
        times.append(time.monotonic() - began)
    mesh.kill(home, "worker", "CONT")
    check(times[0] < PASSED_OVER_S, "the first took", times)
    wait_until(lambda: mesh.ask("Hi", max_tokens=2).node == home, BOUND_S, f"{home} serves again")
    return "first %.2f s, then %s s" % (times[0], ", ".join("%.2f" % t for t in times[1:]))


@case("failure/interrupt", ONE)
def interrupt(mesh, _quick):
    """Ctrl-C at the client frees the worker's slot within a second."""
    baseline = mesh.room("frankfurt")
    client = mesh.start_ask()
    client.wait_text()
    wait_until(lambda: mesh.room("frankfurt") < baseline, 2.0, "the request takes a place")
    sent = time.monotonic()
    client.interrupt()
    wait_until(lambda: mesh.room("frankfurt") == baseline, SLOT_FREED_S, "the slot freed")
    freed = time.monotonic() - sent
    answer = client.finish(BOUND_S)
    check(answer.code == EXIT_INTERRUPTED, "exit status of an interrupted run:", answer)
    return f"freed after {freed * 1e3:.0f} ms"


@case("failure/client_killed", ONE)
def client_killed(mesh, _quick):
    """A client that vanishes without a word does not hold a slot for good."""
    baseline = mesh.room("frankfurt")
    client = mesh.start_ask()
    client.wait_text()
    client.process.kill()
    client.process.wait()
    wait_until(lambda: mesh.room("frankfurt") == baseline, 30.0, "the slot freed")
    expect_served(mesh.ask(), "frankfurt")


@case("failure/ingress_killed", ONE, dirty=True)
def ingress_killed(mesh, _quick):
    """The client's own node dies mid-stream: an error in bounded time; restarted, it serves."""
    client = mesh.start_ask(ingress="tokyo")
    client.wait_text()
    killed = time.monotonic()
    mesh.kill("tokyo", "node")
    answer = client.finish(BOUND_S)
    seconds = time.monotonic() - killed
    expect_incomplete(answer, "stalled", "unreachable", "worker_lost")
    mesh.start("tokyo", "node")
    expect_served(mesh.ask(ingress="tokyo"), "frankfurt")
    return f"error {seconds:.2f} s after the kill: {last_line(answer)}"


@case("failure/server_killed", ONE, dirty=True)
def server_killed(mesh, _quick):
    """The serving node's router dies mid-stream: an error in bounded time; its worker comes back
    by itself when the router does."""
    client = mesh.start_ask(ingress="tokyo")
    client.wait_text()
    mesh.kill("frankfurt", "node")
    expect_incomplete(client.finish(BOUND_S), "stalled", "worker_lost")
    mesh.start("frankfurt", "node")
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), READY_S, "the worker attached again")
    expect_served(mesh.ask(ingress="tokyo"), "frankfurt")


@case("failure/clean_stop", ONE, dirty=True)
def clean_stop(mesh, _quick):
    """SIGTERM: weftd ends with 0, soon, and takes its sockets with it."""
    node = mesh.node("tokyo")
    mesh.kill("tokyo", "node", "TERM")
    wait_until(lambda: not os.path.exists(node["admin"]), 5.0, "the admin socket removed")
    with open(f"{node['folder']}/node.log", "ab") as log:
        weftd = subprocess.Popen(
            mesh.in_netns([mesh.build_dir / "bin" / "weftd", "--config", node["config"]], "tokyo"),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: os.path.exists(node["admin"]) and answers(node), READY_S, "weftd up")
        started = time.monotonic()
        weftd.send_signal(signal.SIGTERM)
        code = weftd.wait(timeout=10)
    finally:
        if weftd.poll() is None:
            weftd.kill()
            weftd.wait()
    check(code == 0, f"weftd ended with {code} on SIGTERM")
    check(not os.path.exists(node["admin"]), "the admin socket is still there")
    return f"stopped in {time.monotonic() - started:.2f} s"


def answers(node):
    try:
        return bool(mesh_state.ask_admin(node["admin"]))
    except (OSError, ValueError):
        return False
