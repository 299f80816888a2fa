/* SPDX-License-Identifier: Apache-2.0 */
/*
 * golden.c - writes one capture with every kind of Weft datagram, built from the structs of
 * weft/wire.h, for check.py, which knows what a dissector must find in it. With --cuts, the same
 * datagrams cut short after every byte, once by the capture and once on the network; with --ipv6
 * and
 * --vlan, over IPv6 and with an 802.1Q tag.
 *
 * Format: the classic pcap file of https://www.tcpdump.org/manpages/pcap-savefile.5.html.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>
#include <weft/wire.h>

#include "schemas/tags.def"

#define LINK_ETHERNET 1u
#define HEADERS_MAX   66u /* Ethernet, 802.1Q, IPv6, UDP */
#define CLIENT_PORT   40000u
#define CONN          UINT64_C(0x1122334455667788)

struct capture {
    FILE *file;
    uint32_t number;
    bool cuts;
    bool ip6;
    bool vlan;
};

static uint32_t headers_len(const struct capture *c)
{
    return 14u + (c->vlan ? 4u : 0u) + (c->ip6 ? 40u : 20u) + 8u;
}

static void put_be16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* RFC 1071 over UDP and its pseudo-header; IPv6 must have it. */
static uint32_t udp_sum(const uint8_t *addresses, const uint8_t *udp, uint32_t len)
{
    uint32_t sum = 17 + len;
    for (uint32_t i = 0; i < 32; i++) {
        sum += (uint32_t)addresses[i] << (i % 2 == 0 ? 8 : 0);
    }
    for (uint32_t i = 0; i < len; i++) {
        sum += (uint32_t)udp[i] << (i % 2 == 0 ? 8 : 0);
    }
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum == 0xffff ? sum : ~sum & 0xffff;
}

/* Everything before UDP, for a UDP datagram of `udp_len` bytes. Returns where that goes. */
static uint8_t *network_write(const struct capture *c, uint8_t *at, uint32_t udp_len)
{
    static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9};
    static const uint8_t prefix[15] = {0x20, 0x01, 0x0d, 0xb8};
    memcpy(at, macs, sizeof(macs));
    at += sizeof(macs);
    if (c->vlan) {
        put_be16(at, 0x8100);
        put_be16(at + 2, 5);
        at += 4;
    }
    if (!c->ip6) {
        memcpy(at, (uint8_t[]){0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17}, 12);
        put_be16(at + 4, 20 + udp_len);
        memcpy(at + 14, (uint8_t[]){10, 77, 0, 9, 10, 77, 0, 1}, 8);
        return at + 22;
    }
    memcpy(at, (uint8_t[]){0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 64}, 10);
    put_be16(at + 6, udp_len);
    memcpy(at + 10, prefix, sizeof(prefix));
    at[25] = 9;
    memcpy(at + 26, prefix, sizeof(prefix));
    at[41] = 1;
    return at + 42;
}

/* One frame with `len` bytes of UDP payload, of which the capture keeps `kept`. */
static void frame_write(struct capture *c, const uint8_t *payload, uint32_t len, uint32_t kept)
{
    uint8_t frame[HEADERS_MAX + WEFT_DATAGRAM_MAX] = {0};
    uint32_t headers = headers_len(c);
    uint8_t *udp = network_write(c, frame, 8 + len);
    put_be16(udp, CLIENT_PORT);
    put_be16(udp + 2, WEFT_PORT_DEFAULT);
    put_be16(udp + 4, 8 + len);
    memcpy(udp + 8, payload, len);
    if (c->ip6) { /* over IPv4 there is none */
        put_be16(udp + 6, udp_sum(udp - 32, udp, 8 + len));
    }
    uint32_t record[4] = {1700000000u, c->number++, headers + kept, headers + len};
    fwrite(record, sizeof(record), 1, c->file);
    fwrite(frame, headers + kept, 1, c->file);
}

static void datagram(struct capture *c, const void *data, size_t size)
{
    uint32_t len = (uint32_t)size;
    if (!c->cuts) {
        frame_write(c, data, len, len);
        return;
    }
    for (uint32_t cut = 0; cut < len; cut++) {
        frame_write(c, data, len, cut);
        frame_write(c, data, cut, cut);
    }
}

/* ---- building ---- */

struct message {
    uint8_t bytes[WEFT_DATAGRAM_MAX];
    size_t len;
};

static void put(struct message *m, const void *data, size_t size)
{
    memcpy(m->bytes + m->len, data, size);
    m->len += size;
}

static struct weft_return return_block(void)
{
    return (struct weft_return){
        .addr = {[10] = 0xff, [11] = 0xff, [12] = 10, [13] = 77, [14] = 0, [15] = 9},
        .port = CLIENT_PORT,
        .mac = {2, 0, 0, 0, 0, 9},
        .tag = UINT64_C(0xfedcba9876543210),
    };
}

