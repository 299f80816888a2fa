/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - weft-impair: sockets, timer, signals and the command line around switch.h. One thread:
 * read a burst from each port, hand out what is due, sleep until the next of either. */
#include "bench/impair/control.h"
#include "bench/impair/matrix.h"
#include "bench/impair/port.h"
#include "bench/impair/switch.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MEMORY_MIB     64u
#define MEMORY_MIB_MAX 4096u
#define EVENTS_MAX     32
#define FRAME_EXTRA    32u /* Ethernet header and tags */
#define WHY_MAX        4608

struct impair {
    struct impair_matrix matrix;
    struct impair_switch *sw;
    struct impair_port ports[IMPAIR_PORTS_MAX];
    struct impair_burst burst;
    struct control control;
    const char *interfaces[IMPAIR_PORTS_MAX];
    const char *matrix_path;
    const char *socket_path;
    uint32_t memory_mib;
    uint64_t seed; /* that the switch began with; later files do not change it */
    bool seeded;   /* on the command line */
    bool stop;
    int epoll;
    int timer;
    int signals;
};

static void usage(FILE *out)
{
    fputs("weft-impair - a switch in user space whose links are as bad as you say\n\n"
          "usage: weft-impair COMMAND ...\n\n"
          "  run    --port NAME=INTERFACE ...: joins interfaces instead of a bridge (CAP_NET_RAW)\n"
          "  tell   SOCKET WORD...: changes a running one and prints its JSON answer\n"
          "  check  FILE NAME...: reads a file of rules for ports of these names\n\n"
          "Options of run:\n\n"
          "  --port NAME=INTERFACE  a port and its name in the rules; 64 at most\n"
          "  --matrix FILE          the rules; SIGHUP reads them again. Default: perfect links\n"
          "  --socket PATH          where `tell` finds it\n"
          "  --seed N               instead of the file's\n"
          "  --memory-mib N         for frames under way; default 64\n\n"
          "What tell takes:\n\n"
          "  rule      LINE: one more, as in the file\n"
          "  load      PATH: another file\n"
          "  reload    the same file again\n"
          "  counters  per pair and port; SIGUSR1 prints them to stdout\n"
          "  reset     counters from zero\n\n"
          "A line is FROM -> TO, FROM <-> TO (names with commas, or *) or default, then words:\n\n"
          "  delay      delay=120ms: one way; ns, us, ms, s\n"
          "  jitter     jitter=5ms/normal: uniform, normal or pareto\n"
          "  order      order=keep: jitter lets no frame overtake another\n"
          "  loss       loss=10%: each frame by itself\n"
          "  burst      burst=1%/25%/100%: chances that a burst begins, ends, and of loss within\n"
          "  duplicate  duplicate=1%: a second copy\n"
          "  reorder    reorder=5%/20ms: this share is held back so much longer\n"
          "  flip       flip=0.01%/repair: bit errors per byte; the checksum made right again\n"
          "  rate       rate=10mbit/64KiB/32KiB: with its queue, and the backlog that is marked\n"
          "  mtu        mtu=1280/tell: longer packets vanish; the sender is told\n"
          "  cut        cut=yes: nothing passes\n\n"
          "Other lines are `latency RTT.csv tokyo=3 ...` and `seed 7`.\n"
          "bench/impair/README.md has it all.\n\n"
          "examples:\n"
          "  weft-impair run --port a=veth-a --port b=veth-b --matrix lossy.txt --socket /run/i\n"
          "  weft-impair tell /run/i rule 'a -> b cut=yes'\n"
          "  weft-impair tell /run/i counters\n"
          "  weft-impair check lossy.txt a b\n",
          out);
}

/* ---- answers -------------------------------------------------------------------------------- */
/* A JSON string, quotes included. */
static void put_string(FILE *out, const char *text)
{
    putc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            putc('\\', out);
        }
        if (c < 0x20) {
            fprintf(out, "\\u%04x", c);
        } else {
            putc(c, out);
        }
    }
    putc('"', out);
}

