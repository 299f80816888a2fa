/* SPDX-License-Identifier: Apache-2.0 */
/* msg.c - see msg.h. */
#include "controlplane/zones/msg.h"

#include <string.h>

#define PATH_BYTES         7u
#define AREA_BYTES         3u
#define ANSWER_FIXED_BYTES (ZONE_HEADER_BYTES + 4 + 2 * PATH_BYTES + 4 + 1 + 1 + 2 + 1 + 1)

uint32_t zone_answer_room(uint32_t found_count)
{
    uint32_t left = ZONE_DATAGRAM_MAX - ANSWER_FIXED_BYTES - found_count * ZONE_FOUND_BYTES;
    uint32_t room = left / ZONE_SUMMARY_BYTES;
    return room < ZONE_ANSWER_PIECES ? room : ZONE_ANSWER_PIECES;
}
_Static_assert(ANSWER_FIXED_BYTES + ZONE_TOP_MAX * ZONE_FOUND_BYTES + 2 * ZONE_SUMMARY_BYTES <=
                   ZONE_DATAGRAM_MAX,
               "a full answer has room for a piece on each side of the own zone");
_Static_assert(ZONE_HEADER_BYTES + 6 + ZONE_ANSWER_PIECES * ZONE_SUMMARY_SIGNED_BYTES <=
                   ZONE_DATAGRAM_MAX,
               "a view fits a datagram");
_Static_assert(ZONE_HEADER_BYTES + 6 + PATH_BYTES + ZONE_PAGE_MAX * (2 + ZONE_RECORD_BYTES_MAX) <=
                   ZONE_DATAGRAM_MAX,
               "a page fits a datagram");

static void path_write(struct cursor *c, uint64_t path)
{
    cursor_write(c, &path, PATH_BYTES);
}

static uint64_t path_read(struct cursor *c)
{
    uint64_t path = 0;
    cursor_read(c, &path, PATH_BYTES);
    return path;
}

static void range_write(struct cursor *c, struct zone_range range)
{
    path_write(c, range.lo);
    path_write(c, range.hi);
}

/* {0, 0} is no range; whatever else must be a valid one. */
static struct zone_range range_read(struct cursor *c, bool may_be_none)
{
    struct zone_range range;
    range.lo = path_read(c);
    range.hi = path_read(c);
    bool none = range.lo == 0 && range.hi == 0;
    c->failed = c->failed || (!zone_range_valid(range) && !(none && may_be_none));
    return range;
}

/* ---- writing ---- */

static void answer_write(struct cursor *c, const struct zone_answer *a)
{
    cursor_write_u32(c, a->id);
    range_write(c, zone_range_valid(a->covered) ? a->covered : (struct zone_range){0, 0});
    cursor_write_u32(c, a->excluded_age_ms);
    cursor_write_u8(c, a->stage);
    cursor_write_u8(c, a->hops);
    cursor_write_u16(c, a->asks);
    cursor_write_u8(c, (uint8_t)a->found_count);
    cursor_write_u8(c, (uint8_t)a->piece_count);
    for (uint32_t i = 0; i < a->found_count; i++) {
        zone_found_write(c, &a->found[i]);
    }
    for (uint32_t i = 0; i < a->piece_count; i++) {
        zone_summary_write(c, &a->pieces[i]);
    }
}

static void view_write(struct cursor *c, const struct zone_pieces *v, const uint8_t *secret)
{
    cursor_write_u32(c, v->id);
    cursor_write_u8(c, v->count);
    cursor_write_u8(c, secret != NULL);
    for (uint32_t i = 0; i < v->count; i++) {
        if (secret == NULL) {
            zone_summary_write(c, &v->all[i]);
        } else {
            zone_summary_sign(cursor_take(c, ZONE_SUMMARY_SIGNED_BYTES), &v->all[i], secret);
        }
    }
}

static void page_write(struct cursor *c, const struct zone_page *p)
{
    cursor_write_u32(c, p->id);
    cursor_write_u8(c, p->count);
    cursor_write_u8(c, p->whole);
    path_write(c, p->next);
    for (uint32_t i = 0; i < p->count; i++) {
        cursor_write_u16(c, p->all[i].age_ms);
        zone_record_write(c, &p->all[i].record);
    }
}