static struct message request(uint8_t type, uint8_t flags, uint32_t offset)
{
    struct message m = {.len = 0};
    struct weft_req req = {
        .h =
            {
                .ver_fmt = WEFT_VER_FMT,
                .type = type,
                .flags = flags,
                .hdr_words = WEFT_REQ_WORDS,
                .hops_left = 4,
                .prio_mode = 0x93,
                .route_epoch = 513,
                .conn_id = CONN,
                .req_seq = 7,
                .session = 0xabcd,
                .msg_len = 2000,
                .offset = offset,
                .model = 0xcafe0001u,
                .req_tags = UINT32_C(1) << 0 | UINT32_C(1) << 4 | UINT32_C(1) << 31 |
                            UINT32_C(0x1f4) << 12, /* DE: 82 words are smaller */
                .budget_us = WEFT_BUDGET_NONE,
                .vram_64mib = 128,
                .radius_km = 50,
                .x = 49152,
                .y = 16384,
                .tiers = 0x25,
                .want = WEFT_WANT_POSITION,
                .origin = WEFT_NODE_NONE,
                .target = 3,
                .alt1 = 4,
                .alt2 = WEFT_NODE_NONE,
                .max_tokens = 256,
            },
    };
    if ((flags & WEFT_F_RELAYED) != 0) {
        req.h.origin = 12;
        req.ret = return_block();
    } else {
        req.first.cookie = UINT64_C(0x0102030405060708);
    }
    put(&m, &req, sizeof(req));
    return m;
}

static struct message reply(uint8_t type, uint8_t flags, uint32_t offset)
{
    struct message m = {.len = 0};
    struct weft_rsp rsp = {
        .h =
            {
                .ver_fmt = WEFT_VER_FMT,
                .type = type,
                .flags = (uint8_t)(flags | WEFT_F_RELAYED),
                .hdr_words = WEFT_RSP_WORDS,
                .hops_left = 3,
                .conn_id = CONN,
                .req_seq = 7,
                .offset = offset,
                .room = 5,
                .free_vram_64mib = 1024,
                .queue_us = 1500,
                .origin = 12,
                .server = 3,
                .arg = 65536,
            },
        .ret = return_block(),
    };
    put(&m, &rsp, sizeof(rsp));
    return m;
}

static void put_frame(struct message *m, uint8_t kind, uint32_t token, const void *data, size_t len)
{
    struct weft_frame frame = {.kind = kind, .len = (uint16_t)len, .token = token};
    put(m, &frame, sizeof(frame));
    put(m, data, len);
}

/* ---- the messages ---- */

static void requests_write(struct capture *c)
{
    struct message m = request(WEFT_T_REQ, WEFT_F_FIRST, 0);
    struct weft_prompt prompt = {
        .kind = WEFT_PROMPT_CHAT,
        .hdr_len = sizeof(prompt),
        .max_tokens = 64,
        .seed = 42,
        .temperature = 0.5f,
        .top_p = 0.25f,
        .top_k = 40,
        .parts = 2,
    };
    struct weft_part part = {.role = WEFT_ROLE_SYSTEM, .len = 5};
    put(&m, &prompt, sizeof(prompt));
    put(&m, &part, sizeof(part));
    put(&m, "brief", 5);
    part = (struct weft_part){.role = WEFT_ROLE_USER, .len = 4000};
    put(&m, &part, sizeof(part));
    put(&m, "What is a loom?", 15); /* goes on in the next datagram */
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_REQ, WEFT_F_RELAYED | WEFT_F_LAST, 1104);
    put(&m, "the rest", 8);
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_REQ, WEFT_F_FIRST | WEFT_F_LAST, 0);
    prompt.kind = WEFT_PROMPT_TEXT;
    prompt.flags = WEFT_PROMPT_F_NO_THINKING;
    prompt.hdr_len = sizeof(prompt) + 8;
    prompt.stops = 2;
    prompt.stops_at = sizeof(prompt);
    put(&m, &prompt, sizeof(prompt));
    put(&m, "\2\0ab\1\0.\0", 8);
    put(&m, "Once upon", 9);
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_ACK, WEFT_F_RELAYED, 0);
    put(&m, &(struct weft_ack){.cum = 1120, .credit = 262144}, sizeof(struct weft_ack));
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_RESEND, WEFT_F_RELAYED | WEFT_F_RETX, 0);
    put(&m, &(struct weft_range){.begin = 100, .end = 200}, sizeof(struct weft_range));
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_CANCEL, 0, 0);
    datagram(c, m.bytes, m.len);
}

