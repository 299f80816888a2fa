# SPDX-License-Identifier: Apache-2.0
"""Several meshes at a time: most cases wait most of the time, for a death to be noticed or for an
answer to grow. Each lane is a process with a mesh of its own; it takes one unit of cases after the
other. Cases that judge times or CPU (`alone`) run when everything else is over. `run` uses this.
"""
import contextlib
import multiprocessing
import queue
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import harness

LOG_LINES = 25
POLL_S = 0.5
FORK = multiprocessing.get_context("fork")


@dataclass
class Result:
    """What became of one case; `text` is what a person should see."""
    name: str
    word: str
    text: str


def units_of(cases):
    """Lists of cases that a lane runs in a row: those that share a mesh and one that spoils it, and
    each other one that spoils it. The long ones first, so that all lanes end at the same time."""
    shared, spoiling = {}, []
    for case in sorted(cases, key=lambda c: c.dirty):
        unit = shared.setdefault(case.spec, [])
        if unit and unit[-1].dirty:
            spoiling.append([case])
        else:
            unit.append(case)
    return sorted(shared.values(), key=len, reverse=True) + spoiling


class Lane:
    """Runs cases on one mesh after the other; equal specs in a row share one."""

    def __init__(self, name, build_dir, quick):
        self.name, self.build_dir, self.quick = name, build_dir, quick
        self.mesh = None

    def close_mesh(self):
        if self.mesh:
            self.mesh.end_clients()
            self.mesh.down()
            self.mesh = None

    def mesh_for(self, case):
        if self.mesh and self.mesh.spec != case.spec:
            self.close_mesh()
        if not self.mesh:
            self.mesh = harness.Mesh(self.name, case.spec, self.build_dir)
            self.mesh.up()
        return self.mesh

    def logs(self):
        lines = []
        for log in sorted(Path(self.mesh.folder).glob("*/*.log")) if self.mesh else ():
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            lines.append(f"    --- {log}")
            lines += [f"    {line}" for line in said[-LOG_LINES:]]
        return lines

    def attempt(self, case):
        """Runs one case; returns its remark. Programs that fall are failures of any case."""
        mesh = self.mesh_for(case)
        remark = case.function(mesh, self.quick)
        fallen = mesh.fallen()
        harness.check(not fallen, "programs ended that should run:", fallen)
        return remark

    def run(self, case):
        started = time.monotonic()
        try:
            remark, word = self.attempt(case), "ok"
        except harness.Skip as skip:
            remark, word = str(skip), "skipped"
        except Exception as error:  # any failure is one of the case, never of the runner
            remark, word = str(error), "FAILED"
            if not isinstance(error, harness.Failed):
                remark = traceback.format_exc()
        seconds = time.monotonic() - started
        lines = [f"{word:<8}e2e/{case.name} ({seconds:.1f} s){': ' + remark if remark else ''}"]
        lines += self.logs() if word == "FAILED" else []
        if self.mesh:
            self.mesh.end_clients()
        if case.dirty or word == "FAILED":
            self.close_mesh()
        return Result(case.name, word, "\n".join(lines))


def lane_main(lane, units, turn, results):
    """Takes units until none is left. `turn` counts those that were taken, over all lanes."""
    # Handlers, not SIG_IGN: what a case starts would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)  # the parent ends the lanes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while True:
            with turn.get_lock():
                at = turn.value
                turn.value += 1
            if at >= len(units):
                return
            for case in units[at]:
                results.put(lane.run(case))
    finally:
        signal.signal(signal.SIGTERM, lambda *_: None)
        lane.close_mesh()


def run_units(lanes, units, note):
    """Runs all units in as many processes as there are lanes; note(result) for each case."""
    turn, results = FORK.Value("i", 0), FORK.Queue()
    processes = [FORK.Process(target=lane_main, args=(lane, units, turn, results))
                 for lane in lanes[:len(units)]]
    for process in processes:
        process.start()
    try:
        running = True
        while running:  # once more behind the last one's end
            running = any(process.is_alive() for process in processes)
            with contextlib.suppress(queue.Empty):
                while True:
                    note(results.get(timeout=POLL_S))
    finally:
        for lane, process in zip(lanes, processes):
            process.terminate()
            process.join()
            if process.exitcode != 0:  # it may not have come to take its mesh down
                harness.Mesh(lane.name, None, lane.build_dir).down()


def run_all(cases, lanes, note):
    """Every case once; a case whose lane died under it counts as failed."""
    seen = set()

    def noted(result):
        seen.add(result.name)
        note(result)
    run_units(lanes, units_of([case for case in cases if not case.alone]), noted)
    run_units(lanes[:1], units_of([case for case in cases if case.alone]), noted)
    for case in cases:
        if case.name not in seen:
            note(Result(case.name, "FAILED", f"FAILED  e2e/{case.name} (0.0 s): it never ended"))
