/* SPDX-License-Identifier: Apache-2.0 */
/* drive.c - see drive.h. One thread, one client of libweft, or http.c. */
#include "bench/load/drive.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bench/load/http.h"
#include "dataplane/client/arrival.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define WAIT_MAX_NS      NS_PER_S
#define WORD_MAX         12u
#define PROMPT_WORDS_MAX (1u << 20)
#define PROGRESS_TTY_NS  NS_PER_S
#define PROGRESS_LINE_NS (10 * NS_PER_S)
#define LATE_SUBMITS_MAX 64u /* in a row, before answers are looked at again */
#define GAPS_FIRST       4096u

/* One request under way; its sample has the rest. */
struct ticket {
    struct driver *driver;
    uint32_t index;
    uint64_t piece_ns; /* when the latest piece of text came; 0 = none yet */
};

struct driver {
    const struct drive_plan *plan;
    struct drive *drive;
    weft_client_t *client; /* one of the two */
    struct http *http;
    struct ticket *tickets;
    uint64_t start_ns;
    uint64_t told_ns;
    char *words; /* the prompt of the request that is being sent */
};

/* ---- either kind of server ---- */

static int server_open(struct driver *d)
{
    const weft_client_opts_t options = {.node = d->plan->node};
    if (strncmp(d->plan->node, "http://", 7) == 0) {
        return load_http_create(&d->http, d->plan->node);
    }
    int rc = weft_client_create(&d->client, &options);
    return rc == 0 ? client_note_arrivals(d->client) : rc;
}

static void server_close(struct driver *d)
{
    load_http_destroy(d->http);
    weft_client_destroy(d->client);
}

static int server_fd(const struct driver *d)
{
    return d->http != NULL ? load_http_fd(d->http) : weft_client_fd(d->client);
}

static int server_timeout_ms(const struct driver *d)
{
    return d->http != NULL ? load_http_timeout_ms(d->http) : weft_client_timeout_ms(d->client);
}

static int server_process(struct driver *d)
{
    return d->http != NULL ? load_http_process(d->http) : weft_client_process(d->client);
}

static int server_submit(struct driver *d, const weft_query_t *query, weft_text_fn text,
                         weft_done_fn done, void *user)
{
    return d->http != NULL ? load_http_submit(d->http, query, text, done, user)
                           : weft_submit(d->client, query, text, done, user, NULL);
}

static uint64_t since_start(const struct driver *d)
{
    return clock_now_ns() - d->start_ns;
}

/* ---- what comes back ---- */

/* When what a callback tells of was there: at the kernel's word, if it has one. How long this
 * thread then took to wake is not the mesh's time; it is noted by itself. */
static uint64_t came_ns(struct driver *d)
{
    const uint64_t now_ns = clock_now_ns();
    const uint64_t arrived_ns = d->client != NULL ? client_arrived_ns(d->client) : 0;
    if (arrived_ns == 0 || arrived_ns > now_ns || arrived_ns < d->start_ns) {
        return now_ns - d->start_ns;
    }
    hist_add(&d->drive->woken_ns, now_ns - arrived_ns);
    return arrived_ns - d->start_ns;
}

static void note_gap(struct drive *drive, uint64_t gap_ns)
{
    if (drive->gaps == drive->gaps_capacity) {
        uint32_t capacity = drive->gaps_capacity == 0 ? GAPS_FIRST : 2 * drive->gaps_capacity;
        float *grown =
            capacity <= DRIVE_GAPS_MAX ? realloc(drive->gaps_us, capacity * sizeof(*grown)) : NULL;
        if (grown == NULL) {
            return;
        }
        drive->gaps_us = grown;
        drive->gaps_capacity = capacity;
    }
    drive->gaps_us[drive->gaps++] = (float)gap_ns / 1000.0f;
}

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct ticket *t = user;
    struct drive_sample *s = &t->driver->drive->samples[t->index];
    uint64_t now_ns = came_ns(t->driver);
    now_ns = now_ns > t->piece_ns ? now_ns : t->piece_ns; /* of two clocks' words */
    (void)req, (void)text, (void)len;
    if (t->piece_ns != 0) {
        note_gap(t->driver->drive, now_ns - t->piece_ns);
    } else {
        s->first_ns = now_ns;
    }
    t->piece_ns = now_ns;
}

