-- SPDX-License-Identifier: Apache-2.0
-- weft.lua - Wireshark dissector for Weft's data port. Made from wire.def by dissector.c; do
-- not edit. Use: `tshark -X lua_script:weft.lua`, or copy it to Wireshark's plugin folder.
-- Filters: `weft.type == 0x83`, `weft.done.status != 0`, `weft.conn_id == 0x1234`.

local weft = Proto("weft", "Weft")
local f = weft.fields
local bits = {} -- field -> fields that show parts of it
local layouts = {} -- struct -> {field, offset, bytes, little-endian, note}
local sizes = {}

-- What is added to the line of a field whose number alone says little.
local notes = {
    none16 = function(v) return v == 65535 and " (none)" or "" end,
    none32 = function(v) return v == 4294967295 and " (none)" or "" end,
    vram = function(v) return string.format(" (%d MiB)", v * 64) end,
    jurisdiction = function(v) -- wire.def has its twelve bits
        local number, ones = 0, 0
        for bit = 0, 11 do
            if math.floor(v / 2 ^ (12 + bit)) % 2 == 1 then
                local below = 1
                ones = ones + 1
                for i = 1, ones do below = below * (bit - i + 1) / i end
                number = number + below
            end
        end
        number = math.floor(number + 0.5)
        if ones ~= 6 or number > 675 then return "" end
        return string.format(" (in %s)", string.char(65 + math.floor(number / 26)) ..
            string.char(65 + number % 26))
    end,
    longitude = function(v) return string.format(" (%.3f)", v / 65536 * 360 - 180) end,
    latitude = function(v) return string.format(" (%.3f)", v / 32767 * 180 - 90) end,
}

f["ver_fmt"] = ProtoField.uint8("weft.ver_fmt", "ver_fmt", base.HEX, nil, nil, "version in the high 4 bits, format in the low 4")
f["version"] = ProtoField.uint8("weft.version", "version", base.DEC, nil, 0xf0, "version in the high 4 bits, format in the low 4")
f["format"] = ProtoField.uint8("weft.format", "format", base.DEC, nil, 0x0f, "version in the high 4 bits, format in the low 4")
bits["ver_fmt"] = {"version", "format"}
f["type"] = ProtoField.uint8("weft.type", "type", base.HEX, {[1] = "REQ", [2] = "ACK", [3] = "CANCEL", [4] = "RESEND", [129] = "RESP", [130] = "GRANT", [131] = "REJECT", [132] = "RESEND_REQ", [133] = "COOKIE", [134] = "BUSY", [135] = "NEED_ACK", [136] = "UNKNOWN"}, nil, "message type; bit 7 set = towards the client")
f["flags"] = ProtoField.uint8("weft.flags", "flags", base.HEX, nil, nil, "WEFT_F_*")
f["flags.first"] = ProtoField.bool("weft.flags.first", "FIRST", 8, nil, 0x1, "first bytes of the message")
f["flags.last"] = ProtoField.bool("weft.flags.last", "LAST", 8, nil, 0x2, "last bytes of the message")
f["flags.retx"] = ProtoField.bool("weft.flags.retx", "RETX", 8, nil, 0x4, "sent before")
f["flags.idempotent"] = ProtoField.bool("weft.flags.idempotent", "IDEMPOTENT", 8, nil, 0x8, "may be executed again elsewhere")
f["flags.sec"] = ProtoField.bool("weft.flags.sec", "SEC", 8, nil, 0x10, "payload is sealed")
f["flags.ext"] = ProtoField.bool("weft.flags.ext", "EXT", 8, nil, 0x20, "extension fields follow the fixed header")
f["flags.ecn_echo"] = ProtoField.bool("weft.flags.ecn_echo", "ECN_ECHO", 8, nil, 0x40, "congestion was marked on the way here")
f["flags.relayed"] = ProtoField.bool("weft.flags.relayed", "RELAYED", 8, nil, 0x80, "the block after the header is a return block")
bits["flags"] = {"flags.first", "flags.last", "flags.retx", "flags.idempotent", "flags.sec", "flags.ext", "flags.ecn_echo", "flags.relayed"}
f["hdr_words"] = ProtoField.uint8("weft.hdr_words", "hdr_words", base.DEC, nil, nil, "header length in 4-byte words, return block included")
f["hops_left"] = ProtoField.uint8("weft.hops_left", "hops_left", base.DEC, nil, nil, "node-to-node hops still allowed: the loop guard")
f["prio_mode"] = ProtoField.uint8("weft.prio_mode", "prio_mode", base.HEX, nil, nil, "priority 0..15 (15 first) in the high 4 bits, mode below")
f["priority"] = ProtoField.uint8("weft.priority", "priority", base.DEC, nil, 0xf0, "priority 0..15 (15 first) in the high 4 bits, mode below")
f["mode"] = ProtoField.uint8("weft.mode", "mode", base.DEC, nil, 0x0f, "priority 0..15 (15 first) in the high 4 bits, mode below")
bits["prio_mode"] = {"priority", "mode"}
f["route_epoch"] = ProtoField.uint16("weft.route_epoch", "route_epoch", base.DEC, nil, nil, "table generation that took the decision")
f["conn_id"] = ProtoField.uint64("weft.conn_id", "conn_id", base.HEX, nil, nil, "random, drawn by the client once per connection")
f["req_seq"] = ProtoField.uint32("weft.req_seq", "req_seq", base.DEC, nil, nil, "request number, rising by one; a new conn before it wraps")
f["session"] = ProtoField.uint32("weft.session", "session", base.HEX, nil, nil, "affinity: requests of one session; 0 = none")
f["msg_len"] = ProtoField.uint32("weft.msg_len", "msg_len", base.DEC, nil, nil, "bytes of the whole message; RESP: 0 until the last part")
f["offset"] = ProtoField.uint32("weft.offset", "offset", base.DEC, nil, nil, "byte offset of this datagram's payload in the message")
layouts.common = {
    {"ver_fmt", 0, 1, true},
    {"type", 1, 1, true},
    {"flags", 2, 1, true},
    {"hdr_words", 3, 1, true},
    {"hops_left", 4, 1, true},
    {"prio_mode", 5, 1, true},
    {"route_epoch", 6, 2, true},
    {"conn_id", 8, 8, true},
    {"req_seq", 16, 4, true},
    {"session", 20, 4, true},
    {"msg_len", 24, 4, true},
    {"offset", 28, 4, true},
}
sizes.common = 32

