/* SPDX-License-Identifier: Apache-2.0 */
/* toy.c - see toy.h; pace.h gives the tokens. */
#include "bench/toy.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/worker.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/load/answerer.h"
#include "bench/load/pace.h"
#include "schemas/base/clock.h"

#define TOY_ROOM        16000u
#define TOY_QUEUE       32u /* with slots: further requests that may wait */
#define ATTACH_TRIES    20
#define ATTACH_PAUSE_US 100000
#define WAIT_MAX_MS     100ull
#define DRAIN_NS        (10 * NS_PER_S)
#define LINGER_NS       (300 * NS_PER_MS) /* for the last answers' acknowledgements */

static volatile sig_atomic_t told_to_end;

struct toy {
    struct pace pace;
    uint32_t steps;
    uint64_t drain_ns; /* when it was told to end; 0 = not yet */
    uint64_t idle_ns;  /* when it then had nothing left to do */
};

static void on_signal(int number)
{
    (void)number;
    told_to_end = 1;
}

static int on_job(weft_worker_t *worker, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    struct toy *t = user;
    (void)worker;
    return t->drain_ns != 0 ? WEFT_E_DRAINING : pace_add(&t->pace, job, view, clock_now_ns());
}

static void on_cancel(weft_worker_t *worker, weft_job_t *job, void *user)
{
    struct toy *t = user;
    (void)worker;
    pace_cancel(&t->pace, job);
}

/* Until the worker or the next token needs it, to the nanosecond: a slot that is free a millisecond
 * late is a millisecond of capacity. */
static void wait_for_work(const weft_worker_t *worker, const struct toy *t)
{
    const int worker_ms = weft_worker_timeout_ms(worker);
    const uint64_t now_ns = clock_now_ns();
    const uint64_t due_ns = pace_due_ns(&t->pace, now_ns);
    /* a signal may come just before the wait */
    uint64_t left_ns = WAIT_MAX_MS * NS_PER_MS;
    if (worker_ms >= 0 && (uint64_t)worker_ms * NS_PER_MS < left_ns)
        left_ns = (uint64_t)worker_ms * NS_PER_MS;
    if (due_ns != UINT64_MAX && due_ns < now_ns + left_ns)
        left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    struct pollfd pfd = {.fd = weft_worker_fd(worker), .events = POLLIN};
    const struct timespec left = {.tv_sec = (time_t)(left_ns / NS_PER_S),
                                  .tv_nsec = (long)(left_ns % NS_PER_S)};
    (void)ppoll(&pfd, 1, &left, NULL);
}

/* Told to end: takes nothing new, and ends when all it has is done. Returns true then. */
static bool drained(struct toy *t, uint64_t now_ns)
{
    if (told_to_end && t->drain_ns == 0) {
        t->drain_ns = now_ns;
    }
    if (t->drain_ns == 0 || t->pace.open != 0) {
        t->idle_ns = 0;
        return t->drain_ns != 0 && now_ns - t->drain_ns > DRAIN_NS;
    }
    t->idle_ns = t->idle_ns != 0 ? t->idle_ns : now_ns;
    return now_ns - t->idle_ns > LINGER_NS;
}

static uint32_t room_of(const struct toy *t)
{
    uint32_t places = t->pace.plan.slots != 0 ? t->pace.plan.slots + TOY_QUEUE : TOY_ROOM;
    return t->drain_ns == 0 && t->pace.open < places ? places - t->pace.open : 0;
}

static uint32_t queue_us_of(const struct toy *t)
{
    return t->drain_ns == 0 ? (uint32_t)(pace_wait_ns(&t->pace) / NS_PER_US) : UINT32_MAX;
}

/* Until the node goes or a signal says so. */
static void serve(weft_worker_t *worker, struct toy *t)
{
    while (weft_worker_process(worker) == 0 && !drained(t, clock_now_ns())) {
        pace_step(&t->pace, clock_now_ns());
        t->steps += t->steps == UINT32_MAX ? 2 : 1; /* lives; 0 would mean unknown */
        weft_load_t load = {.room = room_of(t), .queue_us = queue_us_of(t), .steps = t->steps};
        weft_worker_set_load(worker, &load);
        if (weft_worker_process(worker) != 0) {
            return;
        }
        wait_for_work(worker, t);
    }
}