static void put_pairs(const struct impair *im, FILE *out)
{
    const char *comma = "";
    const struct impair_matrix *m = &im->matrix;
    for (uint32_t i = 0; i < m->ports * m->ports; i++) {
        uint32_t from = i / m->ports, to = i % m->ports;
        const struct impair_counters *c = impair_switch_counters(im->sw, from, to);
        if (c->frames == 0) {
            continue;
        }
        fprintf(out, "%s\n  {\"from\": \"%s\", \"to\": \"%s\"", comma, m->names[from],
                m->names[to]);
#define X(name) fprintf(out, ", \"" #name "\": %" PRIu64, c->name);
        IMPAIR_COUNTERS(X)
#undef X
        putc('}', out);
        comma = ",";
    }
}

static void put_counters(struct impair *im, FILE *out)
{
    fprintf(out, "{\"ok\": true, \"under_way\": %u, \"seed\": %" PRIu64 ", \"pairs\": [",
            impair_switch_under_way(im->sw), im->seed);
    put_pairs(im, out);
    fputs("],\n \"ports\": [", out);
    for (uint32_t i = 0; i < im->matrix.ports; i++) {
        impair_port_overrun(&im->ports[i]);
        const struct impair_port_counters *c = &im->ports[i].counters;
        fprintf(out,
                "%s\n  {\"name\": \"%s\", \"interface\": \"%s\", \"received\": %" PRIu64
                ", \"sent\": %" PRIu64 ", \"finished\": %" PRIu64 ", \"merged\": %" PRIu64
                ", \"truncated\": %" PRIu64 ", \"send_failed\": %" PRIu64 ", \"overrun\": %" PRIu64
                "}",
                i != 0 ? "," : "", im->matrix.names[i], im->interfaces[i], c->received, c->sent,
                c->finished, c->merged, c->truncated, c->send_failed, c->overrun);
    }
    fputs("]}\n", out);
}

static void apply_rules(struct impair *im)
{
    for (uint32_t from = 0; from < im->matrix.ports; from++) {
        for (uint32_t to = 0; to < im->matrix.ports; to++) {
            impair_switch_rule(im->sw, from, to, &im->matrix.rules[from][to]);
        }
    }
}

static int load(struct impair *im, const char *path, char *why)
{
    uint64_t seed = im->matrix.seed;
    int rc = impair_matrix_load(&im->matrix, path, why, WHY_MAX);
    if (im->seeded) {
        im->matrix.seed = seed;
    }
    return rc;
}

static int change(struct impair *im, char *line, char *why)
{
    struct impair_matrix *fresh = malloc(sizeof(*fresh));
    if (fresh == NULL) {
        snprintf(why, WHY_MAX, "out of memory");
        return -ENOMEM;
    }
    *fresh = im->matrix;
    int rc = impair_matrix_line(fresh, line, ".", why, WHY_MAX);
    if (rc == 0) {
        im->matrix = *fresh;
    }
    free(fresh);
    return rc;
}

/* One command; 0, or a negative errno with a sentence in why. */
static int obey(struct impair *im, char *line, char *why)
{
    int rc;
    if (strncmp(line, "rule ", 5) == 0) {
        rc = change(im, line + 5, why);
    } else if (strncmp(line, "load ", 5) == 0) {
        rc = load(im, line + 5, why);
    } else if (strcmp(line, "reload") == 0 && im->matrix_path != NULL) {
        rc = load(im, im->matrix_path, why);
    } else if (strcmp(line, "reset") == 0) {
        impair_switch_reset_counters(im->sw);
        for (uint32_t i = 0; i < im->matrix.ports; i++) {
            impair_port_overrun(&im->ports[i]);
            im->ports[i].counters = (struct impair_port_counters){0};
        }
        return 0;
    } else {
        snprintf(why, WHY_MAX, "%s", "commands: rule LINE, load PATH, reload, counters, reset");
        rc = -EINVAL;
    }
    if (rc == 0) {
        apply_rules(im);
    }
    return rc;
}

