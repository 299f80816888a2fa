# SPDX-License-Identifier: Apache-2.0
"""check.py GOLDEN LUA - runs tshark with weft.lua over the captures that golden.c writes.

Each frame of the golden capture is compared field by field with what is written here by hand;
the datagrams cut short at every byte must not raise an error in the dissector. Exit 77: no tshark.
"""

import os
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
NETWORKS = [[], ["--ipv6"], ["--vlan"], ["--ipv6", "--vlan"]]  # options of golden.c
CONN = "0x1122334455667788"
REQUEST = {
    "conn_id": CONN, "req_seq": "7", "session": "0x0000abcd", "version": "1", "format": "0",
    "priority": "9", "mode": "3", "route_epoch": "513", "hops_left": "4", "msg_len": "2000",
    "req.model": "0xcafe0001", "req.req_tags": "0x801f4011", "req.req_tags.eu": "1",
    "req.req_tags.us": "0", "req.req_tags.gdpr": "1", "req.req_tags.site7": "1",
    "req.budget_us": "4294967295", "req.vram_64mib": "128", "req.radius_km": "50",
    "req.x": "49152", "req.y": "16384", "req.tier_min": "2", "req.tier_max": "5",
    "req.want.position": "1", "req.want.e2e": "0", "req.target": "3", "req.alt1": "4",
    "req.alt2": "65535", "req.max_tokens": "256", "rsp.room": "",
}  # fmt: skip
RETURN = {
    "ret.addr": "::ffff:10.77.0.9", "ret.port": "40000", "ret.mac": "02:00:00:00:00:09",
    "ret.tag": "0xfedcba9876543210", "first.cookie": "", "flags.relayed": "1",
}  # fmt: skip
FIRST = {
    "first.cookie": "0x0102030405060708", "ret.addr": "", "flags.relayed": "0",
    "req.origin": "65535",
}  # fmt: skip
REPLY = {
    "conn_id": CONN, "req_seq": "7", "rsp.room": "5", "rsp.free_vram_64mib": "1024",
    "rsp.queue_us": "1500", "rsp.origin": "12", "rsp.server": "3", "rsp.arg": "65536",
    "req.model": "", **RETURN,
}  # fmt: skip
NO_PAYLOAD = {"payload": "", "text": "", "short": "", "frame.kind": "", "prompt.kind": ""}

# One per frame, in the order of golden.c. "" = the field must not be there.
FRAMES = [
    {**REQUEST, **FIRST, "type": "0x01", "flags": "0x01", "flags.first": "1", "flags.last": "0",
     "offset": "0", "prompt.kind": "2", "prompt.max_tokens": "64",
     "prompt.seed": "0x000000000000002a", "prompt.temperature": "0.5", "prompt.top_p": "0.25",
     "prompt.top_k": "40", "prompt.parts": "2", "part.role": "1,2", "part.len": "5,4000",
     "text": "brief,What is a loom?", "short": ""},
    {**REQUEST, **RETURN, "type": "0x01", "flags.last": "1", "offset": "1104", "req.origin": "12",
     "payload": b"the rest".hex(), "prompt.kind": ""},
    {**REQUEST, **FIRST, "type": "0x01", "prompt.kind": "1", "text": "Once upon",
     "prompt.flags.no_thinking": "1", "prompt.stops": "2", "stop": "ab,."},
    {**REQUEST, **RETURN, "type": "0x02", "ack.cum": "1120", "ack.credit": "262144",
     "payload": ""},
    {**REQUEST, **RETURN, "type": "0x04", "flags.retx": "1", "range.begin": "100",
     "range.end": "200"},
    {**REQUEST, **FIRST, **NO_PAYLOAD, "type": "0x03"},
    {**REPLY, "type": "0x85", "cookie": "0x0807060504030201"},
    {**REPLY, **NO_PAYLOAD, "type": "0x82"},
    {**REPLY, "type": "0x84", "range.begin": "1104", "range.end": "2000"},
    {**REPLY, "type": "0x83", "reject.status": "1003", "reject.constraint": "7",
     "reject.best": "900000", "reject.retry_after_us": "2500", "reject.candidates": "6",
     "failed": "1"},
    {**REPLY, **NO_PAYLOAD, "type": "0x86"},
    {**REPLY, **NO_PAYLOAD, "type": "0x87"},
    {**REPLY, **NO_PAYLOAD, "type": "0x88"},
    {**REPLY, "type": "0x81", "flags.first": "1", "frame.kind": "3,1", "frame.len": "14,2",
     "frame.token": "1001,1001", "logprob.token": "1001", "logprob.logprob": "-0.5",
     "text": " a, a", "gap": "", "failed": ""},
    {**REPLY, "type": "0x81", "frame.kind": "1", "frame.token": "1002", "text": " machine!",
     "gap": ""},
    {**REPLY, "type": "0x81", "flags.last": "1", "frame.kind": "2", "frame.len": "80",
     "done.status": "1006", "done.finish": "2", "done.tier": "3", "done.prompt_tokens": "31",
     "done.new_tokens": "2", "done.queue_us": "10", "done.prefill_us": "2000",
     "done.decode_us": "3000", "done.node": "3", "done.node_name": "frankfurt",
     "done.backend": "cpu", "done.cached_tokens": "16", "failed": "1", "gap": ""},
    {**REPLY, "type": "0x81", "offset": "5000", "gap": "1", "payload": b"??????????".hex(),
     "frame.kind": ""},
    {"version": "2", "version.unknown": "1", "type": ""},
    {**REQUEST, **FIRST, "type": "0x55", "type.unknown": "1"},
    {**REQUEST, **RETURN, "type": "0x02", "hdr_words": "26", "ext": "0102030405060708",
     "ack.cum": "11", "ack.credit": "22", "short": ""},
    {"type": "0x02", "hdr_words": "255", "short": "1", "ack.cum": ""},
    {"type": "0x02", "hdr_words": "3", "short": "1", "ack.cum": ""},
]  # fmt: skip


