/* SPDX-License-Identifier: Apache-2.0 */
/* echo_worker.c - attaches a runtime to the node of this machine. This one's model says the last
 * message again, a word a token; put yours in the place of step().
 * Build: cc echo_worker.c -o echo_worker $(pkg-config --cflags --libs weft)
 * Use:   ./echo_worker /run/weft/port.sock echo 10     (10 ms a step) */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>
#include <weft/worker.h>

#define JOBS_MAX 1000u

static struct echo {
    weft_job_t *job; /* NULL: this place is free */
    const weft_job_view_t *view;
    const char *next, *end; /* what is still to be said */
    uint32_t words;
} jobs[JOBS_MAX];
static weft_load_t load = {.room = JOBS_MAX};

/* Takes the next word, with the space behind it. */
static size_t word_take(struct echo *e)
{
    const char *word = e->next, *space = memchr(word, ' ', (size_t)(e->end - word));
    e->next = space != NULL ? space + 1 : e->end;
    e->words++;
    return (size_t)(e->next - word);
}

static int on_job(weft_worker_t *w, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    (void)w, (void)user;
    if (load.room == 0 || view->part_count == 0) {
        return load.room == 0 ? WEFT_E_MESH_FULL : WEFT_E_BAD_REQUEST;
    }
    struct echo *e = jobs;
    while (e->job != NULL) {
        e++;
    }
    const weft_job_part_t *last = &view->parts[view->part_count - 1];
    *e = (struct echo){.job = job, .view = view, .next = last->text, .end = last->text + last->len};
    while (e->words < view->resume_count && e->next < e->end) {
        word_take(e); /* an earlier attempt has said it */
    }
    weft_job_set_user(job, e);
    load.room--;
    return 0;
}

static void end(struct echo *e, int status, int finish)
{
    weft_job_finish(e->job, &(weft_job_report_t){status, finish, .new_tokens = e->words});
    e->job = NULL;
    load.room++;
}

static void on_cancel(weft_worker_t *w, weft_job_t *job, void *user)
{
    (void)w, (void)user;
    end(weft_job_user(job), WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED);
}

/* One token, or the end. */
static void step(struct echo *e)
{
    const char *word = e->next;
    if (word == e->end || e->words >= e->view->max_tokens) {
        end(e, 0, word == e->end ? WEFT_FINISH_STOP : WEFT_FINISH_LENGTH);
    } else {
        weft_job_emit(e->job, 0, word, word_take(e)); /* no ids: its tokens are words */
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        return fprintf(stderr, "usage: %s PORT_SOCKET MODEL [MS_PER_STEP]\n", argv[0]), 2;
    }
    weft_worker_facts_t facts = {.model = argv[2],
                                 .backend = "echo",
                                 .context_tokens = 4096,
                                 .prefill_per_second = 10000,
                                 .decode_per_second = 1000};
    weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel};
    weft_worker_t *w;
    int rc = weft_worker_attach(&w, argv[1], &facts, &load, &callbacks);
    while (rc == 0) {
        struct pollfd pfd = {.fd = weft_worker_fd(w), .events = POLLIN};
        poll(&pfd, 1, load.room == JOBS_MAX ? weft_worker_timeout_ms(w) : 0);
        rc = weft_worker_process(w);
        for (struct echo *e = jobs; e < jobs + JOBS_MAX && rc == 0; e++) {
            if (e->job != NULL) {
                step(e);
            }
        }
        load.steps++;
        weft_worker_set_load(w, &load);
        poll(NULL, 0, argc > 3 ? atoi(argv[3]) : 0);
    }
    return fprintf(stderr, "%s: %s\n", argv[1], weft_status_text(rc)), 1;
}
