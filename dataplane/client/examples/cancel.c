/* SPDX-License-Identifier: Apache-2.0 */
/* cancel.c - takes the first N pieces of an answer, then tells the worker to stop.
 * Build: cc cancel.c -o cancel $(pkg-config --cflags --libs weft)
 * Use:   ./cancel 10.77.0.1 smollm2-135m-instruct "Tell me a very long story." 10 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/client.h>

struct state {
    int left;    /* pieces still wanted */
    bool done;   /* on_done() was called */
    int status;  /* how it ended */
    char by[32]; /* who served */
};

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct state *s = user;
    if (s->left == 0) {
        return; /* was on its way already */
    }
    fwrite(text, 1, len, stdout);
    if (--s->left == 0) {
        weft_cancel(req);
    }
}

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    (void)req;
    struct state *s = user;
    s->done = true;
    s->status = result->status;
    memcpy(s->by, result->node, sizeof(s->by));
}

int main(int argc, char **argv)
{
    int pieces = argc == 5 ? atoi(argv[4]) : 0;
    if (pieces <= 0) {
        fprintf(stderr, "usage: %s NODE MODEL QUESTION PIECES\n", argv[0]);
        return 2;
    }
    weft_client_t *client;
    weft_client_opts_t opts = {.node = argv[1]};
    int rc = weft_client_create(&client, &opts);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], weft_status_text(rc));
        return 1;
    }
    struct state state = {.left = pieces};
    weft_message_t message = {.role = "user", .text = argv[3], .len = strlen(argv[3])};
    weft_query_t query = {
        .model = argv[2], .messages = &message, .message_count = 1, .max_tokens = 1000};
    rc = weft_submit(client, &query, on_text, on_done, &state, NULL);
    while (rc == 0 && !state.done) {
        struct pollfd pfd = {.fd = weft_client_fd(client), .events = POLLIN};
        poll(&pfd, 1, weft_client_timeout_ms(client));
        weft_client_process(client);
    }
    rc = rc != 0 ? rc : state.status;
    printf("\n[%s: %s]\n", state.by, weft_status_text(rc));
    weft_client_destroy(client);
    return rc != 0 && rc != WEFT_E_CANCELLED;
}
