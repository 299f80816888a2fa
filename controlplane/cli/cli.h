/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - what the sub-commands of `weft` share. main.c holds the table of commands, one cmd_*.c
 * each of them, report.c the words and the JSON about a finished request.
 *
 * The program talks to a mesh through the SDK (weft/client.h) and to a node through its admin
 * socket; it links nothing of weftd but the configuration reader.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_ERROR = 1, /* also: the answer is incomplete */
    CLI_USAGE = 2,
    CLI_REFUSED = 3,
    CLI_INTERRUPTED = 130, /* 128 + SIGINT, as shells have it */
};

struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns a cli_exit */
    const char *summary;
    const char *usage; /* arguments, then one option a line */
};

int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_pcap(int argc, char **argv);
int cmd_query(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_conf_check(int argc, char **argv);
int cmd_mesh_key(int argc, char **argv);
int cmd_policy(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_peers(int argc, char **argv);
int cmd_routes(int argc, char **argv);

extern const char cmd_run_usage[];
extern const char cmd_status_usage[];
extern const char cmd_top_usage[];
extern const char cmd_pcap_usage[];
extern const char cmd_query_usage[];
extern const char cmd_trace_usage[];
extern const char cmd_serve_usage[];
extern const char cmd_conf_check_usage[];
extern const char cmd_mesh_key_usage[];
extern const char cmd_policy_usage[];
extern const char cmd_drain_usage[];
extern const char cmd_peers_usage[];
extern const char cmd_routes_usage[];

/* Says what is wrong with a command line and where help is. Returns CLI_USAGE. */
int cli_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whole text as a decimal number within the range. False if it is none. */
bool cli_number(const char *text, uint64_t min, uint64_t max, uint64_t *out);
bool cli_real(const char *text, double min, double max, double *out);

/* "A-B" or "A", both within 0..max, A <= B. */
bool cli_range(const char *text, uint32_t max, uint32_t *low, uint32_t *high);
