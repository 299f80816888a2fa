/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - weft-gateway: the options and the loop. One thread waits on one epoll set: the SDK, the
 * HTTP library, the census, signals, and the ends of clients. See gateway.h.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/gateway/gateway.h"
#include "dataplane/gateway/listen.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define DEFAULT_LISTEN     "8080"
#define DEFAULT_MAX_TOKENS 512u
#define EVENTS_MAX         256
#define STOP_NS            (10 * NS_PER_S) /* what is being answered may still end */

/* ---- the loop ---- */

static int watch_add(struct gateway *g, enum watch_kind kind, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &g->watches[kind]};
    return epoll_ctl(g->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static void peer_gone(struct peer *p)
{
    p->gone = true;
    if (p->exchange != NULL) {
        exchange_cancel(p->exchange);
        if (p->exchange->state != EXCHANGE_READING) {
            server_wake(p->exchange); /* the library finds the end by itself */
        }
    }
}

static void stop_begin(struct gateway *g)
{
    struct signalfd_siginfo info;
    if (read(g->signals, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return;
    }
    uint64_t now_ns = clock_now_ns();
    LOG_INFO("stopping open=%u", g->open);
    g->stop_ns = g->stopping ? now_ns : now_ns + STOP_NS; /* the second time: at once */
    g->stopping = true;
}

/* Those who wait for the census hear of it, whether it was answered or not. */
static void census_tell(struct gateway *g)
{
    struct exchange *x;
    LIST_FOREACH(x, &g->exchanges, link)
    {
        if (x->state == EXCHANGE_COUNTING && x->connection != NULL) {
            server_wake(x);
        }
    }
}

static bool census_wanted(const struct gateway *g)
{
    const struct exchange *x;
    LIST_FOREACH(x, &g->exchanges, link)
    {
        if (x->state == EXCHANGE_COUNTING && x->suspended) {
            return true;
        }
    }
    return false;
}

static void census_turn(struct gateway *g)
{
    uint64_t now_ns = clock_now_ns();
    if (g->census.fd >= 0) {
        if (census_step(&g->census, now_ns)) {
            census_tell(g);
        }
    } else if (census_wanted(g)) {
        int fd = census_ask(&g->census, now_ns);
        if (fd < 0 || watch_add(g, WATCH_CENSUS, fd) != 0) {
            census_tell(g); /* nobody is there to answer */
        }
    }
}

static int sooner(int a_ms, int b_ms)
{
    return a_ms < 0 ? b_ms : b_ms < 0 || a_ms < b_ms ? a_ms : b_ms;
}

static int until_ms(uint64_t due_ns)
{
    uint64_t now_ns = clock_now_ns();
    return due_ns == UINT64_MAX ? -1
           : due_ns <= now_ns   ? 0
                                : (int)((due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int wait_ms(struct gateway *g)
{
    int ms = sooner(weft_client_timeout_ms(g->client), server_timeout_ms(g));
    ms = sooner(ms, until_ms(census_due_ns(&g->census)));
    return sooner(ms, g->stopping ? until_ms(g->stop_ns) : -1);
}

static void turn(struct gateway *g)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(g->epoll, events, EVENTS_MAX, wait_ms(g));
    /* Ends of clients first: nothing is freed before the library runs. */
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->kind == WATCH_PEER) {
            peer_gone((struct peer *)(void *)watch);
        } else if (watch->kind == WATCH_SIGNAL) {
            stop_begin(g);
        }
    }
    weft_client_process(g->client);
    census_turn(g);
    server_run(g);
}

static void run(struct gateway *g)
{
    while (!g->stopping || (g->open > 0 && clock_now_ns() < g->stop_ns)) {
        turn(g);
        census_turn(g); /* the library may have brought somebody who wants it */
    }
}

/* ---- what is there ---- */

static int signals_open(struct gateway *g)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    g->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return g->signals >= 0 ? watch_add(g, WATCH_SIGNAL, g->signals) : -errno;
}

/* As many descriptors as may be had: one for each client. */
static void limits_raise(struct gateway *g)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < g->options.connections_max + 64u) {
        g->options.connections_max = limit.rlim_cur > 128 ? (uint32_t)limit.rlim_cur - 64 : 64;
    }
}

static int client_open(struct gateway *g)
{
    const weft_client_opts_t opts = {.node = g->options.node};
    int rc = weft_client_create(&g->client, &opts);
    if (rc != 0) {
        fprintf(stderr, "weft-gateway: node %s: %s\n", g->options.node, weft_status_text(rc));
        return rc;
    }
    return watch_add(g, WATCH_CLIENT, weft_client_fd(g->client));
}

static int http_open(struct gateway *g)
{
    g->listen_fd = listen_open(g->options.listen);
    if (g->listen_fd < 0) {
        fprintf(stderr, "weft-gateway: cannot listen on %s: %s\n", g->options.listen,
                strerror(-g->listen_fd));
        return g->listen_fd;
    }
    int rc = server_start(g);
    if (rc != 0) {
        fprintf(stderr, "weft-gateway: the HTTP server does not start\n");
    }
    return rc;
}

