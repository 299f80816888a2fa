#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/membership without its network: quantiles, Poisson intervals, what a line of output means,
which declarations are false, and how pauses are planned."""
import math
import random
import signal
import sys
import types
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench" / "membership"))
import agents  # noqa: E402  (the path above makes them visible)
import figures  # noqa: E402
import trials  # noqa: E402
from cluster import Event  # noqa: E402


class Figures(unittest.TestCase):
    def test_poisson_intervals_of_the_tables(self):
        for count, low, high in ((0, 0, 3.689), (1, 0.0253, 5.572), (3, 0.619, 8.767),
                                 (10, 4.795, 18.39), (100, 81.36, 121.63)):
            got = figures.poisson_interval(count)
            self.assertAlmostEqual(got[0], low, delta=0.01)
            self.assertAlmostEqual(got[1], high, delta=0.01)

    def test_what_is_missing_is_never(self):
        self.assertEqual(figures.quantile([1, None, 2], 0.5), 2)
        self.assertEqual(figures.quantile([1, None, 2], 0.99), math.inf)
        self.assertEqual(figures.quantile([5], 0.01), 5)
        self.assertEqual(figures.seconds(math.inf), "never")

    def test_a_loss_not_known_to_all_counts(self):
        row = {"known": 2, "last_s": None, "suspected_s": 1, "first_s": 2, "median_s": 3,
               "rejoin_s": 1, "false_dead": 0, "stall_s": 0}
        whole = {**row, "last_s": 4.0}
        got = figures.losses([row, whole])
        self.assertEqual((got["all_knew"], got["trials"], got["last_mean_s"]), (1, 2, 4.0))
        self.assertEqual(got["last_p90_s"], math.inf)


class Lines(unittest.TestCase):
    def test_serf(self):
        parse = agents.Serf().parse
        for line, want in (
                ("2026/11/21 14:00:01 [INFO] serf: EventMemberFailed: n3 10.79.0.4",
                 (agents.DEAD, "n3")),
                ("2026/11/21 14:00:01 [INFO] serf: EventMemberJoin: n12 10.79.0.13",
                 (agents.ALIVE, "n12")),
                ("2026/11/21 14:00:01 [INFO] memberlist: Suspect n5 has failed, no acks received",
                 (agents.SUSPECT, "n5")),
                ("2026/11/21 14:00:01 [INFO] agent: Received event: member-failed", None)):
            self.assertEqual(parse(line), want)

    def test_objects(self):
        lines = agents.Lines("x", "")
        self.assertEqual(lines.parse('{"event": "dead", "node": "n1"}'), (agents.DEAD, "n1"))
        for line in ("", "{", '{"event": "odd", "node": "n1"}', '{"event": "dead"}', "[1]"):
            self.assertIsNone(lines.parse(line))

    def test_commands(self):
        lines = agents.Lines("x", "prog --name {node} --join {join} --at={address}")
        self.assertEqual(lines.command("n1", "A", "J", "/f"),
                         ["prog", "--name", "n1", "--join", "J", "--at=A"])
        self.assertEqual(lines.command("n0", "A", None, "/f"), ["prog", "--name", "n0", "--at=A"])

    def test_timers_of_choice(self):
        knobs = agents.by_words("memberlist:probe=500ms:suspicion=3").knobs
        self.assertEqual((knobs["probe"], knobs["suspicion"], knobs["gossip"]),
                         ("500ms", "3", "200ms"))
        for word in ("memberlist:odd=1", "memberlist:probe=", "memberlist:probe", "nothing"):
            with self.assertRaises(agents.AgentError):
                agents.by_words(word)


class Trials(unittest.TestCase):
    def test_false_declarations(self):
        events = [Event(1, "a", agents.DEAD, "victim"), Event(2, "victim", agents.DEAD, "a"),
                  Event(3, "a", agents.DEAD, "b"), Event(4, "a", agents.SUSPECT, "b")]
        self.assertEqual(trials.false_ones(events, {"victim"}), [events[2]])

    def test_episodes(self):
        events = [Event(t, "o", agents.DEAD, s)
                  for t, s in ((1, "a"), (20, "a"), (49, "a"), (90, "a"), (2, "b"))]
        self.assertEqual(trials.episodes(events, 30), 3)

    def test_pauses(self):
        limits = types.SimpleNamespace(pause_s=(0.1, 30), gap_s=10, slow_s=600)
        plan = trials.pulses(random.Random(1), [3, 4], limits)
        self.assertEqual(plan, sorted(plan, key=lambda step: step[0]))
        for node in (3, 4):
            mine = [(at, number) for at, which, number in plan if which == node]
            self.assertEqual([n for _, n in mine],
                             [signal.SIGSTOP, signal.SIGCONT] * (len(mine) // 2))
            for (stop, _), (go, _) in zip(mine[::2], mine[1::2]):
                self.assertTrue(0 <= stop <= go <= 600 and go - stop <= 30.001)


if __name__ == "__main__":
    unittest.main(verbosity=1)