f["req.model"] = ProtoField.uint32("weft.req.model", "model", base.HEX, nil, nil, "weft_model_id() of the model's name")
f["req.req_tags"] = ProtoField.uint32("weft.req.req_tags", "req_tags", base.HEX, nil, nil, "policy tags the node must all have; its jurisdiction")
f["req.req_tags.eu"] = ProtoField.bool("weft.req.req_tags.eu", "eu", 32, nil, 0x1, "in the European Union")
f["req.req_tags.us"] = ProtoField.bool("weft.req.req_tags.us", "us", 32, nil, 0x2, "in the United States")
f["req.req_tags.apac"] = ProtoField.bool("weft.req.req_tags.apac", "apac", 32, nil, 0x4, "in Asia or the Pacific")
f["req.req_tags.uk"] = ProtoField.bool("weft.req.req_tags.uk", "uk", 32, nil, 0x8, "in the United Kingdom")
f["req.req_tags.gdpr"] = ProtoField.bool("weft.req.req_tags.gdpr", "gdpr", 32, nil, 0x10, "processes personal data under the GDPR")
f["req.req_tags.hipaa"] = ProtoField.bool("weft.req.req_tags.hipaa", "hipaa", 32, nil, 0x20, "may process health data under HIPAA")
f["req.req_tags.pci"] = ProtoField.bool("weft.req.req_tags.pci", "pci", 32, nil, 0x40, "may process card data under PCI DSS")
f["req.req_tags.sovereign"] = ProtoField.bool("weft.req.req_tags.sovereign", "sovereign", 32, nil, 0x80, "owned and run within its own jurisdiction")
f["req.req_tags.onprem"] = ProtoField.bool("weft.req.req_tags.onprem", "onprem", 32, nil, 0x100, "on the operator's own premises")
f["req.req_tags.nostore"] = ProtoField.bool("weft.req.req_tags.nostore", "nostore", 32, nil, 0x200, "keeps nothing of a request after its end")
f["req.req_tags.renewable"] = ProtoField.bool("weft.req.req_tags.renewable", "renewable", 32, nil, 0x400, "runs on renewable energy")
f["req.req_tags.confidential"] = ProtoField.bool("weft.req.req_tags.confidential", "confidential", 32, nil, 0x800, "memory encrypted and attested")
f["req.req_tags.site0"] = ProtoField.bool("weft.req.req_tags.site0", "site0", 32, nil, 0x1000000, "site-defined")
f["req.req_tags.site1"] = ProtoField.bool("weft.req.req_tags.site1", "site1", 32, nil, 0x2000000, "site-defined")
f["req.req_tags.site2"] = ProtoField.bool("weft.req.req_tags.site2", "site2", 32, nil, 0x4000000, "site-defined")
f["req.req_tags.site3"] = ProtoField.bool("weft.req.req_tags.site3", "site3", 32, nil, 0x8000000, "site-defined")
f["req.req_tags.site4"] = ProtoField.bool("weft.req.req_tags.site4", "site4", 32, nil, 0x10000000, "site-defined")
f["req.req_tags.site5"] = ProtoField.bool("weft.req.req_tags.site5", "site5", 32, nil, 0x20000000, "site-defined")
f["req.req_tags.site6"] = ProtoField.bool("weft.req.req_tags.site6", "site6", 32, nil, 0x40000000, "site-defined")
f["req.req_tags.site7"] = ProtoField.bool("weft.req.req_tags.site7", "site7", 32, nil, 0x80000000, "site-defined")
bits["req.req_tags"] = {"req.req_tags.eu", "req.req_tags.us", "req.req_tags.apac", "req.req_tags.uk", "req.req_tags.gdpr", "req.req_tags.hipaa", "req.req_tags.pci", "req.req_tags.sovereign", "req.req_tags.onprem", "req.req_tags.nostore", "req.req_tags.renewable", "req.req_tags.confidential", "req.req_tags.site0", "req.req_tags.site1", "req.req_tags.site2", "req.req_tags.site3", "req.req_tags.site4", "req.req_tags.site5", "req.req_tags.site6", "req.req_tags.site7"}
f["req.budget_us"] = ProtoField.uint32("weft.req.budget_us", "budget_us", base.DEC, nil, nil, "time left; WEFT_BUDGET_NONE = no deadline")
f["req.vram_64mib"] = ProtoField.uint16("weft.req.vram_64mib", "vram_64mib", base.DEC, nil, nil, "free accelerator memory needed, units of 64 MiB")
f["req.radius_km"] = ProtoField.uint16("weft.req.radius_km", "radius_km", base.DEC, nil, nil, "great-circle limit around (x, y); 0 = none")
f["req.x"] = ProtoField.uint16("weft.req.x", "x", base.DEC, nil, nil, "client longitude in cells, if WEFT_WANT_POSITION")
f["req.y"] = ProtoField.uint16("weft.req.y", "y", base.DEC, nil, nil, "client latitude in cells, if WEFT_WANT_POSITION")
f["req.tiers"] = ProtoField.uint8("weft.req.tiers", "tiers", base.HEX, nil, nil, "lowest tier in the high 4 bits, highest in the low 4")
f["req.tier_min"] = ProtoField.uint8("weft.req.tier_min", "tier_min", base.DEC, nil, 0xf0, "lowest tier in the high 4 bits, highest in the low 4")
f["req.tier_max"] = ProtoField.uint8("weft.req.tier_max", "tier_max", base.DEC, nil, 0x0f, "lowest tier in the high 4 bits, highest in the low 4")
bits["req.tiers"] = {"req.tier_min", "req.tier_max"}
f["req.want"] = ProtoField.uint8("weft.req.want", "want", base.HEX, nil, nil, "WEFT_WANT_*")
f["req.want.position"] = ProtoField.bool("weft.req.want.position", "POSITION", 8, nil, 0x1, "x and y are the client's own; else the ingress's count")
f["req.want.e2e"] = ProtoField.bool("weft.req.want.e2e", "E2E", 8, nil, 0x2, "the budget covers the whole answer; else the first token")
bits["req.want"] = {"req.want.position", "req.want.e2e"}
f["req.origin"] = ProtoField.uint16("weft.req.origin", "origin", base.DEC, nil, nil, "node id of the ingress; WEFT_NODE_NONE from the client")
f["req.target"] = ProtoField.uint16("weft.req.target", "target", base.DEC, nil, nil, "node id that serves; WEFT_NODE_NONE = not chosen yet")
f["req.alt1"] = ProtoField.uint16("weft.req.alt1", "alt1", base.DEC, nil, nil, "second chance: next candidate of the same discovery")
f["req.alt2"] = ProtoField.uint16("weft.req.alt2", "alt2", base.DEC, nil, nil, "third candidate")
f["req.max_tokens"] = ProtoField.uint16("weft.req.max_tokens", "max_tokens", base.DEC, nil, nil, "tokens asked for: what the prediction is made of")
layouts.req = {
    {"req.model", 32, 4, true},
    {"req.req_tags", 36, 4, true, notes.jurisdiction},
    {"req.budget_us", 40, 4, true, notes.none32},
    {"req.vram_64mib", 44, 2, true, notes.vram},
    {"req.radius_km", 46, 2, true},
    {"req.x", 48, 2, true, notes.longitude},
    {"req.y", 50, 2, true, notes.latitude},
    {"req.tiers", 52, 1, true},
    {"req.want", 53, 1, true},
    {"req.origin", 54, 2, true, notes.none16},
    {"req.target", 56, 2, true, notes.none16},
    {"req.alt1", 58, 2, true, notes.none16},
    {"req.alt2", 60, 2, true, notes.none16},
    {"req.max_tokens", 62, 2, true},
}
sizes.req = 64

