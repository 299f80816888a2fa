# SPDX-License-Identifier: Apache-2.0
"""Requests of one session go to one node while that is as good as any, wherever they come from.
See harness.py."""
from cases_drain import FRANKFURT, NEW_YORK, READY_S, TOY, toys
from harness import BOUND_S, MeshSpec, case, check, expect_served, wait_until

MESH = MeshSpec(workers="none")
TURNS = 10
WAIT_US = 30000  # far more than what counts as near enough here


def queue_us(mesh, ingress, name):
    return next(m["queue_us"] for m in mesh.status(ingress)["members"] if m["name"] == name)


@case("session/stays_and_moves", MESH)
def stays_and_moves(mesh, _quick):
    """Ten turns from two cities in turn stay at the first one's worker; without a session each goes
    to its own city. While that worker is busy the session moves, and stays where it is then. Round
    trips on a busy machine may be a reason to move: what must hold is tried again with others."""
    with toys(mesh, ["frankfurt", "newyork"], "--pace-ms", 50, "--slots", 1):
        talks = []

        def turns(count, **options):
            served = []
            for number in range(count):
                near = (FRANKFURT, NEW_YORK)[number % 2]
                answer = mesh.ask(f"Turn {number}", model=TOY, near=near, max_tokens=1, **options)
                expect_served(answer)
                served.append(answer.node)
            return served

        def talk_at_frankfurt():
            talks.append(f"talk {len(talks)}")
            return set(turns(TURNS, session=talks[-1])) == {"frankfurt"}
        wait_until(lambda: turns(2) == ["frankfurt", "newyork"], READY_S,
                   "each city serves those without a session")
        wait_until(talk_at_frankfurt, READY_S, "ten turns stay at frankfurt")
        others = [mesh.start_ask(model=TOY, tiers=(3, 3), max_tokens=1000) for _ in range(2)]
        wait_until(lambda: queue_us(mesh, "tokyo", "frankfurt") > WAIT_US, READY_S,
                   "frankfurt is busy")
        moved = turns(2, session=talks[-1])
        check(moved == ["newyork"] * 2, "the session waited at a busy node:", moved)
        for client in others:
            client.interrupt()
            client.finish(BOUND_S)
        wait_until(lambda: queue_us(mesh, "tokyo", "frankfurt") == 0, READY_S, "frankfurt is free")
        wait_until(lambda: set(turns(4, session=talks[-1])) == {"newyork"}, READY_S,
                   "it stays where it has moved")
        return f"{len(talks)} talk(s)"
