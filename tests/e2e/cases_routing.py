# SPDX-License-Identifier: Apache-2.0
"""Who serves: nearest capable node, filters, refusals with their reasons. See harness.py."""
import itertools
import json
import subprocess
import time
from collections import Counter

import oracle
from cases_drain import TOY, toys
from cases_gossip import weft
from harness import (EXIT_ERROR, MODEL, Failed, MeshSpec, case, check, expect_refusal,
                     expect_served, status_table, wait_until)

FRANKFURT = (50.1, 8.7)
NEW_YORK = (40.7, -74.0)
ALL = MeshSpec(workers="all")
# Of workers that say how fast they are: of those that measure it, on a busy machine, one may be so
# much slower than the others that nobody who is near is sent there.
TOYS = MeshSpec(workers="none")
WIDE = MeshSpec(nodes=6, workers="all", slots=2)
LOST_WORKER_S = 5.0
HICCUPS_MAX = 5
HICCUP_S = 1.0
UNMEASURED_TPS = 50
INTERRUPTED_S = 5.0
PROMPT_TOKENS = 16  # "Hi" and what surrounds it on the wire, at four bytes a token


def known_nodes(mesh, ingress, model):
    """The mesh as the oracle wants it, with the ingress's own figures for the prediction."""
    records = {m["name"]: m for m in mesh.status(ingress)["members"]}
    nodes = []
    for node in mesh.nodes():
        record = records[node["name"]]
        if not record["models"]:
            continue
        own = [s["prefill_tps"] for s in record["speeds"] if s["model"] == model]
        rate = max(own, default=0) or record["prefill_tps"] or UNMEASURED_TPS
        nodes.append(oracle.Node(node["name"], node["id"], node["latitude"], node["longitude"],
                                 node["tier"], frozenset(node["tags"]),
                                 (record["rtt_us"] or 0) / 1e6 + record["queue_us"] / 1e6
                                 + PROMPT_TOKENS / rate))
    return nodes


def ask_judged(mesh, near, ingress="tokyo", tiers=(0, 7), radius_km=0, **options):
    """Asks, and holds the choice against the oracle. On a busy machine round-trip times change from
    one beacon to the next, so the figures before and after the request both count; and a worker
    that did not get a processor looks frozen and is passed over, so another answer than the
    oracle's must not come twice.
    Returns the answer, or None where the oracle has no opinion."""
    def opinion():
        known = known_nodes(mesh, ingress, options.get("model", MODEL))
        return oracle.acceptable(known, *near, tiers, radius_km,
                                 frozenset(options.get("tags", "").split(",")) - {""})

    def attempt():
        want = opinion()
        if want is None:
            return None, None, True
        answer = mesh.ask("Hi", ingress=ingress, near=near, tiers=tiers,
                          radius_km=radius_km or None, **options)
        want |= opinion()
        good = (answer.code == 0 and answer.node in want if want
                else answer.status == "no_capable_node")
        return answer, want, good
    answer, want, good = attempt()
    if not good:
        time.sleep(HICCUP_S)
        answer, want, good = attempt()
    check(good, f"near {near} via {ingress}, tiers {tiers}, radius {radius_km}: the oracle says",
          want, answer)
    return answer


def expect_from(mesh, node, near, **options):
    """The node's toy serves; at once, or after the hiccup that let the oracle allow another one."""
    for _ in range(HICCUPS_MAX):
        answer = ask_judged(mesh, near, model=TOY, **options)
        if answer.node == node:
            expect_served(answer)
            return answer
        time.sleep(0.5)
    raise Failed(f"{node} was never chosen near {near}, last: {answer}")


@case("routing/nearest", TOYS, dirty=True)
def nearest(mesh, _quick):
    """A client near Frankfurt who knows only Tokyo is served by Frankfurt; the account adds up."""
    with toys(mesh, ["frankfurt", "newyork"]):
        answer = expect_from(mesh, "frankfurt", FRANKFURT, max_tokens=16)
    got = answer.json
    check(got["tier"] == 3 and got["backend"], "tier or backend:", answer)
    check(0 < got["tokens"] <= 16, "tokens:", answer)
    parts = sum(got[k] for k in ("net_ms", "queue_ms", "prefill_ms", "decode_ms"))
    check(abs(parts - got["total_ms"]) <= max(1.0, 0.01 * got["total_ms"]),
          f"parts add up to {parts}:", answer)