f["rsp.room"] = ProtoField.uint16("weft.rsp.room", "room", base.DEC, nil, nil, "load word: requests the worker would still accept")
f["rsp.free_vram_64mib"] = ProtoField.uint16("weft.rsp.free_vram_64mib", "free_vram_64mib", base.DEC, nil, nil, "load word: free accelerator memory")
f["rsp.queue_us"] = ProtoField.uint32("weft.rsp.queue_us", "queue_us", base.DEC, nil, nil, "load word: wait of a new request; all ones: it drains")
f["rsp.origin"] = ProtoField.uint16("weft.rsp.origin", "origin", base.DEC, nil, nil, "ingress that holds the key of the return block")
f["rsp.server"] = ProtoField.uint16("weft.rsp.server", "server", base.DEC, nil, nil, "node id that serves")
f["rsp.arg"] = ProtoField.uint32("weft.rsp.arg", "arg", base.DEC, nil, nil, "GRANT: bytes granted; BUSY: steps, 0 = unknown; RESP: sum")
layouts.rsp = {
    {"rsp.room", 32, 2, true},
    {"rsp.free_vram_64mib", 34, 2, true, notes.vram},
    {"rsp.queue_us", 36, 4, true},
    {"rsp.origin", 40, 2, true, notes.none16},
    {"rsp.server", 42, 2, true, notes.none16},
    {"rsp.arg", 44, 4, true},
}
sizes.rsp = 48

f["first.cookie"] = ProtoField.uint64("weft.first.cookie", "cookie", base.HEX, nil, nil, "proves that the client owns its source address")
f["first.avoid_count"] = ProtoField.uint16("weft.first.avoid_count", "avoid_count", base.DEC, nil, nil, "node ids in `avoid`, WEFT_AVOID_MAX at most")
f["first.avoid"] = ProtoField.bytes("weft.first.avoid", "avoid", base.NONE, "tried before: not chosen while another node can")
f["first.reserved"] = ProtoField.bytes("weft.first.reserved", "reserved", base.NONE, "zero")
f["first.arithmetic"] = ProtoField.uint32("weft.first.arithmetic", "arithmetic", base.DEC, nil, nil, "of the answer so far: preferred with `avoid`; 0 = any")
f["first.prefix"] = ProtoField.uint64("weft.first.prefix", "prefix", base.HEX, nil, nil, "how the prompt begins (base/prefix.h); 0 = not told")
layouts.first = {
    {"first.cookie", 0, 8, true},
    {"first.avoid_count", 8, 2, true},
    {"first.avoid", 10, 8, false},
    {"first.reserved", 18, 2, false},
    {"first.arithmetic", 20, 4, true},
    {"first.prefix", 24, 8, true},
}
sizes.first = 32

