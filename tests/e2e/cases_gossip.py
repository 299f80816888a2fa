# SPDX-License-Identifier: Apache-2.0
"""Nodes that take their members from gossip: they find each other by one seed, drop who dies, take
back who returns, heal after a cut, keep strangers out and say good-bye. See harness.py."""
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import mesh_state
from cases_impair import impair, tell
from harness import (BOUND_S, MODEL, MeshSpec, case, check, expect_served, wait_until)

MESH = MeshSpec(gossip=True)  # tokyo is the seed; workers in frankfurt and newyork
SIX = MeshSpec(gossip=True, network="ipv6")
# Bounds of hangs. What it takes on an idle machine stands in the remarks.
SEEN_S = 60.0
FOUND_S = 10.0
STOP_S = 30.0
LEFT_TOKENS = 40
# Where a request must go however fast the workers are: by a tag that one of them has.
TO_FRANKFURT, TO_NEWYORK = {"tags": "eu"}, {"tags": "us"}


def peers(mesh, name):
    """`weft peers` of a node: {name: peer}."""
    done = weft(mesh, "peers", name)
    check(done.returncode == 0, "weft peers:", done.stderr)
    return {peer["name"]: peer for peer in json.loads(done.stdout)["peers"]}


def weft(mesh, command, name, *words):
    line = [str(mesh.build_dir / "bin" / "weft"), command, "--socket", mesh.node(name)["admin"],
            "--json", *words]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=BOUND_S)


def sees(mesh, observer, other, *states):
    """Whether one node has the other in one of these states; not at all is state None."""
    return peers(mesh, observer).get(other, {}).get("state") in states


def wait_seen(mesh, observers, other, *states):
    """Waits until all observers do."""
    for observer in observers:
        wait_until(lambda: sees(mesh, observer, other, *states), SEEN_S,
                   f"{observer} has {other} as {states}")


def names_of(mesh):
    return [node["name"] for node in mesh.nodes()]


def expect_whole(mesh):
    """Everybody has everybody up, measured, with the facts that each said of itself."""
    for name in names_of(mesh):
        for other in names_of(mesh):
            wait_seen(mesh, [name], other, "up")
        wait_until(lambda: all(p["rtt_us"] is not None and not p["rtt_estimated"]
                               for p in peers(mesh, name).values() if p["name"] != name), SEEN_S,
                   f"{name} has measured the way to all")
        for other, peer in peers(mesh, name).items():
            node = mesh.node(other)
            for key in ("id", "address", "tier", "jurisdiction", "tags"):
                check(peer[key] == node[key], f"{name} has {other}'s {key} as", peer[key])
            check(abs(peer["latitude_deg"] - node["latitude"]) < 1e-4, "place of", other)


def expect_quiet(mesh):
    """No counter of what should never happen has moved."""
    for name in names_of(mesh):
        gossip = mesh.status(name)["counters"]["gossip"]
        bad = {key: gossip[key] for key in
               ("malformed", "bad_signatures", "unsealed", "id_clashes", "states_malformed",
                "table_full", "port_foreign", "family_foreign") if gossip[key]}
        check(not bad, f"{name} counts", bad)


@case("gossip/joins", MESH)
def joins(mesh, _quick):
    """Three nodes that know one seed know each other; requests, queries and routes work as ever."""
    expect_whole(mesh)
    expect_quiet(mesh)
    expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")
    expect_served(mesh.ask(ingress="frankfurt", **TO_NEWYORK), "newyork")

    def both_found():
        done = weft(mesh, "query", "tokyo", "--model", MODEL, "--near", "50.1,8.7")
        answer = json.loads(done.stdout)  # whatever it found so far
        names = [c["name"] for c in answer["candidates"]]
        return done.returncode == 0 and names == ["frankfurt", "newyork"] and answer["complete"]
    # A record is with its zone's owner a moment after its node's state is with everybody.
    wait_until(both_found, FOUND_S, "weft query finds both workers")
    done = weft(mesh, "routes", "tokyo")
    check(done.returncode == 0, "weft routes:", done.stderr)
    routes = json.loads(done.stdout)["routes"]
    check([r["model"] for r in routes] == [MODEL], "models:", routes)
    check({c["name"] for c in routes[0]["candidates"]} == {"frankfurt", "newyork"}, routes)
    gossip = [mesh.status(name)["counters"]["gossip"] for name in names_of(mesh)]
    uptime = sum(mesh.status(name)["uptime_s"] for name in names_of(mesh))
    return f"{sum(g['bytes_out'] for g in gossip) / uptime:.0f} bytes/s per node"