static void controls_write(struct capture *c)
{
    struct message m = reply(WEFT_T_COOKIE, 0, 0);
    put(&m, &(uint64_t){UINT64_C(0x0807060504030201)}, 8);
    datagram(c, m.bytes, m.len);
    m = reply(WEFT_T_GRANT, 0, 0);
    put(&m, &(struct weft_grant){.alt1 = 7, .alt2 = WEFT_NODE_NONE}, sizeof(struct weft_grant));
    datagram(c, m.bytes, m.len);
    m = reply(WEFT_T_RESEND_REQ, 0, 0);
    put(&m, &(struct weft_range){.begin = 1104, .end = 2000}, sizeof(struct weft_range));
    datagram(c, m.bytes, m.len);
    m = reply(WEFT_T_REJECT, 0, 0);
    struct weft_reject reject = {
        .status = (uint16_t)-WEFT_E_BUDGET_INFEASIBLE,
        .constraint = WEFT_C_BUDGET,
        .best = 900000,
        .retry_after_us = 2500,
        .candidates = 6,
    };
    put(&m, &reject, sizeof(reject));
    datagram(c, m.bytes, m.len);
    static const uint8_t bare[] = {WEFT_T_BUSY, WEFT_T_NEED_ACK, WEFT_T_UNKNOWN};
    for (size_t i = 0; i < sizeof(bare); i++) {
        m = reply(bare[i], 0, 0);
        datagram(c, m.bytes, m.len);
    }
}

/* A stream of four frames, cut inside the text of the third and inside the header of the fourth.
 */
static void replies_write(struct capture *c)
{
    static const size_t cuts[] = {0, 42, 53, 0};
    struct message stream = {.len = 0};
    struct weft_done done = {
        .status = (uint16_t)-WEFT_E_WORKER_LOST,
        .finish = WEFT_FINISH_LENGTH,
        .tier = 3,
        .prompt_tokens = 31,
        .new_tokens = 2,
        .queue_us = 10,
        .prefill_us = 2000,
        .decode_us = 3000,
        .node = 3,
        .node_name = "frankfurt",
        .backend = "cpu",
        .cached_tokens = 16,
    };
    struct weft_logprob_entry row = {.token = 1001, .logprob = -0.5f, .len = 2};
    uint8_t rows[sizeof(row) + 2];
    memcpy(rows, &row, sizeof(row));
    memcpy(rows + sizeof(row), " a", 2);
    put_frame(&stream, WEFT_FRAME_LOGPROBS, 1001, rows, sizeof(rows));
    put_frame(&stream, WEFT_FRAME_TEXT, 1001, " a", 2);
    put_frame(&stream, WEFT_FRAME_TEXT, 1002, " machine!", 9);
    put_frame(&stream, WEFT_FRAME_DONE, 0, &done, sizeof(done));
    for (size_t i = 0; i < 3; i++) {
        size_t end = i == 2 ? stream.len : cuts[i + 1];
        uint8_t flags = (uint8_t)(i == 0 ? WEFT_F_FIRST : i == 2 ? WEFT_F_LAST : 0);
        struct message m = reply(WEFT_T_RESP, flags, (uint32_t)cuts[i]);
        put(&m, stream.bytes + cuts[i], end - cuts[i]);
        datagram(c, m.bytes, m.len);
    }
    struct message m = reply(WEFT_T_RESP, 0, 5000); /* what came before it is missing */
    put(&m, "??????????", 10);
    datagram(c, m.bytes, m.len);
}

static void oddities_write(struct capture *c)
{
    struct message m = reply(WEFT_T_GRANT, 0, 0);
    m.bytes[0] = 2 << 4; /* another version */
    datagram(c, m.bytes, m.len);
    m = request(0x55, 0, 0); /* a type that is not there */
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_ACK, WEFT_F_RELAYED | WEFT_F_EXT, 0);
    m.bytes[3] = (uint8_t)(WEFT_REQ_WORDS + 2); /* header fields of a later version */
    put(&m, "\1\2\3\4\5\6\7\10", 8);
    put(&m, &(struct weft_ack){.cum = 11, .credit = 22}, sizeof(struct weft_ack));
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_ACK, WEFT_F_RELAYED, 0);
    m.bytes[3] = 255; /* header longer than the datagram */
    datagram(c, m.bytes, m.len);
    m = request(WEFT_T_ACK, WEFT_F_RELAYED, 0);
    m.bytes[3] = 3; /* and shorter than itself */
    datagram(c, m.bytes, m.len);
}

int main(int argc, char **argv)
{
    struct capture c = {.cuts = false};
    for (int i = 1; i + 1 < argc; i++) {
        c.cuts |= strcmp(argv[i], "--cuts") == 0;
        c.ip6 |= strcmp(argv[i], "--ipv6") == 0;
        c.vlan |= strcmp(argv[i], "--vlan") == 0;
    }
    if (argc != 2 + c.cuts + c.ip6 + c.vlan) {
        fputs("usage: weft-golden [--cuts] [--ipv6] [--vlan] FILE\n", stderr);
        return 2;
    }
    c.file = fopen(argv[argc - 1], "we");
    if (c.file == NULL) {
        perror(argv[argc - 1]);
        return EXIT_FAILURE;
    }
    uint32_t head[6] = {0xa1b2c3d4u,  2 | 4u << 16, 0, 0, HEADERS_MAX + WEFT_DATAGRAM_MAX,
                        LINK_ETHERNET};
    fwrite(head, sizeof(head), 1, c.file);
    requests_write(&c);
    controls_write(&c);
    replies_write(&c);
    oddities_write(&c);
    bool good = ferror(c.file) == 0;
    return fclose(c.file) == 0 && good ? EXIT_SUCCESS : EXIT_FAILURE;
}
