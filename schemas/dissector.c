/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dissector.c - prints weft.lua, the Wireshark dissector: fields, bits, names and layouts come from
 * wire.def, status.def and tags.def, so that a field added there is seen in captures the same day.
 * A host tool of the build: `weft-dissector > schemas/weft.lua` makes the committed file anew,
 * `weft-dissector --check FILE` says whether it is up to date (a unit test does).
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>
#include <weft/wire.h>

#include "schemas/tags.def"

/* ---- the tables as data ---- */

struct field {
    const char *name;
    const char *type; /* as spelled in wire.def */
    const char *text;
    size_t offset;
    size_t size;
    bool array;
};

#define FIELD_ROW_(off, type, name, mut, text) {#name, #type, text, off, sizeof(type), false},
#define ARRAY_ROW_(off, type, name, count, mut, text)                                              \
    {#name, #type, text, off, sizeof(type) * (count), true},

static const struct field common_fields[] = {WEFT_COMMON_FIELDS(FIELD_ROW_)};
static const struct field req_fields[] = {WEFT_REQ_FIELDS(FIELD_ROW_)};
static const struct field rsp_fields[] = {WEFT_RSP_FIELDS(FIELD_ROW_)};
static const struct field first_fields[] = {WEFT_FIRST_HOP_FIELDS(FIELD_ROW_, ARRAY_ROW_)};
static const struct field ret_fields[] = {WEFT_RETURN_FIELDS(FIELD_ROW_, ARRAY_ROW_)};
static const struct field ack_fields[] = {WEFT_ACK_FIELDS(FIELD_ROW_)};
static const struct field range_fields[] = {WEFT_RANGE_FIELDS(FIELD_ROW_)};
static const struct field grant_fields[] = {WEFT_GRANT_FIELDS(FIELD_ROW_)};
static const struct field reject_fields[] = {WEFT_REJECT_FIELDS(FIELD_ROW_)};
static const struct field prompt_fields[] = {WEFT_PROMPT_FIELDS(FIELD_ROW_)};
static const struct field part_fields[] = {WEFT_PART_FIELDS(FIELD_ROW_)};
static const struct field frame_fields[] = {WEFT_FRAME_FIELDS(FIELD_ROW_)};
static const struct field logprob_fields[] = {WEFT_LOGPROB_FIELDS(FIELD_ROW_)};
static const struct field done_fields[] = {WEFT_DONE_FIELDS(FIELD_ROW_, ARRAY_ROW_)};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* A struct of the wire. Its fields are called `weft.<prefix>name`; `skip` of them, the common
 * header, belong to another group. */
struct group {
    const char *name;
    const char *prefix;
    const struct field *fields;
    size_t count;
    size_t skip;
};

static const struct group groups[] = {
    {"common", "", common_fields, COUNT(common_fields), 0},
    {"req", "req.", req_fields, COUNT(req_fields), COUNT(common_fields)},
    {"rsp", "rsp.", rsp_fields, COUNT(rsp_fields), COUNT(common_fields)},
    {"first", "first.", first_fields, COUNT(first_fields), 0},
    {"ret", "ret.", ret_fields, COUNT(ret_fields), 0},
    {"ack", "ack.", ack_fields, COUNT(ack_fields), 0},
    {"range", "range.", range_fields, COUNT(range_fields), 0},
    {"grant", "grant.", grant_fields, COUNT(grant_fields), 0},
    {"reject", "reject.", reject_fields, COUNT(reject_fields), 0},
    {"prompt", "prompt.", prompt_fields, COUNT(prompt_fields), 0},
    {"part", "part.", part_fields, COUNT(part_fields), 0},
    {"frame", "frame.", frame_fields, COUNT(frame_fields), 0},
    {"logprob", "logprob.", logprob_fields, COUNT(logprob_fields), 0},
    {"done", "done.", done_fields, COUNT(done_fields), 0},
};

struct name {
    const char *name;
    unsigned value; /* or bit number */
    const char *text;
};

#define NAME_ROW_(name, value, text)       {#name, value, text},
#define UNIT_ROW_(name, value, unit, text) {#name, value, text},
#define STATUS_ROW_(name, code, text)      {#name, -(code), text},

static const struct name types[] = {WEFT_TYPES(NAME_ROW_)};
static const struct name flags[] = {WEFT_FLAGS(NAME_ROW_)};
static const struct name wants[] = {WEFT_WANTS(NAME_ROW_)};
static const struct name tags[] = {WEFT_TAGS(NAME_ROW_)};
static const struct name constraints[] = {WEFT_CONSTRAINTS(UNIT_ROW_)};
static const struct name prompt_kinds[] = {WEFT_PROMPT_KINDS(NAME_ROW_)};
static const struct name roles[] = {WEFT_ROLES(NAME_ROW_)};
static const struct name frame_kinds[] = {WEFT_FRAME_KINDS(NAME_ROW_)};
static const struct name prompt_flags[] = {WEFT_PROMPT_FLAGS(NAME_ROW_)};
static const struct name frame_flags[] = {WEFT_FRAME_FLAGS(NAME_ROW_)};
static const struct name finishes[] = {WEFT_FINISHES(NAME_ROW_)};
static const struct name statuses[] = {{"OK", 0, "complete"}, WEFT_STATUSES(STATUS_ROW_)};

/* ---- how fields are shown that are more than a number ---- */

enum show {
    SHOW_PLAIN, /* decimal, or by type */
    SHOW_HEX,
    SHOW_VALUES,  /* one of `names` */
    SHOW_BITS,    /* a set of `names` */
    SHOW_NIBBLES, /* two fields of 4 bits: `high` and `low` */
    SHOW_IPV6,
    SHOW_ETHER,
};

struct rule {
    const char *field; /* prefix and name */
    enum show show;
    const struct name *names;
    size_t count;
    const char *high;
    const char *low;
    const char *note; /* function in the dissector's `notes` that adds to the line, or NULL */
};

#define NAMES_(list) .names = (list), .count = COUNT(list)

static const struct rule rules[] = {
    {.field = "ver_fmt", .show = SHOW_NIBBLES, .high = "version", .low = "format"},
    {.field = "type", .show = SHOW_VALUES, NAMES_(types)},
    {.field = "flags", .show = SHOW_BITS, NAMES_(flags)},
    {.field = "prio_mode", .show = SHOW_NIBBLES, .high = "priority", .low = "mode"},
    {.field = "conn_id", .show = SHOW_HEX},
    {.field = "session", .show = SHOW_HEX},
    {.field = "req.model", .show = SHOW_HEX},
    {.field = "req.req_tags", .show = SHOW_BITS, NAMES_(tags), .note = "jurisdiction"},
    {.field = "req.budget_us", .show = SHOW_PLAIN, .note = "none32"},
    {.field = "req.vram_64mib", .show = SHOW_PLAIN, .note = "vram"},
    {.field = "req.x", .show = SHOW_PLAIN, .note = "longitude"},
    {.field = "req.y", .show = SHOW_PLAIN, .note = "latitude"},
    {.field = "req.tiers", .show = SHOW_NIBBLES, .high = "tier_min", .low = "tier_max"},
    {.field = "req.want", .show = SHOW_BITS, NAMES_(wants)},
    {.field = "req.origin", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "req.target", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "req.alt1", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "req.alt2", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "rsp.free_vram_64mib", .show = SHOW_PLAIN, .note = "vram"},
    {.field = "rsp.origin", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "rsp.server", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "first.cookie", .show = SHOW_HEX},
    {.field = "first.prefix", .show = SHOW_HEX},
    {.field = "ret.addr", .show = SHOW_IPV6},
    {.field = "ret.mac", .show = SHOW_ETHER},
    {.field = "ret.tag", .show = SHOW_HEX},
    {.field = "grant.alt1", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "grant.alt2", .show = SHOW_PLAIN, .note = "none16"},
    {.field = "reject.status", .show = SHOW_VALUES, NAMES_(statuses)},
    {.field = "reject.constraint", .show = SHOW_VALUES, NAMES_(constraints)},
    {.field = "prompt.kind", .show = SHOW_VALUES, NAMES_(prompt_kinds)},
    {.field = "prompt.flags", .show = SHOW_BITS, NAMES_(prompt_flags)},
    {.field = "prompt.seed", .show = SHOW_HEX},
    {.field = "part.role", .show = SHOW_VALUES, NAMES_(roles)},
    {.field = "frame.kind", .show = SHOW_VALUES, NAMES_(frame_kinds)},
    {.field = "frame.flags", .show = SHOW_BITS, NAMES_(frame_flags)},
    {.field = "done.status", .show = SHOW_VALUES, NAMES_(statuses)},
    {.field = "done.finish", .show = SHOW_VALUES, NAMES_(finishes)},
    {.field = "done.node", .show = SHOW_PLAIN, .note = "none16"},
};
static bool rule_used[COUNT(rules)];

static const struct rule *rule_of(const char *prefix, const char *name)
{
    static const struct rule plain = {.show = SHOW_PLAIN};
    size_t prefix_len = strlen(prefix);
    for (size_t i = 0; i < COUNT(rules); i++) {
        if (strncmp(rules[i].field, prefix, prefix_len) == 0 &&
            strcmp(rules[i].field + prefix_len, name) == 0) {
            rule_used[i] = true;
            return &rules[i];
        }
    }
    return &plain;
}

/* ---- fields ---- */

static bool is_text(const struct field *field)
{
    return field->array && strcmp(field->type, "char") == 0;
}

static const char *kind_of(const struct field *field, const struct rule *rule)
{
    static const char *const integers[] = {
        [1] = "uint8", [2] = "uint16", [4] = "uint32", [8] = "uint64"};
    if (rule->show == SHOW_IPV6) {
        return "ipv6";
    }
    if (rule->show == SHOW_ETHER) {
        return "ether";
    }
    if (field->array) {
        return is_text(field) ? "stringz" : "bytes";
    }
    return strcmp(field->type, "float") == 0 ? "float" : integers[field->size];
}

static void print_names(FILE *out, const struct rule *rule)
{
    fprintf(out, "{");
    for (size_t i = 0; i < rule->count; i++) {
        fprintf(out, "%s[%u] = \"%s\"", i > 0 ? ", " : "", rule->names[i].value,
                rule->names[i].name);
    }
    fprintf(out, "}");
}

static void print_field(FILE *out, const char *prefix, const struct field *field,
                        const struct rule *rule)
{
    const char *kind = kind_of(field, rule);
    bool number = strncmp(kind, "uint", 4) == 0;
    fprintf(out, "f[\"%s%s\"] = ProtoField.%s(\"weft.%s%s\", \"%s\"", prefix, field->name, kind,
            prefix, field->name, field->name);
    if (number) {
        bool hex = rule->show == SHOW_HEX || rule->show == SHOW_BITS ||
                   rule->show == SHOW_NIBBLES || strcmp(field->name, "type") == 0;
        fprintf(out, ", base.%s, ", hex ? "HEX" : "DEC");
        if (rule->show == SHOW_VALUES) {
            print_names(out, rule);
        } else {
            fprintf(out, "nil");
        }
        fprintf(out, ", nil");
    } else if (strcmp(kind, "stringz") == 0) {
        fprintf(out, ", base.UNICODE");
    } else if (strcmp(kind, "bytes") == 0) {
        fprintf(out, ", base.NONE");
    }
    if (strcmp(kind, "ipv6") == 0 || strcmp(kind, "ether") == 0 || strcmp(kind, "float") == 0) {
        fprintf(out, ")\n"); /* these kinds take no description in every release */
    } else {
        fprintf(out, ", \"%s\")\n", field->text);
    }
}

/* Lower-case copy; names are short. */
static const char *lower(const char *name, char out[static 32])
{
    size_t i = 0;
    for (; name[i] != '\0' && i < 31; i++) {
        out[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
    }
    out[i] = '\0';
    return out;
}

static void print_bits(FILE *out, const char *prefix, const struct field *field,
                       const struct rule *rule)
{
    char name[32];
    for (size_t i = 0; i < rule->count; i++) {
        const struct name *bit = &rule->names[i];
        fprintf(out,
                "f[\"%s%s.%s\"] = ProtoField.bool(\"weft.%s%s.%s\", \"%s\", %zu, nil, "
                "0x%x, \"%s\")\n",
                prefix, field->name, lower(bit->name, name), prefix, field->name, name, bit->name,
                field->size * 8, 1u << bit->value, bit->text);
    }
    fprintf(out, "bits[\"%s%s\"] = {", prefix, field->name);
    for (size_t i = 0; i < rule->count; i++) {
        fprintf(out, "%s\"%s%s.%s\"", i > 0 ? ", " : "", prefix, field->name,
                lower(rule->names[i].name, name));
    }
    fprintf(out, "}\n");
}

static void print_nibbles(FILE *out, const char *prefix, const struct field *field,
                          const struct rule *rule)
{
    const char *const names[] = {rule->high, rule->low};
    for (size_t i = 0; i < 2; i++) {
        fprintf(out,
                "f[\"%s%s\"] = ProtoField.uint8(\"weft.%s%s\", \"%s\", base.DEC, nil, 0x%s, "
                "\"%s\")\n",
                prefix, names[i], prefix, names[i], names[i], i == 0 ? "f0" : "0f", field->text);
    }
    fprintf(out, "bits[\"%s%s\"] = {\"%s%s\", \"%s%s\"}\n", prefix, field->name, prefix, names[0],
            prefix, names[1]);
}

static void print_group(FILE *out, const struct group *group)
{
    fprintf(out, "\n");
    for (size_t i = group->skip; i < group->count; i++) {
        const struct field *field = &group->fields[i];
        const struct rule *rule = rule_of(group->prefix, field->name);
        print_field(out, group->prefix, field, rule);
        if (rule->show == SHOW_BITS) {
            print_bits(out, group->prefix, field, rule);
        } else if (rule->show == SHOW_NIBBLES) {
            print_nibbles(out, group->prefix, field, rule);
        }
    }
    fprintf(out, "layouts.%s = {\n", group->name);
    size_t end = 0;
    for (size_t i = group->skip; i < group->count; i++) {
        const struct field *field = &group->fields[i];
        const struct rule *rule = rule_of(group->prefix, field->name);
        fprintf(out, "    {\"%s%s\", %zu, %zu, %s", group->prefix, field->name, field->offset,
                field->size, field->array ? "false" : "true");
        if (rule->note != NULL) {
            fprintf(out, ", notes.%s", rule->note);
        }
        fprintf(out, "},\n");
        end = field->offset + field->size;
    }
    fprintf(out, "}\nsizes.%s = %zu\n", group->name, end);
}

/* ---- the program around the tables ---- */

static const char head[] =
    "-- SPDX-License-Identifier: Apache-2.0\n"
    "-- weft.lua - Wireshark dissector for Weft's data port. Made from wire.def by dissector.c; "
    "do\n"
    "-- not edit. Use: `tshark -X lua_script:weft.lua`, or copy it to Wireshark's plugin folder.\n"
    "-- Filters: `weft.type == 0x83`, `weft.done.status != 0`, `weft.conn_id == 0x1234`.\n"
    "\n"
    "local weft = Proto(\"weft\", \"Weft\")\n"
    "local f = weft.fields\n"
    "local bits = {} -- field -> fields that show parts of it\n"
    "local layouts = {} -- struct -> {field, offset, bytes, little-endian, note}\n"
    "local sizes = {}\n"
    "\n"
    "-- What is added to the line of a field whose number alone says little.\n"
    "local notes = {\n"
    "    none16 = function(v) return v == 65535 and \" (none)\" or \"\" end,\n"
    "    none32 = function(v) return v == 4294967295 and \" (none)\" or \"\" end,\n"
    "    vram = function(v) return string.format(\" (%d MiB)\", v * 64) end,\n"
    "    jurisdiction = function(v) -- wire.def has its twelve bits\n"
    "        local number, ones = 0, 0\n"
    "        for bit = 0, 11 do\n"
    "            if math.floor(v / 2 ^ (12 + bit)) % 2 == 1 then\n"
    "                local below = 1\n"
    "                ones = ones + 1\n"
    "                for i = 1, ones do below = below * (bit - i + 1) / i end\n"
    "                number = number + below\n"
    "            end\n"
    "        end\n"
    "        number = math.floor(number + 0.5)\n"
    "        if ones ~= 6 or number > 675 then return \"\" end\n"
    "        return string.format(\" (in %s)\", string.char(65 + math.floor(number / 26)) ..\n"
    "            string.char(65 + number % 26))\n"
    "    end,\n"
    "    longitude = function(v) return string.format(\" (%.3f)\", v / 65536 * 360 - 180) end,\n"
    "    latitude = function(v) return string.format(\" (%.3f)\", v / 32767 * 180 - 90) end,\n"
    "}\n";

static const char fields_more[] =
    "\n"
    "f[\"payload\"] = ProtoField.bytes(\"weft.payload\", \"payload\", base.NONE, \"payload "
    "bytes\")\n"
    "f[\"ext\"] = ProtoField.bytes(\"weft.ext\", \"ext\", base.NONE, \"header bytes of later "
    "versions\")\n"
    "f[\"cookie\"] = ProtoField.uint64(\"weft.cookie\", \"cookie\", base.HEX, nil, nil, \"COOKIE: "
    "send again with this\")\n"
    "f[\"text\"] = ProtoField.string(\"weft.text\", \"text\", base.UNICODE, \"bytes of the prompt "
    "or "
    "of a token\")\n"
    "f[\"stop\"] = ProtoField.string(\"weft.stop\", \"stop\", base.UNICODE, \"string that ends "
    "the answer\")\n"
    "\n"
    "local e_short = ProtoExpert.new(\"weft.short\", \"shorter than its headers say\",\n"
    "    expert.group.MALFORMED, expert.severity.ERROR)\n"
    "local e_version = ProtoExpert.new(\"weft.version.unknown\", \"another protocol version\",\n"
    "    expert.group.UNDECODED, expert.severity.WARN)\n"
    "local e_type = ProtoExpert.new(\"weft.type.unknown\", \"unknown message type\",\n"
    "    expert.group.UNDECODED, expert.severity.WARN)\n"
    "local e_gap = ProtoExpert.new(\"weft.gap\", \"bytes before this part were not captured\",\n"
    "    expert.group.SEQUENCE, expert.severity.NOTE)\n"
    "local e_failed = ProtoExpert.new(\"weft.failed\", \"the request did not complete\",\n"
    "    expert.group.RESPONSE_CODE, expert.severity.NOTE)\n"
    "weft.experts = {e_short, e_version, e_type, e_gap, e_failed}\n"
    "\n"
    "-- Adds the fields of a struct at `at`. Returns the offset behind it, nil if it is cut off.\n"
    "local function add(tree, tvb, at, name)\n"
    "    for _, row in ipairs(layouts[name]) do\n"
    "        local field, offset, size, little, note = row[1], row[2], row[3], row[4], row[5]\n"
    "        if at + offset + size > tvb:len() then\n"
    "            tree:add_proto_expert_info(e_short)\n"
    "            return nil\n"
    "        end\n"
    "        local range = tvb(at + offset, size)\n"
    "        local item = little and tree:add_le(f[field], range) or tree:add(f[field], range)\n"
    "        if note then item:append_text(note(range:le_uint())) end\n"
    "        for _, part in ipairs(bits[field] or {}) do item:add_le(f[part], range) end\n"
    "    end\n"
    "    return at + sizes[name]\n"
    "end\n"
    "\n"
    "-- Up to `size` bytes at `at`, as many as were captured; nil if none.\n"
    "local function some(tvb, at, size)\n"
    "    size = math.min(size, tvb:len() - at)\n"
    "    return size > 0 and tvb(at, size) or nil\n"
    "end\n";

static const char replies[] =
    "\n"
    "-- Frames of a reply lie across datagrams. tails[key][end offset] = {bytes of a frame begun\n"
    "-- before that offset}, set when its datagram is first seen.\n"
    "local tails = {}\n"
    "function weft.init() tails = {} end\n"
    "\n"
    "local function add_logprobs(tree, tvb, at, last)\n"
    "    while at + sizes.logprob <= last do\n"
    "        local len = math.min(tvb(at + 8, 4):le_uint(), last - at - sizes.logprob)\n"
    "        local sub = tree:add(weft, tvb(at, sizes.logprob + len), \"Log probability\")\n"
    "        at = add(sub, tvb, at, \"logprob\")\n"
    "        if len > 0 then sub:add(f[\"text\"], tvb(at, len)) end\n"
    "        at = at + len\n"
    "    end\n"
    "end\n"
    "\n"
    "local function add_frame(tree, tvb, at)\n"
    "    local kind, len = tvb(at, 1):uint(), tvb(at + 2, 2):le_uint()\n"
    "    local sub = tree:add(weft, tvb(at, sizes.frame + len),\n"
    "        \"Frame \" .. (names.frame_kind[kind] or \"?\"))\n"
    "    local from = add(sub, tvb, at, \"frame\")\n"
    "    if kind == frame_TEXT and len > 0 then\n"
    "        sub:add(f[\"text\"], tvb(from, len))\n"
    "    elseif kind == frame_LOGPROBS then\n"
    "        add_logprobs(sub, tvb, from, from + len)\n"
    "    elseif kind == frame_DONE and len >= sizes.done then\n"
    "        add(sub, tvb, from, \"done\")\n"
    "        if tvb(from, 2):le_uint() ~= 0 then sub:add_proto_expert_info(e_failed) end\n"
    "    elseif len > 0 then\n"
    "        sub:add(f[\"payload\"], tvb(from, len))\n"
    "    end\n"
    "    return from + len\n"
    "end\n"
    "\n"
    "-- `at`: the payload's place in the datagram; `offset`: its place in the reply.\n"
    "local function add_reply(tree, tvb, at, offset, key)\n"
    "    local range = some(tvb, at, tvb:len() - at)\n"
    "    if not range then return end\n"
    "    local known = tails[key] or {}\n"
    "    local tail = offset == 0 and \"\" or known[offset]\n"
    "    tails[key] = known\n"
    "    if not tail then\n"
    "        tree:add(f[\"payload\"], range):add_proto_expert_info(e_gap)\n"
    "        return\n"
    "    end\n"
    "    local stream, pos = tvb, at\n"
    "    if tail ~= \"\" then\n"
    "        local bytes = ByteArray.new(tail)\n"
    "        bytes:append(range:bytes())\n"
    "        stream, pos = bytes:tvb(\"Weft reply\"), 0\n"
    "    end\n"
    "    while pos + sizes.frame <= stream:len() do\n"
    "        local len = stream(pos + 2, 2):le_uint()\n"
    "        if pos + sizes.frame + len > stream:len() then break end\n"
    "        pos = add_frame(tree, stream, pos)\n"
    "    end\n"
    "    local rest = pos < stream:len() and stream(pos, stream:len() - pos) or nil\n"
    "    if tvb:len() == tvb:reported_len() then\n"
    "        known[offset + range:len()] = rest and rest:bytes():tohex() or \"\"\n"
    "    end\n"
    "    if rest then tree:add(f[\"payload\"], rest):append_text(\" (frame goes on)\") end\n"
    "end\n";

static const char payloads[] =
    "\n"
    "-- `count` strings of two bytes of length and the bytes.\n"
    "local function add_stops(tree, tvb, at, count)\n"
    "    while count > 0 and at + 2 <= tvb:len() do\n"
    "        local text = some(tvb, at + 2, tvb(at, 2):le_uint())\n"
    "        if text then tree:add(f[\"stop\"], text) end\n"
    "        at, count = at + 2 + tvb(at, 2):le_uint(), count - 1\n"
    "    end\n"
    "end\n"
    "\n"
    "local function add_prompt(tree, tvb, at)\n"
    "    local sub = tree:add(weft, tvb(at), \"Prompt\")\n"
    "    if not add(sub, tvb, at, \"prompt\") then return end\n"
    "    local kind, pos = tvb(at, 1):uint(), at + math.max(tvb(at + 2, 2):le_uint(), "
    "sizes.prompt)\n"
    "    local stops, stops_at = tvb(at + prompt_stops, 2):le_uint(), "
    "tvb(at + prompt_stops_at, 2):le_uint()\n"
    "    if stops_at > 0 then add_stops(sub, tvb, at + stops_at, stops) end\n"
    "    while kind == prompt_CHAT and pos + sizes.part <= tvb:len() do\n"
    "        local len = tvb(pos + 4, 4):le_uint()\n"
    "        local part = sub:add(weft, some(tvb, pos, sizes.part + len), \"Part\")\n"
    "        pos = add(part, tvb, pos, \"part\")\n"
    "        local text = some(tvb, pos, len)\n"
    "        if text then part:add(f[\"text\"], text) end\n"
    "        pos = pos + len\n"
    "    end\n"
    "    local rest = some(tvb, pos, tvb:len() - pos)\n"
    "    if rest then sub:add(f[kind == prompt_TEXT and \"text\" or \"payload\"], rest) end\n"
    "end\n"
    "\n"
    "local function add_payload(tree, tvb, at, type, offset, key)\n"
    "    local left = tvb:len() - at\n"
    "    local simple = {[type_ACK] = \"ack\", [type_RESEND] = \"range\",\n"
    "        [type_RESEND_REQ] = \"range\", [type_REJECT] = \"reject\",\n"
    "        [type_GRANT] = \"grant\"}\n"
    "    if type == type_RESP then\n"
    "        add_reply(tree, tvb, at, offset, key)\n"
    "    elseif type == type_REQ and offset == 0 and left > 0 then\n"
    "        add_prompt(tree, tvb, at)\n"
    "    elseif simple[type] then\n"
    "        local next_at = add(tree, tvb, at, simple[type])\n"
    "        if type == type_REJECT and next_at then tree:add_proto_expert_info(e_failed) end\n"
    "    elseif type == type_COOKIE and left >= 8 then\n"
    "        tree:add_le(f[\"cookie\"], tvb(at, 8))\n"
    "    elseif left > 0 then\n"
    "        tree:add(f[\"payload\"], tvb(at, left))\n"
    "    end\n"
    "end\n";

static const char dissect[] =
    "\n"
    "local function flag_set(flags, bit) return math.floor(flags / 2 ^ bit) % 2 == 1 end\n"
    "\n"
    "local function info_of(tvb, type)\n"
    "    local flags, text = tvb(2, 1):uint(), names.type[type] or string.format(\"type 0x%02x\", "
    "type)\n"
    "    for bit = 0, 7 do\n"
    "        if names.flag[bit] and flag_set(flags, bit) then text = text .. \" \" .. "
    "names.flag[bit] end\n"
    "    end\n"
    "    return string.format(\"%s conn=%s seq=%u offset=%u\", text, "
    "tvb(8, 8):le_uint64():tohex(),\n"
    "        tvb(16, 4):le_uint(), tvb(28, 4):le_uint())\n"
    "end\n"
    "\n"
    "function weft.dissector(tvb, pinfo, root)\n"
    "    if tvb:len() < 4 then return 0 end\n"
    "    pinfo.cols.protocol = \"Weft\"\n"
    "    local tree = root:add(weft, tvb(), \"Weft\")\n"
    "    if math.floor(tvb(0, 1):uint() / 16) ~= protocol_version then\n"
    "        tree:add(f[\"version\"], tvb(0, 1)):add_proto_expert_info(e_version)\n"
    "        return tvb:len()\n"
    "    end\n"
    "    if not add(tree, tvb, 0, \"common\") then return tvb:len() end\n"
    "    local type, flags, words = tvb(1, 1):uint(), tvb(2, 1):uint(), tvb(3, 1):uint()\n"
    "    local down = type >= 128\n"
    "    pinfo.cols.info = info_of(tvb, type)\n"
    "    tree:append_text(\", \" .. info_of(tvb, type))\n"
    "    if not names.type[type] then tree:add_proto_expert_info(e_type) end\n"
    "    if not add(tree, tvb, 0, down and \"rsp\" or \"req\") then return tvb:len() end\n"
    "    local at = down and sizes.rsp or sizes.req\n"
    "    local relayed = flag_set(flags, flag_RELAYED) or down\n"
    "    local block = relayed and \"ret\" or \"first\"\n"
    "    local sub = tree:add(weft, some(tvb, at, sizes[block]) or tvb(0, 0),\n"
    "        relayed and \"Return block\" or \"First-hop block\")\n"
    "    at = add(sub, tvb, at, block)\n"
    "    if not at then return tvb:len() end\n"
    "    if words * 4 < at or words * 4 > tvb:len() then\n"
    "        tree:add_proto_expert_info(e_short)\n"
    "        return tvb:len()\n"
    "    end\n"
    "    if words * 4 > at then tree:add(f[\"ext\"], tvb(at, words * 4 - at)) end\n"
    "    local key = tvb(8, 12):bytes():tohex() .. (down and \"\" or \"-\")\n"
    "    add_payload(tree, tvb, words * 4, type, tvb(28, 4):le_uint(), key)\n"
    "    return tvb:len()\n"
    "end\n"
    "\n"
    "DissectorTable.get(\"udp.port\"):add(data_port, weft)\n";

/* `local names.<what>` and one constant per value that the program names. */
static void print_constants(FILE *out)
{
    const struct rule lists[] = {
        {.field = "type", .show = SHOW_VALUES, NAMES_(types)},
        {.field = "flag", .show = SHOW_BITS, NAMES_(flags)},
        {.field = "prompt_kind", .show = SHOW_VALUES, NAMES_(prompt_kinds)},
        {.field = "frame_kind", .show = SHOW_VALUES, NAMES_(frame_kinds)}};
    fprintf(out, "\nlocal names = {}\n");
    for (size_t i = 0; i < COUNT(lists); i++) {
        fprintf(out, "names.%s = ", lists[i].field);
        print_names(out, &lists[i]);
        fprintf(out, "\n");
    }
    fprintf(out, "local data_port, protocol_version = %u, %u\n", WEFT_PORT_DEFAULT, WEFT_VERSION);
    fprintf(out, "local flag_RELAYED = %d\n", __builtin_ctz(WEFT_F_RELAYED));
    fprintf(out, "local type_REQ, type_ACK, type_RESEND, type_RESP = %d, %d, %d, %d\n", WEFT_T_REQ,
            WEFT_T_ACK, WEFT_T_RESEND, WEFT_T_RESP);
    fprintf(out, "local type_GRANT = %d\n", WEFT_T_GRANT);
    fprintf(out, "local type_RESEND_REQ, type_REJECT, type_COOKIE = %d, %d, %d\n",
            WEFT_T_RESEND_REQ, WEFT_T_REJECT, WEFT_T_COOKIE);
    fprintf(out, "local prompt_TEXT, prompt_CHAT = %d, %d\n", WEFT_PROMPT_TEXT, WEFT_PROMPT_CHAT);
    fprintf(out, "local prompt_stops, prompt_stops_at = %zu, %zu\n",
            offsetof(struct weft_prompt, stops), offsetof(struct weft_prompt, stops_at));
    fprintf(out, "local frame_TEXT, frame_DONE, frame_LOGPROBS = %d, %d, %d\n", WEFT_FRAME_TEXT,
            WEFT_FRAME_DONE, WEFT_FRAME_LOGPROBS);
}

/* Returns false if a rule names a field that is not there any more. */
static bool print_all(FILE *out)
{
    bool all_used = true;
    fputs(head, out);
    for (size_t i = 0; i < COUNT(groups); i++) {
        print_group(out, &groups[i]);
    }
    print_constants(out);
    fputs(fields_more, out);
    fputs(replies, out);
    fputs(payloads, out);
    fputs(dissect, out);
    for (size_t i = 0; i < COUNT(rules); i++) {
        if (!rule_used[i]) {
            fprintf(stderr, "weft-dissector: wire.def has no field %s\n", rules[i].field);
            all_used = false;
        }
    }
    return all_used;
}

/* ---- the committed file ---- */

/* Compares the stream with the file line by line and names the first line that differs. */
static bool same_as(FILE *made, const char *path)
{
    char ours[4096];
    char theirs[4096];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        perror(path);
        return false;
    }
    bool same = true;
    for (unsigned line = 1; same; line++) {
        char *a = fgets(ours, sizeof(ours), made);
        char *b = fgets(theirs, sizeof(theirs), file);
        if (a == NULL && b == NULL) {
            break;
        }
        same = a != NULL && b != NULL && strcmp(a, b) == 0;
        if (!same) {
            fprintf(stderr, "%s:%u: not what the tables say; make it anew with weft-dissector\n",
                    path, line);
        }
    }
    fclose(file);
    return same;
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        return print_all(stdout) && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    if (argc != 3 || strcmp(argv[1], "--check") != 0) {
        fputs("usage: weft-dissector [--check FILE]\n", stderr);
        return 2;
    }
    FILE *made = tmpfile();
    if (made == NULL || !print_all(made)) {
        return EXIT_FAILURE;
    }
    rewind(made);
    bool same = same_as(made, argv[2]);
    fclose(made);
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
