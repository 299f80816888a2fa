#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""First token from a packet's arrival: a node, a worker with a real model, clients one at a time.

scripts/gpu-check runs it where Weft itself is built. What the worker says it had a request (wait
and prompt) is taken off for the second figure: what the way through client library, node and port
adds, and the text's to tokens. The prompt is the same each time, so that but for the first requests
the worker knows it already.
Exit status 0, or 77 with the reason on stdout where it cannot be measured here.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts" / "lib"))
import bench_mesh  # noqa: E402  (the path above makes it visible)
from harness import wait_until  # noqa: E402

NODE = "tokyo"
MODEL = "first-token"
LOAD_S = 300.0  # until a model is loaded and its speed known
GOAL_US = 100.0
SKIPPED = 77


class NotHere(Exception):
    """Why it cannot be measured."""


def needs(args):
    """The model's path."""
    missing = [name for name in ("weftd", "weft-worker", "weft-bench", "weft")
               if not (Path(args.build_dir) / "bin" / name).exists()]
    if missing:
        raise NotHere(f"needs {missing[0]} (scripts/build; --weft-build tells where it is)")
    if os.geteuid() != 0:
        raise NotHere("needs root, for network namespaces")
    if args.model:
        return args.model
    found = subprocess.run([ROOT / "scripts" / "model-fetch", "--offline"], capture_output=True,
                           text=True, check=False)
    if found.returncode != 0:
        raise NotHere("needs a model: scripts/model-fetch gets one, --model names another")
    return found.stdout.strip()


def run(args, model):
    """The load's JSON, and the backend that computed."""
    bench_mesh.MODEL = MODEL
    with bench_mesh.BenchMesh(args, nodes=1, workers=[]) as bench:
        node = bench.mesh.node(NODE)
        log = f"{bench.mesh.folder}/{NODE}/worker.log"
        worker = bench_mesh.Program(
            [bench.build / "bin" / "weft-worker", "--port", node["port"], "--model", model,
             "--name", MODEL, "--backend", args.backend, "--gemm", "auto", "--slots", 1], log)
        bench.programs.append(worker)
        wait_until(lambda: bench.mesh.room(NODE) or worker.process.poll() is not None, LOAD_S,
                   "the worker attached")
        if worker.process.poll() is not None:
            raise NotHere(Path(log).read_text(encoding="utf-8").strip().rpartition("\n")[2])
        options = ["--concurrency", 1, "--max-tokens", 2, "--no-intervals"]
        bench.load(NODE, *options, "--requests", args.warm)
        load = bench.load(NODE, *options, "--requests", args.requests)
        return load, bench.mesh.status(NODE)["workers"][0]["backend"]


def row(load, backend):
    """What goes into the report."""
    first, outside = load["first_token_ms"], load["outside_worker_ms"]
    return {"backend": backend, "requests": load["requests"],
            "failed": load["requests"] - load["answered"],
            "first_token_p50_us": 1e3 * first["p50"], "first_token_p99_us": 1e3 * first["p99"],
            "outside_worker_p50_us": 1e3 * outside["p50"],
            "outside_worker_p99_us": 1e3 * outside["p99"], "goal_us": GOAL_US}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", default=os.environ.get("WEFT_BUILD_DIR",
                                                              str(ROOT / "build")))
    parser.add_argument("--name", default=f"ft{os.getpid() % 10000}", help="of the mesh")
    parser.add_argument("--model", help="GGUF; default: scripts/model-fetch's")
    parser.add_argument("--backend", default="cuda", help="auto, cpu or cuda; default cuda")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--warm", type=int, default=20, help="requests before those")
    parser.add_argument("--json", help="a report of gpu-check's that this is added to")
    args = parser.parse_args()
    try:
        figures = row(*run(args, needs(args)))
    except NotHere as why:
        print(f"first token from a packet's arrival: not measured, {why}")
        return SKIPPED
    print(f"first token from a packet's arrival ({figures['backend']}, known prompt, n = "
          f"{figures['requests']}): p50 {figures['first_token_p50_us']:.0f} us, p99 "
          f"{figures['first_token_p99_us']:.0f} us; outside the worker p50 "
          f"{figures['outside_worker_p50_us']:.0f} us, p99 "
          f"{figures['outside_worker_p99_us']:.0f} us (goal: p99 below {GOAL_US:.0f} us: "
          f"{'met' if figures['outside_worker_p99_us'] < GOAL_US else 'missed'})")
    if args.json:
        with open(args.json, encoding="utf-8") as file:
            report = json.load(file)
        report["first_token"] = figures
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
