# SPDX-License-Identifier: Apache-2.0
"""Programs of others against a gateway, where they are installed (client_tools.py). See harness.py.
"""
import os
import subprocess
import sys

from harness import MODEL, ROOT, MeshSpec, Skip, case, check
from http_client import gateway

ONE = MeshSpec(workers="frankfurt")
URL = "http://127.0.0.1:8080"
SCRIPT = ROOT / "tests" / "e2e" / "client_tools.py"
# By the official client, as litellm uses it: 503 and x-should-retry.
RETRIES = """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=2)
try:
    client.chat.completions.create(model=sys.argv[2], messages=[{"role": "user", "content": "hi"}])
except openai.APIStatusError as error:
    print(error.status_code)
"""


def client(mesh, *arguments):
    python = os.environ.get("WEFT_CLIENTS_PYTHON", sys.executable)
    done = subprocess.run(mesh.in_netns([python, "-B", *arguments], "tokyo"),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
                          check=False)
    if done.returncode == 77:
        raise Skip(done.stdout.strip())
    check(done.returncode == 0, done.stdout[-4000:], done.stderr[-2000:])
    return done.stdout.strip()


def asked(g):
    return g.log().count("path=/v1/chat/completions")


@case("tools/clients", ONE)
def clients(mesh, _quick):
    """litellm, llm and curl: answers, streams, errors, clients that leave early."""
    with gateway(mesh):
        return client(mesh, SCRIPT, URL, MODEL)


@case("tools/retries", ONE)
def retries(mesh, _quick):
    """What may help is tried again by a client, what cannot is not."""
    client(mesh, SCRIPT, "--installed", "")
    with gateway(mesh) as g:
        before = asked(g)
        check(client(mesh, "-c", RETRIES, URL + "/v1", "nobody-has-it") == "404", "not refused")
        check(asked(g) == before + 1, "asked again for a model that nobody has:", asked(g))
    with gateway(mesh, "tokyo", "--node", "127.0.0.1:9") as g:
        before = asked(g)
        check(client(mesh, "-c", RETRIES, URL + "/v1", MODEL) == "503", "not refused")
        check(asked(g) == before + 3, "not tried again twice:", asked(g) - before)
