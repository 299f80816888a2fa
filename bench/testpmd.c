/* SPDX-License-Identifier: Apache-2.0 */
/*
 * testpmd.c - see dataplane.h. dpdk-testpmd's macswap is the least that a DPDK program can do to a
 * packet: the floor that path.c and afxdp.c compare with.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <rte_eal.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/dataplane.h"

#define RATES_MAX     64
#define START_SECONDS 2.0
#define RATE_MARK     "Tx-pps:"

extern char **environ;

const char *testpmd_find(void)
{
    static const char *const places[] = {"/usr/bin/dpdk-testpmd", "/usr/local/bin/dpdk-testpmd"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (access(places[i], X_OK) == 0) {
            return places[i];
        }
    }
    return NULL;
}

struct child {
    pid_t pid;
    FILE *out; /* what it prints */
};

static int child_start(struct child *child, char **args)
{
    int out[2];
    posix_spawn_file_actions_t actions;
    if (pipe(out) != 0) {
        return -errno;
    }
    child->out = fdopen(out[0], "r");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDERR_FILENO);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    /* EAL has pinned this thread; the child is to have the choice that this process had. */
    cpu_set_t own;
    sched_getaffinity(0, sizeof(own), &own);
    sched_setaffinity(0, sizeof(dataplane_env.permitted), &dataplane_env.permitted);
    int rc =
        child->out != NULL ? posix_spawn(&child->pid, args[0], &actions, NULL, args, environ) : EIO;
    sched_setaffinity(0, sizeof(own), &own);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    if (rc != 0 && child->out != NULL) {
        fclose(child->out);
    }
    return -rc;
}

static int compare_double(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

/* The rates that it prints each second, but for the first, which includes its start. It ends by
 * signal only, and its output comes when it ends: a pipe is not a terminal. */
static uint32_t child_end(struct child *child, double *rates)
{
    char line[512];
    uint32_t seen = 0;
    kill(child->pid, SIGINT);
    while (fgets(line, sizeof(line), child->out) != NULL) {
        const char *mark = strstr(line, RATE_MARK);
        if (mark == NULL) {
            continue;
        }
        if (seen != 0 && seen <= RATES_MAX) {
            rates[seen - 1] = strtod(mark + strlen(RATE_MARK), NULL);
        }
        seen++;
    }
    fclose(child->out);
    waitpid(child->pid, NULL, 0);
    seen = seen > RATES_MAX ? RATES_MAX : seen;
    return seen != 0 ? seen - 1 : 0;
}

/* It leaves a folder beside this process's own. */
static void remove_folder(const char *name)
{
    char own[PATH_MAX / 2], folder[PATH_MAX];
    snprintf(own, sizeof(own), "%s", rte_eal_get_runtime_dir());
    snprintf(folder, sizeof(folder), "%s/%s", dirname(own), name);
    rmdir(folder);
}

int testpmd_run(const struct dataplane_options *options, const char *vdev, double seconds,
                double *packets_per_second)
{
    char lcores[32], prefix[40], device[256], buffers[40], cache[32];
    double rates[RATES_MAX];
    snprintf(lcores, sizeof(lcores), "--lcores=0@%d,1@%d", dataplane_env.cpus[0],
             dataplane_env.cpus[1]);
    snprintf(prefix, sizeof(prefix), "--file-prefix=weft-testpmd-%d", (int)getpid());
    snprintf(device, sizeof(device), "--vdev=%s", vdev);
    snprintf(buffers, sizeof(buffers), "--total-num-mbufs=%u", BENCH_BUFFERS);
    snprintf(cache, sizeof(cache), "--mbcache=%u", BENCH_BUFFER_CACHE);
    char *args[] = {
        (char *)options->testpmd,
        lcores,
        prefix,
        device,
        "--no-pci",
        "--no-telemetry",
        "--no-huge",
        "-m",
        "256",
        "--no-shconf",
        "--log-level=*:error",
        "--",
        buffers,
        cache,
        "--forward-mode=macswap",
        "--burst=32",
        "--nb-cores=1",
        "--rxd=512",
        "--txd=512",
        "--port-topology=loop",
        "--no-flush-rx",
        "--stats-period=1",
        NULL,
    };
    struct child child;
    int rc = child_start(&child, args);
    if (rc != 0) {
        return rc;
    }
    usleep((useconds_t)((START_SECONDS + seconds) * 1e6));
    uint32_t count = child_end(&child, rates);
    remove_folder(prefix + strlen("--file-prefix="));
    if (count == 0) {
        return -EIO;
    }
    qsort(rates, count, sizeof(double), compare_double);
    *packets_per_second = rates[count / 2];
    return 0;
}
