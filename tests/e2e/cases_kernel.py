# SPDX-License-Identifier: Apache-2.0
"""What an operator does to the interface while requests flow: addresses removed and added, the link
set down, MTU and link address changed, the TAP of a NIC taken whole removed and made anew. The node
follows, by itself. See harness.py."""
import json
import threading

from cases_faults import check_calm, served_again, wait_sees
from cases_system import run_checked
from harness import BOUND_S, MeshSpec, case, check, expect_served, wait_until

WHOLE = MeshSpec(driver="whole", workers="frankfurt")
PACKET = MeshSpec(workers="frankfurt")
DUAL = MeshSpec(driver="whole", workers="frankfurt", network="dual")
FOLLOWS_S = 10.0
EXTRA = "10.77.9.9/24"


def ip(mesh, node, *command):
    return run_checked(mesh.in_netns(["ip", *command], node), 20)


def interface_of(mesh):
    return "weft0" if mesh.spec.driver == "whole" else "veth0"


def shown(mesh, node):
    """The interface as the kernel has it."""
    return json.loads(ip(mesh, node, "-j", "link", "show", "dev", interface_of(mesh)))[0]


def nic(mesh, node):
    return mesh.status(node)["nic"]


def wait_nic(mesh, node, condition, text):
    return wait_until(lambda: condition(nic(mesh, node)), FOLLOWS_S, text)


class Asking:
    """Asks one after the other from a thread of its own until it is left."""

    def __init__(self, mesh):
        self.mesh, self.answers, self.stop = mesh, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            self.answers.append(self.mesh.ask("Hi", ingress="tokyo", max_tokens=2,
                                              timeout_s=2 * BOUND_S))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def address_case(mesh):
    device = interface_of(mesh)
    address = mesh.node("frankfurt")["address"]
    pid = mesh.pid("frankfurt")
    check(nic(mesh, "frankfurt")["answers"] == [address], nic(mesh, "frankfurt"))
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")
    with Asking(mesh) as asking:
        ip(mesh, "frankfurt", "address", "add", EXTRA, "dev", device)
        ip(mesh, "frankfurt", "address", "del", EXTRA, "dev", device)
        wait_until(lambda: len(asking.answers) >= 2, 2 * BOUND_S, "answers beside another address")
        for answer in asking.answers:
            expect_served(answer, "frankfurt")
        ip(mesh, "frankfurt", "address", "del", f"{address}/24", "dev", device)
        wait_nic(mesh, "frankfurt", lambda n: n["answers"] == [], "it stops answering there")
        wait_sees(mesh, "tokyo", "frankfurt", False)
    refused = mesh.ask("Hi", ingress="tokyo", timeout_s=BOUND_S)
    check(refused.status != "ok", "served at an address that is not there:", refused)
    ip(mesh, "frankfurt", "address", "add", f"{address}/24", "dev", device)
    wait_nic(mesh, "frankfurt", lambda n: n["answers"] == [address], "it answers again")
    wait_sees(mesh, "tokyo", "frankfurt", True)
    seconds = served_again(mesh, "tokyo", "frankfurt")
    check(mesh.pid("frankfurt") == pid, "another process")
    return f"{len(asking.answers)} requests beside it, {refused.status} meanwhile, served again " \
           f"after {seconds:.1f} s"


@case("kernel/whole_address", WHOLE, dirty=True)
def whole_address(mesh, _quick):
    """A NIC taken whole: the address leaves the TAP and comes back while requests flow."""
    return address_case(mesh)


@case("kernel/packet_address", PACKET, dirty=True)
def packet_address(mesh, _quick):
    """The same on an interface that is shared with the kernel."""
    return address_case(mesh)


