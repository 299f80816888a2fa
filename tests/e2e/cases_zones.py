# SPDX-License-Identifier: Apache-2.0
"""Queries over the zones of a mesh: small zones, real nodes; the answer is held against brute force
over what every node says of itself, before and after the owner of a zone is killed. See
cases_gossip.py."""
import json
import random
import time

import oracle
from cases_gossip import SEEN_S, names_of, wait_seen, weft
from harness import MODEL, MeshSpec, case, check, wait_until

ZONED = MeshSpec(gossip=True, nodes=7, workers="all", zone_members=3)
QUERIES = 30
TAGS = ("eu", "gdpr", "us", "apac", "uk")


def settled(mesh, names):
    """True: each of the nodes is in a zone of the size asked for, whose records it has, and the
    zones hold all of them."""
    zones = {name: mesh.status(name)["zone"] for name in names}
    return (all(z["joined"] and z["synced"] and z["members"] <= ZONED.zone_members
                for z in zones.values())
            and all(set(z["mates"]) <= set(names) and z["members"] == len(z["mates"]) + 1
                    for z in zones.values())
            and all(name in zones[mate]["mates"]
                    for name, z in zones.items() for mate in z["mates"])
            and tiled({tuple(z["claim"]) for z in zones.values()}))


def tiled(claims):
    at = 0.0
    for low, high in sorted(claims):
        if low != at:
            return False
        at = high
    return at == 1.0


def query(mesh, name, **options):
    words = ["--model", MODEL]
    for key, value in options.items():
        words += ["--" + key.replace("_", "-"), str(value)]
    done = weft(mesh, "query", name, *words)
    check(done.stdout, "weft query:", done.stderr)
    return json.loads(done.stdout)


def query_complete(mesh, name, **options):
    """Asks again what was not heard in time: on a machine under load that happens."""
    def asked():
        answer = query(mesh, name, **options)
        return answer if answer["complete"] else None
    return wait_until(asked, SEEN_S, f"a complete answer from {name}")


def owns(mesh, names):
    """What each node says of itself at this moment."""
    found = {}
    for name in names:
        status = mesh.status(name)
        found[name] = next(m for m in status["members"] if m["name"] == name)
    return found


def brute_force(facts, near, tiers, radius_km, tags, vram_mib, k, jurisdictions=()):
    """Names in order; None: too close to the radius to say."""
    nodes = [oracle.Node(name, f["id"], f["latitude_deg"], f["longitude_deg"], f["tier"],
                         frozenset(f["tags"]))
             for name, f in facts.items()
             if MODEL in f["models"] and f["free_vram_mib"] >= vram_mib and f["room"] > 0
             and (not jurisdictions or f["jurisdiction"] in jurisdictions)]
    kept = oracle.filtered(nodes, *near, tiers, radius_km, frozenset(tags))
    if kept is None:
        return None
    kept.sort(key=lambda n: (oracle.distance_cells(n, *near, tiers[0]), n.id))
    return [n.name for n in kept[:k]]


def drawn(rng):
    low = rng.randrange(8)
    return {"near": (round(rng.uniform(-70, 70), 2), round(rng.uniform(-180, 180), 2)),
            "tiers": rng.choice(((0, 7), (low, rng.randrange(low, 8)))),
            "radius_km": rng.choice((0, 0, rng.randrange(500, 15000))),
            "tags": rng.choice(((), (), (rng.choice(TAGS),), ("eu", "gdpr"))),
            "vram_mib": rng.choice((0, 0, 1024, 1 << 21)),
            "jurisdictions": rng.choice(((), (), ("JP",), ("DE", "FR", "GB"), ("US", "SG", "XX"))),
            "k": rng.randrange(1, 9)}


def expect_brute_force(mesh, names, count, seed):
    """Queries at random from nodes at random: names and order as brute force has them."""
    rng = random.Random(seed)
    asks = age = 0
    facts = owns(mesh, names)
    for _ in range(count):
        q, ingress = drawn(rng), rng.choice(names)
        expected = brute_force(facts, **q)
        if expected is None:
            continue
        answer = query_complete(mesh, ingress, near=f"{q['near'][0]},{q['near'][1]}",
                                tier=f"{q['tiers'][0]}-{q['tiers'][1]}", radius_km=q["radius_km"],
                                tags=",".join(q["tags"]), vram_mib=q["vram_mib"], k=q["k"],
                                jurisdiction=",".join(q["jurisdictions"]))
        found = [c["name"] for c in answer["candidates"]]
        check(answer["scope"] == "zones", "not over the zones:", answer)
        check(found == expected, f"{q} from {ingress}: {found}, brute force: {expected};", answer)
        asks, age = asks + answer["asks"], max(age, answer["oldest_record_ms"])
    return asks / count, age


@case("zones/brute_force", ZONED, dirty=True)
def zones_brute_force(mesh, quick):
    """Seven nodes in zones of at most three. Queries equal brute force; a node is killed, its mates
    answer for the zone; they are killed, and the answer says whose zone is not heard."""
    names = names_of(mesh)
    wait_until(lambda: settled(mesh, names), SEEN_S, "all are in zones that tile the torus")
    for name in names:  # a record is with its zone a moment after its node's worker has come
        wait_until(lambda n=name: len(query(mesh, n, k=9)["candidates"]) == len(names), SEEN_S,
                   f"{name} finds all workers")
    zone_of = {name: mesh.status(name)["zone"] for name in names}
    check(len({tuple(z["claim"]) for z in zone_of.values()}) >= 2, "one zone:", zone_of)
    asks, age = expect_brute_force(mesh, names, 10 if quick else QUERIES, 1)
    budget = query(mesh, "tokyo", budget_ms=0.001)
    check(not budget["candidates"], "a budget that nobody can keep:", budget)
    victim = min((name for name in names if zone_of[name]["mates"]),
                 key=lambda name: len(zone_of[name]["mates"]))
    mates = zone_of[victim]["mates"]
    others = [name for name in names if name != victim]
    mesh.kill(victim, "node")
    killed = time.monotonic()
    wait_seen(mesh, others, victim, "down")
    expect_brute_force(mesh, others, 10 if quick else QUERIES // 2, 2)
    seconds = time.monotonic() - killed
    for mate in mates:
        mesh.kill(mate, "node")
    rest = [name for name in others if name not in mates]
    for mate in mates:
        wait_seen(mesh, rest, mate, "down")
    facts = owns(mesh, rest)
    everything = {"near": (0.0, 0.0), "tiers": (0, 7), "radius_km": 0, "tags": (), "vram_mib": 0,
                  "k": 9}
    expected = brute_force(facts, **everything)
    wait_until(lambda: [c["name"] for c in query(mesh, rest[0], near="0,0", k=9)["candidates"]]
               == expected, SEEN_S, f"those who live are found: {expected}")
    answer = query(mesh, rest[0], near="0,0", k=9)
    check(answer["complete"] == (answer["unheard"] == 0), "unheard, but complete:", answer)
    return (f"{asks:.1f} questions to other zones a query, oldest record {age:.0f} ms; right again "
            f"{seconds:.1f} s after the kill; without a zone: "
            f"{'complete' if answer['complete'] else 'not complete'}")
