/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_request.c - a row of datagrams into the client's machine: [steps of 10 ms][length][bytes]
 * each. Whatever comes, it sends a bounded number of datagrams and ends in silence. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/request.h"

#define BODY_BYTES 20000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drain(struct request *r, struct request_conn *conn, uint64_t now_ns)
{
    uint8_t out[REQUEST_OUT_MAX];
    struct request_text text;
    while (request_event(r, &text, now_ns)) {
    }
    for (uint32_t i = 0; request_output(r, conn, now_ns, out) != 0; i++) {
        if (i > 100) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct request_conn conn;
    struct request r;
    struct weft_req_hdr hdr = {.req_seq = 1};
    static const uint8_t body[BODY_BYTES];
    uint64_t now_ns = NS_PER_S;
    request_conn_init(&conn, 1, 0, 0);
    request_init(&r, &conn, &hdr, body, BODY_BYTES, 0, now_ns);
    drain(&r, &conn, now_ns);
    while (size >= 2) {
        size_t len = data[1] < size - 2 ? data[1] : size - 2;
        struct datagram_payload payload;
        now_ns += data[0] * 10 * NS_PER_MS;
        request_tick(&r, &conn, now_ns);
        if (datagram_check(data + 2, len, true, sizeof(struct weft_rsp), &payload)) {
            struct weft_rsp rsp;
            memcpy(&rsp, data + 2, sizeof(rsp));
            rsp.h.arg = rsp.h.type == WEFT_T_RESP
                            ? datagram_sum(&rsp.h, payload.data, payload.len)
                            : rsp.h.arg; /* or nothing would get past the sum */
            request_input(&r, &conn, &rsp, payload, now_ns);
        }
        drain(&r, &conn, now_ns);
        data += 2 + len;
        size -= 2 + len;
    }
    for (uint32_t i = 0; !request_closed(&r); i++) {
        uint64_t due_ns = request_due_ns(&r);
        now_ns = due_ns > now_ns ? due_ns : now_ns;
        request_tick(&r, &conn, now_ns);
        drain(&r, &conn, now_ns);
        if (i > 1000) {
            abort();
        }
    }
    if (!r.ended) {
        abort();
    }
    request_deinit(&r);
    return 0;
}