@case("routing/any_ingress", TOYS, dirty=True)
def any_ingress(mesh, _quick):
    """Every node is a way in, also one with a worker of its own and the serving one itself."""
    with toys(mesh, ["frankfurt", "newyork"]):
        for ingress in ("tokyo", "frankfurt", "newyork"):
            expect_from(mesh, "frankfurt", FRANKFURT, ingress=ingress)
            expect_from(mesh, "newyork", NEW_YORK, ingress=ingress, tiers=(5, 7))


@case("routing/next_nearest", TOYS, dirty=True)
def next_nearest(mesh, _quick):
    """Without Frankfurt's worker the next one by distance serves; with it again, Frankfurt does."""
    with toys(mesh, [node["name"] for node in mesh.nodes()]) as workers:
        expect_from(mesh, "frankfurt", FRANKFURT)
        workers.end("frankfurt")
        wait_until(lambda: not mesh.sees_worker("tokyo", "frankfurt"), LOST_WORKER_S,
                   "tokyo notices that frankfurt's worker has gone")
        expect_from(mesh, "newyork", FRANKFURT)
        workers.start("frankfurt")
        expect_from(mesh, "frankfurt", FRANKFURT)


@case("routing/oracle", WIDE)
def grid(mesh, quick):
    """A grid of positions, tier ranges and radii: the mesh decides as the oracle does."""
    latitudes = (-35, 10, 51) if quick else (-60, -35, 0, 10, 35, 51, 70)
    longitudes = (-120, 0, 140) if quick else (-179, -120, -75, -1, 8, 60, 104, 140, 179)
    tiers = ((0, 7), (3, 7)) if quick else ((0, 7), (3, 7), (1, 3), (4, 5))
    radii = (0, 3000) if quick else (0, 1500, 6000)
    served = Counter()
    for lat, lon, tier, radius in itertools.product(latitudes, longitudes, tiers, radii):
        answer = ask_judged(mesh, (lat, lon), tiers=tier, radius_km=radius, max_tokens=1)
        if answer:
            served[answer.node or "refused"] += 1
    check(len(served) > 3, "the grid does not tell nodes apart:", dict(served))
    return f"{served.total()} as the oracle says: {dict(served)}"


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
    expect_refusal(mesh.ask("word " * 2000, budget_ms=100), "budget_infeasible")


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


@case("routing/traced", ALL)
def traced(mesh, _quick):
    """`weft trace` says who could take a request and who will; one that is sent adds up, hop by
    hop, and was served where expected or says why not; dry nothing is sent; nobody fit is a refusal
    with reasons."""
    def trace(*words):
        done = weft(mesh, "trace", "tokyo", "--model", MODEL, *words)
        check(done.stdout, "weft trace:", done.stderr)
        return done.returncode, json.loads(done.stdout)

    def chosen():
        return mesh.status("tokyo")["counters"]["chosen"]
    before = chosen()
    code, dry = trace("--near", "50.1,8.7", "--dry")
    check(code == 0 and dry["request"] is None and dry["would_choose"] and dry["why"], "dry:", dry)
    check(chosen() == before, "a dry trace was sent")
    code, account = trace("--near", "50.1,8.7")
    request = account["request"]
    check(code == 0 and request["status"] == "ok" and request["tokens"] == 1, "traced:", account)
    check(chosen() > before, "nothing went through tokyo's packet path")
    check(request["as_expected"] or request["other_why"], "expected nor explained:", account)
    hops = request["hops"]
    check(abs(sum(hop["ms"] for hop in hops) - request["total_ms"]) < 1.0, "times:", request)
    check(hops[0]["to"] == account["ingress"]["node"] == "tokyo", "ingress:", account)
    check(hops[-1]["at"] == request["node"], "the last hop is where it was served:", hops)
    code, refused = trace("--tags", "sovereign,hipaa")
    check(code == 3 and refused["request"]["status"] == "no_capable_node", "refused:", refused)
    check(refused["binding"] == "tags" and not refused["candidates"], "binding:", refused)
    check(all(e["verdict"] == "tags" for e in refused["excluded"]), "verdicts:", refused)
    return (f"{request['node']}: {request['total_ms']:.1f} ms, of which "
            + ", ".join(f"{hop['what'].split(',')[0]} {hop['ms']:.1f}" for hop in hops))