@case("gossip/ipv6", SIX)
def over_ipv6(mesh, _quick):
    """The same over IPv6."""
    expect_whole(mesh)
    expect_quiet(mesh)
    expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")


@case("gossip/killed_and_back", MESH, dirty=True)
def killed_and_back(mesh, _quick):
    """SIGKILL of a node: the others drop it, requests go elsewhere from the first moment; it comes
    back under its own name as soon as it runs again."""
    expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")
    mesh.kill("frankfurt", "node")
    killed = time.monotonic()
    served = mesh.ask(near=(50.1, 8.7), timeout_s=BOUND_S)
    expect_served(served, "newyork")
    wait_seen(mesh, ["tokyo", "newyork"], "frankfurt", "down")
    dropped = time.monotonic() - killed
    expect_served(mesh.ask(), "newyork")
    restarted = time.monotonic()
    mesh.start("frankfurt", "node")
    wait_seen(mesh, ["tokyo", "newyork"], "frankfurt", "up")
    back = time.monotonic() - restarted
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), SEEN_S, "its worker is known again")
    expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")
    expect_whole(mesh)
    return (f"first request {served.seconds:.2f} s, dropped after {dropped:.1f} s, back after "
            f"{back:.1f} s")


@case("gossip/seed_killed", MESH, dirty=True)
def seed_killed(mesh, _quick):
    """Once joined nobody needs the seed; and the seed finds back to the mesh, whose nodes it does
    not know: they remember it."""
    mesh.kill("tokyo", "node")
    wait_seen(mesh, ["frankfurt", "newyork"], "tokyo", "down")
    expect_served(mesh.ask(ingress="newyork", **TO_FRANKFURT), "frankfurt")
    restarted = time.monotonic()
    mesh.start("tokyo", "node")
    expect_whole(mesh)
    expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")
    return f"whole after {time.monotonic() - restarted:.1f} s"


@case("gossip/cut_and_healed", MESH, dirty=True)
def cut_and_healed(mesh, _quick):
    """The seed is cut off from the other two for a while: both sides drop each other and go on;
    once the way is open again they are one mesh, without anybody's help."""
    others = ["frankfurt", "newyork"]
    impair(mesh)
    pairs = [pair for o in others for pair in (f"tokyo -> {o}", f"{o} -> tokyo")]
    for pair in pairs:
        tell(mesh, "rule", f"{pair} cut=yes")
    for other in others:
        wait_seen(mesh, ["tokyo"], other, "down")
        wait_seen(mesh, [other], "tokyo", "down")
    check(sees(mesh, "frankfurt", "newyork", "up"), "the other two lost each other as well")
    expect_served(mesh.ask(ingress="frankfurt", **TO_FRANKFURT), "frankfurt")
    for pair in pairs:
        tell(mesh, "rule", f"{pair} cut=no")
    healed = time.monotonic()
    for other in others:
        wait_seen(mesh, ["tokyo"], other, "up")
        wait_seen(mesh, [other], "tokyo", "up")
    seconds = time.monotonic() - healed
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), SEEN_S, "the worker is known again")
    expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")
    return f"one mesh again after {seconds:.1f} s"


@case("gossip/leaves", MESH, dirty=True)
def leaves(mesh, _quick):
    """SIGTERM: the others know at once, what is under way is served to its end, and weftd ends."""
    client = mesh.start_ask(max_tokens=LEFT_TOKENS, **TO_FRANKFURT)
    client.wait_text()
    pid = mesh.pid("frankfurt")
    stopped = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    wait_seen(mesh, ["tokyo", "newyork"], "frankfurt", "left")
    known = time.monotonic() - stopped
    expect_served(mesh.ask(), "newyork")
    answer = client.finish()
    check(answer.code == 0, "the request under way did not end well:", answer)
    check("failover" not in answer.err, "it went elsewhere:", answer)
    wait_until(lambda: not mesh_state.process_alive(pid), STOP_S, "weftd ended")
    ended = time.monotonic() - stopped
    os.unlink(f"{mesh.node('frankfurt')['folder']}/node.pid")  # it was asked to end
    check(sees(mesh, "tokyo", "frankfurt", "left"), "whoever left was found dead afterwards")

    def complete():  # its zone may have to find another owner first
        return json.loads(weft(mesh, "query", "tokyo", "--model", MODEL).stdout)["complete"]
    wait_until(complete, FOUND_S, "whoever has left is not missed")
    return f"known after {known:.2f} s, ended after {ended:.1f} s"


