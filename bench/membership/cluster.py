# SPDX-License-Identifier: Apache-2.0
"""A running cluster of one kind of agent: its processes, and what each node believes, with the
times of this process's clock, which is the only one. Neighbours: fabric.py has the network,
agents.py reads the agents' lines, trials.py breaks things and asks here what was noticed.
"""
import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from agents import ALIVE, DEAD, LEFT
from fabric import node_address, node_name

STALL_PERIOD_S = 0.02
STOP_TIMEOUT_S = 5


@dataclass(frozen=True)
class Event:
    at: float       # monotonic seconds, when its line was read
    observer: str
    kind: str       # agents.EVENTS
    subject: str


class StallWatch:
    """How late this process itself gets to run: no figure is better than that."""

    def __init__(self):
        self.worst = 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            began = time.monotonic()
            if self.stopped.wait(STALL_PERIOD_S):
                return
            self.worst = max(self.worst, time.monotonic() - began - STALL_PERIOD_S)

    def take(self):
        worst, self.worst = self.worst, 0.0
        return worst

    def stop(self):
        self.stopped.set()
        self.thread.join()


class Cluster:
    def __init__(self, fabric, agent, folder):
        self.fabric, self.agent, self.folder = fabric, agent, Path(folder)
        self.names = [node_name(i) for i in range(fabric.count)]
        self.processes = {}
        self.events = []
        self.believes = defaultdict(dict)   # observer -> subject -> kind, suspicion apart
        self.changed = threading.Condition()
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = os.pipe()
        self.selector.register(self.wake_read, selectors.EVENT_READ, None)
        self.running = True
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.stalls = StallWatch()

    # ---- processes -----------------------------------------------------------------------------
    def start(self, index, join=None):
        """Starts a node; `join` is the index of another one."""
        name = node_name(index)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        command = self.fabric.inside(index) + self.agent.command(
            name, node_address(index), None if join is None else node_address(join), str(folder))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
        os.set_blocking(process.stdout.fileno(), False)
        with self.changed:
            self.believes[name] = {}
        self.processes[name] = process
        self.selector.register(process.stdout, selectors.EVENT_READ, (name, process, bytearray()))
        os.write(self.wake_write, b"x")

    def signal(self, index, number):
        self.processes[node_name(index)].send_signal(number)

    def kill(self, index):
        process = self.processes[node_name(index)]
        process.kill()
        process.wait()

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        for process in self.processes.values():
            process.wait(STOP_TIMEOUT_S)
        self.running = False
        os.write(self.wake_write, b"x")
        self.reader.join()
        self.stalls.stop()
        self.selector.close()
        os.close(self.wake_read)
        os.close(self.wake_write)

    def cpu_s(self):
        """Processor seconds of all living nodes since their starts."""
        ticks = 0
        for process in self.processes.values():
            with contextlib.suppress(FileNotFoundError, IndexError):
                text = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii")
                fields = text.rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def dead_processes(self):
        return [name for name, process in self.processes.items() if process.poll() is not None]

    # ---- what is read --------------------------------------------------------------------------
    def _read(self):
        while self.running:
            for key, _ in self.selector.select():
                if key.data is None:
                    os.read(self.wake_read, 4096)
                else:
                    self._take(key.fileobj, *key.data)

    def _take(self, pipe, name, process, rest):
        data = pipe.read()
        now = time.monotonic()
        if not data:
            if data == b"":
                self.selector.unregister(pipe)
                pipe.close()
            return
        rest += data
        *lines, tail = bytes(rest).split(b"\n")
        rest[:] = tail
        with self.changed:
            if self.processes.get(name) is not process:
                return  # last words of one that has been started anew
            for line in lines:
                found = self.agent.parse(line.decode(errors="replace").strip())
                if found:
                    self._note(Event(now, name, *found))
            self.changed.notify_all()

    def _note(self, event):
        self.events.append(event)
        if event.kind in (ALIVE, DEAD, LEFT):
            self.believes[event.observer][event.subject] = event.kind

    # ---- questions -----------------------------------------------------------------------------
    def mark(self):
        """A place in the list of events, for since()."""
        with self.changed:
            return len(self.events)

    def since(self, mark):
        with self.changed:
            return self.events[mark:]

    def all_see(self, observers, subjects):
        """Does every observer believe every subject to be alive? Hold self.changed."""
        return all(self.believes[o].get(s) == ALIVE for o in observers for s in subjects if o != s)

    def unseen(self, limit=5):
        """The first few of those who do not believe somebody to be alive, for messages."""
        with self.changed:
            pairs = [(o, s, self.believes[o].get(s, "unknown")) for o in self.names
                     for s in self.names if o != s and self.believes[o].get(s) != ALIVE]
        return f"{len(pairs)} views differ: " + ", ".join(
            f"{o} holds {s} {kind}" for o, s, kind in pairs[:limit])

    def wait(self, condition, timeout_s):
        """Waits for condition(), called with the lock held. Returns whether it came true."""
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def wait_whole(self, timeout_s):
        """Until everybody sees everybody."""
        return self.wait(lambda: self.all_see(self.names, self.names), timeout_s)


@contextlib.contextmanager
def running(fabric, agent, folder, timeout_s, pace_s=0.02):
    """A whole cluster, joined through node 0; ends it on every way out."""
    cluster = Cluster(fabric, agent, folder)
    try:
        cluster.start(0)
        time.sleep(0.5)
        for i in range(1, fabric.count):
            cluster.start(i, join=0)
            time.sleep(pace_s)
        if not cluster.wait_whole(timeout_s):
            lost = cluster.dead_processes()
            raise RuntimeError(f"{agent.name}: not whole after {timeout_s} s; {cluster.unseen()}"
                               + (f"; these ended: {', '.join(lost)}" if lost else ""))
        yield cluster
    finally:
        for process in cluster.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
        cluster.stop()