static char *answer(void *context, char *line)
{
    struct impair *im = context;
    char *text = NULL;
    size_t size = 0;
    char why[WHY_MAX] = "";
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return NULL;
    }
    if (strcmp(line, "counters") == 0) {
        put_counters(im, out);
    } else if (obey(im, line, why) == 0) {
        fputs("{\"ok\": true}\n", out);
    } else {
        fputs("{\"error\": ", out);
        put_string(out, why);
        fputs("}\n", out);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- running -------------------------------------------------------------------------------- */
static void hand_out(struct impair *im)
{
    struct impair_out out;
    while (impair_switch_pop(im->sw, clock_now_ns(), &out)) {
        impair_port_send(&im->ports[out.to], out.frame, out.size);
    }
}

static void take_in(struct impair *im, struct impair_port *port)
{
    uint32_t index = (uint32_t)(port - im->ports);
    uint64_t merged = port->counters.merged;
    impair_port_receive(port, &im->burst); /* level-triggered: the rest comes next turn */
    if (merged == 0 && port->counters.merged != 0) {
        LOG_WARN("port %s: several packets in one, let go of. On the interface of the "
                 "host behind it: ethtool -K INTERFACE tx off",
                 im->matrix.names[index]);
    }
    uint64_t now_ns = clock_now_ns();
    for (uint32_t i = 0; i < im->burst.count; i++) {
        impair_switch_push(im->sw, index, im->burst.frames[i], im->burst.sizes[i], now_ns);
    }
}

static void take_signals(struct impair *im)
{
    struct signalfd_siginfo info;
    char why[WHY_MAX];
    while (read(im->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGUSR1) {
            put_counters(im, stdout);
            fflush(stdout);
        } else if (info.ssi_signo == SIGHUP) {
            char line[] = "reload";
            if (obey(im, line, why) == 0) {
                LOG_INFO("rules read again from %s", im->matrix_path);
            } else {
                LOG_ERROR("rules stay as they were: %s", why);
            }
        } else {
            im->stop = true;
        }
    }
}

/* Sets the timer to the next frame, unless it is set to that already. */
static void set_timer(struct impair *im, uint64_t *set_ns)
{
    uint64_t due_ns = impair_switch_due_ns(im->sw);
    if (due_ns == *set_ns) {
        return;
    }
    struct itimerspec at = {0};
    if (due_ns != IMPAIR_NEVER) {
        due_ns = due_ns != 0 ? due_ns : 1; /* 0 would disarm it */
        at.it_value.tv_sec = (time_t)(due_ns / NS_PER_S);
        at.it_value.tv_nsec = (long)(due_ns % NS_PER_S);
    }
    timerfd_settime(im->timer, TFD_TIMER_ABSTIME, &at, NULL);
    *set_ns = due_ns;
}

static void event(struct impair *im, void *pointer)
{
    uint64_t expirations;
    if (pointer == &im->timer) {
        (void)!read(im->timer, &expirations, sizeof(expirations));
    } else if (pointer == &im->signals) {
        take_signals(im);
    } else if (!control_event(&im->control, pointer)) {
        take_in(im, pointer);
    }
}

static int run(struct impair *im)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t set_ns = IMPAIR_NEVER;
    while (!im->stop) {
        int n = epoll_wait(im->epoll, events, EVENTS_MAX, -1);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        for (int i = 0; i < n; i++) {
            event(im, events[i].data.ptr);
            hand_out(im);
        }
        set_timer(im, &set_ns);
    }
    return 0;
}

static int watch(struct impair *im, int fd, void *pointer)
{
    struct epoll_event want = {.events = EPOLLIN, .data = {.ptr = pointer}};
    return fd < 0 || epoll_ctl(im->epoll, EPOLL_CTL_ADD, fd, &want) != 0 ? -errno : 0;
}

