# SPDX-License-Identifier: Apache-2.0
"""The experiments: break one thing in a whole cluster, see who notices and when, mend it.

Each function returns a plain dict, one line of the results. Times are seconds after the fault, by
the harness's clock. Neighbours: cluster.py knows what is believed, figures.py sums up.
"""
import math
import random
import signal
import time

from agents import DEAD, LEFT, SUSPECT
from fabric import node_name

# Of a node that is lost to the others: they must notice.
LOSSES = ("kill", "stop", "cut", "mute", "deaf")
# Of a node that is there: nobody must be declared dead. `pair`: one node does not hear one other.
NUISANCES = ("loss", "pair")
EXAMPLES = 5
LONG = ("idle", "slow", "partition")
EXPERIMENTS = LOSSES + NUISANCES + LONG


class Fault:
    """One thing that is wrong, from begin() to end()."""

    def __init__(self, cluster, kind, victim, other):
        self.cluster, self.kind, self.victim = cluster, kind, victim
        name = node_name(victim)
        self.rules = {
            "cut": f"{name} <-> * cut=yes", "mute": f"{name} -> * cut=yes",
            "deaf": f"* -> {name} cut=yes", "loss": f"{name} <-> * loss=30%",
            "pair": f"{node_name(other)} -> {name} cut=yes"}
        self.other = other

    def begin(self):
        if self.kind == "kill":
            self.cluster.kill(self.victim)
        elif self.kind == "stop":
            self.cluster.signal(self.victim, signal.SIGSTOP)
        else:
            self.cluster.fabric.rule(self.rules[self.kind])

    def end(self):
        if self.kind == "kill":
            self.cluster.start(self.victim, join=self.other)
        elif self.kind == "stop":
            self.cluster.signal(self.victim, signal.SIGCONT)
        else:
            self.cluster.fabric.perfect()


def rejoin(cluster, fault, timeout_s):
    """Ends the fault and waits until all is as before. Seconds, or None: it had to be started anew
    (and it, or all of them, has been)."""
    began = time.monotonic()
    fault.end()
    if cluster.wait_whole(timeout_s):
        return round(time.monotonic() - began, 4)
    cluster.kill(fault.victim)
    cluster.start(fault.victim, join=fault.other)
    if not cluster.wait_whole(timeout_s):
        raise RuntimeError(f"{cluster.agent.name}: not whole {timeout_s} s after a new start of "
                           f"{node_name(fault.victim)}; {cluster.unseen()}")
    return None


def false_ones(events, victims):
    """Declarations of death about nodes that are not victims, by nodes that are not."""
    return [e for e in events
            if e.kind in (DEAD, LEFT) and e.subject not in victims and e.observer not in victims]


def examples(events, began):
    """The first few false declarations, to look into: [seconds, who said it, of whom]."""
    return [[round(e.at - began, 3), e.observer, e.subject] for e in events[:EXAMPLES]]


