# SPDX-License-Identifier: Apache-2.0
"""The mesh's signed policy: one node has the file, all obey it; whoever claims more than it grants
gets nothing by it. See cases_gossip.py."""
import json
import subprocess
import time

from cases_gossip import MESH, SEEN_S, names_of, wait_seen, weft
from harness import (BOUND_S, EXIT_OK, MODEL, MeshSpec, case, check, expect_refusal, expect_served,
                     wait_until)
from http_client import chat, gateway

GDPR = {"tags": "gdpr", "near": (40.71, -74.01)}  # nearest is newyork


LISTED = MeshSpec(workers="frankfurt,newyork")


def rewrite(mesh, name, **values):
    """Sets keys of the node's own file."""
    path = mesh.node(name)["config"]
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.split(":")[0] not in values]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines + [f"{key}: {value}\n" for key, value in values.items()])


def restart(mesh, *names):
    for name in names:
        mesh.kill(name, "node")
    for name in names:
        mesh.start(name, "node")


def sign(mesh, version, *nodes):
    """A policy signed by the operator; its path and the public key."""
    text = "\n".join(["weft-policy 1", f"version {version}", "issued 1790000000",
                      "providers local", *nodes, ""])
    draft, path = f"{mesh.folder}/policy.txt", f"{mesh.folder}/policy"
    with open(draft, "w", encoding="ascii") as file:
        file.write(text)
    with open(path, "w", encoding="ascii") as file:
        done = subprocess.run([str(mesh.build_dir / "bin" / "weft"), "policy", "sign", "--key",
                               f"{mesh.folder}/operator.key", draft], stdout=file,
                              stderr=subprocess.PIPE, text=True, check=False)
    check(done.returncode == 0, "weft policy sign:", done.stderr)
    return path, done.stderr.split()[-1]


