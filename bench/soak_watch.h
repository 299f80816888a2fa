/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soak_watch.h - what must stay flat while others work: memory, descriptors and threads of
 * processes, mbufs of nodes, files in folders. Readings are taken once in a while; of each series a
 * slope says whether it grows. Used by soak.c. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WATCH_SERIES_MAX 128u
#define WATCH_NAME_MAX   64u
#define WATCH_LEAST      10u /* readings that a verdict needs */

enum watch_kind {
    WATCH_RSS_KIB,
    WATCH_FDS,
    WATCH_THREADS,
    WATCH_MBUFS,
    WATCH_RING_FULL, /* datagrams let go of because a ring had no free slot */
    WATCH_FILES,
    WATCH_KINDS
};

struct watch_series {
    char name[WATCH_NAME_MAX];
    const char *path; /* a pid file, a socket, a folder */
    enum watch_kind kind;
    double *seconds, *values; /* of the present process: another begins anew */
    uint32_t count, capacity;
    uint32_t restarts;
    int pid;
};

struct watch {
    struct watch_series series[WATCH_SERIES_MAX];
    uint32_t count;
};

/* What a series comes to: the slope over the second half of its readings. */
struct watch_verdict {
    bool judged; /* enough readings? */
    bool flat;   /* grows less than its kind may over the time looked at; true if not judged */
    double first, last, least, most;
    double per_hour;
    double grown; /* by the slope, in the time looked at */
    double allowed;
};

const char *watch_kind_name(enum watch_kind kind);

/* Each returns 0 or -ENOSPC. Names and paths stay the caller's until watch_deinit(). */
int watch_add_process(struct watch *w, const char *name, const char *pid_file);
int watch_add_node(struct watch *w, const char *name, const char *admin_socket);
int watch_add_folder(struct watch *w, const char *name, const char *folder);
void watch_deinit(struct watch *w);

/* Takes a reading of each. What is not there now has none. Blocks on admin sockets, 1 s each at
 * most. */
void watch_read(struct watch *w, double now_s);

/* Pure. */
struct watch_verdict watch_judge(const struct watch_series *s);
/* Appends a reading; a new pid (0 = does not matter) begins the series anew. For watch_read() and
 * tests. Without memory the reading is lost. */
void watch_note(struct watch_series *s, int pid, double now_s, double value);