static void small_write(struct cursor *c, const struct zone_msg *m)
{
    switch (m->header.kind) {
    case ZONE_DELTA:
        cursor_write_u64(c, m->delta.version);
        cursor_write_u32(c, m->delta.queue_us);
        cursor_write_u16(c, m->delta.room);
        cursor_write_u16(c, m->delta.vram_free_64mib);
        break;
    case ZONE_ASK:
        cursor_write_u32(c, m->ask.ask.id);
        range_write(c, m->ask.ask.range);
        cursor_write_u32(c, m->ask.ask.bound);
        cursor_write_u16(c, m->ask.ask.budget_ms);
        cursor_write_u8(c, m->ask.ask.hops);
        zone_query_write(c, &m->ask.query);
        break;
    case ZONE_PULL:
        cursor_write_u32(c, m->pull.id);
        range_write(c, m->pull.range);
        cursor_write_u8(c, m->pull.want);
        break;
    case ZONE_FETCH:
        cursor_write_u32(c, m->fetch.id);
        range_write(c, m->fetch.range);
        break;
    case ZONE_RESHAPE:
        cursor_write_u8(c, m->reshape.stage);
        cursor_write_u32(c, m->reshape.epoch);
        range_write(c, m->reshape.range);
        path_write(c, m->reshape.cut);
        cursor_write_u32(c, m->reshape.source.node);
        cursor_write(c, &m->reshape.source.area, AREA_BYTES);
        cursor_write(c, &m->reshape.source.addr, sizeof(m->reshape.source.addr));
        break;
    default:
        break;
    }
}

size_t zone_msg_write(uint8_t out[ZONE_DATAGRAM_MAX], const struct zone_msg *m,
                      const uint8_t *secret)
{
    struct cursor c;
    cursor_init(&c, out, ZONE_DATAGRAM_MAX);
    cursor_write_u8(&c, m->header.kind);
    cursor_write_u8(&c, ZONE_MSG_VERSION);
    cursor_write_u32(&c, m->header.node);
    cursor_write(&c, &m->header.area, AREA_BYTES);
    cursor_write_u32(&c, m->header.epoch);
    range_write(&c, m->header.claim);
    switch (m->header.kind) {
    case ZONE_STATE:
        zone_record_write(&c, &m->state);
        break;
    case ZONE_ANSWER:
        answer_write(&c, &m->answer);
        break;
    case ZONE_VIEW:
        view_write(&c, &m->view, secret);
        break;
    case ZONE_RECORDS:
        page_write(&c, &m->page);
        break;
    default:
        small_write(&c, m);
        break;
    }
    return (size_t)(c.at - out);
}

/* ---- reading ---- */

static void answer_read(struct cursor *c, struct zone_answer *a)
{
    a->id = cursor_read_u32(c);
    a->covered = range_read(c, true);
    a->excluded_age_ms = cursor_read_u32(c);
    a->stage = cursor_read_u8(c);
    a->hops = cursor_read_u8(c);
    a->asks = cursor_read_u16(c);
    a->found_count = cursor_read_u8(c);
    a->piece_count = cursor_read_u8(c);
    if (a->found_count > ZONE_TOP_MAX || a->piece_count > ZONE_ANSWER_PIECES ||
        a->stage >= ZONE_RELAY_STAGES) {
        c->failed = true;
        return;
    }
    for (uint32_t i = 0; i < a->found_count; i++) {
        zone_found_read(c, &a->found[i]);
    }
    for (uint32_t i = 0; i < a->piece_count; i++) {
        zone_summary_read(c, &a->pieces[i]);
    }
}

static void view_read(struct cursor *c, struct zone_pieces *v, const uint8_t *public_key)
{
    v->id = cursor_read_u32(c);
    v->count = cursor_read_u8(c);
    uint8_t is_signed = cursor_read_u8(c);
    v->is_signed = is_signed != 0;
    if (v->count == 0 || v->count > ZONE_ANSWER_PIECES || is_signed > 1) {
        c->failed = true;
        return;
    }
    for (uint32_t i = 0; i < v->count; i++) {
        const uint8_t *at = c->at;
        zone_summary_read(c, &v->all[i]);
        bool whole = !v->is_signed || cursor_take(c, ZONE_SIGNATURE_BYTES) != NULL;
        if (whole && !c->failed && public_key != NULL) {
            c->failed = !v->is_signed || !zone_summary_verify(at, public_key);
        }
        /* Rising and side by side: they tile what was asked for. */
        c->failed = c->failed || (i != 0 && v->all[i].range.lo < v->all[i - 1].range.hi);
    }
}

