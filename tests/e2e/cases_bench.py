# SPDX-License-Identifier: Apache-2.0
"""What the benches claim to be able to do, short: the soak with faults, the scenarios. They make
meshes of their own; the figures that they print are not judged here. See harness.py."""
import os
import subprocess
import tempfile

from harness import ROOT, Failed, MeshSpec, Skip, case, check

ALONE = MeshSpec(nodes=1, workers="none")
LIMIT_S = 600.0


def run_script(mesh, name, *args):
    """Runs scripts/NAME against the same build; its last lines are the case's remark."""
    if not (mesh.build_dir / "bin" / "weft-bench").exists():
        raise Skip("weft-bench is not built")
    command = [ROOT / "scripts" / name, "--build-dir", mesh.build_dir, "--name",
               f"b{os.getpid() % 10000}", *args]
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} still ran after {LIMIT_S} s") from None
    check(done.returncode == 0, f"{name}: status {done.returncode}:", done.stdout[-4000:],
          done.stderr[-2000:])
    return done.stdout


@case("bench/soak", ALONE)
def soak(mesh, quick):
    """Half a minute of mixed load with faults: nothing grows, nothing is held afterwards."""
    out = run_script(mesh, "bench-soak", "--seconds", 20 if quick else 30)
    return "; ".join(out.splitlines()[1:3])


@case("bench/scenarios", ALONE)
def scenarios(mesh, _quick):
    """Restarted one by one, and leaving one by one: three cities, and no request fails."""
    out = run_script(mesh, "bench-scenario", "--no-timing", "--rate", 20, "--seconds", 15,
                     "rolling", "drain")
    return "; ".join(line for line in out.splitlines() if line.endswith("holds"))


@case("bench/http", ALONE)
def http(mesh, _quick):
    """Load over HTTP: through weft-gateway and a mesh, and beside whichever peers are installed."""
    with tempfile.TemporaryDirectory() as folder:
        out = run_script(mesh, "bench-gateway", "--rounds", 1, "--seconds", 3, "--rate", 30,
                         "--out", folder, "direct", "nginx", "haproxy")
    return f"compared: {len(out.splitlines())}"
