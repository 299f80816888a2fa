#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the runners said, for scripts/test: totals, who failed and what it printed, how long each
took. Reads ctest's JUnit file, and logs with a line `ok|skipped|FAILED NAME (SECONDS s): ...` a
case; what follows a line belongs to its case.

usage: test_report.py junit PART FILE REPORT        prints `PASSED FAILED SKIPPED`
       test_report.py log PART FILE STATUS REPORT   the same; the log's last line is its totals
       test_report.py slowest REPORT                the cases that took longest
       test_report.py failed REPORT                 failed cases, and the ends of what they printed

REPORT is a folder that collects times.tsv and failed.json over all parts.
"""
import json
import re
import sys
import xml.etree.ElementTree as tree
from pathlib import Path

SHOWN_LINES = 15
SLOWEST = 10
VERDICT = re.compile(r"^(ok|skipped|FAILED|error:)\s+([a-z0-9_-]+/[\w./+-]*\w)"
                     r"(?: \((\d+(?:\.\d+)?) s\))?")
TOTALS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")
LOG_OF_A_MESH = "    ---"  # tests/e2e/run: what follows is not the case's own


def note(report, failed, times):
    """Adds to what the report's folder has; `failed` and `times` by name."""
    with open(report / "times.tsv", "a", encoding="utf-8") as file:
        file.writelines(f"{seconds}\t{name}\n" for name, seconds in times.items())
    with open(report / "failed.json", "a", encoding="utf-8") as file:
        file.writelines(json.dumps([name, lines]) + "\n" for name, lines in failed.items())


def junit(part, path, report):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed, times = {}, {}
    for case in tree.parse(path).getroot().iter("testcase"):
        name = f"{part}/{case.get('name')}"
        why = case.find("skipped")
        if case.get("status") == "run":
            word = "passed"
        elif why is not None and "SKIP_" in why.get("message", ""):
            word = "skipped"
        else:  # also tests whose program is not there
            word = "failed"
            failed[name] = (case.findtext("system-out") or "").splitlines()
        counts[word] += 1
        times[name] = float(case.get("time", 0))
    note(report, failed, times)
    print(*counts.values())


def own_lines(lines):
    """Without the logs that follow."""
    end = next((i for i, line in enumerate(lines) if line.startswith(LOG_OF_A_MESH)), len(lines))
    return lines[:end]


def totals(lines, status):
    """The last line's numbers. One more failure if it is missing, or if the runner's status says so
    where the line does not."""
    found = TOTALS.match(lines[-1]) if lines else None
    if not found:
        return [0, 1, 0]
    counts = [int(number) for number in found.groups()]
    counts[1] += status != 0 and counts[1] == 0
    return counts


def log(part, path, status, report):
    failed, times, current = {}, {}, None
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    counts = totals(lines, int(status))
    for line in lines:
        verdict = VERDICT.match(line)
        if verdict or TOTALS.match(line):
            current = None
        if verdict:
            word, name, seconds = verdict.groups()
            name = f"{part}/{name.partition('/')[2]}"  # e2e cases run in several parts
            if seconds:
                times[name] = float(seconds)
            if word in ("FAILED", "error:"):
                current = failed.setdefault(name, [])
        if current is not None:
            current.append(line)
    failed = {name: own_lines(said) for name, said in failed.items()}
    if counts[1] > len(failed):
        failed[part] = lines
    note(report, failed, times)
    print(*counts)


def slowest(report):
    rows = [line.rstrip("\n").split("\t")
            for line in (report / "times.tsv").read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: -float(row[0]))
    for seconds, name in rows[:SLOWEST]:
        print(f"{float(seconds):7.1f} s  {name}")


def failed_cases(report):
    for line in (report / "failed.json").read_text(encoding="utf-8").splitlines():
        name, said = json.loads(line)
        print(f"failed: {name}")
        for text in said[-SHOWN_LINES:]:
            print(f"    {text}")


def main():
    command, *arguments = sys.argv[1:]
    report = Path(arguments.pop())
    for name in ("times.tsv", "failed.json"):
        (report / name).touch()
    {"junit": junit, "log": log, "slowest": slowest, "failed": failed_cases}[command](*arguments,
                                                                                      report)


if __name__ == "__main__":
    main()
