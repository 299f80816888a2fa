/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway.c - weft-gateway: the options, the files, and what is up when. The program may include
 * from both planes: questions to /v1/route are answered by what `weft query` uses. gateway/loop.c
 * has the loop; see gateway/gateway.h.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
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

#include "controlplane/cli/query.h"
#include "dataplane/gateway/gateway.h"
#include "dataplane/gateway/listen.h"
#include "dataplane/gateway/otlp_io.h"
#include "dataplane/gateway/tls.h"
#include "kernels/model/grammar.h"
#include "schemas/base/log.h"

#define DEFAULT_LISTEN     "8080"
#define DEFAULT_MAX_TOKENS 512u
#define KEPT_BLOCK_BYTES   (4 << 20)  /* larger ones go back to the system at once */
#define KEPT_BYTES         (32 << 20) /* free at the end of the heap */

/* ---- what the loop needs from elsewhere ---- */

/* What the worker will do with it, tried here: there it could not say which word of a schema is
 * wrong. */
static bool check_format(const weft_query_t *query, struct api_error *error)
{
    char why[256];
    struct grammar *grammar;
    bool call = query->format == WEFT_FORMAT_CALL;
    const char *text = call ? query->messages[0].text : query->format_text;
    const struct grammar_spec spec = {
        .kind = (enum grammar_kind)query->format,
        .text = text,
        .len = call           ? query->messages[0].len
               : text != NULL ? strlen(text)
                              : 0,
        .tool = query->format_text,
        .arguments = "arguments",
    };
    int rc = grammar_compile(&grammar, &spec, why, sizeof(why));
    grammar_destroy(grammar);
    if (rc == -ENOMEM) {
        error_of_status(error, rc);
    } else if (rc != 0) {
        error_bad(error, call ? "tools" : "response_format", "%s", why);
        error->code = "unsupported_schema";
    }
    return rc == 0;
}

/* What `weft query` would say. */
static json_t *dry_run(const json_t *question, const json_t *status, struct api_error *error)
{
    struct query query;
    char why[QUERY_WHY_MAX] = "";
    query_init(&query);
    if (!query_read(&query, question, why)) {
        error_bad(error, NULL, "%s.", why);
        return NULL;
    }
    if (query.model[0] == '\0') {
        error_bad(error, "model", "A query needs a model.");
        return NULL;
    }
    json_t *answer = query_answer(&query, status, why);
    if (answer == NULL) {
        error_set(error, MHD_HTTP_SERVICE_UNAVAILABLE, "server_error", "node_unreachable", true,
                  why);
    }
    return answer;
}

/* Reads --keys. Returns 0 or -errno, having said why. */
static int keys_open(struct gateway *g)
{
    char text[65536];
    unsigned line = 0;
    if (g->options.keys == NULL) {
        return 0;
    }
    FILE *file = fopen(g->options.keys, "re");
    size_t len = file != NULL ? fread(text, 1, sizeof(text), file) : 0;
    int rc = file == NULL ? -errno : len == sizeof(text) ? -EFBIG : 0;
    if (file != NULL) {
        fclose(file);
    }
    if (rc != 0) {
        fprintf(stderr, "weft-gateway: %s: %s\n", g->options.keys, strerror(-rc));
    } else if (!keys_read(&g->keys, text, len, &line) || g->keys.count == 0) {
        fprintf(stderr, "weft-gateway: %s:%u: a line is NAME SHA256, and there must be one\n",
                g->options.keys, line);
        rc = -EINVAL;
    }
    return rc;
}

/* ---- what is there ---- */

static int signals_open(struct gateway *g)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    g->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return g->signals >= 0 ? gateway_loop_watch(g, WATCH_SIGNAL, g->signals) : -errno;
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
        fprintf(stderr, "weft-gateway: node %s: %s\n", g->options.node,
                rc == -EINVAL                          ? "no such host, or not HOST[:PORT]"
                : rc == -ENOENT || rc == -ECONNREFUSED ? "no node listens there; is weftd running?"
                                                       : weft_status_text(rc));
        return rc;
    }
    return gateway_loop_watch(g, WATCH_CLIENT, weft_client_fd(g->client));
}