def lose(cluster, kind, rng, limits):
    """One node is lost. Who has heard of it by when?"""
    count = cluster.fabric.count
    victim = rng.randrange(count)
    other = (victim + 1 + rng.randrange(count - 1)) % count
    name = node_name(victim)
    observers = [n for n in cluster.names if n != name]
    mark = cluster.mark()
    cluster.stalls.take()
    fault = Fault(cluster, kind, victim, other)
    began = time.monotonic()
    fault.begin()
    cluster.wait(lambda: all(cluster.believes[o].get(name) in (DEAD, LEFT) for o in observers),
                 limits.detect_s)
    first_heard, suspected = {}, None
    for event in cluster.since(mark):
        if event.subject != name or event.observer == name:
            continue
        if event.kind == SUSPECT and suspected is None:
            suspected = event.at - began
        if event.kind in (DEAD, LEFT):
            first_heard.setdefault(event.observer, event.at - began)
    times = sorted(first_heard.values())
    stall = cluster.stalls.take()
    false_dead = false_ones(cluster.since(mark), {name})
    result = {
        "victim": name, "observers": len(observers), "known": len(times),
        "suspected_s": suspected and round(suspected, 4),
        "first_s": round(times[0], 4) if times else None,
        "median_s": round(times[len(times) // 2], 4) if times else None,
        "last_s": round(times[-1], 4) if len(times) == len(observers) else None,
        "false_dead": len(false_dead), "false_examples": examples(false_dead, began),
        "stall_s": round(stall, 4)}
    result["rejoin_s"] = rejoin(cluster, fault, limits.heal_s)
    return result


def annoy(cluster, kind, rng, limits):
    """Links are bad for a while. Is anybody declared dead? `loss` takes several nodes at a time,
    each a window of its own: they are few among many, and do not know of each other."""
    count = cluster.fabric.count
    number = min(limits.lossy_nodes, count // 4) if kind == "loss" else 1
    picked = rng.sample(range(count), max(number, 1))
    other = rng.choice([i for i in range(count) if i not in picked])
    names = {node_name(i) for i in picked}
    mark = cluster.mark()
    cluster.stalls.take()
    faults = [Fault(cluster, kind, victim, other) for victim in picked]
    began = time.monotonic()
    for fault in faults:
        fault.begin()
    time.sleep(limits.nuisance_s)
    events = [e for e in cluster.since(mark) if e.kind in (DEAD, LEFT)]
    about = [e for e in events if e.subject in names and e.observer not in names]
    result = {
        "victims": sorted(names), "window_s": limits.nuisance_s,
        "declared": len({e.subject for e in about}), "declarations": len(about),
        "declared_first_s": round(about[0].at - began, 4) if about else None,
        "others_declared": len(false_ones(events, names)),
        "by_victim": len([e for e in events if e.observer in names]),
        "stall_s": round(cluster.stalls.take(), 4)}
    result["rejoin_s"] = rejoin(cluster, faults[0], limits.heal_s)  # ends them all
    return result


def idle(cluster, _kind, _rng, limits):
    """Nothing is wrong: what it costs, and whether all stay."""
    mark, before, cpu = cluster.mark(), cluster.fabric.traffic(), cluster.cpu_s()
    cluster.stalls.take()
    began = time.monotonic()
    time.sleep(limits.idle_s)
    seconds = time.monotonic() - began
    after = cluster.fabric.traffic()
    rates = sorted((b.sent_bytes - a.sent_bytes) / seconds for a, b in zip(before, after))
    false_dead = false_ones(cluster.since(mark), set())
    packets = sum(b.sent_packets - a.sent_packets for a, b in zip(before, after))
    return {
        "window_s": round(seconds, 2), "bytes_per_s": round(sum(rates) / len(rates), 1),
        "bytes_per_s_max": round(rates[-1], 1),
        "packets_per_s": round(packets / seconds / len(rates), 2),
        "cpu_share": round((cluster.cpu_s() - cpu) / seconds / len(rates), 5),
        "false_dead": len(false_dead), "false_examples": examples(false_dead, began),
        "stall_s": round(cluster.stalls.take(), 4)}


def pulses(rng, slow, limits):
    """[(when, node, signal)] sorted: each slow node stands still for log-uniform times."""
    low, high = limits.pause_s
    plan = []
    for node in slow:
        at = rng.uniform(0, limits.gap_s)
        while at < limits.slow_s:
            pause = math.exp(rng.uniform(math.log(low), math.log(high)))
            end = min(at + pause, limits.slow_s)
            plan += [(at, node, signal.SIGSTOP), (end, node, signal.SIGCONT)]
            at = end + rng.uniform(0.01, limits.gap_s)
    return sorted(plan, key=lambda step: step[0])


def slow(cluster, _kind, rng, limits):
    """Lifeguard's load: some nodes stand still again and again. Who declares a healthy one dead?
    An episode is one healthy node's death as the cluster sees it: declarations of the same node
    less than `episode_s` apart are one, because gossip repeats what one node said."""
    count = cluster.fabric.count
    picked = sorted(rng.sample(range(count), min(limits.slow_nodes, count - 2)))
    names = {node_name(i) for i in picked}
    plan = pulses(rng, picked, limits)
    mark, before = cluster.mark(), cluster.fabric.traffic()
    cluster.stalls.take()
    began = time.monotonic()
    for at, node, number in plan:
        time.sleep(max(0.0, began + at - time.monotonic()))
        cluster.signal(node, number)
    time.sleep(max(0.0, began + limits.slow_s - time.monotonic()))
    for node in picked:
        cluster.signal(node, signal.SIGCONT)
    seconds = time.monotonic() - began
    after = cluster.fabric.traffic()
    events = [e for e in cluster.since(mark) if e.kind in (DEAD, LEFT)]
    about_healthy = [e for e in events if e.subject not in names]
    at_healthy = [e for e in about_healthy if e.observer not in names]
    sent = sum(b.sent_bytes - a.sent_bytes for a, b in zip(before, after))
    result = {
        "slow": sorted(names), "window_s": round(seconds, 2),
        "node_hours": round((count - len(picked)) * seconds / 3600, 5),
        "episodes": episodes(about_healthy, limits.episode_s),
        "episodes_at_healthy": episodes(at_healthy, limits.episode_s),
        "declarations": len(about_healthy), "declarations_at_healthy": len(at_healthy),
        "slow_declared": episodes([e for e in events if e.subject in names], limits.episode_s),
        "bytes_per_s": round(sent / seconds / count, 1),
        "stall_s": round(cluster.stalls.take(), 4)}
    healed = time.monotonic()
    whole = cluster.wait_whole(limits.heal_s)
    result["rejoin_s"] = round(time.monotonic() - healed, 4) if whole else None
    return result


def episodes(events, apart_s):
    last, number = {}, 0
    for event in sorted(events, key=lambda e: e.at):
        if event.at - last.get(event.subject, -math.inf) > apart_s:
            number += 1
        last[event.subject] = event.at
    return number


def partition(cluster, _kind, rng, limits):
    """Two halves do not hear each other for a while, then nobody does anything about it."""
    order = list(cluster.names)
    rng.shuffle(order)
    half = len(order) // 2
    sides = (order[:half], order[half:])
    began = time.monotonic()
    cluster.fabric.rule(f"{','.join(sides[0])} <-> {','.join(sides[1])} cut=yes")
    split = cluster.wait(
        lambda: all(cluster.believes[a].get(b) in (DEAD, LEFT) for mine, theirs in
                    (sides, sides[::-1]) for a in mine for b in theirs), limits.partition_s)
    split_s = time.monotonic() - began
    time.sleep(max(0.0, limits.partition_s - split_s))
    mark = cluster.mark()
    healed = time.monotonic()
    cluster.fabric.perfect()
    done = cluster.wait_whole(limits.heal_s)
    took = time.monotonic() - healed
    first = next((e.at - healed for e in cluster.since(mark) if e.kind == "alive"), None)
    result = {
        "partition_s": limits.partition_s, "split_s": round(split_s, 3) if split else None,
        "first_s": first and round(first, 4), "healed_s": round(took, 4) if done else None}
    if not done:
        result["unusable"] = True  # this cluster has come to its end
    return result


RUNNERS = {**{kind: lose for kind in LOSSES}, **{kind: annoy for kind in NUISANCES},
           "idle": idle, "slow": slow, "partition": partition}


def run_one(cluster, experiment, seed, limits):
    """One line of the results."""
    rng = random.Random(seed)
    result = RUNNERS[experiment](cluster, experiment, rng, limits)
    time.sleep(limits.settle_s)
    return result
