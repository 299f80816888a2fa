# SPDX-License-Identifier: Apache-2.0
"""IPv6 among the nodes, to the clients, or both; what of it is let go of. See harness.py and
odd_frames.py."""
import json
import subprocess
import time
from pathlib import Path

from cases_system import run_checked
from harness import (EXIT_OK, MeshSpec, case, check, expect_refusal, expect_served, wait_until)

IPV6 = MeshSpec(network="ipv6")
DUAL = MeshSpec(network="dual")
INTERFACE = "veth0"
FRANKFURT = (50.1, 8.7)
NEW_YORK = (40.7, -74.0)
MANY_DATAGRAMS = "A loom weaves. " * 150 + "What weaves?"
SEEN_S = 10.0
LOST_WORKER_S = 5.0


def no_bad_checksums(mesh):
    bad = {n["name"]: mesh.drops(n["name"]).get("bad_checksum", 0) for n in mesh.nodes()}
    check(not any(bad.values()), "checksums:", bad)


def ask_around(mesh, second, quick):
    """Short and long requests by every ingress: served here, one hop away, refused."""
    for ingress in ("tokyo", "frankfurt", "newyork"):
        options = {"ingress": ingress, "second": second, "max_tokens": 2}
        # Usually by the nearer one; by the other where that has measured itself as clearly faster.
        expect_served(mesh.ask("Hi", near=FRANKFURT, **options))
        expect_served(mesh.ask("Hi", near=NEW_YORK, **options))
        expect_refusal(mesh.ask("Hi", model="none", **options), "unknown_model")
    if not quick:
        expect_served(mesh.ask("Hi. " * 400, near=NEW_YORK, max_tokens=2, second=second))
    expect_served(mesh.ask(MANY_DATAGRAMS, near=FRANKFURT, max_tokens=2, second=second))
    no_bad_checksums(mesh)


@case("ipv6/mesh", IPV6)
def ipv6_mesh(mesh, quick):
    """Nodes and clients on IPv6: requests placed, relayed, refused and answered; the status names
    the addresses."""
    for node in mesh.nodes():
        check(":" in node["address"], node)
        members = {m["name"]: m for m in mesh.status(node["name"])["members"]}
        for other in mesh.nodes():
            record = members[other["name"]]
            check(record["alive"], f"{node['name']} does not see {other['name']}:", record)
            check(record["address"] == other["address"], record)
            check(record["client_address"] == other["second"], record)
    ask_around(mesh, second=False, quick=quick)


@case("ipv6/clients_on_ipv4", IPV6)
def clients_on_ipv4(mesh, quick):
    """Clients on IPv4 at a mesh whose nodes talk over IPv6."""
    ask_around(mesh, second=True, quick=quick)


@case("ipv6/clients_on_ipv6", DUAL)
def clients_on_ipv6(mesh, quick):
    """Clients on IPv6 at a mesh whose nodes talk over IPv4, and those on IPv4 beside them."""
    ask_around(mesh, second=True, quick=quick)
    ask_around(mesh, second=False, quick=quick)


@case("ipv6/neighbours", IPV6)
def neighbours(mesh, _quick):
    """Neighbour discovery stays the kernel's: entries forgotten and found again, nodes pinged."""
    for node in mesh.nodes():
        run_checked(mesh.in_netns(["ip", "-6", "neigh", "flush", "dev", INTERFACE], node["name"]),
                    10)
        run_checked(mesh.in_netns(["ping", "-6", "-n", "-c", 3, "-i", 0.1, "-W", 2,
                                   node["address"]]), 20)
    time.sleep(1.5)  # beacons after that
    for node in mesh.nodes():
        members = mesh.status(node["name"])["members"]
        check(all(m["alive"] for m in members), f"{node['name']} does not see all:", members)
    expect_served(mesh.ask("Hi", max_tokens=2))


@case("ipv6/names", IPV6)
def names(mesh, _quick):
    """Every way to write where a node is; what is none of them is an error, told at once."""
    tokyo = mesh.node("tokyo")
    good = [f"[{tokyo['address']}]:7400", f"[{tokyo['address']}]", tokyo["address"],
            f"{tokyo['second']}:7400", tokyo["second"]]
    bad = [f"[{tokyo['address']}", f"[{tokyo['address']}]7400", "[]:7400", "[::1]:", "[::1]:0",
           "[::1]:70000", "10.77.0.1:", "10.77.0.1:x"]
    command = mesh.run_command("Hi", max_tokens=2)
    at = command.index("--node") + 1
    for address in good + bad:
        command[at] = address
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=False)
        check((done.returncode == EXIT_OK) == (address in good), address, done.returncode,
              done.stdout, done.stderr)


@case("ipv6/odd_frames", IPV6)
def odd_frames(mesh, _quick):
    """Extension headers, fragments, no checksum, sources that are no hosts, IPv4 in disguise and
    foreign VLANs: each is counted under its name, and the node goes on."""
    tokyo = mesh.node("tokyo")
    mac = run_checked(mesh.in_netns(["cat", f"/sys/class/net/{INTERFACE}/address"], "tokyo"),
                      10).strip()
    before = mesh.drops("tokyo")
    script = Path(__file__).with_name("odd_frames.py")
    sent = json.loads(run_checked(
        mesh.in_netns(["python3", script, "--interface", INTERFACE, "--mac", mac, "--target",
                       tokyo["address"], "--member", mesh.node("frankfurt")["second"], "--port",
                       mesh.facts["data_port"]]), 20))

    def counted():
        now = mesh.drops("tokyo")
        return all(now.get(name, 0) - before.get(name, 0) >= count for name, count in sent.items())
    wait_until(counted, SEEN_S, f"{sent} counted")
    expect_served(mesh.ask("Hi", max_tokens=2))
    return ", ".join(f"{name} {count}" for name, count in sent.items())


@case("ipv6/capture", IPV6)
def capture(mesh, _quick):
    """`weft pcap` names both ends of IPv6 frames."""
    command = mesh.in_netns([mesh.build_dir / "bin" / "weft", "pcap", "--socket",
                             mesh.node("tokyo")["admin"], "--count", 4, "--filter",
                             f"udp port {mesh.facts['data_port']}"], "tokyo")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        time.sleep(1.0)
        expect_served(mesh.ask("Hi", max_tokens=2))
        out, err = process.communicate(timeout=20)
    check(process.returncode == 0, out, err)
    tokyo = f"[{mesh.node('tokyo')['address']}]:{mesh.facts['data_port']}"
    check(tokyo in out and "REQ" in out, out, err)


@case("ipv6/worker_lost", DUAL, dirty=True)
def worker_lost(mesh, _quick):
    """The worker of a client on IPv6 is killed: its stream ends or goes on elsewhere, in time."""
    client = mesh.start_ask(near=FRANKFURT, second=True)
    client.wait_text()
    started = time.monotonic()
    mesh.kill("frankfurt", "worker")
    wait_until(lambda: not mesh.sees_worker("tokyo", "frankfurt"), LOST_WORKER_S,
               "Tokyo knows that the worker is gone")
    expect_served(mesh.ask("Hi", near=FRANKFURT, max_tokens=2, second=True), "newyork")
    client.interrupt()
    client.finish()
    return f"{time.monotonic() - started:.1f} s"