static const char *listen_hint(int rc)
{
    switch (rc) {
    case -EADDRINUSE:
        return "; another program has it, --listen takes another port";
    case -EADDRNOTAVAIL:
        return "; this machine has no such address";
    case -EACCES:
        return "; ports below 1024 need root or CAP_NET_BIND_SERVICE";
    case -EINVAL:
        return "; it takes [ADDR:]PORT, the address in numbers";
    default:
        return "";
    }
}

static int http_open(struct gateway *g)
{
    const struct gateway_options *o = &g->options;
    if (o->tls_cert != NULL && tls_load(o->tls_cert, o->tls_key) != 0) {
        return -EINVAL;
    }
    g->listen_fd = listen_open(g->options.listen);
    if (g->listen_fd < 0) {
        fprintf(stderr, "weft-gateway: cannot listen on %s: %s%s\n", g->options.listen,
                strerror(-g->listen_fd), listen_hint(g->listen_fd));
        g->misplaced = true;
        return g->listen_fd;
    }
    int rc = server_start(g);
    if (rc != 0) {
        fprintf(stderr, "weft-gateway: the HTTP server does not start\n");
    }
    return rc;
}

/* Behind signals_open(): the thread must not take them. */
static int otlp_open(struct gateway *g)
{
    int rc = g->options.otlp != NULL ? otlp_io_start(&g->otlp, g->options.otlp) : 0;
    if (rc != 0) {
        fprintf(stderr, "weft-gateway: --otlp %s: %s\n", g->options.otlp, strerror(-rc));
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
    int rc = keys_open(g);
    rc = rc == 0 ? peers_io_open(g) : rc;
    rc = rc == 0 ? signals_open(g) : rc;
    rc = rc == 0 ? client_open(g) : rc;
    rc = rc == 0 ? otlp_open(g) : rc;
    return rc == 0 ? http_open(g) : rc;
}

static void gateway_down(struct gateway *g)
{
    server_stop(g);
    weft_client_destroy(g->client); /* no callbacks: what is left of exchanges is freed here */
    while (!LIST_EMPTY(&g->exchanges)) {
        exchange_free(LIST_FIRST(&g->exchanges));
    }
    otlp_io_stop(g->otlp);
    census_deinit(&g->census);
    peers_io_close(g);
    tls_unload();
    keys_deinit(&g->keys);
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
        "  -k, --keys FILE          only for holders of these keys: lines NAME SHA256, and then\n"
        "                           `register` for those who may register nodes and services\n"
        "  --state DIR              keeps there what was registered; default: until it ends\n"
        "  --new-key NAME           draw a key: prints it and its line for that file, and stops\n"
        "  --tls-cert FILE          HTTPS in place of HTTP: the certificate, then those up to its\n"
        "                           root's (PEM); SIGHUP reads it and the key again\n"
        "  --tls-key FILE           its key (PEM)\n"
        "  --cors ORIGIN            pages from there may ask, too; `*`: from anywhere\n"
        "  --otlp URL               send traces to this OpenTelemetry collector, as in\n"
        "                           http://127.0.0.1:4318; default: none are sent\n"
        "  --otlp-ratio R           of traces that begin here, so many: 0 to 1; default 1\n"
        "  --experimental-components   stages of one inference at different nodes\n"
        "  --max-tokens N           for requests that do not say; default 512\n"
        "  --connections N          clients at a time, at most; default 65536\n"
        "  -q, --quiet              no line for each request\n"
        "  -h, --help               this text\n"
        "  -V, --version            version\n"
        "\n"
        "Runs in the foreground, logs to stderr; SIGTERM or Ctrl-C lets running answers end, for\n"
        "ten seconds.\n"
        "\n"
        "exit: 0 stopped, 1 error, 2 wrong usage, or nobody can listen there\n"
        "\n"
        "example:\n"
        "  weft-gateway --node unix:/run/weft/port.sock --admin /run/weft/admin.sock\n"
        "  curl http://127.0.0.1:8080/v1/models\n",
        out);
}

enum option_id {
    OPT_MAX_TOKENS = 256,
    OPT_CONNECTIONS,
    OPT_NEW_KEY,
    OPT_CORS,
    OPT_OTLP,
    OPT_OTLP_RATIO,
    OPT_STATE,
    OPT_CERT,
    OPT_KEY,
    OPT_COMPONENTS
};

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

