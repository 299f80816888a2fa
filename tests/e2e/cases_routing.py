# SPDX-License-Identifier: Apache-2.0
"""Who serves: nearest capable node, filters, refusals with their reasons. See harness.py."""
import itertools
import subprocess

import oracle
from harness import (EXIT_ERROR, MeshSpec, check, case, expect_refusal, expect_served, status_table,
                     wait_until)

FRANKFURT = (50.1, 8.7)
NEW_YORK = (40.7, -74.0)
ALL = MeshSpec(workers="all")
WIDE = MeshSpec(nodes=6, workers="all", slots=2)
LOST_WORKER_S = 5.0
INTERRUPTED_S = 5.0
PROMPT_TOKENS = 16  # "Hi" and what surrounds it on the wire, at four bytes a token


def known_nodes(mesh, ingress):
    """The mesh as the oracle wants it, with the ingress's own figures for the prediction."""
    records = {m["name"]: m for m in mesh.status(ingress)["members"]}
    nodes = []
    for node in mesh.nodes():
        record = records[node["name"]]
        rate = record.get("prefill_tps") or record.get("prefill_per_second") or 50
        nodes.append(oracle.Node(node["name"], node["id"], node["latitude"], node["longitude"],
                                 node["tier"], frozenset(node["tags"]),
                                 (record.get("rtt_us") or 0) / 1e6 + PROMPT_TOKENS / rate))
    return nodes


@case("routing/nearest")
def nearest(mesh, _quick):
    """A client near Frankfurt who knows only Tokyo is served by Frankfurt; the account adds up."""
    answer = mesh.ask(near=FRANKFURT, max_tokens=16)
    expect_served(answer, "frankfurt")
    got = answer.json
    check(got["tier"] == 3 and got["backend"], "tier or backend:", answer)
    check(0 < got["tokens"] <= 16, "tokens:", answer)
    parts = sum(got[k] for k in ("net_ms", "queue_ms", "prefill_ms", "decode_ms"))
    check(abs(parts - got["total_ms"]) <= max(1.0, 0.01 * got["total_ms"]),
          f"parts add up to {parts}:", answer)


@case("routing/any_ingress")
def any_ingress(mesh, _quick):
    """Every node is a way in, also one with a worker of its own and the serving one itself."""
    for ingress in ("tokyo", "frankfurt", "newyork"):
        expect_served(mesh.ask(ingress=ingress, near=FRANKFURT), "frankfurt")
        expect_served(mesh.ask(ingress=ingress, near=NEW_YORK, tiers=(5, 7)), "newyork")


@case("routing/next_nearest", ALL, dirty=True)
def next_nearest(mesh, _quick):
    """Without Frankfurt's worker the next one by distance serves; with it again, Frankfurt does."""
    nodes = known_nodes(mesh, "tokyo")
    expect_served(mesh.ask("Hi", near=FRANKFURT), "frankfurt")
    mesh.kill("frankfurt", "worker")
    wait_until(lambda: not mesh.sees_worker("tokyo", "frankfurt"), LOST_WORKER_S,
               "tokyo notices that frankfurt's worker has gone")
    others = oracle.acceptable([n for n in nodes if n.name != "frankfurt"], *FRANKFURT)
    answer = mesh.ask("Hi", near=FRANKFURT)
    expect_served(answer)
    check(answer.node in others, f"served by {answer.node}, the oracle says {others}")
    mesh.start("frankfurt", "worker")
    expect_served(mesh.ask("Hi", near=FRANKFURT), "frankfurt")


