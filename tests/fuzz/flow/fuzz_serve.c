/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_serve.c - a row of datagrams into the worker's machine: [steps of 10 ms][length][bytes]
 * each. The runtime answers one token and ends. Whatever comes, bytes and requests stay bounded and
 * all of it is forgotten after a while of silence. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/serve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    (void)user;
    (void)view;
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP};
    (void)serve_job_emit(job, 1, "token", 5);
    serve_job_finish(job, &report);
    return 0;
}

static void on_cancel(void *user, struct weft_job *job)
{
    (void)user;
    (void)job;
}

static void drain(struct serve *s, uint64_t now_ns)
{
    uint8_t out[SERVE_OUT_MAX];
    for (uint32_t i = 0; serve_output(s, now_ns, out) != 0; i++) {
        if (i > 1000) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct serve_config config = {.node_id = 1, .seed = 2};
    struct serve_ops ops = {on_job, on_cancel, NULL};
    struct serve *s = serve_create(&config, &ops);
    if (s == NULL) {
        return 0;
    }
    weft_load_t load = {.room = 100};
    serve_set_load(s, &load);
    uint64_t now_ns = NS_PER_S;
    while (size >= 2) {
        size_t len = data[1] < size - 2 ? data[1] : size - 2;
        now_ns += data[0] * 10 * NS_PER_MS;
        serve_tick(s, now_ns);
        serve_input(s, data + 2, len, now_ns);
        drain(s, now_ns);
        data += 2 + len;
        size -= 2 + len;
    }
    serve_tick(s, now_ns + 2 * SERVE_GIVE_UP_NS);
    if (s->table.count != 0 || s->partial_bytes != 0 || s->reply_bytes != 0) {
        abort();
    }
    serve_destroy(s);
    return 0;
}
