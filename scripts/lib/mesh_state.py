# SPDX-License-Identifier: Apache-2.0
"""What a mesh of scripts/mesh looks like: mesh.json, pid files, admin sockets.

Used by scripts/mesh (ready, status, json) and by tests/e2e, which import it. Standard library only.
"""
import json
import os
import signal
import socket
import sys
import time

ASK_TIMEOUT_S = 2.0
POLL_S = 0.1


def ask_admin(path, command="status", timeout_s=ASK_TIMEOUT_S):
    """The JSON answer of a node's admin socket. Raises OSError or ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(path)
        sock.sendall(command.encode() + b"\n")
        data = b""
        while part := sock.recv(1 << 16):
            data += part
    return json.loads(data)


def process_alive(pid):
    """Whether pid runs: zombies and processes that are no more do not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def read_pid(path):
    """The pid in a pid file if that process is alive, else None."""
    try:
        with open(path, encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    return pid if process_alive(pid) else None


def load(folder):
    """mesh.json, with each node's live pids and its own status (None if it does not answer)."""
    with open(os.path.join(folder, "mesh.json"), encoding="utf-8") as file:
        mesh = json.load(file)
    for node in mesh["nodes"]:
        node["pid"] = read_pid(os.path.join(node["folder"], "node.pid"))
        node["worker_pid"] = read_pid(os.path.join(node["folder"], "worker.pid"))
        try:
            node["status"] = ask_admin(node["admin"])
        except (OSError, ValueError):
            node["status"] = None
    return mesh


def members_of(node):
    return {m["name"]: m for m in (node["status"] or {}).get("members", [])}


def worker_attached(node):
    return bool((node["status"] or {}).get("workers"))


def missing(mesh):
    """Sentences about what keeps the mesh from being ready; empty when it is.

    Ready: every node that should run answers, sees the others that run as alive, and knows the
    model of each node that has a worker.
    """
    gaps = []
    running = [n for n in mesh["nodes"] if n["pid"]]
    for node in running:
        if node["status"] is None:
            gaps.append(f"{node['name']}: no answer on its admin socket")
            continue
        if node["worker_pid"] and not worker_attached(node):
            gaps.append(f"{node['name']}: worker not attached")
        seen = members_of(node)
        for other in running:
            if other is node:
                continue
            record = seen.get(other["name"], {})
            if not record.get("alive"):
                gaps.append(f"{node['name']}: does not see {other['name']} yet")
            elif other["worker_pid"] and not record.get("models"):
                gaps.append(f"{node['name']}: does not know the model of {other['name']} yet")
    return gaps


def dead(mesh):
    """Names of programs that should run (their pid file exists) but do not."""
    names = []
    for node in mesh["nodes"]:
        for program, pid in (("node", node["pid"]), ("worker", node["worker_pid"])):
            pid_file = os.path.join(node["folder"], program + ".pid")
            if pid is None and os.path.exists(pid_file):
                names.append(f"{node['name']}/{program}")
    return names


def wait_ready(folder, timeout_s):
    """Waits until the mesh is ready. Returns a list of what is missing, empty if all is there."""
    deadline = time.monotonic() + timeout_s
    while True:
        mesh = load(folder)
        fallen = dead(mesh)
        if fallen:
            return [f"{name} has ended; see its log in {folder}/{name}.log" for name in fallen]
        gaps = missing(mesh)
        if not gaps or time.monotonic() > deadline:
            return gaps
        time.sleep(POLL_S)


def print_table(mesh):
    row = "{:<14} {:>3}  {:<12} {:>4}  {:<8} {:<10} {}"
    print(row.format("node", "id", "address", "tier", "weftd", "worker", "admin socket"))
    for node in mesh["nodes"]:
        worker = "-"
        if node["worker_pid"]:
            worker = f"{node['worker_pid']}" if worker_attached(node) else "detached"
        state = str(node["pid"] or "down")
        if node["pid"] and node["status"] is None:
            state = "silent"
        print(row.format(node["name"], node["id"], node["address"], node["tier"], state, worker,
                         node["admin"]))
    print(f"\nclients run in: ip netns exec {mesh['client_netns']} ...")


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    command, folder = sys.argv[1:3]
    if command == "ready":
        gaps = wait_ready(folder, float(sys.argv[3]))
        for gap in gaps:
            print(gap, file=sys.stderr)
        return 1 if gaps else 0
    mesh = load(folder)
    if command == "json":
        json.dump(mesh, sys.stdout, indent=2)
        print()
    else:
        print_table(mesh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
