# SPDX-License-Identifier: Apache-2.0
"""How soon a worker stops computing for a client that has had enough, in the middle of a prompt and
of an answer, and that nobody beside notices. The worker's log has the end of each. See harness.py.
"""
import random
import re
import statistics
import time
from datetime import datetime

from harness import (BOUND_S, EXIT_INTERRUPTED, MeshSpec, case, check, expect_served, wait_until)

ONE = MeshSpec(workers="frankfurt")
ROUNDS, ROUNDS_QUICK = 20, 6
PROMPT_TOKENS_LEAST = 2500
LINE = re.compile(r"^(\S+) .* cancelled stop_us=(\d+) prompt_tokens=(\d+) new_tokens=(\d+)$",
                  re.MULTILINE)


def long_prompt(seed):
    """About 3,000 tokens, never the same."""
    draw = random.Random(seed)
    colours = ("red", "green", "blue", "white", "black")
    return " ".join(f"Weaver {i} ties knot {draw.randrange(100)} with a {draw.choice(colours)} "
                    "thread." for i in range(175))


class Log:
    """The cancelled requests in a worker's log, as they come."""

    def __init__(self, mesh, node):
        self.path = f"{mesh.folder}/{node}/worker.log"
        self.seen = len(self.lines())

    def lines(self):
        with open(self.path, encoding="utf-8") as file:
            return LINE.findall(file.read())

    def next(self):
        """Waits for one more: (seconds since the epoch, stop in ms, prompt tokens, new tokens)."""
        lines = wait_until(lambda: self.lines()[self.seen:], BOUND_S, "the cancelled request's end")
        self.seen += 1
        when, stop_us, prompt_tokens, new_tokens = lines[0]
        return (datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp(),
                int(stop_us) / 1e3, int(prompt_tokens), int(new_tokens))


def interrupt(client, log):
    """Ctrl-C; returns the log's entry and the ms from Ctrl-C to it (the log counts whole ms)."""
    sent = time.time()
    client.interrupt()
    entry = log.next()
    answer = client.finish(BOUND_S)
    check(answer.code == EXIT_INTERRUPTED, "exit status of an interrupted run:", answer)
    return entry, max(0.0, (entry[0] - sent) * 1e3)


def summary(stops, ways):
    return (f"computing stops after {statistics.median(stops):.2f} ms (median of {len(stops)}), "
            f"{max(stops):.2f} ms at most; {statistics.median(ways):.0f} ms from Ctrl-C")


def wait_taken(mesh, baseline):
    wait_until(lambda: mesh.room("frankfurt") < baseline, BOUND_S, "the request takes a place")


@case("cancel/prefill", ONE)
def prefill(mesh, quick):
    """Ctrl-C while the worker reads a prompt of 3,000 tokens: it stops within milliseconds."""
    draw = random.Random(1)
    log = Log(mesh, "frankfurt")
    baseline = mesh.room("frankfurt")
    stops, ways = [], []
    for number in range(ROUNDS_QUICK if quick else ROUNDS):
        client = mesh.start_ask(long_prompt(number))
        wait_taken(mesh, baseline)
        time.sleep(draw.uniform(0.05, 0.9))
        (_, stop_ms, prompt_tokens, new_tokens), way_ms = interrupt(client, log)
        check(prompt_tokens >= PROMPT_TOKENS_LEAST, "a prompt of only", prompt_tokens, "tokens")
        check(new_tokens == 0, "the prompt was through before Ctrl-C")
        stops.append(stop_ms)
        ways.append(way_ms)
    expect_served(mesh.ask(), "frankfurt")
    return summary(stops, ways)


@case("cancel/decode", ONE)
def decode(mesh, quick):
    """Ctrl-C while tokens come: the worker stops within one of them."""
    draw = random.Random(2)
    log = Log(mesh, "frankfurt")
    stops, ways = [], []
    for _ in range(ROUNDS_QUICK if quick else ROUNDS):
        client = mesh.start_ask()
        client.wait_text()
        time.sleep(draw.uniform(0.0, 0.3))
        (_, stop_ms, _, new_tokens), way_ms = interrupt(client, log)
        check(new_tokens > 0, "no token had come before Ctrl-C")
        stops.append(stop_ms)
        ways.append(way_ms)
    return summary(stops, ways)


@case("cancel/neighbour", ONE)
def neighbour(mesh, quick):
    """An answer comes whole and the same while prompts beside it are begun and cancelled."""
    prompt, tokens = "Count from 1 to 30.", 40 if quick else 100
    alone = mesh.ask(prompt, max_tokens=tokens)
    expect_served(alone, "frankfurt")
    log = Log(mesh, "frankfurt")
    stops, ways = [], []
    client = mesh.start_ask(prompt, max_tokens=tokens)
    client.wait_text()
    taken = mesh.room("frankfurt")
    number = 0
    while client.process.poll() is None and number < ROUNDS:
        beside = mesh.start_ask(long_prompt(100 + number))
        wait_until(lambda: mesh.room("frankfurt") < taken or client.process.poll() is not None,
                   BOUND_S, "the request takes a place beside the answer")
        if client.process.poll() is not None:
            beside.interrupt()
            beside.finish(BOUND_S)
            break
        (_, stop_ms, _, _), way_ms = interrupt(beside, log)
        stops.append(stop_ms)
        ways.append(way_ms)
        number += 1
    answer = client.finish()
    check(answer.code == 0 and answer.out.strip() == alone.json["text"].strip(),
          f"beside {number} cancelled prompts another answer:", answer)
    check(number > 0, "the answer was complete before anything was cancelled beside it")
    return f"{number} beside it; {summary(stops, ways)}"
