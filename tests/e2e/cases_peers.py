# SPDX-License-Identifier: Apache-2.0
"""The gateway's two registries: nodes that are called when they are registered, services that are
listed; who may do so. See harness.py."""
import contextlib
import json
import os
import subprocess

from harness import MODEL, MeshSpec, Skip, case, check, wait_until
from http_client import PORT, connect_inside, gateway

MESH = MeshSpec(gossip=True)
JSON = {"content-type": "application/json"}
NODES, SERVICES = "/v1/peers", "/v1/compute/peers"
STRANGER = "10.77.0.200"  # the clients' namespace
SEEN_S = 60.0
CONFIG = """node: stranger
geometry: geo
data_port: 7400
nic: {{driver: none, interface: lo, hugepages: "off"}}
sockets: {{admin: {folder}/admin.sock, port: {folder}/port.sock}}
address: "{address}"
latitude: 1.0
longitude: 2.0
identity: {folder}/identity.key
mesh_key: {mesh}/mesh.key
seeds: ["10.77.0.250"]
"""


@contextlib.contextmanager
def stranger(mesh):
    """A node with the mesh's key that knows nobody."""
    program = mesh.build_dir / "bin" / "weftd"
    folder = f"{mesh.folder}/stranger"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/config.yaml"
    with open(path, "w", encoding="ascii") as file:
        file.write(CONFIG.format(folder=folder, mesh=mesh.folder, address=STRANGER))
    with open(f"{folder}/node.log", "ab") as log:
        node = subprocess.Popen(mesh.in_netns([program, "--config", path]),
                                stdin=subprocess.DEVNULL, stderr=log, stdout=log)
    try:
        wait_until(lambda: os.path.exists(f"{folder}/admin.sock"), SEEN_S, "the stranger is there")
        yield node
    finally:
        node.terminate()
        node.wait(SEEN_S)


def listed(g, path, **wanted):
    """Entries of a registry that have these values."""
    return [e for e in g.ask("GET", path).json["data"]
            if all(e.get(name) == value for name, value in wanted.items())]


def from_outside(mesh, path, body, headers=None):
    """The same from the clients' namespace, as another machine would ask."""
    text = json.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "host: x", "connection: close",
             f"content-length: {len(text)}"]
    lines += [f"{name}: {value}" for name, value in (JSON | (headers or {})).items()]
    netns = mesh.facts["client_netns"]
    with connect_inside(netns, (mesh.node("tokyo")["address"], PORT)) as client:
        client.sendall("\r\n".join([*lines, "", text]).encode())
        data = b""
        while more := client.recv(65536):
            data += more
    return int(data.split(b" ", 2)[1]), json.loads(data.partition(b"\r\n\r\n")[2])


@case("peers/node_is_called", MESH, dirty=True)
def node_is_called(mesh, _quick):
    """Registered, a node that knew nobody becomes a member; what was registered outlives the
    gateway; the services know nothing of it."""
    state = f"{mesh.folder}/state"
    with stranger(mesh):
        with gateway(mesh, "tokyo", "--state", state) as g:
            check(not listed(g, NODES, node="stranger"), "a member already")
            told = g.ask("POST", f"{NODES}/register", {"node": STRANGER}, JSON)
            check(told.status == 200 and told.json["node"] == STRANGER, told)
            wait_until(lambda: listed(g, NODES, node="stranger", source="mesh", state="up"), SEEN_S,
                       "the stranger is a member")
            wait_until(lambda: listed(g, NODES, node=STRANGER, state="member"), SEEN_S,
                       "and its entry says so")
            check(listed(g, NODES, node="frankfurt")[0]["weights"] == [MODEL], "weights")
            check(not any("load" in e or "room" in e for e in listed(g, NODES)), "load is told")
            check(not listed(g, SERVICES, node="stranger"), "it serves nothing")
        with gateway(mesh, "tokyo", "--state", state) as g:
            entry = listed(g, NODES, source="registered")
            check([e["node"] for e in entry] == [STRANGER], "after the restart:", entry)
            gone = g.ask("DELETE", f"{NODES}/{entry[0]['id']}")
            check(gone.status == 200 and not listed(g, NODES, source="registered"), gone)


@case("peers/who_may_register", MESH)
def who_may_register(mesh, _quick):
    """This machine's programs without a key, its pages not; others with a key of that scope."""
    service = {"url": "http://10.77.0.9:8080/v1", "models": ["m"], "load": {"room": 2}}
    program = mesh.build_dir / "bin" / "weft-gateway"
    if not program.exists():
        raise Skip(f"{program} is not built")
    listen = ("--listen", f"0.0.0.0:{PORT}")
    with gateway(mesh, "tokyo", *listen) as g:
        told = g.ask("POST", SERVICES, service, JSON)
        check(told.status == 200 and told.json["load"] == {"told": True, "room": 2, "queue_us": 0},
              told)
        check([e["address"] for e in listed(g, SERVICES, source="registered")] == [service["url"]],
              "not listed")
        check(listed(g, SERVICES, node="frankfurt")[0]["load"]["room"] > 0, "a member's load")
        check(not listed(g, NODES, source="registered"), "a service is no node")
        check(g.ask("POST", SERVICES, service, JSON | {"origin": "http://x"}).status == 403, "page")
        check(g.ask("POST", SERVICES, service, JSON | {"x-forwarded-for": "1.2.3.4"}).status == 403,
              "forwarded")
        check(g.ask("POST", SERVICES, service).status == 415, "a form")
        check(g.ask("POST", f"{NODES}/register", {"node": "name"}, JSON).status == 400, "a name")
        status, body = from_outside(mesh, SERVICES, service)
        check(status == 403 and body["error"]["code"] == "not_allowed", status, body)
    keys, path = {}, f"{mesh.folder}/keys.txt"
    with open(path, "w", encoding="ascii") as file:
        for name, scope in (("asks", ""), ("tells", "register")):
            key, line = subprocess.run([program, "--new-key", name], capture_output=True, text=True,
                                       check=True).stdout.splitlines()
            keys[name] = {"authorization": f"Bearer {key}"}
            file.write(f"{line} {scope}\n")
    with gateway(mesh, "tokyo", "--keys", path, *listen):
        for headers, wanted in ((None, 401), (keys["asks"], 403), (keys["tells"], 200)):
            status, body = from_outside(mesh, SERVICES, service, headers)
            check(status == wanted, headers, status, body)
        check(body["by"] == "tells", body)