f["ret.addr"] = ProtoField.ipv6("weft.ret.addr", "addr")
f["ret.port"] = ProtoField.uint16("weft.ret.port", "port", base.DEC, nil, nil, "client UDP port")
f["ret.mac"] = ProtoField.ether("weft.ret.mac", "mac")
f["ret.tag"] = ProtoField.uint64("weft.ret.tag", "tag", base.HEX, nil, nil, "SipHash-2-4 under the ingress's own key")
layouts.ret = {
    {"ret.addr", 0, 16, false},
    {"ret.port", 16, 2, true},
    {"ret.mac", 18, 6, false},
    {"ret.tag", 24, 8, true},
}
sizes.ret = 32

f["ack.cum"] = ProtoField.uint32("weft.ack.cum", "cum", base.DEC, nil, nil, "reply bytes received without a gap")
f["ack.credit"] = ProtoField.uint32("weft.ack.credit", "credit", base.DEC, nil, nil, "reply bytes the client will take, counted from 0")
layouts.ack = {
    {"ack.cum", 0, 4, true},
    {"ack.credit", 4, 4, true},
}
sizes.ack = 8

f["range.begin"] = ProtoField.uint32("weft.range.begin", "begin", base.DEC, nil, nil, "first byte wanted")
f["range.end"] = ProtoField.uint32("weft.range.end", "end", base.DEC, nil, nil, "one past the last byte wanted")
layouts.range = {
    {"range.begin", 0, 4, true},
    {"range.end", 4, 4, true},
}
sizes.range = 8

f["grant.alt1"] = ProtoField.uint16("weft.grant.alt1", "alt1", base.DEC, nil, nil, "next candidate; WEFT_NODE_NONE = there is none")
f["grant.alt2"] = ProtoField.uint16("weft.grant.alt2", "alt2", base.DEC, nil, nil, "third candidate")
f["grant.arithmetic"] = ProtoField.uint32("weft.grant.arithmetic", "arithmetic", base.DEC, nil, nil, "sum over weights and way of computing; 0 = not told")
layouts.grant = {
    {"grant.alt1", 0, 2, true, notes.none16},
    {"grant.alt2", 2, 2, true, notes.none16},
    {"grant.arithmetic", 4, 4, true},
}
sizes.grant = 8

f["reject.status"] = ProtoField.uint16("weft.reject.status", "status", base.DEC, {[0] = "OK", [1001] = "UNKNOWN_MODEL", [1002] = "NO_CAPABLE_NODE", [1003] = "BUDGET_INFEASIBLE", [1004] = "BUDGET_EXPIRED", [1005] = "MESH_FULL", [1006] = "WORKER_LOST", [1007] = "STALLED", [1008] = "UNREACHABLE", [1009] = "CANCELLED", [1010] = "BAD_REQUEST", [1011] = "TOO_LONG", [1012] = "VERSION", [1013] = "LOOP", [1014] = "CORRUPT", [1015] = "WORKER_FAILED", [1016] = "DRAINING", [1017] = "CONFIG", [1018] = "PROTOCOL"}, nil, "minus the status code (status.def)")
f["reject.constraint"] = ProtoField.uint16("weft.reject.constraint", "constraint", base.DEC, {[0] = "NONE", [1] = "MODEL", [2] = "TAGS", [9] = "JURISDICTION", [3] = "TIER", [4] = "RADIUS", [5] = "VRAM", [6] = "ROOM", [7] = "BUDGET", [8] = "ABILITY"}, nil, "the binding constraint (WEFT_CONSTRAINTS)")
f["reject.best"] = ProtoField.uint32("weft.reject.best", "best", base.DEC, nil, nil, "best achievable figure of that constraint, its own unit")
f["reject.retry_after_us"] = ProtoField.uint32("weft.reject.retry_after_us", "retry_after_us", base.DEC, nil, nil, "when to try again; 0 = do not")
f["reject.candidates"] = ProtoField.uint32("weft.reject.candidates", "candidates", base.DEC, nil, nil, "nodes that passed the filters before that constraint")
layouts.reject = {
    {"reject.status", 0, 2, true},
    {"reject.constraint", 2, 2, true},
    {"reject.best", 4, 4, true},
    {"reject.retry_after_us", 8, 4, true},
    {"reject.candidates", 12, 4, true},
}
sizes.reject = 16

