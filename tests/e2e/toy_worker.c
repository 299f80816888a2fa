/* SPDX-License-Identifier: Apache-2.0 */
/* toy_worker.c - a runtime that goes wrong when told to, for cases_streams.py and
 * scripts/stream-trials. Its words follow from the prompt, the seed and all words before, so that
 * an answer that went on elsewhere shows any token that is missing, wrong or given twice.
 *
 *   toy_worker PORT_SOCKET MODEL MS_PER_STEP [LOG]
 *   SIGUSR1   the model stands still, the worker answers; again: it goes on
 *   SIGUSR2   every other frame is malformed from now on; again: they are right
 *   LOG       a file for a line `job NS` or `cancel NS` each, on CLOCK_MONOTONIC
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/serve.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define ROOM 64u

static struct toy {
    weft_job_t *job; /* NULL: this place is free */
    uint64_t hash;
    uint32_t at, until;
} toys[ROOM];
static weft_load_t load = {.room = ROOM, .steps = 1};
static volatile sig_atomic_t still, garbles;
static uint32_t frames;
static FILE *told; /* NULL = nobody wants to know */

static void on_signal(int number)
{
    if (number == SIGUSR1) {
        still = !still;
    } else {
        garbles = !garbles;
    }
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    struct rng rng = {a ^ (b * UINT64_C(0x9e3779b97f4a7c15))};
    return rng_next(&rng);
}

static uint32_t token_next(const struct toy *t)
{
    return (uint32_t)mix(t->hash, 1) & 0xffff;
}

static void tell(const char *what)
{
    if (told != NULL) {
        fprintf(told, "%s %llu\n", what, (unsigned long long)clock_now_ns());
        fflush(told);
    }
}

static int on_job(weft_worker_t *w, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    (void)w, (void)user;
    if (load.room == 0 || view->part_count == 0) {
        return load.room == 0 ? WEFT_E_MESH_FULL : WEFT_E_BAD_REQUEST;
    }
    struct toy *t = toys;
    while (t->job != NULL) {
        t++;
    }
    *t = (struct toy){.job = job, .until = view->max_tokens};
    t->hash = view->temperature > 0.0f ? view->seed : 0;
    const weft_job_part_t *last = &view->parts[view->part_count - 1];
    for (size_t i = 0; i < last->len; i++) {
        t->hash = mix(t->hash, (uint8_t)last->text[i]);
    }
    for (; t->at < view->resume_count; t->at++) {
        t->hash = mix(t->hash, view->resume[t->at]);
    }
    weft_job_set_user(job, t);
    load.room--;
    tell("job");
    return 0;
}

static void end(struct toy *t, int status, int finish)
{
    weft_job_report_t report = {.status = status, .finish = finish, .new_tokens = t->at};
    weft_job_finish(t->job, &report);
    t->job = NULL;
    load.room++;
}

static void on_cancel(weft_worker_t *w, weft_job_t *job, void *user)
{
    (void)w, (void)user;
    tell("cancel");
    end(weft_job_user(job), WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED);
}

static void step(struct toy *t)
{
    if (t->at >= t->until) {
        end(t, 0, WEFT_FINISH_LENGTH);
        return;
    }
    char word[16];
    uint32_t token = token_next(t);
    int len = snprintf(word, sizeof(word), "w%u ", token);
    uint32_t before = t->job->reply.end;
    weft_job_emit(t->job, token, word, (size_t)len);
    if (garbles && t->job->reply.end != before && frames++ % 2 == 0) {
        t->job->reply.data[before - t->job->reply.base] = 0x77; /* no kind of frame */
    }
    t->hash = mix(t->hash, token);
    t->at++;
}

static void step_all(weft_worker_t *w)
{
    for (uint32_t i = 0; i < ROOM; i++) {
        if (toys[i].job != NULL) {
            step(&toys[i]);
        }
    }
    load.steps++;
    weft_worker_set_load(w, &load);
}

/* Milliseconds to wait: until the next step, or until the worker is due. */
static int wait_ms(const weft_worker_t *w, uint64_t next_ns)
{
    uint64_t now_ns = clock_now_ns();
    int due_ms = weft_worker_timeout_ms(w);
    if (load.room == ROOM || still) {
        return due_ms >= 0 && due_ms < 100 ? due_ms : 100; /* signals are looked for */
    }
    int step_ms = next_ns > now_ns ? (int)((next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS) : 0;
    return due_ms >= 0 && due_ms < step_ms ? due_ms : step_ms;
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: %s PORT_SOCKET MODEL MS_PER_STEP [LOG]\n", argv[0]);
        return 2;
    }
    told = argc == 5 ? fopen(argv[4], "a") : NULL;
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    uint64_t step_ns = strtoull(argv[3], NULL, 10) * NS_PER_MS;
    uint64_t next_ns = 0;
    weft_worker_facts_t facts = {.model = argv[2],
                                 .backend = "toy",
                                 .context_tokens = 65536,
                                 .prefill_per_second = 100000,
                                 .decode_per_second = (uint32_t)(NS_PER_S / step_ns)};
    weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel};
    weft_worker_t *w;
    int rc = weft_worker_attach(&w, argv[1], &facts, &load, &callbacks);
    while (rc == 0) {
        struct pollfd pfd = {.fd = weft_worker_fd(w), .events = POLLIN};
        poll(&pfd, 1, wait_ms(w, next_ns));
        rc = weft_worker_process(w);
        if (rc == 0 && !still && clock_now_ns() >= next_ns) {
            step_all(w);
            next_ns = clock_now_ns() + step_ns;
            rc = weft_worker_process(w); /* the words go out at once */
        }
    }
    fprintf(stderr, "%s: %s\n", argv[1], weft_status_text(rc));
    return 1;
}
