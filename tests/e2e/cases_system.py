# SPDX-License-Identifier: Apache-2.0
"""Load, hostile packets, and what an operator sees: CPU at rest, ping, configuration check.
See harness.py; the packets come from noise.py."""
import json
import os
import random
import subprocess
import time

from harness import ROOT, MeshSpec, Skip, case, check, expect_served, wait_until

ONE = MeshSpec(workers="frankfurt")
BUSY = MeshSpec(workers="all")
LCORES = MeshSpec(workers="frankfurt", lcores=3)
FRANKFURT = (50.1, 8.7)
LOAD_REQUESTS = 1000
LOAD_TIMEOUT_S = 300
NOISE_S, NOISE_QUICK_S = 30, 10
IDLE_S = 3.0
IDLE_CPU_MAX = 0.25  # of one core: far above rest, far below a busy loop
BUFFERS_BACK_S = 5.0
ABANDONED_S = 40.0


def run_checked(command, timeout_s):
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=timeout_s, check=False)
    check(done.returncode == 0, f"{command[-1]}: exit {done.returncode}:", done.stdout[-2000:],
          done.stderr[-2000:])
    return done.stdout


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@case("system/ping")
def ping(mesh, _quick):
    """The kernel keeps ARP and ICMP: an unmodified ping reaches every node."""
    for node in mesh.nodes():
        run_checked(mesh.in_netns(["ping", "-n", "-c", 3, "-i", 0.1, "-W", 2, node["address"]]), 20)


@case("system/idle_cpu")
def idle_cpu(mesh, _quick):
    """An idle node sleeps."""
    pids = {node["name"]: mesh.pid(node["name"]) for node in mesh.nodes()}
    time.sleep(1.0)
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(IDLE_S)
    shares = {name: (cpu_seconds(pid) - before[name]) / IDLE_S for name, pid in pids.items()}
    check(max(shares.values()) < IDLE_CPU_MAX, f"busy while idle: {shares}")
    return "idle CPU: " + ", ".join(f"{n} {100 * s:.1f} %" for n, s in shares.items())


