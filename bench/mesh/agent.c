/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c - weft-swim-agent: one member on a real socket, for bench/membership: the thinnest shell
 * around controlplane/swim. Prints {"event": "alive|suspect|dead|left", "node": "n3"} a line. Its
 * keys come from names, so it keeps nobody out: for measuring only, and not installed.
 */
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/loop/loop.h"
#include "controlplane/loop/udp.h"
#include "controlplane/swim/swim.h"
#include "schemas/base/addr.h"

#define PORT          7946u
#define MEMBERS_MAX   1024u
#define RECEIVE_TURNS 8u
#define BENCH_KEY     "weft bench: a key that is none"

_Static_assert((unsigned)UDP_BATCH >= SWIM_OUT_DATAGRAMS, "an output is one batch");

static struct {
    struct loop *loop;
    struct swim *swim;
    int fd;
    int timer;
    struct swim_out out;
    struct udp_datagram in[UDP_BATCH];
    struct udp_datagram batch[UDP_BATCH];
} agent;

static void usage(FILE *out)
{
    fputs("usage: weft-swim-agent --name NAME --bind ADDRESS [--join ADDRESS] [--probe-ms MS]\n"
          "                       [--suspect-min-ms MS]\n\n"
          "One member of a mesh on UDP port 7946, until SIGTERM; events on stdout, a line each.\n"
          "Its keys are not secret: for measurements in a closed network.\n\n"
          "example:\n  weft-swim-agent --name n1 --bind 10.77.0.1 --join 10.77.0.2\n",
          out);
}

static void events_print(void)
{
    static const char *const names[] = {
        [SWIM_EVENT_ALIVE] = "alive", [SWIM_EVENT_SUSPECT] = "suspect", [SWIM_EVENT_DEAD] = "dead",
        [SWIM_EVENT_LEFT] = "left",   [SWIM_EVENT_UPDATED] = NULL,      [SWIM_EVENT_STATE] = NULL,
        [SWIM_EVENT_CLASH] = "clash",
    };
    for (uint32_t i = 0; i < agent.out.event_count; i++) {
        const struct swim_event *event = &agent.out.events[i];
        const struct swim_member *member = swim_find(agent.swim, event->uid);
        if (names[event->type] != NULL && member != NULL) {
            printf("{\"event\": \"%s\", \"node\": \"%s\"}\n", names[event->type],
                   member->record.name);
        }
    }
    fflush(stdout);
}

/* Sends what the core has put out, and sleeps until it wants to be called. */
static void carry(void)
{
    for (uint32_t i = 0; i < agent.out.datagram_count; i++) {
        const struct swim_datagram *from = &agent.out.datagrams[i];
        agent.batch[i].address = from->address;
        agent.batch[i].port = from->port;
        agent.batch[i].len = from->len;
        memcpy(agent.batch[i].data, from->data, from->len);
    }
    udp_send(agent.fd, agent.batch, agent.out.datagram_count);
    events_print();
    loop_timer_arm(agent.loop, agent.timer, swim_next_ns(agent.swim), 0);
}

static void readable(int fd, void *user)
{
    (void)user;
    for (unsigned turn = 0; turn < RECEIVE_TURNS; turn++) {
        int count = udp_receive(fd, agent.in, UDP_BATCH);
        uint64_t now_ns = clock_now_ns();
        for (int i = 0; i < count; i++) {
            swim_input(agent.swim, &agent.in[i].address, agent.in[i].port, agent.in[i].data,
                       agent.in[i].len, now_ns, &agent.out);
            carry();
        }
        if (count < (int)UDP_BATCH) {
            break;
        }
    }
}

static void due(uint64_t now_ns, void *user)
{
    (void)now_ns;
    (void)user;
    swim_tick(agent.swim, clock_now_ns(), &agent.out);
    carry();
}

static void stop(int signal_number)
{
    (void)signal_number;
    loop_stop(agent.loop);
}

static int begin(struct swim_options *options)
{
    struct timespec wall;
    uint16_t port = PORT;
    uint8_t hash[32];
    clock_gettime(CLOCK_REALTIME, &wall);
    options->self.incarnation = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / NS_PER_MS;
    options->self.port = PORT;
    randombytes_buf(options->entropy, sizeof(options->entropy));
    crypto_generichash(options->sign_seed, SWIM_KEY_BYTES, (const uint8_t *)options->self.name,
                       strlen(options->self.name), (const uint8_t *)BENCH_KEY, strlen(BENCH_KEY));
    crypto_generichash(options->mesh_key, SWIM_KEY_BYTES, (const uint8_t *)BENCH_KEY,
                       strlen(BENCH_KEY), NULL, 0);
    /* The id has to differ only: from the address, whose last two bytes do in a small network. */
    memcpy(hash, &options->self.address, sizeof(options->self.address));
    options->self.id = (uint16_t)(hash[14] << 8 | hash[15]);
    int rc = udp_open(&agent.fd, &options->self.address, &port);
    if (rc == 0) {
        rc = swim_create(&agent.swim, options, clock_now_ns());
    }
    if (rc == 0) {
        rc = loop_create(&agent.loop);
    }
    if (rc == 0) {
        agent.timer = loop_timer_add(agent.loop, due, NULL);
        rc = loop_watch(agent.loop, agent.fd, POLLIN, readable, NULL);
    }
    return rc;
}

int main(int argc, char **argv)
{
    static const struct option choices[] = {
        {"name", required_argument, NULL, 'n'},
        {"bind", required_argument, NULL, 'b'},
        {"join", required_argument, NULL, 'j'},
        {"probe-ms", required_argument, NULL, 'p'},
        {"suspect-min-ms", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct swim_seed seed = {.port = PORT};
    struct swim_options options = {.members_max = MEMBERS_MAX, .seeds = &seed};
    bool bound = false;
    bool good = sodium_init() >= 0;
    int choice;
    while ((choice = getopt_long(argc, argv, "h", choices, NULL)) != -1) {
        if (choice == 'h') {
            usage(stdout);
            return EXIT_SUCCESS;
        }
        if (choice == 'n') {
            snprintf(options.self.name, sizeof(options.self.name), "%s", optarg);
        } else if (choice == 'b') {
            bound = addr_parse(optarg, &options.self.address);
        } else if (choice == 'j') {
            good = good && addr_parse(optarg, &seed.address);
            options.seed_count = 1;
        } else if (choice == 'p') {
            options.probe_interval_ns = strtoull(optarg, NULL, 10) * NS_PER_MS;
        } else if (choice == 's') {
            options.suspect_min_ns = strtoull(optarg, NULL, 10) * NS_PER_MS;
        } else {
            good = false;
        }
    }
    if (!good || !bound || options.self.name[0] == '\0') {
        usage(stderr);
        return 2;
    }
    int rc = begin(&options);
    if (rc < 0) {
        fprintf(stderr, "weft-swim-agent: %s\n", strerror(-rc));
        return EXIT_FAILURE;
    }
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    due(0, NULL);
    rc = loop_run(agent.loop);
    swim_leave(agent.swim, clock_now_ns(), &agent.out);
    carry();
    swim_destroy(agent.swim);
    loop_destroy(agent.loop);
    close(agent.fd);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
