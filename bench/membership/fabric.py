# SPDX-License-Identifier: Apache-2.0
"""The network of a trial: one namespace a node, joined by weft-impair in one more.

A node is "n0", "n1", ... in its namespace, in the switch's rules and in the agents' own messages.
Nothing leaves these namespaces; everything is found again by their names, which begin with the
fabric's tag. Neighbours: cluster.py starts programs in here; ../impair has the switch.
"""
import json
import random
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

NODES_MAX = 64  # the switch's ports
START_TIMEOUT_S = 10
PERFECT = "default delay=0 jitter=0 loss=0 burst=0 duplicate=0 reorder=0 rate=0 mtu=0 cut=no flip=0"


class FabricError(Exception):
    """The network could not be made or changed; the text says what failed."""


def call(*command, text=None):
    words = [str(c) for c in command]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FabricError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def node_name(index):
    return f"n{index}"


def node_address(index):
    return f"10.79.0.{index + 1}"


def node_mac(index):
    return f"02:57:46:00:00:{index + 1:02x}"


@dataclass
class Traffic:
    """What a node's interface has sent since it came up: whole Ethernet frames."""
    sent_bytes: int
    sent_packets: int


class Latency:
    """Delays from a square of round trips; each node takes the part of one of its hosts, drawn."""

    def __init__(self, path, seed):
        self.path, self.seed = Path(path).resolve(), seed
        with open(path, encoding="ascii") as file:
            self.hosts = sum(1 for line in file if line.strip())

    def rows(self, count):
        picked = random.Random(self.seed).sample(range(self.hosts), count)
        return " ".join(f"{node_name(i)}={host}" for i, host in enumerate(picked))


class Fabric:
    """`with Fabric(8, ...) as fabric:` makes it and takes it away on every way out."""

    def __init__(self, count, tag, program, folder, base_rule="", seed=1, latency=None):
        if not 2 <= count <= NODES_MAX:
            raise FabricError(f"{count} nodes: 2 to {NODES_MAX} are possible")
        self.count, self.tag, self.program = count, tag, Path(program)
        self.socket = Path(folder) / "impair.sock"
        self.base_rule, self.seed, self.latency = base_rule, seed, latency
        self.switch = None
        self.log = Path(folder) / "impair.log"

    def space(self, index):
        return f"{self.tag}-{node_name(index)}"

    def switch_space(self):
        return f"{self.tag}-sw"

    def inside(self, index):
        """The words before a command that runs it in a node's namespace; its pid stays the same."""
        return ["nsenter", f"--net=/run/netns/{self.space(index)}"]

    def __enter__(self):
        try:
            self._clear()
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.switch and self.switch.poll() is None:
            self.switch.terminate()
            self.switch.wait()
        self.switch = None
        self._clear()

    def _spaces(self):
        return [self.switch_space()] + [self.space(i) for i in range(self.count)]

    def _clear(self):
        there = {line.split()[0] for line in call("ip", "netns", "list").splitlines() if line}
        for space in self._spaces():
            if space in there:
                subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)

    def _make(self):
        switch = self.switch_space()
        for space in self._spaces():
            call("ip", "netns", "add", space)
            call("nsenter", f"--net=/run/netns/{space}", "sh", "-c",
                 "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; ip link set lo up")
        call("ip", "-n", switch, "-batch", "-", text="".join(
            f"link add {node_name(i)} type veth peer name veth0 netns {self.space(i)}\n"
            f"link set {node_name(i)} up\n" for i in range(self.count)))
        for i in range(self.count):
            # Unfinished checksums and merged packets are nothing for a packet socket.
            call(*self.inside(i), "ethtool", "-K", "veth0", "tx", "off", "gro", "off")
            call("nsenter", f"--net=/run/netns/{switch}", "ethtool", "-K", node_name(i), "tx",
                 "off", "gro", "off")
            # Permanent neighbours: no time and no bytes are spent on asking who has an address, and
            # the kernel's one table for all namespaces does not fill up (1,024 unless told other).
            call("ip", "-n", self.space(i), "-batch", "-",
                 text=f"link set veth0 address {node_mac(i)} up\n"
                      f"address add {node_address(i)}/16 dev veth0\nroute add default dev veth0\n"
                      + "".join(f"neigh add {node_address(j)} lladdr {node_mac(j)} dev veth0 "
                                "nud permanent\n" for j in range(self.count) if j != i))
        self._start_switch()

    def _start_switch(self):
        command = ["nsenter", f"--net=/run/netns/{self.switch_space()}", str(self.program), "run",
                   "--seed", str(self.seed), "--socket", str(self.socket)]
        for i in range(self.count):
            command += ["--port", f"{node_name(i)}={node_name(i)}"]
        with open(self.log, "wb") as log:
            self.switch = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self.perfect()
            except (FileNotFoundError, ConnectionRefusedError):  # not there, or not listening yet
                if self.switch.poll() is not None or time.monotonic() > deadline:
                    raise FabricError(f"weft-impair did not start; see {self.log}") from None
                time.sleep(0.01)

    def tell(self, line):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(START_TIMEOUT_S)
            sock.connect(str(self.socket))
            sock.sendall(line.encode() + b"\n")
            parts = []
            while part := sock.recv(65536):
                parts.append(part)
        answer = json.loads(b"".join(parts))
        if not answer.get("ok", True):
            raise FabricError(f"weft-impair: {line}: {answer}")
        return answer

    def rule(self, line):
        self.tell(f"rule {line}")

    def perfect(self):
        """All links as at the start."""
        self.rule(PERFECT)
        if self.base_rule:
            self.rule(f"default {self.base_rule}")
        if self.latency:
            self.rule(f"latency {self.latency.path} {self.latency.rows(self.count)}")

    def traffic(self):
        """[Traffic] in the order of the nodes."""
        text = call("ip", "-n", self.switch_space(), "-s", "-j", "link", "show")
        links = {link["ifname"]: link["stats64"]["rx"] for link in json.loads(text)
                 if "stats64" in link}
        return [Traffic(links[node_name(i)]["bytes"], links[node_name(i)]["packets"])
                for i in range(self.count)]

    def overrun(self):
        """Frames lost by the switch's own sockets: 0, or the trial measured the switch."""
        return sum(p["overrun"] + p["send_failed"] for p in self.tell("counters")["ports"])