static uint16_t node_index(struct drive *drive, const char *name)
{
    for (uint32_t i = 0; i < drive->node_count; i++) {
        if (strcmp(drive->nodes[i], name) == 0) {
            return (uint16_t)i;
        }
    }
    if (drive->node_count == DRIVE_NODES_MAX || *name == '\0') {
        return DRIVE_NODE_NONE;
    }
    snprintf(drive->nodes[drive->node_count], sizeof(drive->nodes[0]), "%s", name);
    return (uint16_t)drive->node_count++;
}

static void on_done(weft_request_t *req, const weft_result_t *r, void *user)
{
    struct ticket *t = user;
    struct drive *drive = t->driver->drive;
    struct drive_sample *s = &drive->samples[t->index];
    (void)req;
    s->end_ns = came_ns(t->driver);
    s->status = r->status;
    s->tokens = r->new_tokens;
    s->failovers = (uint16_t)r->failovers;
    s->worker_ns = (r->queue_us + r->prefill_us) * NS_PER_US;
    s->node = node_index(drive, r->node);
    if (s->first_ns == 0 && r->first_token_us != 0) { /* a token without text */
        s->first_ns = s->sent_ns + r->first_token_us * NS_PER_US;
    } else if (s->first_ns == 0 && r->status == 0) { /* an answer without any */
        s->first_ns = s->end_ns;
    }
    drive->ended++;
}

/* ---- what goes out ---- */

/* Appends `count` words that follow from the seed; returns the end. */
static char *write_words(char *at, uint32_t count, uint64_t seed)
{
    static const char *const words[] = {"the ",  "of ",    "and ",  "to ",    "in ",   "water ",
                                        "time ", "house ", "over ", "night ", "open ", "river ",
                                        "we ",   "light ", "from ", "hand "};
    struct rng rng = {.state = seed};
    for (uint32_t i = 0; i < count; i++) {
        const char *word = words[rng_below(&rng, sizeof(words) / sizeof(words[0]))];
        at = stpcpy(at, word);
    }
    return at;
}

static uint32_t scaled(uint32_t tokens, double scale)
{
    double n = (double)tokens * scale + 0.5;
    return n < 1 ? 1 : n > PROMPT_WORDS_MAX ? PROMPT_WORDS_MAX : (uint32_t)n;
}

/* About as many tokens as the entry says, a word each; equal blocks are equal text. */
static size_t write_prompt(struct driver *d, const struct trace_entry *e, uint32_t index)
{
    const struct trace *trace = d->plan->trace;
    uint32_t left = scaled(e->input_tokens, d->plan->token_scale);
    char *at = d->words;
    for (uint32_t i = 0; left != 0 && i < e->block_count; i++) {
        uint32_t block = scaled(TRACE_BLOCK_TOKENS, d->plan->token_scale);
        block = block < left ? block : left;
        at = write_words(at, block, trace->blocks[e->block + i]);
        left -= block;
    }
    at = write_words(at, left, ~(uint64_t)index);
    return (size_t)(at - d->words);
}

static int send_one(struct driver *d, uint64_t due_ns)
{
    const struct drive_plan *p = d->plan;
    const uint32_t index = d->drive->sent;
    weft_message_t message = {.role = "user", .text = p->prompt};
    weft_query_t query = p->query;
    if (p->trace != NULL) {
        const struct trace_entry *e = &p->trace->entries[index % p->trace->count];
        message.text = d->words;
        message.len = write_prompt(d, e, index);
        query.max_tokens = scaled(e->output_tokens, p->token_scale);
    } else {
        message.len = strlen(p->prompt);
    }
    query.messages = &message;
    query.message_count = 1;
    query.seed = p->query.seed + index;
    d->tickets[index] = (struct ticket){d, index, 0};
    d->drive->samples[index] =
        (struct drive_sample){.due_ns = due_ns, .sent_ns = since_start(d), .node = DRIVE_NODE_NONE};
    int rc = server_submit(d, &query, on_text, on_done, &d->tickets[index]);
    if (rc == -EAGAIN) { /* more are open than a client can have: this one is lost */
        d->drive->samples[index].status = rc;
        d->drive->samples[index].end_ns = since_start(d);
        d->drive->ended++;
        rc = 0;
    }
    d->drive->sent += rc == 0;
    return rc;
}

