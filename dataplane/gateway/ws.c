/* SPDX-License-Identifier: Apache-2.0 */
/* ws.c - see ws.h. */
#include "dataplane/gateway/ws.h"

#include <string.h>

#include "schemas/base/utf8.h"

#define FIN      0x80u
#define RESERVED 0x70u
#define MASKED   0x80u
#define LEN_16   126u
#define LEN_64   127u

void ws_deinit(struct ws *w)
{
    buf_deinit(&w->message);
}

static enum ws_event fail(struct ws *w, uint16_t code)
{
    w->over = true;
    w->code = code;
    return WS_FAIL;
}

static bool utf8_valid(const uint8_t *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        int step = utf8_step(text + at, len - at);
        if (step <= 0) {
            return false;
        }
        at += (size_t)step;
    }
    return true;
}

/* ---- headers ---- */

static bool is_control(uint8_t opcode)
{
    return (opcode & 0x8) != 0;
}

/* The first two bytes tell how long the header is. */
static enum ws_event header_begin(struct ws *w)
{
    uint8_t len = w->header[1] & 0x7f;
    w->fin = (w->header[0] & FIN) != 0;
    w->opcode = w->header[0] & 0x0f;
    bool known = w->opcode <= WS_OP_BINARY || (w->opcode >= WS_OP_CLOSE && w->opcode <= WS_OP_PONG);
    /* Clients always mask (5.1); control frames are short and whole (5.5). */
    if ((w->header[0] & RESERVED) != 0 || !known || (w->header[1] & MASKED) == 0 ||
        (is_control(w->opcode) && (!w->fin || len > WS_CONTROL_MAX))) {
        return fail(w, WS_CODE_PROTOCOL);
    }
    /* A message is begun once and gone on with after that (5.4). */
    if (!is_control(w->opcode) && (w->opcode == WS_OP_CONTINUE) != (w->kind != 0)) {
        return fail(w, WS_CODE_PROTOCOL);
    }
    w->header_need = (uint8_t)(2 + (len == LEN_16 ? 2 : len == LEN_64 ? 8 : 0) + 4);
    return WS_MORE;
}

static uint64_t big_endian(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++) {
        value = value << 8 | from[i];
    }
    return value;
}

/* The header is whole. */
static enum ws_event header_take(struct ws *w)
{
    uint8_t len = w->header[1] & 0x7f;
    w->left = len;
    if (len == LEN_16) {
        w->left = big_endian(w->header + 2, 2);
    } else if (len == LEN_64) {
        w->left = big_endian(w->header + 2, 8);
    }
    /* The shortest form, and never the uppermost bit (5.2). */
    if ((len == LEN_16 && w->left < LEN_16) ||
        (len == LEN_64 && (w->left <= UINT16_MAX || w->left >> 63 != 0))) {
        return fail(w, WS_CODE_PROTOCOL);
    }
    memcpy(w->mask, w->header + w->header_need - 4, 4);
    w->at = 0;
    if (is_control(w->opcode)) {
        w->control_len = 0;
        return WS_MORE;
    }
    if (w->left > w->message_max - buf_len(&w->message)) {
        return fail(w, WS_CODE_LONG);
    }
    w->kind = w->kind != 0 ? w->kind : w->opcode;
    return WS_MORE;
}

/* ---- payloads ---- */

static enum ws_event close_take(struct ws *w)
{
    uint16_t code = w->control_len >= 2 ? (uint16_t)big_endian(w->control, 2) : WS_CODE_NONE;
    bool sent = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                (code >= 3000 && code <= 4999);
    if (w->control_len == 1 || (w->control_len >= 2 && !sent)) {
        return fail(w, WS_CODE_PROTOCOL);
    }
    if (w->control_len > 2 && !utf8_valid(w->control + 2, w->control_len - 2u)) {
        return fail(w, WS_CODE_UTF8);
    }
    w->over = true;
    w->code = code;
    return WS_CLOSE;
}

