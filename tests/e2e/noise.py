#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends hostile packets to one node for a while: random datagrams, malformed frames, and mutated
copies of real frames that it has captured from this host. Runs inside a namespace of scripts/mesh;
prints a JSON account. Used by cases_system.py. Standard library only; needs root.
"""
import argparse
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
PACKET_OUTGOING = 4
IPPROTO_UDP = 17
ETH_LEN, IP_LEN, UDP_LEN = 14, 20, 8
BURST, PAUSE_S = 32, 0.004  # 8,000 packets a second at most
CAPTURE_S = 2.0
CAPTURED_MAX = 256
DATAGRAM_MAX = 1472


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Noise:
    def __init__(self, args):
        self.rng = random.Random(args.seed)
        self.target, self.port, self.interface = args.target, args.port, args.interface
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.raw.bind((args.interface, ETH_P_ALL))
        self.raw.settimeout(0.1)
        self.captured = []
        self.counts = {}

    # ---- capture ----
    def capture(self, command):
        """Frames that this host sends to the target's port, while the command runs."""
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                  stdin=subprocess.DEVNULL) if command else None
        end = time.monotonic() + CAPTURE_S
        while time.monotonic() < end or (client and client.poll() is None):
            try:
                frame, address = self.raw.recvfrom(2048)
            except TimeoutError:
                continue
            if address[2] == PACKET_OUTGOING and self.is_ours(frame):
                self.captured.append(frame)
            if len(self.captured) >= CAPTURED_MAX:
                break
        if client and client.wait() != 0:
            sys.exit("noise: the client whose packets were to be captured failed")

    def is_ours(self, frame):
        if len(frame) < ETH_LEN + IP_LEN + UDP_LEN or frame[12:14] != b"\x08\x00":
            return False
        return (frame[23] == IPPROTO_UDP and frame[30:34] == socket.inet_aton(self.target)
                and struct.unpack_from("!H", frame, 36)[0] == self.port)

    # ---- kinds of packets; each returns nothing and sends one ----
    def random_datagram(self):
        size = self.rng.choice((0, 1, 31, 32, 63, 64, 95, 96, 97, 1200, DATAGRAM_MAX,
                                self.rng.randrange(DATAGRAM_MAX)))
        data = bytearray(self.rng.randbytes(size))
        if size > 8 and self.rng.random() < 0.8:  # past the first checks: version, type, length
            data[0] = 0x10
            data[1] = self.rng.choice((1, 2, 3, 4, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88))
            data[3] = self.rng.choice((8, 16, 20, 24, data[3]))
        self.udp.sendto(data, (self.target, self.port))

    def mutate(self, payload):
        data = bytearray(payload)
        for _ in range(self.rng.choice((0, 1, 1, 2, 8))):
            if not data:
                break
            at = self.rng.randrange(min(len(data), self.rng.choice((32, 96, 4096))))
            flipped = data[at] ^ 1 << self.rng.randrange(8)
            data[at] = self.rng.choice((0, 1, 0x7f, 0x80, 0xff, flipped))
        kind = self.rng.random()
        if kind < 0.2:
            del data[self.rng.randrange(len(data) + 1):]
        elif kind < 0.3:
            data += self.rng.randbytes(self.rng.randrange(64))
        return bytes(data[:DATAGRAM_MAX])

    def mutated_frame(self):
        """A captured datagram, damaged, with lengths and IP checksum right again, so that it gets
        as deep as it can. A UDP checksum of 0 means none."""
        frame = self.rng.choice(self.captured)
        header = 4 * (frame[14] & 15)
        payload = self.mutate(frame[ETH_LEN + header + UDP_LEN:])
        ports = frame[ETH_LEN + header:ETH_LEN + header + 4]
        udp = ports + struct.pack("!HH", UDP_LEN + len(payload), 0) + payload
        ip = bytearray(frame[ETH_LEN:ETH_LEN + header])
        struct.pack_into("!H", ip, 2, header + len(udp))
        struct.pack_into("!H", ip, 10, 0)
        struct.pack_into("!H", ip, 10, checksum(bytes(ip)))
        self.raw.send(frame[:ETH_LEN] + bytes(ip) + udp)

    def malformed_frame(self):
        """A captured frame with damage to the Ethernet, IP or UDP header, or cut short."""
        frame = bytearray(self.rng.choice(self.captured))
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(12, ETH_LEN + IP_LEN + UDP_LEN)
            frame[at] = self.rng.choice((0, 0xff, self.rng.randrange(256)))
        if self.rng.random() < 0.3:
            del frame[max(ETH_LEN, self.rng.randrange(len(frame))):]
        self.raw.send(bytes(frame))

    def run(self, seconds):
        kinds = [self.random_datagram]
        if self.captured:
            kinds += [self.mutated_frame, self.mutated_frame, self.malformed_frame]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(BURST):
                kind = self.rng.choice(kinds)
                try:
                    kind()
                except OSError:  # refused by the kernel (full queue, ICMP answer): not sent
                    continue
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            time.sleep(PAUSE_S)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: noise.py --target 10.77.0.1 --port 7400 --seconds 5")
    parser.add_argument("--target", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--interface", default="veth0")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("command", nargs="*", help="a client to capture packets from")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("noise: needs root (packet sockets)")
    noise = Noise(args)
    noise.capture(args.command)
    noise.run(args.seconds)
    print(json.dumps({"captured": len(noise.captured), "total": sum(noise.counts.values()),
                      **noise.counts}))


if __name__ == "__main__":
    main()
