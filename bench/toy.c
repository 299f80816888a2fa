/* SPDX-License-Identifier: Apache-2.0 */
/* toy.c - see toy.h. All streams have the same pace, so a queue in order of the next token does. */
#include "bench/toy.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/wire.h>
#include <weft/worker.h>

#include "schemas/base/clock.h"

#define TOY_ROOM        16000u
#define ATTACH_TRIES    20
#define ATTACH_PAUSE_US 100000

struct toy_job {
    TAILQ_ENTRY(toy_job) link;
    weft_job_t *job;
    uint64_t due_ns;
    uint32_t given, wanted;
    bool cancelled;
};

struct toy {
    TAILQ_HEAD(toy_queue, toy_job) queue; /* rising by due_ns */
    uint32_t open;
    uint64_t interval_ns;
    uint32_t steps;
};

static int on_job(weft_worker_t *worker, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    struct toy *t = user;
    (void)worker;
    struct toy_job *j = calloc(1, sizeof(*j));
    if (j == NULL) {
        return WEFT_E_MESH_FULL;
    }
    j->job = job;
    j->given = (uint32_t)view->resume_count;
    j->wanted = view->max_tokens;
    j->due_ns = clock_now_ns() + t->interval_ns;
    weft_job_set_user(job, j);
    TAILQ_INSERT_TAIL(&t->queue, j, link);
    t->open++;
    return 0;
}

static void on_cancel(weft_worker_t *worker, weft_job_t *job, void *user)
{
    (void)worker, (void)user;
    struct toy_job *j = weft_job_user(job);
    j->cancelled = true;
}

static void step(struct toy *t, uint64_t now_ns)
{
    struct toy_job *j;
    while ((j = TAILQ_FIRST(&t->queue)) != NULL && j->due_ns <= now_ns) {
        TAILQ_REMOVE(&t->queue, j, link);
        if (!j->cancelled && j->given < j->wanted) {
            j->given++;
            (void)weft_job_emit(j->job, j->given, "x", 1);
        }
        if (!j->cancelled && j->given < j->wanted) {
            j->due_ns += t->interval_ns;
            TAILQ_INSERT_TAIL(&t->queue, j, link);
            continue;
        }
        weft_job_report_t report = {
            .finish = WEFT_FINISH_LENGTH, .prompt_tokens = 1, .new_tokens = j->given};
        weft_job_finish(j->job, &report);
        t->open--;
        free(j);
    }
}

static int wait_ms(const weft_worker_t *worker, const struct toy *t)
{
    int ms = weft_worker_timeout_ms(worker);
    const struct toy_job *j = TAILQ_FIRST(&t->queue);
    uint64_t now_ns = clock_now_ns();
    if (j != NULL) {
        uint64_t left_ns = j->due_ns > now_ns ? j->due_ns - now_ns : 0;
        int token_ms = (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS);
        ms = ms < 0 || token_ms < ms ? token_ms : ms;
    }
    return ms;
}

/* Until the node goes or the parent does. */
static void serve(weft_worker_t *worker, struct toy *t)
{
    while (weft_worker_process(worker) == 0) {
        step(t, clock_now_ns());
        t->steps += t->steps == UINT32_MAX ? 2 : 1; /* lives; 0 would mean unknown */
        weft_load_t load = {.room = t->open < TOY_ROOM ? TOY_ROOM - t->open : 0, .steps = t->steps};
        weft_worker_set_load(worker, &load);
        if (weft_worker_process(worker) != 0) {
            return;
        }
        struct pollfd pfd = {.fd = weft_worker_fd(worker), .events = POLLIN};
        (void)poll(&pfd, 1, wait_ms(worker, t));
    }
}

static int child(const char *port_socket, const char *model, uint32_t interval_ms, int told)
{
    struct toy t = {.interval_ns = interval_ms * NS_PER_MS};
    TAILQ_INIT(&t.queue);
    weft_worker_t *worker = NULL;
    const weft_worker_facts_t facts = {.model = model,
                                       .backend = "toy",
                                       .context_tokens = 1u << 20,
                                       .prefill_per_second = 1000000,
                                       .decode_per_second = 1000 / interval_ms + 1};
    const weft_load_t load = {.room = TOY_ROOM, .steps = 1};
    const weft_worker_callbacks_t callbacks = {
        .on_job = on_job, .on_cancel = on_cancel, .user = &t};
    int rc = weft_worker_attach(&worker, port_socket, &facts, &load, &callbacks);
    for (int i = 0; i < ATTACH_TRIES && rc == -EPROTO; i++) { /* one before it is still leaving */
        usleep(ATTACH_PAUSE_US);
        rc = weft_worker_attach(&worker, port_socket, &facts, &load, &callbacks);
    }
    bool sent = write(told, &rc, sizeof(rc)) == sizeof(rc);
    close(told);
    if (rc == 0 && sent) {
        serve(worker, &t);
    }
    weft_worker_destroy(worker);
    return rc != 0;
}

pid_t toy_start(const char *port_socket, const char *model, uint32_t interval_ms)
{
    int told[2];
    if (pipe(told) != 0) {
        return -errno;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(told[0]);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        _exit(child(port_socket, model, interval_ms, told[1]));
    }
    int rc = pid < 0 ? -errno : -EPIPE;
    close(told[1]);
    if (pid > 0 && read(told[0], &rc, sizeof(rc)) != sizeof(rc)) {
        rc = -EPIPE;
    }
    close(told[0]);
    if (pid > 0 && rc != 0) {
        toy_stop(pid);
    }
    return rc == 0 ? pid : rc;
}

void toy_stop(pid_t pid)
{
    if (pid > 0) {
        kill(pid, SIGTERM);
        (void)waitpid(pid, NULL, 0);
    }
}