def policy_of(mesh, name):
    done = subprocess.run(
        [str(mesh.build_dir / "bin" / "weft"), "policy", "show", "--socket",
         mesh.node(name)["admin"], "--json"], capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    return shown["policy"]["version"], {m["name"]: m for m in shown["members"]}


def wait_policy(mesh, version):
    for name in names_of(mesh):
        wait_until(lambda: policy_of(mesh, name)[0] == version, SEEN_S,
                   f"{name} obeys version {version}")


def tags_of_liar(mesh, name):
    """No moment at which the lie counts: before the first policy nobody has a tag."""
    tags = policy_of(mesh, name)[1]["newyork"]["tags"]
    check("gdpr" not in tags, f"{name} believes the liar:", tags)
    return tags


def wait_workers(mesh):
    for name in ("frankfurt", "newyork"):
        wait_until(lambda: mesh.sees_worker("tokyo", name), SEEN_S, f"{name}'s worker is known")


def answers(mesh, **options):
    done = weft(mesh, "query", "tokyo", "--model", MODEL, *options.get("words", ()))
    return [c["name"] for c in json.loads(done.stdout)["candidates"]]


@case("policy/a_liar", MESH, dirty=True)
def a_liar(mesh, _quick):
    """A member with the mesh's key claims gdpr and is the nearest. Without a policy it gets gdpr
    requests; with one it gets none of them, though it goes on getting others; not listed, it gets
    none at all."""
    rewrite(mesh, "newyork", tags="[us, eu, gdpr]")
    restart(mesh, "newyork")
    wait_workers(mesh)
    wait_until(lambda: set(answers(mesh, words=("--tags", "gdpr"))) == {"frankfurt", "newyork"},
               SEEN_S, "the lie is believed")
    expect_served(mesh.ask(**GDPR), "newyork")
    own_key = mesh.status("frankfurt")["policy"]["own_key"]
    nodes = ["node 1 provider=local jurisdiction=JP tags=apac",
             f"node 2 provider=local jurisdiction=DE tags=eu,gdpr key={own_key}"]
    path, key = sign(mesh, 1, *nodes, "node 3 provider=local jurisdiction=US tags=us")
    for name in names_of(mesh):
        rewrite(mesh, name, policy_key=key, **({"policy": path} if name == "tokyo" else {}))
    restart(mesh, *names_of(mesh))
    told = time.monotonic()
    wait_policy(mesh, 1)
    told = time.monotonic() - told
    for name in names_of(mesh):
        wait_seen(mesh, [name], "newyork", "up")
        wait_until(lambda n=name: tags_of_liar(mesh, n) == ["us"], SEEN_S, f"{name} judges by it")
    wait_workers(mesh)
    for ingress in ("tokyo", "newyork"):
        for _ in range(3):
            expect_served(mesh.ask(ingress=ingress, **GDPR), "frankfurt")
        wait_until(lambda: answers(mesh, words=("--tags", "gdpr")) == ["frankfurt"], SEEN_S,
                   "a query does not find the liar")
    expect_served(mesh.ask(tags="us"), "newyork")
    with open(path, "ab") as file:  # not what was signed
        file.write(b"node 3 provider=local tags=gdpr\n")
    subprocess.run(["kill", "-HUP", str(mesh.pid("tokyo"))], check=True)
    wait_until(lambda: mesh.status("tokyo")["policy"]["refused"] > 0, SEEN_S, "it is refused")
    expect_served(mesh.ask(**GDPR), "frankfurt")
    sign(mesh, 2, *nodes)
    subprocess.run(["kill", "-HUP", str(mesh.pid("tokyo"))], check=True)
    wait_policy(mesh, 2)
    wait_until(lambda: answers(mesh) == ["frankfurt"], SEEN_S, "who is not listed is not found")
    expect_refusal(mesh.ask(tags="us"), "no_capable_node")
    return f"all obey a file of one node after {told:.1f} s"


def expect_nowhere(answer):
    expect_refusal(answer, "no_capable_node")
    check(answer.json["constraint"] == "jurisdiction", "not for the jurisdiction:", answer)


def served_over_http(served, headers=None, **more):
    answer = served.ask("POST", "/v1/chat/completions", chat(MODEL, "Hi", max_tokens=2, **more),
                        headers)
    return answer.status, answer.headers.get("x-weft-node")


@case("policy/jurisdiction", LISTED, dirty=True)
def jurisdiction(mesh, _quick):
    """A request that names a jurisdiction goes to nodes in it, however far, and nowhere else: by
    the CLI, as a trace and by HTTP. Cut short there, its answer does not go on elsewhere."""
    for near in (GDPR["near"], (50.11, 8.68)):
        for land, node in (("DE", "frankfurt"), ("US", "newyork")):
            expect_served(mesh.ask(jurisdiction=land, near=near), node)
    for land in ("FR", "JP", "ZZ"):  # nobody; a node without a worker
        expect_nowhere(mesh.ask(jurisdiction=land))
    check(mesh.ask(jurisdiction="US", tags="eu").status == "no_capable_node", "the tags hold, too")
    traced = json.loads(weft(mesh, "trace", "tokyo", "--model", MODEL, "--jurisdiction",
                             "US").stdout)
    check(traced["request"]["node"] == "newyork", "traced:", traced)
    with gateway(mesh) as served:
        for land, node in (("DE", "frankfurt"), ("US", "newyork")):
            found = served_over_http(served, {"x-weft-jurisdiction": land})
            check(found == (200, node), "by header:", land, found)
            found = served_over_http(served, weft={"jurisdiction": land})
            check(found == (200, node), "by body:", land, found)
        check(served_over_http(served, {"x-weft-jurisdiction": "FR"})[0] == 422, "nobody's")
        check(served_over_http(served, {"x-weft-jurisdiction": "fr"})[0] == 400, "nonsense")
    client = mesh.start_ask(jurisdiction="DE")
    client.wait_text()
    mesh.kill("frankfurt", "worker")
    answer = client.finish(BOUND_S)
    check(answer.code != EXIT_OK, "it went on:", answer)
    expect_nowhere(mesh.ask(jurisdiction="FR"))
    check(mesh.ask(jurisdiction="DE").code != EXIT_OK, "served elsewhere")
    expect_served(mesh.ask(), "newyork")