f["prompt.kind"] = ProtoField.uint8("weft.prompt.kind", "kind", base.DEC, {[1] = "TEXT", [2] = "CHAT", [3] = "TOKENS"}, nil, "WEFT_PROMPT_*")
f["prompt.flags"] = ProtoField.uint8("weft.prompt.flags", "flags", base.HEX, nil, nil, "WEFT_PROMPT_F_*")
f["prompt.flags.no_thinking"] = ProtoField.bool("weft.prompt.flags.no_thinking", "NO_THINKING", 8, nil, 0x1, "a chat model with the switch answers without thinking first")
f["prompt.flags.embed_mean"] = ProtoField.bool("weft.prompt.flags.embed_mean", "EMBED_MEAN", 8, nil, 0x2, "no text: an EMBEDDING of the prompt, the mean over its tokens")
f["prompt.flags.embed_last"] = ProtoField.bool("weft.prompt.flags.embed_last", "EMBED_LAST", 8, nil, 0x4, "the same of its last token; not both")
f["prompt.flags.formatted"] = ProtoField.bool("weft.prompt.flags.formatted", "FORMATTED", 8, nil, 0x8, "`format` says what the answer must be: who does not know that must refuse")
bits["prompt.flags"] = {"prompt.flags.no_thinking", "prompt.flags.embed_mean", "prompt.flags.embed_last", "prompt.flags.formatted"}
f["prompt.hdr_len"] = ProtoField.uint16("weft.prompt.hdr_len", "hdr_len", base.DEC, nil, nil, "bytes of this header; resumed tokens begin there")
f["prompt.max_tokens"] = ProtoField.uint32("weft.prompt.max_tokens", "max_tokens", base.DEC, nil, nil, "stop after so many, resumed included")
f["prompt.seed"] = ProtoField.uint64("weft.prompt.seed", "seed", base.HEX, nil, nil, "of the sampler; the same seed gives the same text")
f["prompt.temperature"] = ProtoField.float("weft.prompt.temperature", "temperature")
f["prompt.top_p"] = ProtoField.float("weft.prompt.top_p", "top_p")
f["prompt.min_p"] = ProtoField.float("weft.prompt.min_p", "min_p")
f["prompt.top_k"] = ProtoField.uint32("weft.prompt.top_k", "top_k", base.DEC, nil, nil, "0 = off")
f["prompt.parts"] = ProtoField.uint32("weft.prompt.parts", "parts", base.DEC, nil, nil, "CHAT: number of messages; else 0")
f["prompt.resume"] = ProtoField.uint32("weft.prompt.resume", "resume", base.DEC, nil, nil, "token ids between this header and the prompt")
f["prompt.sum"] = ProtoField.uint32("weft.prompt.sum", "sum", base.DEC, nil, nil, "CRC-32C of the body, this field as zero")
f["prompt.repetition"] = ProtoField.float("weft.prompt.repetition", "repetition")
f["prompt.presence"] = ProtoField.float("weft.prompt.presence", "presence")
f["prompt.frequency"] = ProtoField.float("weft.prompt.frequency", "frequency")
f["prompt.logprobs"] = ProtoField.uint16("weft.prompt.logprobs", "logprobs", base.DEC, nil, nil, "log probabilities a token: its own and the best; 0 = none")
f["prompt.stops"] = ProtoField.uint16("weft.prompt.stops", "stops", base.DEC, nil, nil, "number of stop strings")
f["prompt.stops_at"] = ProtoField.uint16("weft.prompt.stops_at", "stops_at", base.DEC, nil, nil, "where in this header they begin; 0 = there are none")
f["prompt.format"] = ProtoField.uint16("weft.prompt.format", "format", base.DEC, nil, nil, "WEFT_FORMAT_*; not NONE: with the flag FORMATTED")
f["prompt.format_at"] = ProtoField.uint16("weft.prompt.format_at", "format_at", base.DEC, nil, nil, "where in this header its text begins; 0 = it has none")
f["prompt.format_len"] = ProtoField.uint16("weft.prompt.format_len", "format_len", base.DEC, nil, nil, "bytes of it; up to three zero bytes follow")
f["prompt.trace_flags"] = ProtoField.uint32("weft.prompt.trace_flags", "trace_flags", base.DEC, nil, nil, "W3C trace context: 1 = sampled")
f["prompt.trace_high"] = ProtoField.uint64("weft.prompt.trace_high", "trace_high", base.DEC, nil, nil, "the trace's id, first half")
f["prompt.trace_low"] = ProtoField.uint64("weft.prompt.trace_low", "trace_low", base.DEC, nil, nil, "second half; both 0 = none")
f["prompt.trace_span"] = ProtoField.uint64("weft.prompt.trace_span", "trace_span", base.DEC, nil, nil, "the span that what is done here belongs to")
f["prompt.session_node"] = ProtoField.uint16("weft.prompt.session_node", "session_node", base.DEC, nil, nil, "1 + id of the node that served the session last; or 0")
f["prompt.trace_state_at"] = ProtoField.uint16("weft.prompt.trace_state_at", "trace_state_at", base.DEC, nil, nil, "where in this header its tracestate begins; 0 = none")
f["prompt.trace_state_len"] = ProtoField.uint16("weft.prompt.trace_state_len", "trace_state_len", base.DEC, nil, nil, "bytes of it, WEFT_TRACE_STATE_MAX at most")
f["prompt.reserved"] = ProtoField.uint16("weft.prompt.reserved", "reserved", base.DEC, nil, nil, "zero")
layouts.prompt = {
    {"prompt.kind", 0, 1, true},
    {"prompt.flags", 1, 1, true},
    {"prompt.hdr_len", 2, 2, true},
    {"prompt.max_tokens", 4, 4, true},
    {"prompt.seed", 8, 8, true},
    {"prompt.temperature", 16, 4, true},
    {"prompt.top_p", 20, 4, true},
    {"prompt.min_p", 24, 4, true},
    {"prompt.top_k", 28, 4, true},
    {"prompt.parts", 32, 4, true},
    {"prompt.resume", 36, 4, true},
    {"prompt.sum", 40, 4, true},
    {"prompt.repetition", 44, 4, true},
    {"prompt.presence", 48, 4, true},
    {"prompt.frequency", 52, 4, true},
    {"prompt.logprobs", 56, 2, true},
    {"prompt.stops", 58, 2, true},
    {"prompt.stops_at", 60, 2, true},
    {"prompt.format", 62, 2, true},
    {"prompt.format_at", 64, 2, true},
    {"prompt.format_len", 66, 2, true},
    {"prompt.trace_flags", 68, 4, true},
    {"prompt.trace_high", 72, 8, true},
    {"prompt.trace_low", 80, 8, true},
    {"prompt.trace_span", 88, 8, true},
    {"prompt.session_node", 96, 2, true},
    {"prompt.trace_state_at", 98, 2, true},
    {"prompt.trace_state_len", 100, 2, true},
    {"prompt.reserved", 102, 2, true},
}
sizes.prompt = 104