static int open_ports(struct impair *im, uint32_t *mtu)
{
    for (uint32_t i = 0; i < im->matrix.ports; i++) {
        int rc = impair_port_open(&im->ports[i], im->interfaces[i]);
        rc = rc == 0 ? watch(im, im->ports[i].fd, &im->ports[i]) : rc;
        if (rc != 0) {
            LOG_ERROR("port %s on interface %s: %s", im->matrix.names[i], im->interfaces[i],
                      strerror(-rc));
            return rc;
        }
        *mtu = im->ports[i].mtu > *mtu ? im->ports[i].mtu : *mtu;
    }
    return 0;
}

static int open_switch(struct impair *im, uint32_t mtu)
{
    uint32_t frame_max = mtu + FRAME_EXTRA;
    frame_max = frame_max > IMPAIR_FRAME_MIN ? frame_max : IMPAIR_FRAME_MIN;
    frame_max = frame_max < IMPAIR_FRAME_MAX ? frame_max : IMPAIR_FRAME_MAX;
    uint64_t frames = ((uint64_t)im->memory_mib << 20) / frame_max;
    struct impair_config config = {
        .seed = im->matrix.seed,
        .ports = im->matrix.ports,
        .frame_max = frame_max,
        .frames = (uint32_t)(frames < IMPAIR_FRAMES_MAX ? frames : IMPAIR_FRAMES_MAX),
    };
    im->seed = config.seed;
    im->sw = impair_switch_create(&config);
    if (im->sw == NULL || impair_burst_init(&im->burst, frame_max) != 0) {
        LOG_ERROR("no memory for %u MiB of frames", im->memory_mib);
        return -ENOMEM;
    }
    apply_rules(im);
    return 0;
}

static int open_all(struct impair *im)
{
    sigset_t set;
    uint32_t mtu = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    im->epoll = epoll_create1(EPOLL_CLOEXEC);
    im->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    im->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    int rc = watch(im, im->timer, &im->timer);
    rc = rc == 0 ? watch(im, im->signals, &im->signals) : rc;
    rc = rc == 0 ? open_ports(im, &mtu) : rc;
    rc = rc == 0 ? open_switch(im, mtu) : rc;
    /* Last: who sees the socket finds the switch at work. */
    if (rc == 0 && im->socket_path != NULL) {
        rc = control_init(&im->control, im->socket_path, im->epoll, answer, im);
        if (rc != 0) {
            LOG_ERROR("socket %s: %s", im->socket_path, strerror(-rc));
        }
    }
    return rc;
}

static void close_all(struct impair *im)
{
    control_deinit(&im->control);
    for (uint32_t i = 0; i < im->matrix.ports; i++) {
        impair_port_close(&im->ports[i]);
    }
    impair_burst_deinit(&im->burst);
    impair_switch_destroy(im->sw);
    close(im->timer);
    close(im->signals);
    close(im->epoll);
}