@case("routing/oracle", WIDE)
def grid(mesh, quick):
    """A grid of positions, tier ranges and radii: the mesh decides as the oracle does."""
    latitudes = (-35, 10, 51) if quick else (-60, -35, 0, 10, 35, 51, 70)
    longitudes = (-120, 0, 140) if quick else (-179, -120, -75, -1, 8, 60, 104, 140, 179)
    tiers = ((0, 7), (3, 7)) if quick else ((0, 7), (3, 7), (1, 3), (4, 5))
    radii = (0, 3000) if quick else (0, 1500, 6000)
    nodes = known_nodes(mesh, "tokyo")
    asked = refused = 0
    for lat, lon, tier, radius in itertools.product(latitudes, longitudes, tiers, radii):
        want = oracle.acceptable(nodes, lat, lon, tier, radius)
        if want is None or (not quick and not want and refused > 40):
            continue
        answer = mesh.ask("Hi", near=(lat, lon), tiers=tier, radius_km=radius or None, max_tokens=1)
        asked += 1
        what = f"near {lat},{lon} tiers {tier} radius {radius}: the oracle says {want},"
        if want:
            check(answer.code == 0 and answer.node in want, what, answer)
        else:
            refused += 1
            check(answer.status == "no_capable_node", what, answer)
    return f"{asked} requests, {refused} rightly refused"


@case("routing/tags")
def tags(mesh, _quick):
    """Policy tags are hard: the far node that has them serves, else nobody."""
    expect_served(mesh.ask(near=NEW_YORK, tags="eu"), "frankfurt")
    expect_served(mesh.ask(near=NEW_YORK, tags="eu,gdpr"), "frankfurt")
    expect_served(mesh.ask(near=FRANKFURT, tags="us"), "newyork")
    expect_refusal(mesh.ask(tags="eu,us"), "no_capable_node")
    expect_refusal(mesh.ask(tags="hipaa"), "no_capable_node")


@case("routing/refusals")
def refusals(mesh, _quick):
    """Each reason for which nobody can serve has its own status and sentence."""
    expect_refusal(mesh.ask(model="no-such-model"), "unknown_model")
    expect_refusal(mesh.ask(tiers=(7, 7)), "no_capable_node")
    expect_refusal(mesh.ask(near=(-50, -140), radius_km=50), "no_capable_node")
    expect_refusal(mesh.ask(vram_mib=4000000), "no_capable_node")
    expect_refusal(mesh.ask("word " * 400, budget_ms=1), "budget_infeasible")


@case("routing/full", MeshSpec(workers="frankfurt", slots=1, queue=1), dirty=True)
def full(mesh, _quick):
    """A mesh whose every place is taken says so, and takes requests again afterwards."""
    baseline = mesh.room("frankfurt")
    check(baseline == 2, f"one slot and one place to wait, but room is {baseline}")
    first = mesh.start_ask()
    first.wait_text()
    second = mesh.start_ask()
    wait_until(lambda: mesh.room("frankfurt") == 0, 5.0, "frankfurt is full")
    expect_refusal(mesh.ask(), "mesh_full")
    for client in (first, second):
        client.interrupt()
        client.finish(INTERRUPTED_S)
    wait_until(lambda: mesh.room("frankfurt") == baseline, 5.0, "frankfurt has room again")
    expect_served(mesh.ask(), "frankfurt")


@case("routing/expired", MeshSpec(workers="frankfurt"), dirty=True)
def expired(mesh, _quick):
    """A worker that stands still cannot use up more than the request's own time."""
    mesh.kill("frankfurt", "worker", "STOP")
    answer = mesh.ask(budget_ms=700)
    mesh.kill("frankfurt", "worker", "CONT")
    check(answer.status == "budget_expired", "expected budget_expired:", answer)
    check(answer.code not in (0, 2), "exit status:", answer)
    check(status_table()["budget_expired"] in str(answer.json), "without its sentence:", answer)
    check(answer.seconds < 4.0, f"took {answer.seconds:.1f} s for a budget of 0.7 s")
    return f"gave up after {answer.seconds:.2f} s of 0.70 s"


@case("routing/unreachable")
def unreachable(mesh, _quick):
    """An address where nobody answers is an error in bounded time, not a hang."""
    command = mesh.run_command("Hi", max_tokens=1)
    at = command.index("--node") + 1
    for address in ("10.77.0.99:7400", f"{mesh.node('tokyo')['address']}:7999"):
        command[at] = address
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=False)
        check(done.returncode == EXIT_ERROR, address, done.returncode, done.stdout, done.stderr)
        check("unreachable" in done.stdout, address, done.stdout, done.stderr)
