# SPDX-License-Identifier: Apache-2.0
"""Meshes with toy workers for scripts/bench-*: up, load runs as JSON, faults, figures, down.

Builds on tests/e2e/harness.py (meshes) and the programs weft-bench and weft-impair. Standard
library only.
"""
import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402  (the path above makes it visible)

MODEL = "bench-toy"
ATTACH_S = 60.0
SEEN_S = 60.0
DIRECT_PORT = 7900


def default_build_dir():
    return os.environ.get("WEFT_BUILD_DIR", str(ROOT / "build"))


def parser(doc, examples, name):
    """For a script with that text and those examples: with the options that all have. `name` is the
    beginning of its meshes' names."""
    made = argparse.ArgumentParser(description=doc, epilog=examples,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--build-dir", default=default_build_dir(),
                      help="where the programs are; default $WEFT_BUILD_DIR or build")
    made.add_argument("--name", default=f"{name}{os.getpid() % 10000}",
                      help="name of the mesh; default another one each time")
    # Whoever stops a bench that takes too long does not want its mesh to stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return made


def run(main):
    """The end of every script: what a mesh or a program had to say against it is said in a line."""
    try:
        sys.exit(main())
    except (harness.Failed, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")


class Program:
    """A process that the bench started; ended with the bench."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen([str(word) for word in command],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def pid(self):
        return self.process.pid

    def end(self, sig="terminate"):
        if self.process.poll() is None:
            getattr(self.process, sig)()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class BenchMesh:
    """A mesh whose workers are toys. Use it with `with`."""

    def __init__(self, args, nodes=3, pace_ms=5.0, slots=0, workers=None, gossip=False):
        self.build = Path(args.build_dir)
        self.bench = self.build / "bin" / "weft-bench"
        self.mesh = harness.Mesh(args.name, harness.MeshSpec(
            nodes=nodes, workers="none", gossip=gossip), self.build)
        self.pace_ms, self.slots = pace_ms, slots
        self.workers = workers
        self.toys, self.programs = {}, []

    def __enter__(self):
        try:
            self.mesh.up()
            names = [node["name"] for node in self.mesh.nodes()]
            for name in names if self.workers is None else self.workers:
                self.start_toy(name)
            for name in names:
                self.wait_seen(name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for program in [*self.toys.values(), *self.programs]:
            with contextlib.suppress(OSError):
                program.end()
        self.mesh.down()

    # ---- workers ----
    def toy_options(self):
        options = ["--pace-ms", self.pace_ms]
        return options + (["--slots", self.slots] if self.slots else [])

    def start_toy(self, name):
        """Attaches one; again and again while the node still ends what a lost one has left."""
        port = self.mesh.node(name)["port"]
        log = f"{self.mesh.folder}/{name}/toy.log"

        def attached():
            toy = self.toys.get(name)
            if toy is None or toy.process.poll() is not None:
                self.toys[name] = Program([self.bench, "toy", "--port", port, "--model", MODEL,
                                           *self.toy_options()], log)
            return self.mesh.room(name)
        harness.wait_until(attached, ATTACH_S, f"the toy worker of {name} attached")

    def end_toy(self, name, sig="kill"):
        self.toys.pop(name).end(sig)

    def wait_seen(self, ingress, workers=None):
        """Until the node knows of every worker."""
        for name in workers or list(self.toys):
            if name != ingress:
                harness.wait_until(lambda n=name: self.mesh.sees_worker(ingress, n), SEEN_S,
                                   f"{ingress} sees the worker of {name}")

    def start_direct(self, name):
        """A worker without a mesh in a node's namespace; its address."""
        command = [self.bench, "toy", "--listen", DIRECT_PORT, *self.toy_options()]
        self.programs.append(Program(self.mesh.in_netns(command, name),
                                     f"{self.mesh.folder}/{name}/direct.log"))
        time.sleep(0.3)
        return f"{self.mesh.node(name)['address']}:{DIRECT_PORT}"

    # ---- load ----
    def load_command(self, ingress, *options):
        address = ingress if ":" in ingress else self.mesh.endpoint(ingress)
        return self.mesh.in_netns([self.bench, "load", "--node", address, "--model", MODEL,
                                   "--json", *options])

    def start_load(self, ingress, *options):
        return subprocess.Popen(self.load_command(ingress, *options), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def load(self, ingress, *options):
        """Runs weft-bench load in the clients' namespace: its JSON."""
        return self.finish(self.start_load(ingress, *options))

    @staticmethod
    def finish(process):
        out, _ = process.communicate()
        if not out.strip():
            raise harness.Failed(f"weft-bench load said nothing (status {process.returncode})")
        return json.loads(out)

    def impair(self, rules):
        """Rules in the language of bench/impair; None takes them away."""
        if rules is None:
            self.mesh.script("impair", "none")
            return
        path = f"{self.mesh.folder}/bench.rules"
        Path(path).write_text(rules, encoding="utf-8")
        self.mesh.script("impair", path, "--build-dir", str(self.build))

    def tell_impair(self, rule):
        subprocess.run([self.build / "bin" / "weft-impair", "tell",
                        f"{self.mesh.folder}/sw/impair.sock", "rule", rule], check=True,
                       stdout=subprocess.DEVNULL)


def median_interval(values):
    """Median and, by order statistics of the binomial, an interval of at least 95 % if there are
    six values or more (else least and greatest)."""
    ordered = sorted(values)
    n, below, mass = len(ordered), 0, 0.5 ** len(ordered)
    total = mass
    while n >= 6 and total <= 0.025:
        below += 1
        mass = mass * (n - below + 1) / below
        total += mass
    low = max(below - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def revision():
    """What was measured: $WEFT_BENCH_LABEL, or the commit of the sources and whether they differ
    from it."""
    if os.environ.get("WEFT_BENCH_LABEL"):
        return os.environ["WEFT_BENCH_LABEL"]
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude",
                           "*"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def about():
    """What every JSON says of itself: command, day, revision, machine."""
    words, skip = [f"scripts/{Path(sys.argv[0]).name}"], False
    for word in sys.argv[1:]:
        if skip or word in ("--build-dir", "--name", "--keep", "--json"):
            skip = not skip and word != "--json"
            continue
        words.append(word)
    return {"command": " ".join(words), "machine": machine(), "revision": revision(),
            "date": time.strftime("%Y-%m-%d", time.gmtime())}


def machine():
    """One line about where this runs, with the load of others."""
    done = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file
                      if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Linux {done.stdout.strip()}, load average {load:.1f}"