f["part.role"] = ProtoField.uint32("weft.part.role", "role", base.DEC, {[1] = "SYSTEM", [2] = "USER", [3] = "ASSISTANT", [4] = "TOOL", [5] = "CALLS", [6] = "TOOLS"}, nil, "WEFT_ROLE_*")
f["part.len"] = ProtoField.uint32("weft.part.len", "len", base.DEC, nil, nil, "bytes of text that follow")
layouts.part = {
    {"part.role", 0, 4, true},
    {"part.len", 4, 4, true},
}
sizes.part = 8

f["frame.kind"] = ProtoField.uint8("weft.frame.kind", "kind", base.DEC, {[1] = "TEXT", [2] = "DONE", [3] = "LOGPROBS", [4] = "EMBEDDING"}, nil, "WEFT_FRAME_*")
f["frame.flags"] = ProtoField.uint8("weft.frame.flags", "flags", base.HEX, nil, nil, "WEFT_FRAME_F_*")
f["frame.flags.continued"] = ProtoField.bool("weft.frame.flags.continued", "CONTINUED", 8, nil, 0x1, "TEXT that goes on with the token before")
f["frame.flags.tail"] = ProtoField.bool("weft.frame.flags.tail", "TAIL", 8, nil, 0x2, "the rest of the text: counts only together with the DONE that follows")
bits["frame.flags"] = {"frame.flags.continued", "frame.flags.tail"}
f["frame.len"] = ProtoField.uint16("weft.frame.len", "len", base.DEC, nil, nil, "bytes that follow")
f["frame.token"] = ProtoField.uint32("weft.frame.token", "token", base.DEC, nil, nil, "TEXT, LOGPROBS: token id")
layouts.frame = {
    {"frame.kind", 0, 1, true},
    {"frame.flags", 1, 1, true},
    {"frame.len", 2, 2, true},
    {"frame.token", 4, 4, true},
}
sizes.frame = 8

f["logprob.token"] = ProtoField.uint32("weft.logprob.token", "token", base.DEC, nil, nil, "token id")
f["logprob.logprob"] = ProtoField.float("weft.logprob.logprob", "logprob")
f["logprob.len"] = ProtoField.uint32("weft.logprob.len", "len", base.DEC, nil, nil, "bytes of text that follow")
layouts.logprob = {
    {"logprob.token", 0, 4, true},
    {"logprob.logprob", 4, 4, true},
    {"logprob.len", 8, 4, true},
}
sizes.logprob = 12

f["done.status"] = ProtoField.uint16("weft.done.status", "status", base.DEC, {[0] = "OK", [1001] = "UNKNOWN_MODEL", [1002] = "NO_CAPABLE_NODE", [1003] = "BUDGET_INFEASIBLE", [1004] = "BUDGET_EXPIRED", [1005] = "MESH_FULL", [1006] = "WORKER_LOST", [1007] = "STALLED", [1008] = "UNREACHABLE", [1009] = "CANCELLED", [1010] = "BAD_REQUEST", [1011] = "TOO_LONG", [1012] = "VERSION", [1013] = "LOOP", [1014] = "CORRUPT", [1015] = "WORKER_FAILED", [1016] = "DRAINING", [1017] = "CONFIG", [1018] = "PROTOCOL"}, nil, "minus the status code; 0 = complete")
f["done.finish"] = ProtoField.uint8("weft.done.finish", "finish", base.DEC, {[1] = "STOP", [2] = "LENGTH", [3] = "CANCELLED", [4] = "FAILED", [5] = "REFUSED"}, nil, "WEFT_FINISH_*")
f["done.tier"] = ProtoField.uint8("weft.done.tier", "tier", base.DEC, nil, nil, "hardware tier of the node")
f["done.prompt_tokens"] = ProtoField.uint32("weft.done.prompt_tokens", "prompt_tokens", base.DEC, nil, nil, "tokens of the prompt, template included")
f["done.new_tokens"] = ProtoField.uint32("weft.done.new_tokens", "new_tokens", base.DEC, nil, nil, "tokens generated")
f["done.queue_us"] = ProtoField.uint32("weft.done.queue_us", "queue_us", base.DEC, nil, nil, "from the last prompt byte to the first step")
f["done.prefill_us"] = ProtoField.uint32("weft.done.prefill_us", "prefill_us", base.DEC, nil, nil, "to the first token")
f["done.decode_us"] = ProtoField.uint32("weft.done.decode_us", "decode_us", base.DEC, nil, nil, "from the first token to the last")
f["done.node"] = ProtoField.uint16("weft.done.node", "node", base.DEC, nil, nil, "node id")
f["done.reserved"] = ProtoField.uint16("weft.done.reserved", "reserved", base.DEC, nil, nil, "zero")
f["done.node_name"] = ProtoField.stringz("weft.done.node_name", "node_name", base.UNICODE, "zero-terminated")
f["done.backend"] = ProtoField.stringz("weft.done.backend", "backend", base.UNICODE, "cpu, cuda, ...; zero-terminated")
f["done.cached_tokens"] = ProtoField.uint32("weft.done.cached_tokens", "cached_tokens", base.DEC, nil, nil, "tokens of the prompt that needed no work")
layouts.done = {
    {"done.status", 0, 2, true},
    {"done.finish", 2, 1, true},
    {"done.tier", 3, 1, true},
    {"done.prompt_tokens", 4, 4, true},
    {"done.new_tokens", 8, 4, true},
    {"done.queue_us", 12, 4, true},
    {"done.prefill_us", 16, 4, true},
    {"done.decode_us", 20, 4, true},
    {"done.node", 24, 2, true, notes.none16},
    {"done.reserved", 26, 2, true},
    {"done.node_name", 28, 32, false},
    {"done.backend", 60, 16, false},
    {"done.cached_tokens", 76, 4, true},
}
sizes.done = 80

