/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ws.h - WebSocket frames (RFC 6455): a client's bytes to messages, messages to a server's bytes.
 * Pure; no socket, no HTTP library. No extension, so no bit of them is allowed.
 *
 * Messages are collected whole, up to a bound of their length; control frames may come in between.
 * Whatever is against the protocol is one event, WS_FAIL, with the code to close with (section
 * 7.4.1); after it, and after WS_CLOSE, nothing is taken any more.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane/gateway/buf.h"

#define WS_CONTROL_MAX 125u /* section 5.5 */
#define WS_HEADER_MAX  14u
#define WS_ACCEPT_MAX  29u
#define WS_KEY_LEN     24u /* 16 bytes in base64 */

enum ws_opcode {
    WS_OP_CONTINUE = 0x0,
    WS_OP_TEXT = 0x1,
    WS_OP_BINARY = 0x2,
    WS_OP_CLOSE = 0x8,
    WS_OP_PING = 0x9,
    WS_OP_PONG = 0xa,
};

enum ws_code {
    WS_CODE_NORMAL = 1000,
    WS_CODE_GOING = 1001,
    WS_CODE_PROTOCOL = 1002,
    WS_CODE_KIND = 1003, /* of data that is not taken */
    WS_CODE_NONE = 1005, /* never sent: the frame had none */
    WS_CODE_UTF8 = 1007,
    WS_CODE_LONG = 1009,
    WS_CODE_FAILED = 1011,
};

enum ws_event {
    WS_MORE, /* everything was taken, nothing is complete */
    WS_TEXT, /* `message`, valid UTF-8 */
    WS_BINARY,
    WS_PING, /* `control`, `control_len` bytes: to be sent back */
    WS_PONG,
    WS_CLOSE, /* `code`, maybe WS_CODE_NONE */
    WS_FAIL,  /* `code` */
};

/* Zero-fill it, set `message_max`; ws_deinit() frees. */
struct ws {
    size_t message_max;
    uint8_t header[WS_HEADER_MAX];
    uint8_t header_len;
    uint8_t header_need; /* 0 = a frame begins */
    uint8_t opcode;      /* of the frame */
    bool fin;
    bool over; /* after WS_CLOSE or WS_FAIL */
    uint8_t mask[4];
    uint64_t left; /* bytes of the frame's payload still to come */
    uint64_t at;   /* that came */
    uint8_t kind;  /* of the message: WS_OP_TEXT or _BINARY; 0 = none is open */
    bool given;    /* the message was delivered: the next frame begins a new one */
    struct buf message;
    uint8_t control[WS_CONTROL_MAX];
    uint8_t control_len;
    uint16_t code;
};

void ws_deinit(struct ws *w);

/* Takes bytes up to the first event; returns how many. What the event tells of is good until the
 * next call. */
size_t ws_feed(struct ws *w, const uint8_t *data, size_t len, enum ws_event *event);

/* One whole frame of a server: not masked. */
void ws_frame(struct buf *out, enum ws_opcode opcode, const void *data, size_t len);
/* A close frame; `reason` may be "". WS_CODE_NONE sends none. */
void ws_frame_close(struct buf *out, uint16_t code, const char *reason);

/* ws_accept.c: Sec-WebSocket-Accept for a Sec-WebSocket-Key. False: that is no key. */
bool ws_accept(const char *key, char accept[WS_ACCEPT_MAX]);
