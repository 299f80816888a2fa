# SPDX-License-Identifier: Apache-2.0
"""Faults beneath the programs: a link that goes down, a router that stands still, a flood on a node
with the least memory. Traffic is back within seconds, packet buffers are given back, nobody falls.
See harness.py; cases_failure.py has what dies."""
import json
import re
import subprocess
import time

from cases_system import cpu_seconds, run_checked
from harness import (BOUND_S, EXIT_ERROR, ROOT, MeshSpec, case, check, expect_served, wait_until)

ONE = MeshSpec(workers="frankfurt")
LCORES = MeshSpec(workers="frankfurt", lcores=3)
INTERFACE = "veth0"
DOWN_S = 2.0
BACK_S = 5.0          # a link or a router is in use again after so long at most
CALM_S = 2.0
CALM_CPU_MAX = 0.25   # of a core: far above rest, far below a busy loop
STILL_S = 3.0         # three times the silence after which a member counts as down
BUFFERS_BACK_S = 5.0
BUFFERS_REST = 64     # at rest a node holds fewer
FLOOD_REQUESTS, FLOOD_REQUESTS_QUICK = 100000, 20000
FLOOD_CONCURRENCY = 1000
FLOOD_TIMEOUT_S = 120


def set_link(mesh, node, state):
    run_checked(mesh.in_netns(["ip", "link", "set", INTERFACE, state], node), 10)


def sees(mesh, ingress, name):
    """Does the ingress take the node for alive?"""
    members = mesh.status(ingress)["members"]
    return any(m["name"] == name and m["alive"] for m in members)


def wait_sees(mesh, ingress, name, alive):
    wait_until(lambda: sees(mesh, ingress, name) == alive, BACK_S,
               f"{ingress} sees {name} {'up' if alive else 'down'}")


def served_again(mesh, ingress, node):
    """Asks until it is served; returns the seconds that took. Errors in between are explicit."""
    started = time.monotonic()

    def attempt():
        answer = mesh.ask("Hi", ingress=ingress, max_tokens=2, timeout_s=BOUND_S)
        return answer if answer.status == "ok" else None
    expect_served(wait_until(attempt, BACK_S + BOUND_S, f"served by {node} again"), node)
    return time.monotonic() - started


def check_calm(mesh, name):
    """The node sleeps, as before: no descriptor keeps it awake."""
    pid = mesh.pid(name)
    before = cpu_seconds(pid)
    time.sleep(CALM_S)
    share = (cpu_seconds(pid) - before) / CALM_S
    check(share < CALM_CPU_MAX, f"weftd of {name} is busy while idle: {100 * share:.0f} %")


def wait_buffers(mesh, name):
    wait_until(lambda: mesh.status(name)["mbufs_in_use"] < BUFFERS_REST, BUFFERS_BACK_S,
               f"packet buffers of {name} back")


def flap(mesh, name):
    pid = mesh.pid(name)
    set_link(mesh, name, "down")
    time.sleep(DOWN_S)
    set_link(mesh, name, "up")
    wait_sees(mesh, "newyork", name, True)
    seconds = served_again(mesh, "tokyo", "frankfurt")
    check(mesh.pid(name) == pid and not mesh.fallen(), "ended with its link:", mesh.fallen())
    check_calm(mesh, name)
    wait_buffers(mesh, name)
    return seconds


@case("faults/link_of_server", ONE, dirty=True)
def link_of_server(mesh, _quick):
    """The serving node's link goes down and comes back: it is missed, then used again."""
    set_link(mesh, "frankfurt", "down")
    wait_sees(mesh, "tokyo", "frankfurt", False)
    answer = mesh.ask("Hi", ingress="tokyo", timeout_s=BOUND_S)
    check(answer.status != "ok", "served by a node that is not there:", answer)
    seconds = flap(mesh, "frankfurt")
    return f"{answer.status} meanwhile, served {seconds:.1f} s after the member was seen again"


@case("faults/link_down_is_quiet", ONE, dirty=True)
def link_down_is_quiet(mesh, _quick):
    """A node whose link is down sleeps like any other."""
    set_link(mesh, "newyork", "down")
    time.sleep(DOWN_S)
    check_calm(mesh, "newyork")


@case("faults/link_of_ingress", ONE, dirty=True)
def link_of_ingress(mesh, _quick):
    """The same at the ingress, in the middle of an answer: an explicit error, then service."""
    client = mesh.start_ask(ingress="tokyo")
    client.wait_text()
    set_link(mesh, "tokyo", "down")
    answer = client.finish(BOUND_S)
    check(answer.code == EXIT_ERROR, "an answer cut off by the link must be an error:", answer)
    seconds = flap(mesh, "tokyo")
    return f"served {seconds:.1f} s after the member was seen again"


