#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The programs as somebody meets them who has just built them: how a node starts, and what it says
where it cannot. `CHECKS` at the end lists what there is; each is a ctest, product_NAME."""
import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SKIPPED = 77
END_S = 20.0
HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
LOCAL_NODE = """
node: alone
address: 127.0.0.1
latitude: 0
longitude: 0
seeds: []
identity: {folder}/keys/identity.key
mesh_key: {folder}/keys/mesh.key
nic: {{driver: none, interface: lo, hugepages: "{hugepages}"}}
sockets: {{admin: {sockets}/admin.sock, port: {sockets}/port.sock}}
"""


class Problem(Exception):
    """What is wrong, for people."""


def check(good, *what):
    if not good:
        raise Problem(" ".join(str(word) for word in what))


def bin_dir(args):
    return args.build_dir / "bin"


# ---- how a node starts ----
class Node:
    """weftd without a network (no privilege needed), in a folder of its own."""

    def __init__(self, args, folder, sockets="run", hugepages="off"):
        self.sockets = Path(folder) / sockets
        config = Path(folder) / "node.yaml"
        config.write_text(LOCAL_NODE.format(folder=folder, sockets=self.sockets,
                                            hugepages=hugepages), encoding="utf-8")
        self.process = subprocess.Popen(
            [bin_dir(args) / "weftd", "--config", config, "--insecure"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def end(self):
        """Its exit status and what it said."""
        try:
            said = self.process.communicate(timeout=END_S)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Problem("it does not end:", self.process.communicate()[1]) from None
        return self.process.returncode, said


def start_makes_folder(args, folder):
    """/run is empty after a boot: the folder of the sockets is made, the keys' one, too."""
    node = Node(args, folder)
    deadline = time.monotonic() + END_S
    while not (node.sockets / "admin.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    node.process.send_signal(signal.SIGTERM)
    status, said = node.end()
    check(status == 0 and " ready " in said, status, said)
    check(not list(node.sockets.iterdir()), "left:", list(node.sockets.iterdir()))


def start_without_folder(args, folder):
    status, said = Node(args, folder, sockets="no/such").end()
    check(status == 1 and "cannot make the folder" in said, status, said)


def start_without_hugepages(args, folder):
    if HUGEPAGES.exists() and HUGEPAGES.read_text(encoding="ascii").strip() != "0":
        return
    node = Node(args, folder, hugepages="on")
    status, said = node.end()
    check(status == 1 and "nic.hugepages is on" in said, status, said)
    check(not list(node.sockets.iterdir()), "left:", list(node.sockets.iterdir()))


def start_interrupted(args, folder):
    """A signal counts from the first moment on, not only once the node is ready."""
    for pause_ms in (0, 5, 10, 20, 40, 80, 120, 160):
        node = Node(args, folder)
        time.sleep(pause_ms / 1000)
        node.process.send_signal(signal.SIGTERM)
        status, said = node.end()
        # Before it has a handler the signal's default ends it, which is as good.
        check(status in (0, -signal.SIGTERM), f"SIGTERM after {pause_ms} ms:", status, said)


def check_start(args):
    """A node begins on a fresh machine, says what keeps it from it, and ends when it is told to."""
    cases = [start_makes_folder, start_without_folder, start_without_hugepages, start_interrupted]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(args, folder)
            except Problem as problem:
                raise Problem(f"{case.__name__}: {problem}") from None
    return f"{len(cases)} cases"


CHECKS = {"start": check_start}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build")
    parser.add_argument("check", choices=CHECKS)
    args = parser.parse_args()
    try:
        print(f"ok {args.check}: {CHECKS[args.check](args)}")
    except Problem as problem:
        print(f"{args.check}: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