static int gateway_up(struct gateway *g)
{
    g->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (g->epoll < 0 || getrandom(&g->rng, sizeof(g->rng), 0) != (ssize_t)sizeof(g->rng)) {
        return -EIO;
    }
    for (int i = 0; i <= WATCH_SIGNAL; i++) {
        g->watches[i].kind = (enum watch_kind)i;
    }
    LIST_INIT(&g->exchanges);
    g->started_s = (uint64_t)time(NULL);
    census_init(&g->census, g->options.admin);
    limits_raise(g);
    int rc = signals_open(g);
    rc = rc == 0 ? client_open(g) : rc;
    return rc == 0 ? http_open(g) : rc;
}

static void gateway_down(struct gateway *g)
{
    server_stop(g);
    weft_client_destroy(g->client); /* no callbacks: what is left of exchanges is freed here */
    while (!LIST_EMPTY(&g->exchanges)) {
        exchange_free(LIST_FIRST(&g->exchanges));
    }
    census_deinit(&g->census);
    if (g->epoll >= 0) {
        close(g->epoll);
    }
}

/* ---- options ---- */

static void usage(FILE *out)
{
    fputs(
        "weft-gateway - OpenAI's HTTP API in front of a Weft mesh\n"
        "\n"
        "usage: weft-gateway --node NODE [OPTION]...\n"
        "\n"
        "  -n, --node HOST[:PORT]   any node of the mesh, or several with commas; unix:PATH is "
        "this\n"
        "                           machine's own node, PATH its sockets.port; else the\n"
        "                           environment's WEFT_NODE\n"
        "  -l, --listen [ADDR:]PORT where clients come to; default 127.0.0.1:" DEFAULT_LISTEN "\n"
        "  -a, --admin PATH         the node's sockets.admin: /v1/models and /ready ask there\n"
        "  -m, --models A,B         models to list besides those the node knows of\n"
        "      --max-tokens N       for requests that do not say; default 512\n"
        "      --connections N      clients at a time, at most; default 65536\n"
        "  -q, --quiet              no line for each request\n"
        "  -h, --help               this text\n"
        "  -V, --version            version\n"
        "\n"
        "Runs in the foreground, logs to stderr; SIGTERM or Ctrl-C lets running answers end, for\n"
        "ten seconds.\n"
        "\n"
        "example:\n"
        "  weft-gateway --node unix:/run/weft/port.sock --admin /run/weft/admin.sock\n"
        "  curl http://127.0.0.1:8080/v1/models\n",
        out);
}

enum option_id { OPT_MAX_TOKENS = 256, OPT_CONNECTIONS };

static bool u32_read(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < min || value > max) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool option_take(struct gateway_options *o, int option)
{
    switch (option) {
    case 'n':
        o->node = optarg;
        return true;
    case 'l':
        o->listen = optarg;
        return true;
    case 'a':
        o->admin = optarg;
        return true;
    case 'm':
        o->models = optarg;
        return true;
    case 'q':
        o->quiet = true;
        return true;
    case OPT_MAX_TOKENS:
        return u32_read(optarg, 1, UINT32_MAX, &o->default_max_tokens);
    case OPT_CONNECTIONS:
        return u32_read(optarg, 1, 1u << 20, &o->connections_max);
    default:
        return false;
    }
}

/* Returns -1 to go on, else the exit status. */
static int options_read(struct gateway_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"node", required_argument, NULL, 'n'},
        {"listen", required_argument, NULL, 'l'},
        {"admin", required_argument, NULL, 'a'},
        {"models", required_argument, NULL, 'm'},
        {"max-tokens", required_argument, NULL, OPT_MAX_TOKENS},
        {"connections", required_argument, NULL, OPT_CONNECTIONS},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "n:l:a:m:qhV", options, NULL)) != -1;) {
        if (option == 'h') {
            usage(stdout);
            return EXIT_SUCCESS;
        }
        if (option == 'V') {
            puts("weft-gateway " WEFT_RELEASE);
            return EXIT_SUCCESS;
        }
        if (!option_take(o, option)) {
            fputs("see weft-gateway --help\n", stderr);
            return 2;
        }
    }
    if (optind != argc || o->node == NULL || o->node[0] == '\0') {
        fputs("weft-gateway: --node is needed, or WEFT_NODE; see weft-gateway --help\n", stderr);
        return 2;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct gateway gateway = {
        .options = {.node = getenv("WEFT_NODE"),
                    .listen = DEFAULT_LISTEN,
                    .default_max_tokens = DEFAULT_MAX_TOKENS,
                    .connections_max = 65536},
        .epoll = -1,
        .listen_fd = -1,
        .signals = -1,
    };
    int status = options_read(&gateway.options, argc, argv);
    if (status >= 0) {
        return status;
    }
    log_init(LOG_LEVEL_INFO, "gateway");
    int rc = gateway_up(&gateway);
    if (rc == 0) {
        LOG_INFO("ready listen=%s node=%s", gateway.options.listen, gateway.options.node);
        run(&gateway);
    }
    gateway_down(&gateway);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