def tshark(lua, capture, *arguments):
    """Returns the lines of standard output; ends the test if tshark fails or complains."""
    command = ["tshark", "-n", "-r", capture, "-X", "lua_script:" + lua, *arguments]
    # Two passes, as Wireshark makes them: what the first one learnt must be right in the second.
    done = subprocess.run([*command, "-2"], capture_output=True, text=True, check=False)
    noise = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    if done.returncode != 0 or noise:
        sys.exit(f"tshark ended with {done.returncode}: " + "\n".join(noise))
    return done.stdout.splitlines()


def outer_fields(network):
    """What tshark's own dissectors must see around the datagrams."""
    outer = {"ipv6.src": "2001:db8::9" if "--ipv6" in network else "",
             "ip.src": "" if "--ipv6" in network else "10.77.0.9",
             "vlan.id": "5" if "--vlan" in network else "", "udp.checksum.status": "1"}
    if "--ipv6" not in network:
        outer["udp.checksum.status"] = "3"  # there is none
    return outer


def fields_check(golden, lua, folder, network):
    capture = os.path.join(folder, "golden.pcap")
    subprocess.run([golden, *network, capture], check=True)
    outer = outer_fields(network)
    names = sorted({name for frame in FRAMES for name in frame})
    options = ["-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator=/t", "-E",
               "occurrence=a"]
    for name in [*("weft." + name for name in names), *outer]:
        options += ["-e", name]
    lines = tshark(lua, capture, *options)
    wrong = 0
    if len(lines) != len(FRAMES):
        sys.exit(f"{len(lines)} frames seen, {len(FRAMES)} expected")
    for number, (line, expected) in enumerate(zip(lines, FRAMES), start=1):
        seen = dict(zip([*names, *outer], line.split("\t")))
        for name, value in (expected | outer).items():
            if seen.get(name, "") != value:
                print(f"frame {number}: {name} is {seen.get(name)!r}, not {value!r}")
                wrong += 1
    print(f"{' '.join(network) or 'IPv4'}: {len(lines)} frames, {sum(map(len, FRAMES))} fields, "
          f"{wrong} wrong")
    return wrong


def cuts_check(golden, lua, folder, network):
    capture = os.path.join(folder, "cuts.pcap")
    subprocess.run([golden, "--cuts", *network, capture], check=True)
    lines = tshark(lua, capture, "-V")
    errors = [line for line in lines if "Lua Error" in line or "Dissector bug" in line]
    print(f"{sum(line.startswith('Frame ') for line in lines)} cut frames, {len(errors)} errors")
    for line in sorted(set(errors))[:5]:
        print("  " + line.strip())
    return len(errors)


def main():
    golden, lua = sys.argv[1:]
    if shutil.which("tshark") is None:
        print("skipped: no tshark (Debian package tshark)")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        wrong = sum(fields_check(golden, lua, folder, network) for network in NETWORKS)
        wrong += sum(cuts_check(golden, lua, folder, network) for network in NETWORKS[::3])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
