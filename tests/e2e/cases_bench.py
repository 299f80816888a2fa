# SPDX-License-Identifier: Apache-2.0
"""What the benches claim to be able to do, short: the soak with faults, the scenarios. They make
meshes of their own; the figures that they print are not judged here. See harness.py."""
import json
import os
import subprocess
import tempfile

from harness import ROOT, Failed, MeshSpec, Skip, case, check

ALONE = MeshSpec(nodes=1, workers="none")
LIMIT_S = 1800.0


def run_script(mesh, name, *args):
    """Runs scripts/NAME against the same build; its last lines are the case's remark."""
    if not (mesh.build_dir / "bin" / "weft-bench").exists():
        raise Skip("weft-bench is not built")
    command = [ROOT / "scripts" / name, "--build-dir", mesh.build_dir, "--name",
               f"{mesh.name}b", *args]
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        try:
            out, err = script.communicate(timeout=LIMIT_S)
        except BaseException as error:  # also the end of this run: its mesh must not stay
            script.terminate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{name} still ran after {LIMIT_S} s") from None
            raise
    check(script.returncode == 0, f"{name}: status {script.returncode}:", out[-4000:], err[-2000:])
    return out


@case("bench/soak", ALONE)
def soak(mesh, quick):
    """Mixed load with faults, for half a minute or $WEFT_SOAK_SECONDS: nothing grows, nothing is
    held afterwards."""
    seconds = os.environ.get("WEFT_SOAK_SECONDS", 20 if quick else 30)
    out = run_script(mesh, "bench-soak", "--seconds", seconds)
    return "; ".join(out.splitlines()[1:3])


@case("bench/scenarios", ALONE)
def scenarios(mesh, _quick):
    """Restarted one by one, and leaving one by one: three cities, and no request fails."""
    out = run_script(mesh, "bench-scenario", "--no-timing", "--rate", 20, "--seconds", 15,
                     "rolling", "drain")
    return "; ".join(line for line in out.splitlines() if line.endswith("holds"))


@case("gpu/first_token", ALONE)
def first_token(mesh, _quick):
    """What scripts/gpu-check says of the first token from a packet's arrival, by whatever computes
    here."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "gpu.json")
        with open(report, "w", encoding="utf-8") as file:
            file.write("{}")
        out = run_script(mesh, "../tests/gpu/first_token.py", "--backend", "auto", "--requests",
                         50, "--warm", 2, "--json", report)
        with open(report, encoding="utf-8") as file:
            figures = json.load(file)["first_token"]
    check(figures["requests"] == 50 and figures["failed"] == 0, figures)
    check(0 < figures["outside_worker_p50_us"] < figures["first_token_p50_us"], figures)
    return out.strip()


@case("bench/http", ALONE)
def http(mesh, _quick):
    """Load over HTTP: through weft-gateway and a mesh, and beside whichever peers are installed."""
    with tempfile.TemporaryDirectory() as folder:
        out = run_script(mesh, "bench-gateway", "--rounds", 1, "--seconds", 3, "--rate", 30,
                         "--out", folder, "direct", "nginx", "haproxy")
    return f"compared: {len(out.splitlines())}"
