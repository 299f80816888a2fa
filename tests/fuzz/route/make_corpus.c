/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_corpus.c - writes the seed inputs of fuzz_stages.c into a folder: one small file for each
 * thing that can happen to a packet, made from the wire structs so that they follow a change of the
 * format. corpus/ is its committed output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/route/packet.h"
#include "steps.h"

#define INPUT_MAX 2048u
#define SELF_ID   2u /* of the node that the target plays */

static uint8_t input[INPUT_MAX];
static size_t used;

/* Appends a step; `bytes` are XORed over the packet by the target. */
static void step(enum step_op op, unsigned mode, const void *bytes, size_t size)
{
    struct step head = {.op = (uint8_t)op, .mode = (uint8_t)mode, .len = (uint16_t)size};
    if (used + sizeof(head) + size > sizeof(input)) {
        fprintf(stderr, "make_corpus: input too long\n");
        exit(EXIT_FAILURE);
    }
    memcpy(input + used, &head, sizeof(head));
    used += sizeof(head);
    if (size != 0) {
        memcpy(input + used, bytes, size);
        used += size;
    }
}

static void plain(enum step_op op, unsigned mode)
{
    step(op, mode, NULL, 0);
}

/* A step that changes one field of a request (reply, frame) by XOR. */
#define CHANGE(op, mode, type, field, value)                                                       \
    do {                                                                                           \
        type change_;                                                                              \
        memset(&change_, 0, sizeof(change_));                                                      \
        change_.field = (value);                                                                   \
        step(op, mode, &change_, offsetof(type, field) + sizeof(change_.field));                   \
    } while (0)
#define CLIENT(field, value) CHANGE(STEP_CLIENT, STEP_PROVEN | 1u, struct weft_req, field, value)

static void write_input(const char *folder, const char *name)
{
    char path[4096];
    int length = snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = length > 0 && (size_t)length < sizeof(path) ? fopen(path, "wb") : NULL;
    if (file == NULL || fwrite(input, 1, used, file) != used || fclose(file) != 0) {
        fprintf(stderr, "make_corpus: cannot write %s\n", path);
        exit(EXIT_FAILURE);
    }
    used = 0;
}

static void from_clients(const char *folder)
{
    plain(STEP_CLIENT, 1);
    write_input(folder, "no_cookie");
    plain(STEP_CLIENT, STEP_PROVEN | 1u);
    CLIENT(h.offset, 8);
    plain(STEP_BURST, 0);
    CLIENT(h.type, WEFT_T_REQ ^ WEFT_T_ACK);
    CLIENT(h.type, WEFT_T_REQ ^ WEFT_T_RESEND);
    CLIENT(h.type, WEFT_T_REQ ^ WEFT_T_CANCEL);
    write_input(folder, "request_and_more");
    for (uint16_t node = 1; node <= 4; node++) {
        CLIENT(h.target, (uint16_t)(WEFT_NODE_NONE ^ node));
    }
    write_input(folder, "named");
    CLIENT(h.model, 1);
    CLIENT(h.req_tags, 1);
    CLIENT(h.vram_64mib, 0x4000);
    CLIENT(h.radius_km, 10);
    CLIENT(h.tiers, 0x60);
    CLIENT(h.budget_us, WEFT_BUDGET_NONE ^ 1000u);
    CLIENT(h.budget_us, WEFT_BUDGET_NONE);
    CLIENT(h.want, WEFT_WANT_POSITION | WEFT_WANT_E2E);
    write_input(folder, "refused");
    for (uint32_t seq = 0; seq < 8; seq++) {
        CLIENT(h.req_seq, seq << 8);
    }
    write_input(folder, "full");
}

static void from_members(const char *folder)
{
    plain(STEP_RELAYED, 1);
    plain(STEP_BURST, 0);
    plain(STEP_WORKER, STEP_PROVEN);
    plain(STEP_WORKER, 0);
    CHANGE(STEP_WORKER, STEP_PROVEN, struct weft_rsp, h.origin, 1 ^ SELF_ID);
    write_input(folder, "worker_answers");
    plain(STEP_RELAYED, STEP_FULL | 1u);
    plain(STEP_RELAYED, STEP_NO_PORT | 3u);
    CHANGE(STEP_RELAYED, STEP_FULL | 1u, struct weft_req, h.hops_left, 2);
    CHANGE(STEP_RELAYED, STEP_FULL | 1u, struct weft_req, h.alt1, (uint16_t)(3 ^ WEFT_NODE_NONE));
    write_input(folder, "second_chance");
    /* Refused, and the way back is this node's own: a block it has not written leads nowhere. */
    struct weft_req req = {.h = {.origin = 1 ^ SELF_ID, .alt1 = 3 ^ WEFT_NODE_NONE}};
    step(STEP_RELAYED, STEP_FULL | 1u, &req, sizeof(req));
    plain(STEP_REPLY, 3);
    write_input(folder, "forged_return");
    plain(STEP_REPLY, STEP_PROVEN | 3u);
    CHANGE(STEP_REPLY, STEP_PROVEN | 3u, struct weft_rsp, h.origin, 1 ^ SELF_ID);
    CHANGE(STEP_REPLY, STEP_PROVEN | 3u, struct weft_rsp, h.type, WEFT_T_RESP ^ WEFT_T_COOKIE);
    plain(STEP_REPLY, STEP_PROVEN | STEP_DEPARTED);
    plain(STEP_RELAYED, STEP_DEPARTED);
    write_input(folder, "replies");
}