/* The frame is whole. */
static enum ws_event frame_take(struct ws *w)
{
    w->header_need = 0;
    w->header_len = 0;
    switch (w->opcode) {
    case WS_OP_PING:
        return WS_PING;
    case WS_OP_PONG:
        return WS_PONG;
    case WS_OP_CLOSE:
        return close_take(w);
    default:
        break;
    }
    if (!w->fin) {
        return WS_MORE;
    }
    uint8_t kind = w->kind;
    w->kind = 0;
    w->given = true;
    if (w->message.failed) {
        return fail(w, WS_CODE_FAILED);
    }
    if (kind == WS_OP_BINARY) {
        return WS_BINARY;
    }
    const uint8_t *text = (const uint8_t *)w->message.data;
    size_t len = buf_len(&w->message);
    return len == 0 || utf8_valid(text + w->message.at, len) ? WS_TEXT : fail(w, WS_CODE_UTF8);
}

static void payload_take(struct ws *w, const uint8_t *data, size_t len)
{
    uint8_t part[512];
    for (size_t at = 0; at < len;) {
        size_t step = len - at < sizeof(part) ? len - at : sizeof(part);
        for (size_t i = 0; i < step; i++) {
            part[i] = data[at + i] ^ w->mask[(w->at + i) & 3];
        }
        if (is_control(w->opcode)) {
            memcpy(w->control + w->control_len, part, step);
            w->control_len = (uint8_t)(w->control_len + step);
        } else {
            buf_add(&w->message, part, step);
        }
        w->at += step;
        at += step;
    }
    w->left -= len;
}

/* A part of a header. */
static enum ws_event header_feed(struct ws *w, const uint8_t *data, size_t len, size_t *used)
{
    uint8_t need = w->header_need != 0 ? w->header_need : 2;
    size_t take = (size_t)(need - w->header_len) < len ? (size_t)(need - w->header_len) : len;
    memcpy(w->header + w->header_len, data, take);
    w->header_len = (uint8_t)(w->header_len + take);
    *used += take;
    if (w->header_len < need) {
        return WS_MORE;
    }
    if (w->header_need == 0) {
        return header_begin(w);
    }
    enum ws_event event = header_take(w);
    return event == WS_MORE && w->left == 0 ? frame_take(w) : event;
}

size_t ws_feed(struct ws *w, const uint8_t *data, size_t len, enum ws_event *event)
{
    size_t used = 0;
    *event = WS_MORE;
    if (w->given) {
        w->given = false;
        w->message.at = 0;
        w->message.end = 0;
    }
    while (used < len && !w->over && *event == WS_MORE) {
        if (w->header_need == 0 || w->header_len < w->header_need) {
            *event = header_feed(w, data + used, len - used, &used);
            continue;
        }
        size_t take = w->left < len - used ? (size_t)w->left : len - used;
        payload_take(w, data + used, take);
        used += take;
        *event = w->left == 0 ? frame_take(w) : WS_MORE;
    }
    return w->over ? len : used;
}

/* ---- out ---- */

void ws_frame(struct buf *out, enum ws_opcode opcode, const void *data, size_t len)
{
    uint8_t header[10] = {(uint8_t)(FIN | opcode)};
    size_t size = len < LEN_16 ? 2 : len <= UINT16_MAX ? 4 : 10;
    header[1] = (uint8_t)(size == 2 ? len : size == 4 ? LEN_16 : LEN_64);
    for (size_t i = 2; i < size; i++) {
        header[i] = (uint8_t)((uint64_t)len >> 8 * (size - 1 - i));
    }
    buf_add(out, header, size);
    buf_add(out, data, len);
}

void ws_frame_close(struct buf *out, uint16_t code, const char *reason)
{
    uint8_t payload[WS_CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t len = strlen(reason) <= sizeof(payload) - 2 ? strlen(reason) : 0;
    memcpy(payload + 2, reason, len);
    ws_frame(out, WS_OP_CLOSE, payload, code == WS_CODE_NONE ? 0 : 2 + len);
}