local names = {}
names.type = {[1] = "REQ", [2] = "ACK", [3] = "CANCEL", [4] = "RESEND", [129] = "RESP", [130] = "GRANT", [131] = "REJECT", [132] = "RESEND_REQ", [133] = "COOKIE", [134] = "BUSY", [135] = "NEED_ACK", [136] = "UNKNOWN"}
names.flag = {[0] = "FIRST", [1] = "LAST", [2] = "RETX", [3] = "IDEMPOTENT", [4] = "SEC", [5] = "EXT", [6] = "ECN_ECHO", [7] = "RELAYED"}
names.prompt_kind = {[1] = "TEXT", [2] = "CHAT", [3] = "TOKENS"}
names.frame_kind = {[1] = "TEXT", [2] = "DONE", [3] = "LOGPROBS", [4] = "EMBEDDING"}
local data_port, protocol_version = 7400, 1
local flag_RELAYED = 7
local type_REQ, type_ACK, type_RESEND, type_RESP = 1, 2, 4, 129
local type_GRANT = 130
local type_RESEND_REQ, type_REJECT, type_COOKIE = 132, 131, 133
local prompt_TEXT, prompt_CHAT = 1, 2
local prompt_stops, prompt_stops_at = 58, 60
local frame_TEXT, frame_DONE, frame_LOGPROBS = 1, 2, 3

f["payload"] = ProtoField.bytes("weft.payload", "payload", base.NONE, "payload bytes")
f["ext"] = ProtoField.bytes("weft.ext", "ext", base.NONE, "header bytes of later versions")
f["cookie"] = ProtoField.uint64("weft.cookie", "cookie", base.HEX, nil, nil, "COOKIE: send again with this")
f["text"] = ProtoField.string("weft.text", "text", base.UNICODE, "bytes of the prompt or of a token")
f["stop"] = ProtoField.string("weft.stop", "stop", base.UNICODE, "string that ends the answer")

local e_short = ProtoExpert.new("weft.short", "shorter than its headers say",
    expert.group.MALFORMED, expert.severity.ERROR)
local e_version = ProtoExpert.new("weft.version.unknown", "another protocol version",
    expert.group.UNDECODED, expert.severity.WARN)
local e_type = ProtoExpert.new("weft.type.unknown", "unknown message type",
    expert.group.UNDECODED, expert.severity.WARN)
local e_gap = ProtoExpert.new("weft.gap", "bytes before this part were not captured",
    expert.group.SEQUENCE, expert.severity.NOTE)
local e_failed = ProtoExpert.new("weft.failed", "the request did not complete",
    expert.group.RESPONSE_CODE, expert.severity.NOTE)
weft.experts = {e_short, e_version, e_type, e_gap, e_failed}

-- Adds the fields of a struct at `at`. Returns the offset behind it, nil if it is cut off.
local function add(tree, tvb, at, name)
    for _, row in ipairs(layouts[name]) do
        local field, offset, size, little, note = row[1], row[2], row[3], row[4], row[5]
        if at + offset + size > tvb:len() then
            tree:add_proto_expert_info(e_short)
            return nil
        end
        local range = tvb(at + offset, size)
        local item = little and tree:add_le(f[field], range) or tree:add(f[field], range)
        if note then item:append_text(note(range:le_uint())) end
        for _, part in ipairs(bits[field] or {}) do item:add_le(f[part], range) end
    end
    return at + sizes[name]
end

-- Up to `size` bytes at `at`, as many as were captured; nil if none.
local function some(tvb, at, size)
    size = math.min(size, tvb:len() - at)
    return size > 0 and tvb(at, size) or nil
end

-- Frames of a reply lie across datagrams. tails[key][end offset] = {bytes of a frame begun
-- before that offset}, set when its datagram is first seen.
local tails = {}
function weft.init() tails = {} end

local function add_logprobs(tree, tvb, at, last)
    while at + sizes.logprob <= last do
        local len = math.min(tvb(at + 8, 4):le_uint(), last - at - sizes.logprob)
        local sub = tree:add(weft, tvb(at, sizes.logprob + len), "Log probability")
        at = add(sub, tvb, at, "logprob")
        if len > 0 then sub:add(f["text"], tvb(at, len)) end
        at = at + len
    end
end

local function add_frame(tree, tvb, at)
    local kind, len = tvb(at, 1):uint(), tvb(at + 2, 2):le_uint()
    local sub = tree:add(weft, tvb(at, sizes.frame + len),
        "Frame " .. (names.frame_kind[kind] or "?"))
    local from = add(sub, tvb, at, "frame")
    if kind == frame_TEXT and len > 0 then
        sub:add(f["text"], tvb(from, len))
    elseif kind == frame_LOGPROBS then
        add_logprobs(sub, tvb, from, from + len)
    elseif kind == frame_DONE and len >= sizes.done then
        add(sub, tvb, from, "done")
        if tvb(from, 2):le_uint() ~= 0 then sub:add_proto_expert_info(e_failed) end
    elseif len > 0 then
        sub:add(f["payload"], tvb(from, len))
    end
    return from + len
end