static void page_read(struct cursor *c, struct zone_page *p)
{
    p->id = cursor_read_u32(c);
    p->count = cursor_read_u8(c);
    uint8_t whole = cursor_read_u8(c);
    p->whole = whole != 0;
    p->next = path_read(c);
    if (whole > 1 || p->count > ZONE_PAGE_MAX || p->next > ZONE_KEY_END) {
        c->failed = true;
        return;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        p->all[i].age_ms = cursor_read_u16(c);
        zone_record_read(c, &p->all[i].record);
    }
}

static void small_read(struct cursor *c, struct zone_msg *m)
{
    switch (m->header.kind) {
    case ZONE_DELTA:
        m->delta.version = cursor_read_u64(c);
        m->delta.queue_us = cursor_read_u32(c);
        m->delta.room = cursor_read_u16(c);
        m->delta.vram_free_64mib = cursor_read_u16(c);
        break;
    case ZONE_ASK:
        m->ask.ask = (struct zone_ask){.id = cursor_read_u32(c)};
        m->ask.ask.range = range_read(c, false);
        m->ask.ask.bound = cursor_read_u32(c);
        m->ask.ask.budget_ms = cursor_read_u16(c);
        m->ask.ask.hops = cursor_read_u8(c);
        zone_query_read(c, &m->ask.query);
        break;
    case ZONE_PULL:
        m->pull.id = cursor_read_u32(c);
        m->pull.range = range_read(c, false);
        m->pull.want = cursor_read_u8(c);
        c->failed = c->failed || m->pull.want == 0 || m->pull.want > ZONE_ANSWER_PIECES;
        break;
    case ZONE_FETCH:
        m->fetch.id = cursor_read_u32(c);
        m->fetch.range = range_read(c, false);
        break;
    case ZONE_RESHAPE:
        m->reshape.stage = cursor_read_u8(c);
        m->reshape.epoch = cursor_read_u32(c);
        m->reshape.range = range_read(c, false);
        m->reshape.cut = path_read(c);
        m->reshape.source.node = cursor_read_u32(c);
        m->reshape.source.area = 0;
        cursor_read(c, &m->reshape.source.area, AREA_BYTES);
        cursor_read(c, &m->reshape.source.addr, sizeof(m->reshape.source.addr));
        c->failed = c->failed || m->reshape.stage >= ZONE_STAGES ||
                    (m->reshape.cut != 0 && (m->reshape.cut <= m->reshape.range.lo ||
                                             m->reshape.cut >= m->reshape.range.hi));
        break;
    default:
        c->failed = true;
        break;
    }
}

bool zone_msg_sender(const void *data, size_t size, uint32_t *node)
{
    struct cursor c;
    cursor_init_const(&c, data, size);
    (void)cursor_take(&c, 2); /* kind, version */
    *node = cursor_read_u32(&c);
    return !c.failed;
}

bool zone_msg_foreign(const void *data, size_t size)
{
    return size >= 2 && ((const uint8_t *)data)[1] != ZONE_MSG_VERSION;
}

bool zone_msg_read(const void *data, size_t size, const uint8_t *public_key, struct zone_msg *m)
{
    struct cursor c;
    cursor_init_const(&c, data, size);
    m->header.kind = cursor_read_u8(&c);
    uint8_t version = cursor_read_u8(&c);
    m->header.node = cursor_read_u32(&c);
    m->header.area = 0;
    cursor_read(&c, &m->header.area, AREA_BYTES);
    m->header.epoch = cursor_read_u32(&c);
    m->header.claim = range_read(&c, true);
    if (c.failed || version != ZONE_MSG_VERSION) {
        return false;
    }
    switch (m->header.kind) {
    case ZONE_STATE:
        zone_record_read(&c, &m->state);
        break;
    case ZONE_ANSWER:
        answer_read(&c, &m->answer);
        break;
    case ZONE_VIEW:
        view_read(&c, &m->view, public_key);
        break;
    case ZONE_RECORDS:
        page_read(&c, &m->page);
        break;
    default:
        small_read(&c, m);
        break;
    }
    return !c.failed && cursor_left(&c) == 0;
}
