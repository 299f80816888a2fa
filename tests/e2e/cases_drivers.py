# SPDX-License-Identifier: Apache-2.0
"""Ways to take packets from the interface: meshes on AF_XDP, NICs taken whole, what the kernel
keeps, what is left behind when a node ends, and errors at start. See harness.py."""
import json
import subprocess
import time

from cases_system import cpu_seconds, run_checked
from harness import MeshSpec, case, check, expect_served, wait_until

XDP = MeshSpec(driver="af_xdp", workers="frankfurt")
WHOLE = MeshSpec(driver="whole", workers="frankfurt")
PACKET = MeshSpec(workers="frankfurt")
INTERFACE = "veth0"
FRANKFURT = (50.1, 8.7)
START_S = 20
IDLE_S = 3.0
IDLE_CPU_MAX = 0.25  # of one core
SEEN_S = 10.0
BACK_S = 20.0
FILTER = "weft_filter"


def inside(mesh, node, *command, timeout_s=20):
    return run_checked(mesh.in_netns(command, node), timeout_s)


def attached(mesh, node):
    """The XDP program on the node's interface as `ip` shows it, or {}."""
    links = json.loads(inside(mesh, node, "ip", "-j", "-d", "link", "show", "dev", INTERFACE))
    return (links[0].get("xdp") or {}).get("prog") or {}


def start_alone(mesh, node, config, *wrapper):
    """weftd that is expected to refuse to start; returns what it said."""
    command = mesh.in_netns([*wrapper, mesh.build_dir / "bin" / "weftd", "--config", config], node)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=START_S, check=False)
    check(done.returncode == 1, f"exit {done.returncode}:", done.stderr)
    return done.stderr


def changed_config(mesh, node, old, new):
    """A copy of the node's configuration with one text replaced."""
    with open(mesh.node(node)["config"], encoding="utf-8") as file:
        text = file.read()
    check(old in text, f"'{old}' is not in the configuration:", text)
    path = f"{mesh.folder}/changed.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new, 1))
    return path


def transmit_checksums(mesh, state):
    """Whether checksums are left to the hardware: by the client's kernel, and by the bridge's,
    which would otherwise end them on the way to a node."""
    switch = f"weft-{mesh.name}-sw"
    ports = [f"n{i + 1}" for i in range(len(mesh.nodes()))]
    for port in ports:
        run_checked(["ip", "netns", "exec", switch, "ethtool", "-K", port, "tx", state], 10)
    run_checked(mesh.in_netns(["ethtool", "-K", INTERFACE, "tx", state]), 10)


def check_idle(mesh):
    time.sleep(1.0)
    before = {n["name"]: cpu_seconds(mesh.pid(n["name"])) for n in mesh.nodes()}
    time.sleep(IDLE_S)
    shares = {name: (cpu_seconds(mesh.pid(name)) - at) / IDLE_S for name, at in before.items()}
    check(max(shares.values()) < IDLE_CPU_MAX, f"busy while idle: {shares}")
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")
    return "idle CPU: " + ", ".join(f"{n} {100 * s:.1f} %" for n, s in shares.items())


@case("drivers/xdp_routing", XDP)
def xdp_routing(mesh, quick):
    """On AF_XDP: requests relayed and answered, one hop and two, prompts of many datagrams."""
    for node in mesh.nodes():
        check(attached(mesh, node["name"]), f"{node['name']} has no XDP program")
        check(mesh.status(node["name"])["nic"]["driver"] == "af_xdp", mesh.status(node["name"]))
    expect_served(mesh.ask("Hi", ingress="tokyo", near=FRANKFURT), "frankfurt")
    expect_served(mesh.ask("Hi", ingress="frankfurt", near=FRANKFURT), "frankfurt")
    expect_served(mesh.ask("A loom weaves. " * 160 + "What weaves?", ingress="newyork",
                          max_tokens=2), "frankfurt")
    for _ in range(3 if quick else 20):
        expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")
    bad = {n["name"]: mesh.drops(n["name"]).get("bad_checksum", 0) for n in mesh.nodes()}
    check(not any(bad.values()), "checksums:", bad)


@case("drivers/xdp_kernel_keeps", XDP)
def xdp_kernel_keeps(mesh, _quick):
    """ARP, ICMP and beacons stay the kernel's: neighbours forgotten and found again, pings, members
    alive; and none of it comes to the packet path."""
    before = mesh.status("tokyo")["counters"]["drops"]["not_ours"]
    for node in mesh.nodes():
        inside(mesh, node["name"], "ip", "neigh", "flush", "dev", INTERFACE)
        run_checked(mesh.in_netns(["ping", "-n", "-c", 3, "-i", 0.1, "-W", 2, node["address"]]), 20)
    time.sleep(1.5)  # beacons after that
    for node in mesh.nodes():
        members = mesh.status(node["name"])["members"]
        check(all(m["alive"] for m in members), f"{node['name']} does not see all:", members)
    check(mesh.status("tokyo")["counters"]["drops"]["not_ours"] == before, "foreign frames came")
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")


@case("drivers/xdp_idle_cpu", XDP)
def xdp_idle_cpu(mesh, _quick):
    """An idle node sleeps on its AF_XDP socket, and a request wakes it."""
    return check_idle(mesh)


def ask_without_checksums(mesh):
    """No veth has hardware: the datagrams come with the sum of their pseudo header alone."""
    transmit_checksums(mesh, "on")
    try:
        expect_served(mesh.ask("A loom weaves. " * 150 + "What weaves?", max_tokens=2), "frankfurt")
        bad = {n["name"]: mesh.drops(n["name"]).get("bad_checksum", 0) for n in mesh.nodes()}
        check(not any(bad.values()), "checksums:", bad)
    finally:
        transmit_checksums(mesh, "off")