@case("kernel/whole_second_family", DUAL, dirty=True)
def whole_second_family(mesh, _quick):
    """The address of the other family goes: clients of the first one notice nothing."""
    node = mesh.node("tokyo")
    expect_served(mesh.ask("Hi", max_tokens=2, second=True), "frankfurt")
    ip(mesh, "tokyo", "address", "del", f"{node['second']}/64", "dev", "weft0")
    wait_nic(mesh, "tokyo", lambda n: n["answers"] == [node["address"]], "one family is left")
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")
    answer = mesh.ask("Hi", max_tokens=2, second=True, timeout_s=BOUND_S)
    check(answer.status != "ok", "served at an address that is not there:", answer)
    ip(mesh, "tokyo", "address", "add", f"{node['second']}/64", "dev", "weft0", "nodad")
    wait_nic(mesh, "tokyo", lambda n: len(n["answers"]) == 2, "both are there")
    expect_served(mesh.ask("Hi", max_tokens=2, second=True), "frankfurt")


@case("kernel/whole_link", WHOLE, dirty=True)
def whole_link(mesh, _quick):
    """The TAP set down and up: the node stops answering, sleeps, and is back."""
    ip(mesh, "frankfurt", "link", "set", "weft0", "down")
    wait_nic(mesh, "frankfurt", lambda n: not n["interface"]["up"] and n["answers"] == [],
             "the node sees its interface down")
    wait_sees(mesh, "tokyo", "frankfurt", False)
    check_calm(mesh, "frankfurt")
    ip(mesh, "frankfurt", "link", "set", "weft0", "up")
    wait_nic(mesh, "frankfurt", lambda n: n["interface"]["up"] and n["answers"], "and up")
    wait_sees(mesh, "tokyo", "frankfurt", True)
    return f"served again after {served_again(mesh, 'tokyo', 'frankfurt'):.1f} s"


@case("kernel/whole_mtu_and_mac", WHOLE, dirty=True)
def whole_mtu_and_mac(mesh, _quick):
    """A smaller MTU is the kernel's alone; a larger one and another link address count only if the
    port can have them: afterwards both sides have the same."""
    mac = shown(mesh, "frankfurt")["address"]
    ip(mesh, "frankfurt", "link", "set", "weft0", "mtu", 1400)
    wait_nic(mesh, "frankfurt", lambda n: n["interface"]["mtu"] == 1400, "the new MTU is seen")
    check(nic(mesh, "frankfurt")["mtu"] == 1500, "Weft's datagrams need the port's:",
          nic(mesh, "frankfurt"))
    expect_served(mesh.ask("A loom weaves. " * 160, max_tokens=2), "frankfurt")
    ip(mesh, "frankfurt", "link", "set", "weft0", "mtu", 60000)
    wait_until(lambda: shown(mesh, "frankfurt")["mtu"] == 1400, FOLLOWS_S, "too much is taken back")
    ip(mesh, "frankfurt", "link", "set", "weft0", "address", "02:00:00:00:77:77")
    wait_until(lambda: shown(mesh, "frankfurt")["address"] == mac, FOLLOWS_S,
               "AF_XDP's port has no other link address")
    expect_served(mesh.ask("Hi", max_tokens=2), "frankfurt")


@case("kernel/whole_tap_anew", WHOLE, dirty=True)
def whole_tap_anew(mesh, _quick):
    """The TAP is removed under the running node, which stays calm; made anew, it is taken up."""
    address = mesh.node("frankfurt")["address"]
    ip(mesh, "frankfurt", "link", "del", "weft0")
    wait_nic(mesh, "frankfurt", lambda n: not n["interface"]["there"], "the TAP is gone")
    check_calm(mesh, "frankfurt")
    ip(mesh, "frankfurt", "tuntap", "add", "weft0", "mode", "tap")
    ip(mesh, "frankfurt", "address", "add", f"{address}/24", "dev", "weft0")
    wait_nic(mesh, "frankfurt", lambda n: n["answers"] == [address], "taken up again")
    wait_sees(mesh, "tokyo", "frankfurt", True)
    run_checked(mesh.in_netns(["ping", "-n", "-c", 3, "-i", 0.1, "-W", 2, address]), 20)
    return f"served again after {served_again(mesh, 'tokyo', 'frankfurt'):.1f} s"
