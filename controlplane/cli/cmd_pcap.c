/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_pcap.c - `weft pcap`: frames of a running node, each with what became of it, as text or as
 * pcapng. capture.c reads them, pcapng.c makes the blocks, libpcap compiles the filter.
 */
#include <errno.h>
#include <getopt.h>
#include <pcap/pcap.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/capture.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/cli/pcapng.h"
#include "controlplane/cli/verdict.h"
#include "schemas/base/clock.h"

#define POLL_NS   (5 * NS_PER_MS) /* between two looks into empty rings */
#define ROUND_MAX 4096u           /* frames between two looks at the clock */

const char cmd_pcap_usage[] =
    "[--socket ADMIN.sock] [-w FILE | -w -] [OPTION]...\n"
    "\n"
    "Captures what a node's packet path takes in and sends out, at the node itself: each frame as\n"
    "it came, with what became of it or why it was let go of, and once more as it left. Without\n"
    "-w one line of text a frame. Packets never wait for the capture: what it cannot keep up with\n"
    "is counted as lost. One capture a node at a time; Ctrl-C ends it.\n"
    "\n"
    "  --socket PATH    the node's sockets.admin; default as `weft status` has it\n"
    "  -w, --write FILE write pcapng; - is stdout, e.g. for: wireshark -k -i -\n"
    "  --filter EXPR    only frames that match, in libpcap's language: 'src host 10.77.0.3'\n"
    "  --drops          only frames let go of or refused\n"
    "  --snaplen N      bytes kept of a frame, 1 to 1516, default 1516\n"
    "  --count N        stop after N frames\n"
    "  --duration S     stop after S seconds\n"
    "\n"
    "examples:\n"
    "  weft pcap --drops\n"
    "  weft pcap -w refused.pcapng --duration 10\n"
    "  weft pcap -w - --filter 'udp port 7400' | wireshark -k -i -\n"
    "\n"
    "exit: 0 complete, 1 error, 2 wrong usage\n"
    "\n"
    "schemas/weft.lua is the dissector: tshark -X lua_script:weft.lua -r FILE\n";

struct pcap_options {
    const char *socket;
    const char *path; /* NULL: text to stdout */
    const char *filter;
    bool drops;
    uint32_t snaplen;
    uint64_t count;    /* 0 = no limit */
    uint64_t until_ns; /* UINT64_MAX = no limit */
};

struct recorder {
    struct pcap_options o;
    struct capture *capture;
    struct bpf_program program;
    bool filtering;
    FILE *out;
    uint64_t written;
    uint64_t lost_told;
    struct capture_frame frame;
    uint8_t block[PCAPNG_BLOCK_MAX + TAP_SNAPLEN_MAX];
};

static volatile sig_atomic_t stop_wanted;

static void on_stop(int signal)
{
    (void)signal;
    stop_wanted = 1;
}

/* ---- options ---- */

static bool option_take(struct pcap_options *o, int option, const char *value)
{
    uint64_t number;
    double seconds;
    switch (option) {
    case 's':
        o->socket = value;
        return true;
    case 'w':
        o->path = value;
        return true;
    case 'f':
        o->filter = value;
        return true;
    case 'x':
        o->drops = true;
        return true;
    case 'n':
        if (!cli_number(value, 1, TAP_SNAPLEN_MAX, &number)) {
            return false;
        }
        o->snaplen = (uint32_t)number;
        return true;
    case 'c':
        return cli_number(value, 1, UINT64_MAX, &o->count);
    case 'd':
        if (!cli_real(value, 0.001, 1e9, &seconds)) {
            return false;
        }
        o->until_ns = clock_now_ns() + (uint64_t)(seconds * (double)NS_PER_S);
        return true;
    default:
        return false;
    }
}

/* Returns CLI_OK or CLI_USAGE. */
static int options_read(struct pcap_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},   {"write", required_argument, NULL, 'w'},
        {"filter", required_argument, NULL, 'f'},   {"drops", no_argument, NULL, 'x'},
        {"snaplen", required_argument, NULL, 'n'},  {"count", required_argument, NULL, 'c'},
        {"duration", required_argument, NULL, 'd'}, {NULL, 0, NULL, 0},
    };
    int index = 0;
    opterr = 0; /* own words */
    for (int c; (c = getopt_long(argc, argv, "w:", options, &index)) != -1;) {
        if (c == '?') {
            return cli_usage_error("pcap", "%s is no option, or lacks its value", argv[optind - 1]);
        }
        if (!option_take(o, c, optarg)) {
            return cli_usage_error("pcap", "--%s cannot be %s", options[index].name, optarg);
        }
    }
    if (optind != argc) {
        return cli_usage_error("pcap", "%s: takes options only", argv[optind]);
    }
    if (o->path != NULL && strcmp(o->path, "-") == 0 && isatty(STDOUT_FILENO)) {
        return cli_usage_error("pcap", "stdout is a terminal; give -w FILE");
    }
    o->socket = node_socket(o->socket, "pcap");
    return o->socket != NULL ? CLI_OK : CLI_ERROR;
}

static int filter_compile(struct recorder *r)
{
    if (r->o.filter == NULL) {
        return CLI_OK;
    }
    pcap_t *dead = pcap_open_dead(DLT_EN10MB, (int)TAP_SNAPLEN_MAX);
    if (dead == NULL) {
        fputs("weft pcap: out of memory\n", stderr);
        return CLI_ERROR;
    }
    int rc = CLI_OK;
    if (pcap_compile(dead, &r->program, r->o.filter, 1, PCAP_NETMASK_UNKNOWN) != 0) {
        rc = cli_usage_error("pcap", "filter: %s", pcap_geterr(dead));
    }
    pcap_close(dead);
    r->filtering = rc == CLI_OK;
    return rc;
}