/* A frame with 16 bits changed at an even place of the wire. */
static void wire(size_t at, uint16_t value)
{
    uint8_t bytes[128] = {0};
    memcpy(bytes + at, &value, sizeof(value));
    step(STEP_FRAME, 1, bytes, at + sizeof(value));
}

static void damaged(const char *folder)
{
    wire(offsetof(struct route_ether, type), 0x0100);
    wire(14 + offsetof(struct route_ipv4, version_ihl), 0x02);
    wire(14 + offsetof(struct route_ipv4, total_len), 0x0400);
    wire(14 + offsetof(struct route_ipv4, fragment), 0x0020);
    wire(14 + offsetof(struct route_ipv4, src), 0xe0);
    wire(34 + offsetof(struct route_udp, len), 0x1000);
    wire(34 + offsetof(struct route_udp, dst_port), 0x0100);
    write_input(folder, "frames");
    plain(STEP_FRAME, STEP_CUT);
    step(STEP_FRAME, STEP_CUT, (const uint8_t[60]){0}, 60);
    step(STEP_CLIENT, STEP_CUT | STEP_PROVEN, (const uint8_t[40]){0}, 40);
    step(STEP_CLIENT, STEP_CUT | STEP_PROVEN, (const uint8_t[96]){0}, 96);
    step(STEP_RELAYED, STEP_CUT | STEP_NO_SUM | 1u, (const uint8_t[97]){0}, 97);
    write_input(folder, "cut");
    CLIENT(h.ver_fmt, 0x30);
    CLIENT(h.hdr_words, 0x80);
    CLIENT(h.msg_len, 0x80000000u);
    CLIENT(h.offset, 0xffffffffu);
    CLIENT(h.conn_id, 0x1122334455667788u);
    CLIENT(h.tiers, 0x0f);
    write_input(folder, "fields");
}

static void tables(const char *folder)
{
    for (unsigned table = 0; table < STEP_TABLES; table++) {
        plain(STEP_TABLE, table);
        plain(STEP_CLIENT, STEP_PROVEN | 1u);
        CLIENT(h.want, WEFT_WANT_POSITION);
        plain(STEP_RELAYED, STEP_FULL | 3u);
        plain(STEP_REPLY, STEP_PROVEN | STEP_DEPARTED);
        plain(STEP_REPLY, STEP_PROVEN | 3u);
    }
    write_input(folder, "tables");
    plain(STEP_RELAYED, STEP_PROVEN | 1u);
    plain(STEP_CLIENT, STEP_PROVEN | 1u);
    plain(STEP_TIME, 130);
    plain(STEP_WORKER, 0);
    plain(STEP_CLIENT, STEP_PROVEN | 1u);
    plain(STEP_TIME, 250);
    plain(STEP_WORKER, 0);
    write_input(folder, "time");
}

/* A datagram as long as they get, of zeros: the target adds what an input does not have. */
static void longest(enum step_op op, unsigned mode)
{
    struct step head = {.op = (uint8_t)op, .mode = (uint8_t)mode, .len = WEFT_DATAGRAM_MAX};
    memcpy(input + used, &head, sizeof(head));
    used += sizeof(head);
}

/* A request, its answer and a second chance, by every pair of families, tagged and not. */
static void networks(const char *folder)
{
    for (unsigned network = 0; network < 32; network++) {
        char name[32];
        plain(STEP_NETWORK, network);
        plain(STEP_CLIENT, 1);
        plain(STEP_CLIENT, STEP_PROVEN | 1u);
        CLIENT(h.req_seq, network << 8);
        plain(STEP_CLIENT, STEP_NO_SUM | STEP_PROVEN | 1u);
        plain(STEP_RELAYED, STEP_FULL | 3u);
        plain(STEP_RELAYED, 1);
        plain(STEP_BURST, 0);
        plain(STEP_WORKER, STEP_PROVEN);
        plain(STEP_REPLY, STEP_PROVEN | 3u);
        if (network % 4 == 3) {
            snprintf(name, sizeof(name), "networks_%u", network / 4);
            write_input(folder, name);
        }
    }
    plain(STEP_NETWORK, STEP_NODES_IP6); /* too long for the next network */
    longest(STEP_CLIENT, STEP_PROVEN | 1u);
    write_input(folder, "longest");
    plain(STEP_NETWORK, STEP_CLIENTS_IP6);
    wire(14 + offsetof(struct route_ipv6, version_class_flow), 0x0020);
    wire(14 + offsetof(struct route_ipv6, payload_len), 0x0400);
    wire(14 + offsetof(struct route_ipv6, next_header), 17 ^ 44);
    wire(14 + offsetof(struct route_ipv6, next_header), 17 ^ 60);
    wire(14 + offsetof(struct route_ipv6, src), 0x0120 ^ 0x00ff);
    wire(54 + offsetof(struct route_udp, len), 0x1000);
    write_input(folder, "frames_ipv6");
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    from_clients(argv[1]);
    from_members(argv[1]);
    damaged(argv[1]);
    tables(argv[1]);
    networks(argv[1]);
    return EXIT_SUCCESS;
}
