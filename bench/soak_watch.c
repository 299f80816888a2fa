/* SPDX-License-Identifier: Apache-2.0 */
/* soak_watch.c - see soak_watch.h. */
#include "bench/soak_watch.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/load/stats.h"
#include "controlplane/cli/ask.h"

#define ADMIN_WAIT_MS 1000u
#define PATH_BYTES    512u
#define FIRST_SLOTS   256u
#define SECONDS_HOUR  3600.0

/* What each kind may grow by while it is looked at: so much, or that share of its size. */
static const struct {
    const char *name;
    double step, share;
} kinds[WATCH_KINDS] = {
    [WATCH_RSS_KIB] = {"memory_kib", 2048, 0.03},
    [WATCH_FDS] = {"descriptors", 2, 0},
    [WATCH_THREADS] = {"threads", 1, 0},
    [WATCH_MBUFS] = {"mbufs", 64, 0},
    [WATCH_RING_FULL] = {"ring_full", INT32_MAX, 0}, /* told, not judged */
    [WATCH_FILES] = {"files", 2, 0},
};

const char *watch_kind_name(enum watch_kind kind)
{
    return kinds[kind].name;
}

/* ---- series ---- */

static int add(struct watch *w, const char *name, const char *path, enum watch_kind kind)
{
    if (w->count == WATCH_SERIES_MAX) {
        return -ENOSPC;
    }
    struct watch_series *s = &w->series[w->count++];
    *s = (struct watch_series){.path = path, .kind = kind};
    snprintf(s->name, sizeof(s->name), "%s", name);
    return 0;
}

int watch_add_process(struct watch *w, const char *name, const char *pid_file)
{
    int rc = add(w, name, pid_file, WATCH_RSS_KIB);
    rc = rc == 0 ? add(w, name, pid_file, WATCH_FDS) : rc;
    return rc == 0 ? add(w, name, pid_file, WATCH_THREADS) : rc;
}

int watch_add_node(struct watch *w, const char *name, const char *admin_socket)
{
    int rc = add(w, name, admin_socket, WATCH_MBUFS);
    return rc == 0 ? add(w, name, admin_socket, WATCH_RING_FULL) : rc;
}

int watch_add_folder(struct watch *w, const char *name, const char *folder)
{
    return add(w, name, folder, WATCH_FILES);
}

void watch_deinit(struct watch *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        free(w->series[i].seconds);
        free(w->series[i].values);
    }
    w->count = 0;
}

void watch_note(struct watch_series *s, int pid, double now_s, double value)
{
    if (pid != s->pid) {
        s->restarts += s->pid != 0;
        s->pid = pid;
        s->count = 0;
    }
    if (s->count == s->capacity) {
        uint32_t capacity = s->capacity == 0 ? FIRST_SLOTS : 2 * s->capacity;
        double *seconds = realloc(s->seconds, capacity * sizeof(double));
        s->seconds = seconds != NULL ? seconds : s->seconds;
        double *values = realloc(s->values, capacity * sizeof(double));
        s->values = values != NULL ? values : s->values;
        if (seconds == NULL || values == NULL) {
            return;
        }
        s->capacity = capacity;
    }
    s->seconds[s->count] = now_s;
    s->values[s->count++] = value;
}

struct watch_verdict watch_judge(const struct watch_series *s)
{
    const uint32_t from = s->count / 2, n = s->count - from;
    struct watch_verdict v = {.flat = true};
    if (s->count == 0) {
        return v;
    }
    v.first = s->values[0];
    v.last = s->values[s->count - 1];
    v.least = v.most = v.first;
    for (uint32_t i = 0; i < s->count; i++) {
        v.least = s->values[i] < v.least ? s->values[i] : v.least;
        v.most = s->values[i] > v.most ? s->values[i] : v.most;
    }
    const double slope = stats_slope(s->seconds + from, s->values + from, n);
    v.judged = s->count >= WATCH_LEAST;
    v.per_hour = slope * SECONDS_HOUR;
    v.grown = slope * (s->seconds[s->count - 1] - s->seconds[from]);
    v.allowed = kinds[s->kind].share * v.last;
    v.allowed = v.allowed > kinds[s->kind].step ? v.allowed : kinds[s->kind].step;
    v.flat = !v.judged || v.grown <= v.allowed;
    return v;
}

/* ---- readings ---- */

/* The first number of a file; -1 if there is none. */
static long read_number(const char *path, unsigned skip)
{
    char line[256];
    FILE *f = fopen(path, "re");
    long value = -1;
    if (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        char *at = line;
        for (; skip != 0 && (at = strchr(at, ' ')) != NULL; skip--) {
            at++;
        }
        char *end = at;
        value = at != NULL ? strtol(at, &end, 10) : -1;
        value = at != NULL && end != at ? value : -1;
    }
    if (f != NULL) {
        fclose(f);
    }
    return value;
}

static long count_entries(const char *path)
{
    DIR *dir = opendir(path);
    long count = dir != NULL ? 0 : -1;
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

static long read_process(enum watch_kind kind, long pid)
{
    char path[PATH_BYTES];
    switch (kind) {
    case WATCH_RSS_KIB:
        snprintf(path, sizeof(path), "/proc/%ld/statm", pid);
        return read_number(path, 1) * (sysconf(_SC_PAGESIZE) / 1024);
    case WATCH_FDS:
        snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
        return count_entries(path);
    default:
        snprintf(path, sizeof(path), "/proc/%ld/task", pid);
        return count_entries(path);
    }
}

static void read_one(struct watch_series *s, double now_s)
{
    if (s->kind == WATCH_FILES) {
        long files = count_entries(s->path);
        if (files >= 0) {
            watch_note(s, 0, now_s, (double)files);
        }
        return;
    }
    long pid = read_number(s->path, 0);
    long value = pid > 0 ? read_process(s->kind, pid) : -1;
    if (value >= 0) {
        watch_note(s, (int)pid, now_s, (double)value);
    }
}

static void read_node(struct watch_series *mbufs, struct watch_series *ring_full, double now_s)
{
    json_t *answer = NULL;
    if (ask(mbufs->path, "status", ADMIN_WAIT_MS, &answer) != 0) {
        return;
    }
    const json_t *in_use = json_object_get(answer, "mbufs_in_use");
    const json_t *drops = json_object_get(json_object_get(answer, "counters"), "drops");
    if (json_is_integer(in_use)) {
        watch_note(mbufs, 0, now_s, (double)json_integer_value(in_use));
        watch_note(ring_full, 0, now_s,
                   (double)json_integer_value(json_object_get(drops, "ring_full")));
    }
    json_decref(answer);
}

void watch_read(struct watch *w, double now_s)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct watch_series *s = &w->series[i];
        if (s->kind == WATCH_MBUFS) { /* its ring_full is the next one */
            read_node(s, &w->series[i + 1], now_s);
        } else if (s->kind != WATCH_RING_FULL) {
            read_one(s, now_s);
        }
    }
}
