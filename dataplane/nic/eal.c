/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eal.c - see eal.h. Several nodes may run on one machine (each in its own network namespace), so
 * nothing here may clash: own file prefix, no PCI devices but the one named, no shared files, and
 * lcores that may float over all permitted CPUs.
 */
#include "dataplane/nic/eal.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schemas/base/log.h"

#define ARGS_MAX      16
#define ARG_BYTES     (EAL_LCORES_BYTES + 16)
#define HUGEPAGE_MIB  2u
#define HUGEPAGE_FREE "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
#define HUGEPAGE_DIR  "/dev/hugepages"

struct args {
    char text[ARGS_MAX][ARG_BYTES];
    char *list[ARGS_MAX + 1];
    int count;
};

static void args_add(struct args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void args_add(struct args *args, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(args->text[args->count], ARG_BYTES, format, list);
    va_end(list);
    args->list[args->count] = args->text[args->count];
    args->count++;
}

void eal_lcores(char *out, size_t size, uint32_t lcores, const cpu_set_t *cpus)
{
    size_t used = (size_t)snprintf(out, size, "(0-%u)@(", lcores - 1);
    const char *comma = "";
    for (size_t cpu = 0; cpu < CPU_SETSIZE && used + EAL_RANGE_BYTES < size; cpu++) {
        if (!CPU_ISSET(cpu, cpus)) {
            continue;
        }
        size_t last = cpu;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cpus)) {
            last++;
        }
        used += (size_t)snprintf(out + used, size - used, last > cpu ? "%s%zu-%zu" : "%s%zu", comma,
                                 cpu, last);
        comma = ",";
        cpu = last;
    }
    snprintf(out + used, size - used, ")");
}

/* The CPUs that this process may use. */
static cpu_set_t own_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        CPU_ZERO(&set);
        CPU_SET(0, &set);
    }
    return set;
}

static bool hugepages_free(uint32_t memory_mib)
{
    unsigned long pages = 0;
    FILE *f = fopen(HUGEPAGE_FREE, "re");
    if (f != NULL) {
        if (fscanf(f, "%lu", &pages) != 1) {
            pages = 0;
        }
        fclose(f);
    }
    return pages * HUGEPAGE_MIB >= memory_mib && access(HUGEPAGE_DIR, W_OK) == 0;
}

/* EAL makes these and leaves them; the parent may serve others still. */
static void folders_remove(const char *own)
{
    char parent[PATH_MAX];
    char socket_path[PATH_MAX + 32];
    if (own[0] == '\0') {
        return; /* it had not come so far */
    }
    snprintf(parent, sizeof(parent), "%s", own);
    snprintf(socket_path, sizeof(socket_path), "%s/dpdk_telemetry.v2", own);
    unlink(socket_path);
    rmdir(own);
    rmdir(dirname(parent));
}

static void tell_failure(const struct nic_options *options, const char *device, bool huge,
                         int error)
{
    if (huge && !hugepages_free(options->memory_mib)) {
        LOG_ERROR("cannot start DPDK on %s: %s (nic.hugepages is on and there may be no %u MiB of "
                  "huge pages: `sysctl vm.nr_hugepages=%u` makes some; auto does without)",
                  device, rte_strerror(error), options->memory_mib,
                  options->memory_mib / HUGEPAGE_MIB);
    } else {
        LOG_ERROR("cannot start DPDK on %s: %s (needs root or CAP_NET_RAW and CAP_NET_ADMIN, and "
                  "the device must be in this network namespace)",
                  device, rte_strerror(error));
    }
}

int eal_start(const struct nic_options *options, const char *device, bool pci)
{
    setenv("RUNTIME_DIRECTORY", options->runtime_dir, 0); /* systemd's own setting comes first */
    struct args args = {.count = 0};
    char lcores[EAL_LCORES_BYTES];
    const cpu_set_t cpus = own_cpus();
    eal_lcores(lcores, sizeof(lcores), options->lcores, &cpus);
    bool huge = options->hugepages == NIC_HUGEPAGES_ON ||
                (options->hugepages == NIC_HUGEPAGES_AUTO && hugepages_free(options->memory_mib));
    args_add(&args, "weftd");
    args_add(&args, "--lcores=%s", lcores);
    /* The first that fits counts. Telemetry warns at every start of something that nobody uses. */
    args_add(&args, "--log-level=lib.telemetry:error");
    args_add(&args, "--log-level=lib.*:warning");
    args_add(&args, "--file-prefix=weft-%s-%d", options->name, (int)getpid());
    if (huge) {
        args_add(&args, "--in-memory");
    } else {
        args_add(&args, "--no-huge");
        args_add(&args, "--no-shconf");
    }
    args_add(&args, "-m");
    args_add(&args, "%u", options->memory_mib);
    if (pci) {
        args_add(&args, "--allow=%s", device);
    } else {
        args_add(&args, "--no-pci");
        args_add(&args, "--vdev=%s", device);
    }
    if (rte_eal_init(args.count, args.list) < 0) {
        int error = rte_errno != 0 ? rte_errno : EINVAL;
        tell_failure(options, device, huge, error);
        folders_remove(rte_eal_get_runtime_dir());
        return -error;
    }
    LOG_INFO("dpdk started memory=%s size_mib=%u", huge ? "hugepages" : "ordinary",
             options->memory_mib);
    return 0;
}

void eal_stop(void)
{
    char own[PATH_MAX];
    snprintf(own, sizeof(own), "%s", rte_eal_get_runtime_dir());
    rte_eal_cleanup();
    folders_remove(own);
}