@case("drivers/xdp_checksums", XDP)
def xdp_checksums(mesh, _quick):
    """A client whose kernel leaves UDP checksums to the hardware is served, over AF_XDP."""
    ask_without_checksums(mesh)


@case("drivers/packet_checksums", PACKET)
def packet_checksums(mesh, _quick):
    """A client whose kernel leaves UDP checksums to the hardware is served, over packet sockets."""
    ask_without_checksums(mesh)


@case("drivers/xdp_ends", XDP, dirty=True)
def xdp_ends(mesh, _quick):
    """A node that stops takes its XDP program with it; after SIGKILL the next start clears up."""
    mesh.kill("tokyo", "node", "INT")
    wait_until(lambda: not attached(mesh, "tokyo"), SEEN_S, "the program is gone after Ctrl-C")
    mesh.start("tokyo", "node")
    first = attached(mesh, "tokyo")
    check(first, "no program after a start")
    mesh.kill("tokyo", "node", "KILL")
    check(attached(mesh, "tokyo").get("id") == first["id"], "SIGKILL leaves the program")
    mesh.start("tokyo", "node")
    second = attached(mesh, "tokyo")
    check(second and second["id"] != first["id"], "not replaced:", first, second)
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), BACK_S, "the mesh is whole again")
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")


@case("drivers/errors", XDP, dirty=True)
def errors(mesh, _quick):
    """What is in the way of a start is named: no such interface, too many queues, an MTU too small,
    a program of somebody else's, no privileges."""
    mesh.kill("tokyo", "node", "TERM")
    said = start_alone(mesh, "tokyo",
                       changed_config(mesh, "tokyo", "interface: veth0", "interface: nosuch0"))
    check("no interface nosuch0" in said, said)
    said = start_alone(mesh, "tokyo", changed_config(mesh, "tokyo", "lcores: 1", "lcores: 2"))
    check("one lcore for each channel" in said and "veth0 has 1" in said, said)
    config = mesh.node("tokyo")["config"]
    inside(mesh, "tokyo", "ip", "link", "set", INTERFACE, "mtu", 1400)
    said = start_alone(mesh, "tokyo", config)
    check("MTU of veth0 is 1400" in said and "ip link set veth0 mtu 1500" in said, said)
    inside(mesh, "tokyo", "ip", "link", "set", INTERFACE, "mtu", 1500)
    for capability in ("net_raw", "bpf,-sys_admin"):
        wrapper = ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]
        said = start_alone(mesh, "tokyo", config, *wrapper)
        check("needs CAP_" in said, f"without {capability}:", said)
    check(not attached(mesh, "tokyo"), "an attempt left a program")


ECHO_SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
connection, _ = listener.accept()
while data := connection.recv(65536):
    connection.sendall(data)
"""
ECHO_CLIENT = """
import os, socket, sys, threading
data = os.urandom(int(sys.argv[3]))
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
def send():
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
back = bytearray()
while piece := connection.recv(65536):
    back += piece
sys.exit(0 if bytes(back) == data else "other bytes came back")
"""
ECHO_PORT = 2222
ECHO_BYTES, ECHO_BYTES_QUICK = 8 << 20, 1 << 20


@case("drivers/whole_kernel", WHOLE)
def whole_kernel(mesh, quick):
    """A NIC taken whole: ping, and a TCP connection whose bytes come back while requests flow."""
    address = mesh.node("frankfurt")["address"]
    run_checked(mesh.in_netns(["ping", "-n", "-c", 5, "-i", 0.1, "-W", 2, address]), 20)
    server = subprocess.Popen([str(c) for c in mesh.in_netns(
        ["python3", "-c", ECHO_SERVER, address, ECHO_PORT], "frankfurt")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        check(server.stdout.readline() == b"ready\n", "the echo server did not start")
        size = ECHO_BYTES_QUICK if quick else ECHO_BYTES
        client = subprocess.Popen([str(c) for c in mesh.in_netns(
            ["python3", "-c", ECHO_CLIENT, address, ECHO_PORT, size])],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        asked = 0
        while client.poll() is None or asked < 3:
            expect_served(mesh.ask("Hi", ingress="tokyo", near=FRANKFURT, max_tokens=2),
                          "frankfurt")
            asked += 1
        check(client.returncode == 0, "TCP:", client.stderr.read())
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    nic = mesh.status("frankfurt")["nic"]
    check(nic["to_kernel"] > 0 and nic["from_kernel"] > 0, nic)
    check(nic["steering"].startswith("software: other frames go to weft0"), nic)
    return f"{size >> 20} MiB there and back beside {asked} requests, lost frames: " \
           f"{nic['kernel_lost']}"


@case("drivers/whole_idle_cpu", WHOLE)
def whole_idle_cpu(mesh, _quick):
    """Also with the kernel's share to carry, an idle node sleeps."""
    return check_idle(mesh)


@case("drivers/whole_ends", WHOLE, dirty=True)
def whole_ends(mesh, _quick):
    """The TAP and its address outlive the node; after SIGKILL it starts again and serves both."""
    mesh.kill("tokyo", "node", "KILL")
    check("10.77.0.1" in inside(mesh, "tokyo", "ip", "address", "show", "dev", "weft0"), "no TAP")
    mesh.start("tokyo", "node")
    address = mesh.node("tokyo")["address"]
    run_checked(mesh.in_netns(["ping", "-n", "-c", 3, "-i", 0.1, "-W", 2, address]), 20)
    wait_until(lambda: mesh.sees_worker("tokyo", "frankfurt"), BACK_S, "the mesh is whole again")
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")