@case("faults/link_flaps", ONE, dirty=True)
def link_flaps(mesh, quick):
    """Down and up many times in a row, with requests under way."""
    rounds = 3 if quick else 10
    for _ in range(rounds):
        mesh.start_ask("Hi", ingress="tokyo", max_tokens=4)
        set_link(mesh, "frankfurt", "down")
        time.sleep(0.1)
        set_link(mesh, "frankfurt", "up")
        time.sleep(0.2)
    for client in mesh.clients:
        client.finish(BOUND_S)  # whatever its end is, it has one
    served_again(mesh, "tokyo", "frankfurt")
    wait_buffers(mesh, "frankfurt")
    check_calm(mesh, "frankfurt")


@case("faults/router_stands_still", ONE, dirty=True)
def router_stands_still(mesh, _quick):
    """weftd of the serving node is stopped for seconds: the others take it for down, refuse with a
    reason, and use it again when it goes on."""
    mesh.kill("frankfurt", "node", "STOP")
    try:
        wait_sees(mesh, "tokyo", "frankfurt", False)
        answer = mesh.ask("Hi", ingress="tokyo", timeout_s=BOUND_S)
        check(answer.status not in ("ok", None), "an answer from a router that stands:", answer)
        time.sleep(STILL_S)
    finally:
        mesh.kill("frankfurt", "node", "CONT")
    wait_sees(mesh, "tokyo", "frankfurt", True)
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), BACK_S, "its worker is known")
    seconds = served_again(mesh, "tokyo", "frankfurt")
    wait_buffers(mesh, "frankfurt")
    return f"{answer.status} meanwhile, served again after {seconds:.1f} s"


@case("faults/ingress_stands_still", ONE, dirty=True)
def ingress_stands_still(mesh, _quick):
    """The client's own node stops for seconds in the middle of an answer and goes on: the answer is
    complete or an explicit error, and the next one is served."""
    client = mesh.start_ask(ingress="tokyo", max_tokens=300)
    client.wait_text()
    mesh.kill("tokyo", "node", "STOP")
    time.sleep(STILL_S)
    mesh.kill("tokyo", "node", "CONT")
    answer = client.finish()
    check(answer.code in (0, EXIT_ERROR), "neither complete nor an error:", answer)
    served_again(mesh, "tokyo", "frankfurt")
    wait_buffers(mesh, "tokyo")
    return "answer complete" if answer.code == 0 else "answer cut with an error"


def flood(mesh, requests):
    """Refusable requests as fast as they go; returns how they ended."""
    address = f"{mesh.node('tokyo')['address']}:{mesh.facts['data_port']}"
    command = [mesh.build_dir / "bin" / "weft-bench", "load", "--node", address, "--model", "none",
               "--requests", requests, "--concurrency", FLOOD_CONCURRENCY, "--json"]
    done = subprocess.run([str(c) for c in mesh.in_netns(command)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=FLOOD_TIMEOUT_S, check=False)
    check(done.stdout.startswith("{"), "weft-bench without a report:", done.stderr[-1000:])
    return json.loads(done.stdout)["statuses"]


def least_memory(mesh, name):
    """Restarts the node with the smallest memory that schemas/config.def allows."""
    definition = (ROOT / "schemas" / "config.def").read_text(encoding="utf-8")
    least = re.search(r'memory_mib, INT, nic\.memory_mib, "\d+", (\d+),', definition).group(1)
    path = mesh.node(name)["config"]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text, count = re.subn(r"memory_mib: \d+", f"memory_mib: {least}", text)
    check(count == 1, "no memory_mib in", path)
    mesh.kill(name, "node", "TERM")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    mesh.start(name, "node")
    wait_until(lambda: mesh.sees_worker(name, "frankfurt"), BOUND_S, f"{name} back in the mesh")


def flooded(mesh, quick):
    requests = FLOOD_REQUESTS_QUICK if quick else FLOOD_REQUESTS
    pid, drops = mesh.pid("tokyo"), mesh.drops("tokyo")
    statuses = flood(mesh, requests)
    check(sum(statuses.values()) == requests, "requests without an end:", statuses)
    check(statuses.get("unknown_model", 0) > 0, "nothing was refused:", statuses)
    shed = {k: v - drops.get(k, 0) for k, v in mesh.drops("tokyo").items() if v != drops.get(k, 0)}
    check(mesh.pid("tokyo") == pid and not mesh.fallen(), "ended under the flood:", mesh.fallen())
    wait_buffers(mesh, "tokyo")
    served_again(mesh, "tokyo", "frankfurt")
    check_calm(mesh, "tokyo")
    return f"{statuses}; let go of: {shed}"


@case("faults/flood_least_memory", ONE, dirty=True)
def flood_least_memory(mesh, quick):
    """A flood at a node with the least memory: it sheds, counts, and serves again."""
    least_memory(mesh, "tokyo")
    return flooded(mesh, quick)


@case("faults/flood_lcores", LCORES, dirty=True)
def flood_lcores(mesh, quick):
    """The same with three packet threads."""
    least_memory(mesh, "tokyo")
    return flooded(mesh, quick)
