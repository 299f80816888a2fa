/* SPDX-License-Identifier: Apache-2.0 */
/* streams.c - many answers at once in one thread: the client is one descriptor of an epoll loop.
 * Build: cc streams.c -o streams $(pkg-config --cflags --libs weft)
 * Use:   ./streams 10.77.0.1 smollm2-135m-instruct "Hello" "Who are you?" "Count to ten." */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <weft/client.h>

struct stream {
    const char *question;
    FILE *out; /* what has come so far ends up in `text` */
    char *text;
    size_t len;
};

static int failed;

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    (void)req;
    struct stream *s = user;
    fwrite(text, 1, len, s->out);
}

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    (void)req;
    struct stream *s = user;
    fclose(s->out);
    printf("[%s] %s: %s\n", s->question, result->node,
           result->status == 0 ? s->text : weft_status_text(result->status));
    free(s->text);
    failed += result->status != 0;
}

/* Until no request is open. Descriptors of your own go into the same epoll set. */
static int loop(weft_client_t *client)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, weft_client_fd(client), &event) != 0) {
        return -errno;
    }
    int open;
    do {
        epoll_wait(epoll, &event, 1, weft_client_timeout_ms(client));
        open = weft_client_process(client);
    } while (open > 0);
    return open;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s NODE MODEL QUESTION...\n", argv[0]);
        return 2;
    }
    weft_client_t *client;
    weft_client_opts_t opts = {.node = argv[1]};
    int rc = weft_client_create(&client, &opts);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], weft_status_text(rc));
        return 1;
    }
    struct stream *streams = calloc((size_t)argc, sizeof(*streams));
    for (int i = 3; i < argc && streams != NULL && rc == 0; i++) {
        struct stream *s = &streams[i];
        s->question = argv[i];
        s->out = open_memstream(&s->text, &s->len);
        weft_message_t message = {.role = "user", .text = argv[i], .len = strlen(argv[i])};
        weft_query_t query = {.model = argv[2], .messages = &message, .message_count = 1};
        rc = s->out == NULL ? -ENOMEM : weft_submit(client, &query, on_text, on_done, s, NULL);
    }
    rc = rc == 0 ? loop(client) : rc;
    if (rc != 0) {
        fprintf(stderr, "%s\n", weft_status_text(rc));
    }
    weft_client_destroy(client);
    free(streams);
    return rc != 0 || failed != 0;
}
