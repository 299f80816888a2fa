# SPDX-License-Identifier: Apache-2.0
"""How much of a core each program of a bench uses for a request. On a machine that is shared with
others this says more than requests a second: who waits for the core uses none of it.
"""
import statistics
from pathlib import Path


def family(pid):
    """A process and its children: nginx works in one."""
    children = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid, *(child for text in children for word in text.split()
                   for child in family(int(word)))]


def used_us(pid):
    """Time on a core so far, of all threads."""
    total = 0
    for one in family(pid):
        for path in Path(f"/proc/{one}/task").glob("*/schedstat"):
            total += int(path.read_text().split()[0])
    return total / 1e3


def per_request(pids, run, rounds):
    """{name: microseconds of a core a request, median of the rounds}; run() returns how many."""
    rows = []
    for _ in range(rounds):
        before = {name: used_us(pid) for name, pid in pids.items()}
        count = run()
        rows.append({name: (used_us(pid) - before[name]) / count for name, pid in pids.items()})
    return {name: statistics.median(row[name] for row in rows) for name in pids}


def show(title, router, figures):
    parts = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
    print(f"{title}, by {router}: {sum(figures.values()):.1f} us ({parts})", flush=True)
