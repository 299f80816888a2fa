#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends a node frames over IPv6 that it must not take, and prints as JSON how many of each drop
reason it should have counted. Used by cases_ipv6.py."""
import argparse
import json
import socket
import struct

COPIES = 3
UDP, FRAGMENT = 17, 44
ROUTING, DESTINATION = 43, 60  # a bridge looks into hop-by-hop options itself
SOURCE = "fd77::bad"


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) if len(data) % 2 == 0 else checksum(
        data + b"\0")
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


class Frames:
    def __init__(self, args):
        self.args = args
        self.mac = bytes.fromhex(args.mac.replace(":", ""))
        self.target = socket.inet_pton(socket.AF_INET6, args.target)

    def frame(self, source=SOURCE, next_header=UDP, tag=None, sum_it=True, raw_source=None):
        """A whole request header, without a cookie."""
        src = raw_source or socket.inet_pton(socket.AF_INET6, source)
        # Version 1, REQ, FIRST | LAST, 24 words; connection 1, tier range 0..7.
        weft = bytearray(96 + 8)
        weft[0:4] = bytes((0x10, 1, 3, 24))
        weft[8] = 1
        struct.pack_into("<I", weft, 24, 8)
        weft[52] = 7
        length = 8 + len(weft)
        udp = struct.pack("!HHHH", 40000, self.args.port, length, 0) + weft
        pseudo = src + self.target + struct.pack("!II", length, UDP)
        if sum_it:
            value = ~checksum(pseudo + udp) & 0xffff
            udp = udp[:6] + struct.pack("!H", value or 0xffff) + udp[8:]
        link = self.mac + b"\x02\0\0\0\xba\xd0"
        if tag is not None:
            link += struct.pack("!HH", 0x8100, tag)
        return (link + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, length, next_header, 64) + src
                + self.target + udp)

    def all(self):
        """(reason, frame) of everything."""
        for next_header in (ROUTING, DESTINATION):
            yield "ip_extension", self.frame(next_header=next_header)
        yield "fragmented", self.frame(next_header=FRAGMENT)
        yield "bad_checksum", self.frame(sum_it=False)
        for source in ("::", "::1", "ff02::1", "ff0e::1"):
            yield "bad_header", self.frame(source)
        disguised = b"\0" * 10 + b"\xff\xff" + socket.inet_aton(self.args.member)
        yield "bad_header", self.frame(raw_source=disguised)
        yield "wrong_vlan", self.frame(tag=5)
        yield "no_cookie", self.frame()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("interface", "mac", "target", "member"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, default=7400)
    args = parser.parse_args()
    counts = {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((args.interface, 0))
        for reason, frame in Frames(args).all():
            for _ in range(COPIES):
                sock.send(frame)
            counts[reason] = counts.get(reason, 0) + COPIES
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
