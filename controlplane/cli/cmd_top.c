/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_top.c - `weft top`: asks admin sockets once a second and shows what changes. top.c makes the
 * view; here are the clock, the sockets and the terminal, which is left as it was found.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/cli/top.h"
#include "schemas/base/clock.h"

#define ANSWER_MS   500
#define PERIOD_MS   1000
#define SCREEN_ON   "\x1b[?1049h\x1b[?25l"
#define SCREEN_OFF  "\x1b[?25h\x1b[?1049l"
#define SCREEN_HOME "\x1b[H"
#define LINE_REST   "\x1b[K" /* erases to the end of the line */
#define SCREEN_REST "\x1b[J"

const char cmd_top_usage[] =
    "[--socket ADMIN.sock]... [OPTION]...\n"
    "\n"
    "Shows rates of one or several nodes of this machine, the drops by reason, and the members\n"
    "as the first of them sees them. Ctrl-C ends it.\n"
    "\n"
    "  --socket PATH    a node's sockets.admin; up to 64 of them; default as `weft status` has it\n"
    "  --interval S     seconds between two looks, 0.1 to 3600, default 1\n"
    "  --once           two looks one interval apart, printed once\n"
    "  --json           one JSON object a look instead of text\n"
    "\n"
    "REQ/s requests placed, RECV/s packets taken in, RELAY/s sent on to other nodes, RETN/s sent\n"
    "to clients, IDLE% of the busiest lcore, p99 us a burst's time from rx to tx\n"
    "\n"
    "examples:\n"
    "  weft top\n"
    "  weft top --once --json\n"
    "  weft top --socket /run/weft/mesh/tokyo/admin.sock --interval 5\n"
    "\n"
    "exit: 0 ended by Ctrl-C or --once, 1 no node answered (--once), 2 wrong usage\n";

struct top_options {
    const char *sockets[TOP_NODES_MAX];
    unsigned socket_count;
    uint64_t period_ns;
    bool once;
    bool json;
};

static volatile sig_atomic_t stop_wanted;

static void on_stop(int signal)
{
    (void)signal;
    stop_wanted = 1;
}

/* Only there to end the wait: the size is asked for at each look. */
static void on_resize(int signal)
{
    (void)signal;
}

/* Blocked but for the wait itself, so that none is lost between a test and the wait. */
static void signals_take(sigset_t *waiting)
{
    sigset_t mine;
    struct sigaction stop = {.sa_handler = on_stop};
    struct sigaction resize = {.sa_handler = on_resize};
    sigemptyset(&mine);
    sigaddset(&mine, SIGINT);
    sigaddset(&mine, SIGTERM);
    sigaddset(&mine, SIGHUP);
    sigaddset(&mine, SIGWINCH);
    sigprocmask(SIG_BLOCK, &mine, waiting);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGWINCH, &resize, NULL);
}

/* Until `at_ns` or a signal. True: the time has come. */
static bool wait_until(uint64_t at_ns, const sigset_t *waiting)
{
    uint64_t now_ns = clock_now_ns();
    if (now_ns >= at_ns) {
        return true;
    }
    struct timespec left = {.tv_sec = (time_t)((at_ns - now_ns) / NS_PER_S),
                            .tv_nsec = (long)((at_ns - now_ns) % NS_PER_S)};
    return ppoll(NULL, 0, &left, waiting) == 0;
}

/* Returns how many answered. */
static unsigned look(struct top *top, const struct top_options *o)
{
    unsigned answered = 0;
    for (unsigned i = 0; i < o->socket_count; i++) {
        json_t *status;
        int rc = ask(o->sockets[i], "status", ANSWER_MS, &status);
        top_feed(top, i, status, rc, clock_now_ns());
        answered += rc == 0 ? 1 : 0;
    }
    return answered;
}

static void show(const struct top *top, const struct top_options *o, bool screen)
{
    struct top_format format = {.end = screen ? LINE_REST : ""};
    struct winsize size;
    json_t *view = top_view(top);
    if (screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 1) {
        format.width = size.ws_col;
        format.height = size.ws_row - 1u; /* the cursor's line stays free: nothing scrolls */
    }
    if (o->json) {
        json_dumpf(view, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        fputs(screen ? SCREEN_HOME : "", stdout);
        top_print(view, &format, stdout);
        fputs(screen ? SCREEN_REST : !o->once ? "\n" : "", stdout);
    }
    fflush(stdout);
    json_decref(view);
}

static int top_once(struct top *top, const struct top_options *o, const sigset_t *waiting)
{
    uint64_t at_ns = clock_now_ns() + o->period_ns;
    look(top, o);
    while (!stop_wanted && !wait_until(at_ns, waiting)) {
    }
    if (stop_wanted) {
        return CLI_INTERRUPTED;
    }
    unsigned answered = look(top, o);
    show(top, o, false);
    return answered > 0 ? CLI_OK : CLI_ERROR;
}

static int top_watch(struct top *top, const struct top_options *o, const sigset_t *waiting)
{
    const char *term = getenv("TERM");
    bool dumb = term == NULL || strcmp(term, "dumb") == 0;
    bool screen = !o->json && !dumb && isatty(STDOUT_FILENO);
    uint64_t at_ns = clock_now_ns();
    fputs(screen ? SCREEN_ON : "", stdout);
    while (!stop_wanted && !ferror(stdout)) {
        look(top, o);
        show(top, o, screen);
        uint64_t now_ns = clock_now_ns();
        at_ns = at_ns + o->period_ns > now_ns ? at_ns + o->period_ns : now_ns;
        while (!stop_wanted && !wait_until(at_ns, waiting)) {
            if (screen && !stop_wanted) {
                show(top, o, screen); /* another size */
            }
        }
    }
    fputs(screen ? SCREEN_OFF : "", stdout);
    fflush(stdout);
    return CLI_OK;
}

/* Returns CLI_OK or CLI_USAGE. */
static int options_read(struct top_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},
        {"interval", required_argument, NULL, 'i'},
        {"once", no_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    double seconds;
    opterr = 0; /* own words */
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's' && o->socket_count < TOP_NODES_MAX) {
            o->sockets[o->socket_count++] = optarg;
        } else if (c == 'i' && cli_real(optarg, 0.1, 3600, &seconds)) {
            o->period_ns = (uint64_t)(seconds * (double)NS_PER_S);
        } else if (c == 'o') {
            o->once = true;
        } else if (c == 'j') {
            o->json = true;
        } else {
            return cli_usage_error("top", "%s is no option, or its value not right",
                                   argv[optind - 1]);
        }
    }
    if (optind != argc) {
        return cli_usage_error("top", "%s: takes options only", argv[optind]);
    }
    if (o->socket_count == 0 &&
        (o->sockets[o->socket_count++] = node_socket(NULL, "top")) == NULL) {
        return CLI_ERROR;
    }
    return CLI_OK;
}

int cmd_top(int argc, char **argv)
{
    struct top_options o = {.period_ns = PERIOD_MS * NS_PER_MS};
    sigset_t waiting;
    int rc = options_read(&o, argc, argv);
    if (rc != CLI_OK) {
        return rc;
    }
    struct top *top = top_create(o.sockets, o.socket_count);
    if (top == NULL) {
        fputs("weft top: out of memory\n", stderr);
        return CLI_ERROR;
    }
    signals_take(&waiting);
    rc = o.once ? top_once(top, &o, &waiting) : top_watch(top, &o, &waiting);
    top_destroy(top);
    return rc;
}
