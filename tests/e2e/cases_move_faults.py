# SPDX-License-Identifier: Apache-2.0
"""A session goes on elsewhere while its old node is in trouble: the same text as at home, at most a
bound later than computing it takes. See cases_move.py and harness.py."""
import contextlib
import threading
import time

from cases_move import MESH, READY_S, begin_at, both_seen, drained, sees
from harness import case, check, wait_until
from http_client import gateway

HOME, TARGET = "frankfurt", "tokyo"  # where the gateway is
# kernels/moves/mover.h: nobody waits for longer for a first page, nor in all for longer than
# computing is predicted to take, this at least.
FIRST_S, LEAST_S = 3.0, 1.0
NOISE_S = 4.0  # a busy machine's
RATE = "tokyo <-> frankfurt rate=8mbit/512KiB\n"  # a page takes most of a second
KILL_S = 0.3


@contextlib.contextmanager
def frozen(mesh, program):
    mesh.kill(HOME, program, "STOP")
    try:
        yield
    finally:
        mesh.kill(HOME, program, "CONT")


@contextlib.contextmanager
def slow_link(mesh):
    rules = f"{mesh.folder}/slow.txt"
    with open(rules, "w", encoding="utf-8") as file:
        file.write(RATE)
    mesh.script("impair", rules, "--build-dir", str(mesh.build_dir))
    try:
        yield
    finally:
        mesh.script("impair", "none")


@contextlib.contextmanager
def killed_meanwhile(mesh):
    """The worker is killed a moment after the question, while its pages are on a slow link."""
    with slow_link(mesh):
        timer = threading.Timer(KILL_S, mesh.kill, (HOME, "worker"))
        timer.start()
        try:
            yield
        finally:
            timer.join()


def goes_on(mesh, web, trouble, waits_s):
    """The next turn of a talk whose node drains and is in trouble: right, `waits_s` later at most
    than computing all of it takes. Returns the pages that came, and a word about it."""
    talk, expected = begin_at(mesh, web, HOME)
    before = mesh.status(TARGET)["moves"]
    with drained(mesh, HOME, back=False), trouble(mesh):
        began = time.monotonic()
        where, text, total, cached = talk.ask()
        seconds = time.monotonic() - began
        after = mesh.status(TARGET)["moves"]
        computing = total / mesh.status(TARGET)["workers"][0]["prefill_tps"]
    bound = computing + min(waits_s, max(LEAST_S, computing)) + NOISE_S
    check(where == TARGET and text == expected, "not as at home:", where, text, expected)
    check(seconds < bound, f"{seconds:.1f} s, not within {bound:.1f}")
    pages = after["pages_moved"] - before["pages_moved"]
    return pages, f"{seconds * 1e3:.0f} ms of {bound * 1e3:.0f}, {cached} of {total} cached"


@case("session/old_node_slow", MESH, dirty=True)
def old_node_slow(mesh, _quick):
    """The link is slower than thought, then the worker is killed while pages are on it: what has
    come is used, the rest computed."""
    with gateway(mesh) as web:
        both_seen(mesh)
        slow = goes_on(mesh, web, slow_link, FIRST_S)
        wait_until(lambda: sees(mesh, TARGET, HOME, False), READY_S, f"{HOME} is back")
        killed = goes_on(mesh, web, killed_meanwhile, FIRST_S)
    check(slow[0] > 0, "no page came:", slow)
    return f"slow: {slow[0]} pages, {slow[1]}; killed: {killed[0]} pages, {killed[1]}"


def freeze(mesh, program):
    """One session waits for the node that says nothing; the next one, soon after, does not."""
    with gateway(mesh) as web:
        both_seen(mesh)
        first = goes_on(mesh, web, lambda mesh: frozen(mesh, program), FIRST_S)
        wait_until(lambda: sees(mesh, TARGET, HOME, False), READY_S, f"{HOME} is back")
        second = goes_on(mesh, web, lambda mesh: frozen(mesh, program), 0.0)
    check(first[0] == 0 and second[0] == 0, "pages from nowhere:", first, second)
    return f"{first[1]}; then {second[1]}"


@case("session/old_worker_frozen", MESH, dirty=True)
def old_worker_frozen(mesh, _quick):
    """The worker of a session is frozen: only the first turn waits for it, and not for long."""
    return freeze(mesh, "worker")


@case("session/old_node_frozen", MESH, dirty=True)
def old_node_frozen(mesh, _quick):
    """The same with the node itself."""
    return freeze(mesh, "node")
