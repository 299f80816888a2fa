/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes a WebSocket and the realtime session over it: the first byte says in how long pieces the
 * others come. Every question must be one that the chat API takes; it is answered with the last
 * message's own bytes, once one more event has come. What goes out must be whole frames with JSON
 * in them. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"
#include "dataplane/gateway/realtime.h"
#include "dataplane/gateway/ws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

/* Takes all frames that went out. */
static void frames_check(struct buf *out)
{
    while (buf_len(out) > 0) {
        const uint8_t *p = (const uint8_t *)out->data + out->at;
        need(buf_len(out) >= 2);
        uint64_t len = p[1];
        size_t head = len < 126 ? 2 : len == 126 ? 4 : 10;
        need(p[1] < 0x80 && buf_len(out) >= head);
        if (head > 2) {
            len = 0;
            for (size_t i = 2; i < head; i++) {
                len = len << 8 | p[i];
            }
        }
        need(buf_len(out) - head >= len);
        if (p[0] == (0x80 | WS_OP_TEXT)) {
            json_t *event = json_loadb((const char *)p + head, len, JSON_ALLOW_NUL, NULL);
            need(event != NULL);
            json_decref(event);
        }
        out->at += head + len;
    }
}

/* An answer under way: what it was asked for, and the message whose bytes it gives. */
struct answer {
    bool open;
    bool good;
    bool cancelled;
    struct api_error error;
    struct buf text;
};

static void ask(struct realtime *r, struct answer *answer, const struct buf *message)
{
    struct api_request request;
    size_t len;
    char *text = realtime_question(r, &len);
    need(text != NULL && !answer->open);
    answer->error = (struct api_error){.http_status = 0};
    memset(&request, 0, sizeof(request));
    answer->good = api_read(&request, API_CHAT, text, len, &answer->error);
    need(answer->good == (answer->error.http_status == 0));
    api_deinit(&request);
    free(text);
    answer->open = true;
    answer->cancelled = false;
    answer->text.at = answer->text.end = 0;
    buf_add(&answer->text, message->data + message->at, buf_len(message));
}

/* The answer comes to its end: it is after the next event, so that one comes in between. */
static void finish(struct realtime *r, struct answer *answer)
{
    const size_t len = buf_len(&answer->text);
    const weft_result_t result = {.status = answer->cancelled ? WEFT_E_CANCELLED
                                            : len % 3 == 0    ? WEFT_E_STALLED
                                                              : 0,
                                  .finish = len % 2 == 0 ? WEFT_FINISH_STOP : WEFT_FINISH_LENGTH};
    if (!answer->open) {
        return;
    }
    for (size_t at = 0; at < len; at += 5) {
        realtime_text(r, answer->text.data + at, len - at < 5 ? len - at : 5);
    }
    realtime_done(r, answer->good ? &result : NULL, answer->good ? NULL : &answer->error);
    answer->open = false;
}

static void event_take(struct realtime *r, struct answer *answer, const struct buf *message)
{
    const char *text = message->data != NULL ? message->data : "";
    const bool was_open = answer->open;
    switch (realtime_event(r, text, buf_len(message))) {
    case REALTIME_ASK:
        ask(r, answer, message);
        break;
    case REALTIME_CANCEL:
        need(answer->open);
        answer->cancelled = true;
        break;
    default:
        break;
    }
    if (was_open) {
        finish(r, answer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ws ws = {.message_max = 4096};
    struct realtime r;
    struct answer answer = {.open = false};
    struct buf out = {.data = NULL};
    if (size < 2) {
        return 0;
    }
    need(realtime_init(&r, "0123", "m", &out));
    size_t step = 1 + data[0];
    for (size_t at = 1; at < size && !ws.over;) {
        size_t end = step < size - at ? at + step : size;
        while (at < end) {
            enum ws_event event;
            size_t used = ws_feed(&ws, data + at, end - at, &event);
            need(used > 0 && used <= end - at);
            at += used;
            if (event == WS_PING) {
                ws_frame(&out, WS_OP_PONG, ws.control, ws.control_len);
            } else if (event == WS_TEXT) {
                need(buf_len(&ws.message) <= ws.message_max);
                event_take(&r, &answer, &ws.message);
            } else if (event == WS_CLOSE || event == WS_FAIL) {
                ws_frame_close(&out, ws.code, "");
            }
        }
        frames_check(&out);
    }
    finish(&r, &answer);
    need(!out.failed);
    frames_check(&out);
    ws_deinit(&ws);
    realtime_deinit(&r);
    buf_deinit(&answer.text);
    buf_deinit(&out);
    return 0;
}