-- `at`: the payload's place in the datagram; `offset`: its place in the reply.
local function add_reply(tree, tvb, at, offset, key)
    local range = some(tvb, at, tvb:len() - at)
    if not range then return end
    local known = tails[key] or {}
    local tail = offset == 0 and "" or known[offset]
    tails[key] = known
    if not tail then
        tree:add(f["payload"], range):add_proto_expert_info(e_gap)
        return
    end
    local stream, pos = tvb, at
    if tail ~= "" then
        local bytes = ByteArray.new(tail)
        bytes:append(range:bytes())
        stream, pos = bytes:tvb("Weft reply"), 0
    end
    while pos + sizes.frame <= stream:len() do
        local len = stream(pos + 2, 2):le_uint()
        if pos + sizes.frame + len > stream:len() then break end
        pos = add_frame(tree, stream, pos)
    end
    local rest = pos < stream:len() and stream(pos, stream:len() - pos) or nil
    if tvb:len() == tvb:reported_len() then
        known[offset + range:len()] = rest and rest:bytes():tohex() or ""
    end
    if rest then tree:add(f["payload"], rest):append_text(" (frame goes on)") end
end

-- `count` strings of two bytes of length and the bytes.
local function add_stops(tree, tvb, at, count)
    while count > 0 and at + 2 <= tvb:len() do
        local text = some(tvb, at + 2, tvb(at, 2):le_uint())
        if text then tree:add(f["stop"], text) end
        at, count = at + 2 + tvb(at, 2):le_uint(), count - 1
    end
end

local function add_prompt(tree, tvb, at)
    local sub = tree:add(weft, tvb(at), "Prompt")
    if not add(sub, tvb, at, "prompt") then return end
    local kind, pos = tvb(at, 1):uint(), at + math.max(tvb(at + 2, 2):le_uint(), sizes.prompt)
    local stops, stops_at = tvb(at + prompt_stops, 2):le_uint(), tvb(at + prompt_stops_at, 2):le_uint()
    if stops_at > 0 then add_stops(sub, tvb, at + stops_at, stops) end
    while kind == prompt_CHAT and pos + sizes.part <= tvb:len() do
        local len = tvb(pos + 4, 4):le_uint()
        local part = sub:add(weft, some(tvb, pos, sizes.part + len), "Part")
        pos = add(part, tvb, pos, "part")
        local text = some(tvb, pos, len)
        if text then part:add(f["text"], text) end
        pos = pos + len
    end
    local rest = some(tvb, pos, tvb:len() - pos)
    if rest then sub:add(f[kind == prompt_TEXT and "text" or "payload"], rest) end
end

local function add_payload(tree, tvb, at, type, offset, key)
    local left = tvb:len() - at
    local simple = {[type_ACK] = "ack", [type_RESEND] = "range",
        [type_RESEND_REQ] = "range", [type_REJECT] = "reject",
        [type_GRANT] = "grant"}
    if type == type_RESP then
        add_reply(tree, tvb, at, offset, key)
    elseif type == type_REQ and offset == 0 and left > 0 then
        add_prompt(tree, tvb, at)
    elseif simple[type] then
        local next_at = add(tree, tvb, at, simple[type])
        if type == type_REJECT and next_at then tree:add_proto_expert_info(e_failed) end
    elseif type == type_COOKIE and left >= 8 then
        tree:add_le(f["cookie"], tvb(at, 8))
    elseif left > 0 then
        tree:add(f["payload"], tvb(at, left))
    end
end

local function flag_set(flags, bit) return math.floor(flags / 2 ^ bit) % 2 == 1 end

local function info_of(tvb, type)
    local flags, text = tvb(2, 1):uint(), names.type[type] or string.format("type 0x%02x", type)
    for bit = 0, 7 do
        if names.flag[bit] and flag_set(flags, bit) then text = text .. " " .. names.flag[bit] end
    end
    return string.format("%s conn=%s seq=%u offset=%u", text, tvb(8, 8):le_uint64():tohex(),
        tvb(16, 4):le_uint(), tvb(28, 4):le_uint())
end

function weft.dissector(tvb, pinfo, root)
    if tvb:len() < 4 then return 0 end
    pinfo.cols.protocol = "Weft"
    local tree = root:add(weft, tvb(), "Weft")
    if math.floor(tvb(0, 1):uint() / 16) ~= protocol_version then
        tree:add(f["version"], tvb(0, 1)):add_proto_expert_info(e_version)
        return tvb:len()
    end
    if not add(tree, tvb, 0, "common") then return tvb:len() end
    local type, flags, words = tvb(1, 1):uint(), tvb(2, 1):uint(), tvb(3, 1):uint()
    local down = type >= 128
    pinfo.cols.info = info_of(tvb, type)
    tree:append_text(", " .. info_of(tvb, type))
    if not names.type[type] then tree:add_proto_expert_info(e_type) end
    if not add(tree, tvb, 0, down and "rsp" or "req") then return tvb:len() end
    local at = down and sizes.rsp or sizes.req
    local relayed = flag_set(flags, flag_RELAYED) or down
    local block = relayed and "ret" or "first"
    local sub = tree:add(weft, some(tvb, at, sizes[block]) or tvb(0, 0),
        relayed and "Return block" or "First-hop block")
    at = add(sub, tvb, at, block)
    if not at then return tvb:len() end
    if words * 4 < at or words * 4 > tvb:len() then
        tree:add_proto_expert_info(e_short)
        return tvb:len()
    end
    if words * 4 > at then tree:add(f["ext"], tvb(at, words * 4 - at)) end
    local key = tvb(8, 12):bytes():tohex() .. (down and "" or "-")
    add_payload(tree, tvb, words * 4, type, tvb(28, 4):le_uint(), key)
    return tvb:len()
end

DissectorTable.get("udp.port"):add(data_port, weft)