static bool ratio_read(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return text[0] != '\0' && *end == '\0' && *out >= 0 && *out <= 1;
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
    case 'k':
        o->keys = optarg;
        return true;
    case 'q':
        o->quiet = true;
        return true;
    case OPT_CORS:
        o->cors = optarg;
        return strpbrk(optarg, "\r\n") == NULL;
    case OPT_OTLP:
        o->otlp = optarg;
        return true;
    case OPT_OTLP_RATIO:
        return ratio_read(optarg, &o->otlp_ratio);
    case OPT_STATE:
        o->state = optarg;
        return optarg[0] != '\0';
    case OPT_CERT:
        o->tls_cert = optarg;
        return true;
    case OPT_KEY:
        o->tls_key = optarg;
        return true;
    case OPT_COMPONENTS:
        o->components = true;
        return true;
    case OPT_MAX_TOKENS:
        return u32_read(optarg, 1, UINT32_MAX, &o->default_max_tokens);
    case OPT_CONNECTIONS:
        return u32_read(optarg, 1, 1u << 20, &o->connections_max);
    default:
        return false;
    }
}

static int key_draw(const char *name)
{
    char key[64];
    char line[KEYS_NAME_MAX + 80];
    if (strlen(name) == 0 || strlen(name) >= KEYS_NAME_MAX || strpbrk(name, " \t\r\n#") != NULL) {
        fputs("weft-gateway: a key's name is a word\n", stderr);
        return 2;
    }
    keys_draw(name, key, line);
    printf("%s\n%s\n", key, line);
    return EXIT_SUCCESS;
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
        {"keys", required_argument, NULL, 'k'},
        {"new-key", required_argument, NULL, OPT_NEW_KEY},
        {"cors", required_argument, NULL, OPT_CORS},
        {"otlp", required_argument, NULL, OPT_OTLP},
        {"otlp-ratio", required_argument, NULL, OPT_OTLP_RATIO},
        {"state", required_argument, NULL, OPT_STATE},
        {"tls-cert", required_argument, NULL, OPT_CERT},
        {"tls-key", required_argument, NULL, OPT_KEY},
        {"experimental-components", no_argument, NULL, OPT_COMPONENTS},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "n:l:a:m:k:qhV", options, NULL)) != -1;) {
        if (option == 'h') {
            usage(stdout);
            return EXIT_SUCCESS;
        }
        if (option == 'V') {
            puts("weft-gateway " WEFT_RELEASE);
            return EXIT_SUCCESS;
        }
        if (option == OPT_NEW_KEY) {
            return key_draw(optarg);
        }
        if (!option_take(o, option)) {
            fputs("see weft-gateway --help\n", stderr);
            return 2;
        }
    }
    if ((o->tls_cert == NULL) != (o->tls_key == NULL)) {
        fputs("weft-gateway: --tls-cert and --tls-key belong together\n", stderr);
        return 2;
    }
    if (optind != argc || o->node == NULL || o->node[0] == '\0') {
        fputs("weft-gateway: --node is needed, or WEFT_NODE; see weft-gateway --help\n", stderr);
        return 2;
    }
    return -1;
}

/* A body of hundreds of kilobytes is held three times before it is on its way. What one has left is
 * kept for the next: to give it back and be given it again, zeroed, costs more than to copy it. */
static void memory_keep(void)
{
    mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

int main(int argc, char **argv)
{
    memory_keep();
    struct gateway gateway = {
        .options = {.node = getenv("WEFT_NODE"),
                    .listen = DEFAULT_LISTEN,
                    .otlp_ratio = 1,
                    .default_max_tokens = DEFAULT_MAX_TOKENS,
                    .connections_max = 65536},
        .check_format = check_format,
        .dry_run = dry_run,
        .epoll = -1,
        .listen_fd = -1,
        .signals = -1,
        .census = {.question = {.fd = -1}},
        .peers = {.join = {.fd = -1}},
    };
    int status = options_read(&gateway.options, argc, argv);
    if (status >= 0) {
        return status;
    }
    log_init(LOG_LEVEL_INFO, "gateway");
    int rc = gateway_up(&gateway);
    if (rc == 0) {
        LOG_INFO("ready listen=%s scheme=%s node=%s", gateway.options.listen,
                 gateway.options.tls_cert != NULL ? "https" : "http", gateway.options.node);
        gateway_loop_run(&gateway);
    }
    gateway_down(&gateway);
    return rc == 0 ? EXIT_SUCCESS : gateway.misplaced ? 2 : EXIT_FAILURE;
}