/* Attaches; the answer goes to `told`, if that is one, and then until the node goes. */
static int attach_and_serve(const char *port_socket, const char *model,
                            const struct pace_plan *plan, int told)
{
    struct toy t = {0};
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1);
    pace_init(&t.pace, plan);
    weft_worker_t *worker = NULL;
    const uint64_t interval_ns = plan->interval_ns != 0 ? plan->interval_ns : NS_PER_US;
    const weft_worker_facts_t facts = {.model = model,
                                       .backend = "toy",
                                       .context_tokens = 1u << 20,
                                       .prefill_per_second = 1000000,
                                       .decode_per_second = (uint32_t)(NS_PER_S / interval_ns) + 1};
    const weft_load_t load = {.room = TOY_ROOM, .steps = 1};
    const weft_worker_callbacks_t callbacks = {
        .on_job = on_job, .on_cancel = on_cancel, .user = &t};
    int rc = weft_worker_attach(&worker, port_socket, &facts, &load, &callbacks);
    for (int i = 0; i < ATTACH_TRIES && rc == -EPROTO; i++) { /* one before it is still leaving */
        usleep(ATTACH_PAUSE_US);
        rc = weft_worker_attach(&worker, port_socket, &facts, &load, &callbacks);
    }
    bool sent = told < 0 || write(told, &rc, sizeof(rc)) == sizeof(rc);
    if (told >= 0) {
        close(told);
    }
    if (rc == 0 && sent) {
        serve(worker, &t);
    }
    pace_deinit(&t.pace);
    weft_worker_destroy(worker);
    return rc;
}

pid_t toy_start(const char *port_socket, const char *model, const struct pace_plan *plan)
{
    int told[2];
    if (pipe(told) != 0) {
        return -errno;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(told[0]);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        _exit(attach_and_serve(port_socket, model, plan, told[1]) != 0);
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

/* ---- weft-bench toy ---- */

static int listen_and_serve(uint16_t port, const struct pace_plan *plan)
{
    struct answerer *answerer = NULL;
    int rc = answerer_start(&answerer, plan, port);
    while (rc == 0) { /* until a signal ends the process */
        pause();
    }
    return rc;
}

static void usage(FILE *out)
{
    fputs("weft-bench toy - a worker without a model: gives `x` as each token, at a fixed pace\n\n"
          "usage: weft-bench toy --port SOCKET | --listen PORT [OPTIONS]\n\n"
          "  --port SOCKET    worker socket of a node without a worker\n"
          "  --listen PORT    instead of a node: answers the SDK itself on that UDP port, without\n"
          "                   any check of who asks; the direct path, for comparisons\n"
          "  --model NAME     what it says it serves; default bench-toy\n"
          "  --pace-ms MS     to the first token and between two, with decimals; default 10\n"
          "  --slots N        requests served at a time, 32 others wait; default all\n"
          "  --stall MS/MS    no tokens for the first time at the end of each second one\n\n"
          "Runs until its node ends; on SIGTERM it takes nothing new, ends what it has, and goes.\n"
          "Exit status 1 if it cannot attach.\n\n"
          "example:\n"
          "  weft-bench toy --port /run/weft/mesh/frankfurt/port.sock --slots 4 --pace-ms 2\n",
          out);
}

static int take_option(struct pace_plan *plan, int option, const char *value)
{
    double first, second;
    switch (option) {
    case 'i':
        first = figures_number(value, 0, 60000);
        plan->interval_ns = (uint64_t)(first * (double)NS_PER_MS);
        return first >= 0 ? 0 : -1;
    case 's':
        first = figures_number(value, 1, TOY_ROOM);
        plan->slots = (uint32_t)first;
        return first >= 1 ? 0 : -1;
    default:
        if (sscanf(value, "%lf/%lf", &first, &second) != 2 || first <= 0 || second <= first) {
            return -1;
        }
        plan->stall_ns = (uint64_t)(first * (double)NS_PER_MS);
        plan->every_ns = (uint64_t)(second * (double)NS_PER_MS);
        return 0;
    }
}

int bench_toy(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},  {"listen", required_argument, NULL, 'l'},
        {"model", required_argument, NULL, 'm'}, {"pace-ms", required_argument, NULL, 'i'},
        {"slots", required_argument, NULL, 's'}, {"stall", required_argument, NULL, 'S'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    struct pace_plan plan = {.interval_ns = 10 * NS_PER_MS};
    const char *port = NULL, *model = "bench-toy";
    double listen_port = 0;
    int option, bad = 0;
    while (bad == 0 && (option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            usage(stdout);
            return EXIT_SUCCESS;
        }
        if (option == 'p') {
            port = optarg;
        } else if (option == 'm') {
            model = optarg;
        } else if (option == 'l') {
            listen_port = figures_number(optarg, 1, UINT16_MAX);
            bad = listen_port < 1;
        } else {
            bad = option == '?' ? -1 : take_option(&plan, option, optarg);
        }
    }
    if (bad != 0 || (port == NULL) == (listen_port == 0) || optind < argc) {
        fprintf(stderr, "weft-bench toy: %s\n",
                bad != 0 ? "an option has a value that cannot be used"
                         : "either --port or --listen is needed");
        return BENCH_USAGE;
    }
    int rc = port != NULL ? attach_and_serve(port, model, &plan, -1)
                          : listen_and_serve((uint16_t)listen_port, &plan);
    if (rc != 0) {
        fprintf(stderr, "weft-bench toy: %s: %s\n", port != NULL ? port : "--listen",
                weft_status_text(rc));
    }
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