@case("system/conf_check")
def conf_check(mesh, _quick):
    """The configurations that the mesh runs with pass; a wrong one is refused with its line."""
    weft = mesh.build_dir / "bin" / "weft"
    good = mesh.node("frankfurt")["config"]
    run_checked([weft, "conf-check", good], 10)
    with open(good, encoding="utf-8") as file:
        lines = file.read().splitlines()
    at = next(i for i, line in enumerate(lines) if "name: frankfurt" in line)
    lines[at] = lines[at].replace("tier: 3", "tier: 9")
    bad = mesh.folder + "/bad.yaml"
    with open(bad, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    done = subprocess.run([weft, "conf-check", bad], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=10, check=False)
    check(done.returncode != 0, "tier 9 accepted")
    check(f"bad.yaml:{at + 1}:" in done.stdout + done.stderr, "line not named:", done)


@case("system/status")
def status(mesh, _quick):
    """`weft status` shows every member, for people and for programs."""
    command = [mesh.build_dir / "bin" / "weft", "status", "--socket", mesh.node("tokyo")["admin"]]
    text = run_checked(command, 10)
    facts = json.loads(run_checked([*command, "--json"], 10))
    for node in mesh.nodes():
        for part in (node["name"], node["address"]):
            check(part in text, f"{part} missing in:", text)
    check({m["name"] for m in facts["members"]} == {n["name"] for n in mesh.nodes()}, facts)


@case("system/thousand", BUSY, dirty=True)
def thousand(mesh, _quick):
    """A thousand requests at once: each is answered or refused with a reason, none is lost."""
    bench = mesh.build_dir / "bin" / "weft-bench"
    if not bench.exists():
        raise Skip("weft-bench is not built")
    address = f"{mesh.node('tokyo')['address']}:{mesh.facts['data_port']}"
    out = run_checked(mesh.in_netns([bench, "load", "--node", address, "--requests", LOAD_REQUESTS,
                                     "--concurrency", LOAD_REQUESTS, "--json"]), LOAD_TIMEOUT_S)
    report = json.loads(out)
    return check_load(mesh, report)


@case("system/lcores", LCORES)
def lcores(mesh, quick):
    """Three packet threads: flows spread over them, and what is for the local worker gets there."""
    rounds = 8 if quick else 24
    for _ in range(rounds):  # each client has a port of its own: another flow
        expect_served(mesh.ask("Hi", ingress="frankfurt", near=FRANKFURT, max_tokens=2))
    received = [lcore["received"] for lcore in mesh.status("frankfurt")["lcores"]]
    check(len(received) == 3, "lcores:", received)
    check(sum(n > 0 for n in received) >= 2, "all flows came to one lcore:", received)
    wait_until(lambda: mesh.status("frankfurt")["mbufs_in_use"] < 64, BUFFERS_BACK_S,
               "buffers back")
    return f"{rounds} requests, datagrams by lcore: {received}"


def check_load(mesh, report):
    by_status = report["statuses"]
    check(sum(by_status.values()) == LOAD_REQUESTS, "requests unaccounted for:", report)
    check(by_status.get("ok", 0) > 0, "none was answered:", report)
    unexpected = {s: n for s, n in by_status.items()
                  if s not in ("ok", "mesh_full", "budget_infeasible", "budget_expired")}
    check(not unexpected, "neither answered nor refused with a reason:", unexpected)
    wait_until(lambda: mesh.status("tokyo")["mbufs_in_use"] < 64, BUFFERS_BACK_S, "buffers back")
    expect_served(mesh.ask())
    return ", ".join(f"{n} {s}" for s, n in sorted(by_status.items()))


@case("system/noise", ONE, dirty=True)
def noise(mesh, quick):
    """Random and mutated packets, also copies of real ones with a valid cookie: no crash, no leak,
    every one counted, and the node still serves."""
    seconds = NOISE_QUICK_S if quick else NOISE_S
    seed = random.SystemRandom().randrange(10**6)
    tokyo = mesh.node("tokyo")
    baseline = {n["name"]: mesh.status(n["name"])["mbufs_in_use"] for n in mesh.nodes()}
    drops_before = sum(mesh.drops("tokyo").values())
    pids = {n["name"]: mesh.pid(n["name"]) for n in mesh.nodes()}
    room = mesh.room("frankfurt")
    base = [ROOT / "tests" / "e2e" / "noise.py", "--interface", "veth0", "--target",
            tokyo["address"], "--port", mesh.facts["data_port"]]
    ask = mesh.run_command("Hi", max_tokens=4, near=(50.1, 8.7))[4:]  # noise.py is in the netns
    out = run_checked(mesh.in_netns(["python3", *base, "--seconds", seconds * 2 // 3, "--seed",
                                     seed, "--", *ask]), seconds + 60)
    sent = json.loads(out)
    # And from inside the mesh: what a member's own beacons look like when they are damaged.
    out = run_checked(mesh.in_netns(["python3", *base, "--port", mesh.facts["data_port"] + 1,
                                     "--seconds", seconds // 3, "--seed", seed + 1], "newyork"),
                      seconds + 60)
    sent_inside = json.loads(out)
    for name, pid in pids.items():
        check(mesh.pid(name) == pid, f"weftd of {name} ended under noise")
    check(not mesh.fallen(), "ended under noise:", mesh.fallen())
    check(sent["captured"] > 0, "no real packet was captured to mutate:", sent)
    dropped = sum(mesh.drops("tokyo").values()) - drops_before
    check(dropped > 0, "drop counters did not move:", mesh.drops("tokyo"))
    for name, count in baseline.items():
        wait_until(lambda n=name, c=count: mesh.status(n)["mbufs_in_use"] <= c + 8, BUFFERS_BACK_S,
                   f"packet buffers of {name} back to {count}")
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), 5.0, "the table is right again")
    # Mutated copies of real requests are requests; their clients never come back for the answer.
    wait_until(lambda: mesh.room("frankfurt") == room, ABANDONED_S, "abandoned requests ended")
    expect_served(mesh.ask(near=(50.1, 8.7)), "frankfurt")
    return (f"seed {seed}, {sent['total'] + sent_inside['total']} packets, {dropped} dropped and "
            "counted")