def weftd(mesh, name, config, *options):
    """A weftd of this case's own in the node's namespace; its log is appended to the node's."""
    log = open(f"{mesh.node(name)['folder']}/node.log", "ab")
    command = mesh.in_netns([mesh.build_dir / "bin" / "weftd", "--config", config, *options], name)
    with log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                stderr=subprocess.PIPE, text=True)


def config_with(mesh, name, key, value):
    """A copy of the node's configuration with another value; its path."""
    with open(mesh.node(name)["config"], encoding="utf-8") as file:
        lines = [f"{key}: {value}\n" if line.startswith(f"{key}:") else line for line in file]
    path = f"{mesh.node(name)['folder']}/other.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


@case("gossip/new_key", MESH, dirty=True)
def new_key(mesh, _quick):
    """The key of a running mesh is changed in three steps; nobody is lost, requests go on."""
    old, new = f"{mesh.folder}/mesh.key", f"{mesh.folder}/next.key"
    subprocess.run([str(mesh.build_dir / "bin" / "weft"), "mesh-key", new], check=True)
    with open(old, encoding="ascii") as file:
        first = file.read()
    with open(new, encoding="ascii") as file:
        second = file.read()
    for step, text in enumerate((first + second, second + first, second), 1):
        with open(old, "w", encoding="ascii") as file:
            file.write(text)
        for name in names_of(mesh):
            os.kill(mesh.pid(name), signal.SIGHUP)
            log = Path(f"{mesh.node(name)['folder']}/node.log")
            wait_until(lambda: log.read_text(encoding="utf-8", errors="replace")
                       .count("mesh keys read again") == step, SEEN_S, f"{name} has read the keys")
            expect_served(mesh.ask(**TO_FRANKFURT), "frankfurt")
    time.sleep(3.0)  # time enough to miss somebody
    expect_whole(mesh)
    expect_quiet(mesh)


@case("gossip/wrong_key", MESH, dirty=True)
def wrong_key(mesh, _quick):
    """Without the key of the mesh nobody gets in: not with none, not with another, not by asking
    for none."""
    mesh.kill("newyork", "node", "TERM")
    mesh.kill("newyork", "worker", "TERM")
    wait_seen(mesh, ["tokyo", "frankfurt"], "newyork", "left")
    config = config_with(mesh, "newyork", "mesh_key", f"{mesh.folder}/other.key")
    without = weftd(mesh, "newyork", config)
    text = without.communicate(timeout=BOUND_S)[1]
    check(without.returncode != 0 and "weft mesh-key" in text, "started without a key:", text)
    seen = {}
    for options, make in ((("--insecure",), False), ((), True)):
        if make:
            subprocess.run([str(mesh.build_dir / "bin" / "weft"), "mesh-key",
                            f"{mesh.folder}/other.key"], check=True)
        before = mesh.status("tokyo")["counters"]["gossip"]["unsealed"]
        stranger = weftd(mesh, "newyork", config, *options)
        try:
            wait_until(lambda: mesh.status("tokyo")["counters"]["gossip"]["unsealed"] > before + 3,
                       SEEN_S, "the stranger knocks")
            seen = peers(mesh, "newyork")
            check(set(seen) == {"newyork"}, "the stranger knows others:", list(seen))
            for name in ("tokyo", "frankfurt"):
                check(sees(mesh, name, "newyork", "left"), f"{name} took the stranger in")
        finally:
            stranger.terminate()
            stranger.communicate(timeout=STOP_S)
        check(stranger.returncode == 0, "the stranger ended with", stranger.returncode)
    expect_served(mesh.ask(), "frankfurt")
