#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A NAT for one client and one node, for cases_rebind.py: what comes to 127.0.0.1:PORT goes to the
node from an address of this host, and back. SIGUSR1: from the next address and another port from
now on; what still comes to the old one is lost, as behind a NAT that has forgotten. Prints its
port, then a line for each change. nat.py NODE_HOST NODE_PORT ADDRESS..."""
import itertools
import select
import signal
import socket
import sys

DATAGRAM_MAX = 65535


def outside_socket(address, node):
    outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outside.bind((address, 0))
    outside.connect(node)
    return outside


def pass_on(source, send):
    """One datagram; one that cannot be sent or received is lost, as on any way."""
    try:
        data, sender = source.recvfrom(DATAGRAM_MAX)
        send(data)
        return sender
    except OSError:
        return None


def main():
    node = (sys.argv[1], int(sys.argv[2]))
    addresses = itertools.cycle(sys.argv[3:])
    inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inside.bind(("127.0.0.1", 0))
    wake, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGUSR1, lambda *_: None)
    outside = outside_socket(next(addresses), node)
    client = None
    print(inside.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([inside, outside, wake], [], [])
        if wake in ready:
            wake.recv(16)
            outside.close()
            outside = outside_socket(next(addresses), node)
            print(*outside.getsockname(), flush=True)
            continue
        if inside in ready:
            client = pass_on(inside, outside.send) or client
        if outside in ready and client:
            pass_on(outside, lambda data: inside.sendto(data, client))


if __name__ == "__main__":
    main()
