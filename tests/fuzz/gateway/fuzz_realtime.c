/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes a WebSocket and the realtime session over it: the first byte says in how long pieces the
 * others come. Every question must be one that the chat API takes; it is answered with the last
 * message's own bytes. What goes out must be whole frames with JSON in them. */
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

static void ask(struct realtime *r, const struct buf *message)
{
    struct api_request request;
    struct api_error error = {.http_status = 0};
    const weft_result_t result = {.status = buf_len(message) % 3 == 0 ? WEFT_E_STALLED : 0,
                                  .finish = WEFT_FINISH_STOP};
    size_t len;
    char *text = realtime_question(r, &len);
    need(text != NULL);
    memset(&request, 0, sizeof(request));
    bool good = api_read(&request, API_CHAT, text, len, &error);
    need(good == (error.http_status == 0));
    api_deinit(&request);
    free(text);
    for (size_t at = 0; at < buf_len(message); at += 5) {
        size_t left = buf_len(message) - at;
        realtime_text(r, message->data + at, left < 5 ? left : 5);
    }
    realtime_done(r, good ? &result : NULL, good ? NULL : &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ws ws = {.message_max = 4096};
    struct realtime r;
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
                const char *text = ws.message.data != NULL ? ws.message.data : "";
                if (realtime_event(&r, text, buf_len(&ws.message)) == REALTIME_ASK) {
                    ask(&r, &ws.message);
                }
            } else if (event == WS_CLOSE || event == WS_FAIL) {
                ws_frame_close(&out, ws.code, "");
            }
        }
        frames_check(&out);
    }
    need(!out.failed);
    frames_check(&out);
    ws_deinit(&ws);
    realtime_deinit(&r);
    buf_deinit(&out);
    return 0;
}