/* ---- command line --------------------------------------------------------------------------- */
static const struct option long_options[] = {
    {"port", required_argument, NULL, 'p'},
    {"matrix", required_argument, NULL, 'm'},
    {"socket", required_argument, NULL, 's'},
    {"seed", required_argument, NULL, 'S'},
    {"memory-mib", required_argument, NULL, 'M'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static bool read_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *value >= min &&
           *value <= max;
}

static int take_port(struct impair *im, char *text)
{
    char *interface = strchr(text, '=');
    if (interface == NULL || interface[1] == '\0') {
        return -EINVAL;
    }
    *interface++ = '\0';
    int rc = impair_matrix_port(&im->matrix, text);
    if (rc == 0) {
        im->interfaces[im->matrix.ports - 1] = interface;
    }
    return rc;
}

/* Returns 0 or -EINVAL. */
static int take_option(struct impair *im, int option, char *value)
{
    uint64_t n = 0;
    switch (option) {
    case 'p':
        return take_port(im, value);
    case 'm':
        im->matrix_path = value;
        return 0;
    case 's':
        im->socket_path = value;
        return 0;
    case 'S':
        im->seeded = true;
        return read_number(value, 0, UINT64_MAX, &im->matrix.seed) ? 0 : -EINVAL;
    case 'M':
        if (!read_number(value, 1, MEMORY_MIB_MAX, &n)) {
            return -EINVAL;
        }
        im->memory_mib = (uint32_t)n;
        return 0;
    default:
        return -EINVAL;
    }
}

static int command_run(struct impair *im, int argc, char **argv)
{
    char why[WHY_MAX];
    int option;
    im->memory_mib = MEMORY_MIB;
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            usage(stdout);
            return EXIT_SUCCESS;
        }
        if (option == '?' || take_option(im, option, optarg) != 0) {
            if (option != '?') {
                fprintf(stderr, "weft-impair: cannot use %s\n", optarg);
            }
            return 2;
        }
    }
    if (optind != argc || im->matrix.ports == 0) {
        fputs("weft-impair: run needs --port NAME=INTERFACE, and options only; see weft-impair "
              "--help\n",
              stderr);
        return 2;
    }
    if (im->matrix_path != NULL && load(im, im->matrix_path, why) != 0) {
        fprintf(stderr, "weft-impair: %s\n", why);
        return 2;
    }
    int rc = open_all(im);
    if (rc == 0) {
        LOG_INFO("%u ports, seed %" PRIu64, im->matrix.ports, im->matrix.seed);
        rc = run(im);
    }
    close_all(im);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int command_tell(int argc, char **argv)
{
    char line[CONTROL_LINE_MAX] = "";
    size_t size = 0;
    for (int i = 2; i < argc; i++) {
        int n = snprintf(line + size, sizeof(line) - size, "%s%s", i > 2 ? " " : "", argv[i]);
        size += (size_t)n;
        if (size >= sizeof(line) - 1 || strchr(argv[i], '\n') != NULL) {
            fprintf(stderr, "weft-impair: a command is one line of less than %u bytes\n",
                    CONTROL_LINE_MAX);
            return 2;
        }
    }
    int rc = control_tell(argv[1], line);
    if (rc < 0) {
        fprintf(stderr, "weft-impair: %s: %s\n", argv[1], strerror(-rc));
    }
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int command_check(struct impair *im, int argc, char **argv)
{
    char why[WHY_MAX];
    for (int i = 2; i < argc; i++) {
        if (impair_matrix_port(&im->matrix, argv[i]) != 0) {
            fprintf(stderr, "weft-impair: '%s' is no name of its own for a port\n", argv[i]);
            return 2;
        }
    }
    if (impair_matrix_load(&im->matrix, argv[1], why, sizeof(why)) != 0) {
        fprintf(stderr, "weft-impair: %s\n", why);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static struct impair im = {.epoll = -1, .timer = -1, .signals = -1, .control = {.fd = -1}};
    const char *command = argc > 1 ? argv[1] : "";
    log_init(LOG_LEVEL_INFO, "impair");
    for (uint32_t i = 0; i < IMPAIR_PORTS_MAX; i++) {
        im.ports[i].fd = -1;
    }
    if (strcmp(command, "run") == 0) {
        return command_run(&im, argc - 1, argv + 1);
    }
    if (strcmp(command, "tell") == 0 && argc > 3) {
        return command_tell(argc - 1, argv + 1);
    }
    if (strcmp(command, "check") == 0 && argc > 3) {
        return command_check(&im, argc - 1, argv + 1);
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        usage(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "--version") == 0 || strcmp(command, "-V") == 0) {
        puts("weft-impair " WEFT_RELEASE);
        return EXIT_SUCCESS;
    }
    if (command[0] == '-') {
        fprintf(stderr, "weft-impair: there is no option %s\n", command);
    }
    fputs("weft-impair: needs run, tell SOCKET WORD... or check FILE NAME...; see weft-impair "
          "--help\n",
          stderr);
    return 2;
}