/* ---- frames ---- */

static bool wanted(const struct recorder *r)
{
    const struct capture_frame *f = &r->frame;
    struct pcap_pkthdr header = {.caplen = f->captured, .len = f->record.len};
    if (r->o.drops && f->record.why == 0) {
        return false;
    }
    return !r->filtering || pcap_offline_filter(&r->program, &header, f->data) != 0;
}

static void block_write(struct recorder *r, size_t len)
{
    fwrite(r->block, 1, len, r->out);
}

static void frame_write(struct recorder *r)
{
    const struct capture_frame *f = &r->frame;
    char text[PCAPNG_TEXT_MAX];
    r->written++;
    if (r->o.path == NULL) {
        verdict_line(f, capture_interface(r->capture), text, sizeof(text));
        fprintf(r->out, "%s\n", text);
        return;
    }
    uint64_t lost = capture_lost(r->capture);
    verdict_text(&f->record, text, sizeof(text));
    struct pcapng_packet packet = {
        .interface = verdict_of_worker(&f->record) ? 1 : 0,
        .time_ns = f->time_ns,
        .data = f->data,
        .captured = f->captured,
        .len = f->record.len,
        .direction = verdict_goes_out(&f->record) ? PCAPNG_OUT : PCAPNG_IN,
        .queue = f->lcore,
        .lost = lost - r->lost_told,
        .comment = text,
    };
    r->lost_told = lost;
    block_write(r, pcapng_packet(r->block, sizeof(r->block), &packet));
}

static void head_write(struct recorder *r)
{
    char name[3 * TAP_NAME_MAX];
    if (r->o.path == NULL) {
        return;
    }
    block_write(r, pcapng_header(r->block, sizeof(r->block), "weft pcap " WEFT_RELEASE));
    snprintf(name, sizeof(name), "%s:%s", capture_node(r->capture), capture_interface(r->capture));
    block_write(r,
                pcapng_interface(r->block, sizeof(r->block), name, "network port", r->o.snaplen));
    snprintf(name, sizeof(name), "%s:worker", capture_node(r->capture));
    block_write(r,
                pcapng_interface(r->block, sizeof(r->block), name, "local worker", r->o.snaplen));
    fflush(r->out);
}

static void tail_write(struct recorder *r)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (r->o.path != NULL) {
        uint64_t now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
        block_write(r, pcapng_statistics(r->block, sizeof(r->block), 0, now_ns, r->written,
                                         capture_lost(r->capture)));
    }
}

/* ---- the loop ---- */

static bool done(const struct recorder *r)
{
    return stop_wanted || ferror(r->out) || (r->o.count != 0 && r->written >= r->o.count) ||
           clock_now_ns() >= r->o.until_ns;
}

static void record(struct recorder *r)
{
    static const struct timespec pause = {.tv_nsec = (long)POLL_NS};
    bool ended = false;
    while (!done(r)) {
        uint32_t taken = 0;
        while (taken < ROUND_MAX && (r->o.count == 0 || r->written < r->o.count) &&
               capture_next(r->capture, &r->frame)) {
            taken++;
            if (wanted(r)) {
                frame_write(r);
            }
        }
        if (taken > 0) {
            fflush(r->out); /* for whoever looks on */
            continue;
        }
        if (ended) {
            fputs("weft pcap: the node has gone\n", stderr);
            break;
        }
        ended = capture_ended(r->capture); /* one more look: it may have written before */
        nanosleep(&pause, NULL);
    }
}

static void signals_take(void)
{
    struct sigaction stop = {.sa_handler = on_stop};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

static int capture_run(struct recorder *r)
{
    char error[160];
    int rc = capture_open(&r->capture, r->o.socket, r->o.snaplen, TAP_SLOTS, error, sizeof(error));
    if (rc < 0) {
        fprintf(stderr, "weft pcap: %s: %s\n", r->o.socket,
                error[0] != '\0' ? error : ask_error_text(rc));
        return CLI_ERROR;
    }
    r->out = r->o.path == NULL || strcmp(r->o.path, "-") == 0 ? stdout : fopen(r->o.path, "wbe");
    if (r->out == NULL) {
        fprintf(stderr, "weft pcap: %s: %s\n", r->o.path, strerror(errno));
        return CLI_ERROR;
    }
    head_write(r);
    record(r);
    tail_write(r);
    fprintf(stderr, "%llu frames, %llu lost\n", (unsigned long long)r->written,
            (unsigned long long)capture_lost(r->capture));
    bool failed = ferror(r->out) != 0 && errno != EPIPE;
    if ((r->out == stdout ? fflush(r->out) : fclose(r->out)) != 0 && errno != EPIPE) {
        failed = true;
    }
    if (failed) {
        fprintf(stderr, "weft pcap: cannot write: %s\n", strerror(errno));
    }
    return failed ? CLI_ERROR : CLI_OK;
}

int cmd_pcap(int argc, char **argv)
{
    static struct recorder r; /* too large for a stack */
    r.o = (struct pcap_options){.snaplen = TAP_SNAPLEN_MAX, .until_ns = UINT64_MAX};
    int rc = options_read(&r.o, argc, argv);
    if (rc == CLI_OK) {
        rc = filter_compile(&r);
    }
    if (rc == CLI_OK) {
        signals_take();
        rc = capture_run(&r);
    }
    capture_close(r.capture);
    if (r.filtering) {
        pcap_freecode(&r.program);
    }
    return rc;
}
