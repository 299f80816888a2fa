# SPDX-License-Identifier: Apache-2.0
"""schemas/openapi.yaml against a gateway with a model behind it: schemathesis, where it is
installed, asks what the description allows and what it does not, and reads each answer by it. See
harness.py."""
import os
import re
import subprocess
from pathlib import Path

from cases_upstream import MODEL, bed_of
from harness import ROOT, MeshSpec, Skip, case, check
from http_client import PORT, gateway

TWO = MeshSpec(workers="none")
WANTED = "4.32.5"
RUN_S = 900  # bounds a hang
# A model that is there, and answers that are short.
HERE = [(r"ModelName: \{.*\}", f"ModelName: {{enum: [{MODEL}]}}"),
        (r"((?:max_tokens|max_\w+_tokens): \{.*?maximum: )\d+", r"\g<1>8"),
        (r"(n: \{type: \[integer, \"null\"\], minimum: 1, maximum: )16", r"\g<1>2")]


def schemathesis():
    path = os.environ.get("WEFT_SCHEMATHESIS")
    if not path:
        raise Skip("WEFT_SCHEMATHESIS names no schemathesis; it takes minutes")
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    if not told.strip().endswith(WANTED):
        raise Skip(f"{told.strip()}, not {WANTED}")
    return path


def narrowed(folder):
    text = (ROOT / "schemas" / "openapi.yaml").read_text(encoding="utf-8")
    for pattern, instead in HERE:
        text, count = re.subn(pattern, instead, text)
        check(count, "nothing in the description is", pattern)
    path = Path(folder) / "openapi.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def ask_all(mesh, program, path, *options):
    here = ROOT / "tests" / "e2e"
    done = subprocess.run(mesh.in_netns(
        ["env", f"SCHEMATHESIS_HOOKS={here / 'schemathesis_hooks.py'}", program, "--config-file",
         here / "schemathesis.toml", "run", path, "--url", f"http://127.0.0.1:{PORT}",
         "--suppress-health-check", "all", *options], "tokyo"),  # they are about a quick machine
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_S, check=False,
        cwd=mesh.folder)  # it keeps what it has found where it runs
    check(done.returncode == 0, done.stdout[-8000:], done.stderr[-2000:])
    return re.search(r"(\d+) generated", done.stdout)[1]


@case("api/description", TWO, dirty=True)
def api_description(mesh, quick):
    """What the description allows is taken, what it does not is refused, and every answer is as it
    says: first with models that nobody has, then with one that answers."""
    program = schemathesis()
    few = ["--phases", "examples,coverage"] if quick else []
    with bed_of(mesh) as bed, gateway(mesh) as g:
        bed.start_mock("frankfurt")
        bed.start("frankfurt")
        refused = ask_all(mesh, program, ROOT / "schemas" / "openapi.yaml", *few)
        answered = ask_all(mesh, program, narrowed(mesh.folder), "--mode", "positive", *few)
        check(g.answers(), "the gateway is gone")
        served = len(bed.told("frankfurt"))
        check(served, "the model was never asked")
        return f"{refused} and {answered} cases, {served} answered by the model"