/* How many requests the run has. */
static uint32_t goal(const struct driver *d)
{
    const struct drive_plan *p = d->plan;
    return p->stop != NULL && *p->stop != 0 ? d->drive->sent : p->requests;
}

/* Sends what is due, but not more than a batch. *next_ns: when to be here again, UINT64_MAX if only
 * an answer or nothing is waited for. */
static int send_due(struct driver *d, uint64_t *next_ns)
{
    const struct drive_plan *p = d->plan;
    struct drive *drive = d->drive;
    *next_ns = UINT64_MAX;
    for (uint32_t i = 0; drive->sent < goal(d); i++) {
        uint64_t now_ns = since_start(d);
        if (p->due_ns == NULL && drive->sent - drive->ended >= p->concurrency) {
            return 0;
        }
        uint64_t due_ns = p->due_ns != NULL ? p->due_ns[drive->sent] : now_ns;
        if (due_ns > now_ns || i == LATE_SUBMITS_MAX) {
            *next_ns = due_ns;
            return 0;
        }
        int rc = send_one(d, due_ns);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static void wait(const struct driver *d, uint64_t next_ns)
{
    const int client_ms = server_timeout_ms(d);
    uint64_t wait_ns = client_ms < 0 ? WAIT_MAX_NS : (uint64_t)client_ms * NS_PER_MS;
    if (next_ns != UINT64_MAX) {
        uint64_t now_ns = since_start(d);
        uint64_t left_ns =
            next_ns > now_ns + d->plan->spin_ns ? next_ns - now_ns - d->plan->spin_ns : 0;
        wait_ns = left_ns < wait_ns ? left_ns : wait_ns;
    }
    const struct timespec left = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
                                  .tv_nsec = (long)(wait_ns % NS_PER_S)};
    struct pollfd fd = {.fd = server_fd(d), .events = POLLIN};
    (void)ppoll(&fd, 1, &left, NULL);
}

/* ---- the run ---- */

static void tell(struct driver *d, bool last)
{
    const bool tty = isatty(STDERR_FILENO) == 1;
    const uint64_t now_ns = since_start(d);
    const uint64_t every_ns = tty ? PROGRESS_TTY_NS : PROGRESS_LINE_NS;
    if (!d->plan->progress || (last && d->told_ns == 0) ||
        (!last && now_ns - d->told_ns < every_ns)) {
        return;
    }
    d->told_ns = now_ns;
    fprintf(stderr, "%s%s: %.0f s, %u of %u sent, %u ended%s", tty ? "\r" : "", d->plan->label,
            (double)now_ns / 1e9, d->drive->sent, d->plan->requests, d->drive->ended,
            tty && !last ? " " : "\n");
}

static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int loop(struct driver *d)
{
    int rc = 0;
    while (rc >= 0 && d->drive->ended < goal(d)) {
        uint64_t next_ns;
        rc = send_due(d, &next_ns);
        if (rc == 0) {
            wait(d, next_ns);
            rc = server_process(d);
        }
        tell(d, false);
    }
    tell(d, true);
    return rc < 0 ? rc : 0;
}

int drive_run(struct drive *drive, const struct drive_plan *plan)
{
    struct driver d = {.plan = plan, .drive = drive};
    struct timespec ts;
    *drive = (struct drive){.samples = calloc(plan->requests, sizeof(*drive->samples))};
    d.tickets = calloc(plan->requests, sizeof(*d.tickets));
    d.words = plan->trace != NULL ? malloc((size_t)PROMPT_WORDS_MAX * WORD_MAX) : NULL;
    int rc = drive->samples == NULL || d.tickets == NULL || (plan->trace != NULL && d.words == NULL)
                 ? -ENOMEM
                 : server_open(&d);
    if (rc == 0) {
        prctl(PR_SET_TIMERSLACK, 1);
        clock_gettime(CLOCK_REALTIME, &ts);
        drive->epoch_s = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
        double cpu_s = cpu_seconds();
        d.start_ns = clock_now_ns();
        rc = loop(&d);
        drive->took_ns = since_start(&d);
        drive->cpu_s = cpu_seconds() - cpu_s;
    }
    server_close(&d);
    free(d.tickets);
    free(d.words);
    return rc;
}

void drive_deinit(struct drive *drive)
{
    free(drive->samples);
    free(drive->gaps_us);
    *drive = (struct drive){.samples = NULL};
}
