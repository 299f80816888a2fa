/* SPDX-License-Identifier: Apache-2.0 */
/* bench.c - weft-bench: the command table. */
#include "bench/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
} commands[] = {
    {"route", bench_route, "cost of the packet path's parts, in nanoseconds"},
    {"load", bench_load, "requests through a running mesh"},
    {"streams", bench_streams, "what the SDK costs, and thousands of streams at once"},
    {"compare", bench_compare, "two programs in turn, and the ratio of their figures"},
    {"soak", bench_soak, "mixed load for long: does anything grow?"},
    {"toy", bench_toy, "a worker without a model, for the others"},
    {"exec", bench_exec, "tokens a second of the CPU backend, against the memory's speed"},
    {"grammar", bench_grammar, "what it costs to hold an answer to a JSON Schema"},
    {"coordinates", bench_coordinates, "predicted round trips against a measured matrix"},
    {"mesh-sim", bench_mesh_sim, "zones in virtual time, against Kademlia and Chord"},
    {"policies", bench_policies, "ways to choose a node under stale gossip, simulated"},
    {"prefixes", bench_prefixes, "prompts that begin alike, from a trace, simulated"},
#ifdef WEFT_BENCH_DATAPLANE
    {"dataplane", bench_dataplane, "the packet path with DPDK around it, against DPDK's floor"},
#endif
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
    fputs("weft-bench - measures Weft\n\nusage: weft-bench COMMAND [OPTIONS]\n\n", out);
    for (size_t i = 0; i < COMMANDS; i++) {
        fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].text);
    }
    fputs("\nweft-bench COMMAND --help tells more.\n\n"
          "examples:\n"
          "  weft-bench route --json\n"
          "  weft-bench dataplane path\n"
          "  weft-bench policies --load 0.8\n"
          "  weft-bench load --node 10.77.0.1:7400 --requests 1000 --concurrency 1000\n",
          out);
}

/* The command says what is wrong with its command line, this who helps. */
static int command_run(const struct command *command, int argc, char **argv)
{
    char name[64]; /* for what getopt says */
    snprintf(name, sizeof(name), "weft-bench %s", command->name);
    argv[0] = name;
    int rc = command->run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) { /* a full disk: what was measured is lost */
        fprintf(stderr, "%s: cannot write: %s\n", name, strerror(errno));
        rc = rc == EXIT_SUCCESS ? EXIT_FAILURE : rc;
    }
    if (rc == BENCH_USAGE) {
        fprintf(stderr, "see %s --help\n", name);
    }
    return rc;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return command_run(&commands[i], argc - 1, argv + 1);
        }
    }
    const char *option = argc > 1 ? argv[1] : "";
    if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) {
        usage(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(option, "--version") == 0 || strcmp(option, "-V") == 0) {
        puts("weft-bench " WEFT_RELEASE);
        return EXIT_SUCCESS;
    }
    fprintf(stderr,
            argc > 1 ? "weft-bench: there is no command %s; see weft-bench --help\n"
                     : "weft-bench: needs a command%s; see weft-bench --help\n",
            argc > 1 ? argv[1] : "");
    return BENCH_USAGE;
}
