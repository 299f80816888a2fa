/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd.c - the node's daemon. What exists and in which order is the table `units`: brought up from
 * first to last, torn down in reverse. The main thread then becomes lcore 0 (core.c); the control
 * thread runs controlplane/control.c with the hooks of glue.c.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <weft/status.h>

#include "controlplane/control.h"
#include "controlplane/keys/keys.h"
#include "dataplane/core.h"
#include "dataplane/glue.h"
#include "dataplane/nic/guard.h"
#include "dataplane/nic/numa.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"
#include "schemas/base/slice.h"
#include "schemas/config.h"

struct weftd {
    const char *config_path;
    bool insecure;
    struct config *config;
    struct keys keys; /* until the control plane has them */
    int guard_fds[2]; /* of the address, of the client_address; -1 = none */
    struct nic *nic;
    struct publish *tables;
    struct tap_hub *taps;
    struct core *cores[NIC_LCORES_MAX];
    struct glue *glue;
    struct control *control;
    pthread_t control_thread;
};

/* For the signal handler only. */
static struct weftd *_Atomic running;
static volatile sig_atomic_t stop_asked;

static const struct config_member *self_of(const struct weftd *d)
{
    return &d->config->members[d->config->self];
}

static void print_config_error(const char *path, unsigned line, const char *text, void *user)
{
    (void)user;
    if (line == 0) {
        fprintf(stderr, "%s: %s\n", path, text); /* of the whole file */
    } else {
        fprintf(stderr, "%s:%u: %s\n", path, line, text);
    }
}

static int config_up(struct weftd *d)
{
    int rc = config_load(&d->config, d->config_path, print_config_error, NULL);
    if (rc == 0) {
        log_init(LOG_LEVEL_INFO, d->config->node);
    }
    return rc;
}

static int keys_up(struct weftd *d)
{
    return control_prepare(d->config, &d->keys, d->insecure);
}

static void keys_down(struct weftd *d)
{
    keys_wipe(&d->keys);
}

static void config_down(struct weftd *d)
{
    log_init(LOG_LEVEL_INFO, "");
    config_destroy(d->config);
}

static void guard_down(struct weftd *d)
{
    for (int i = 0; i < 2; i++) {
        if (d->guard_fds[i] >= 0) {
            close(d->guard_fds[i]);
        }
        d->guard_fds[i] = -1;
    }
}

static int guard_up(struct weftd *d)
{
    const struct in6_addr *addresses[2] = {&self_of(d)->address, &self_of(d)->client_address};
    for (int i = 0; i < 2; i++) {
        char text[ADDR_TEXT_MAX];
        if (IN6_IS_ADDR_UNSPECIFIED(addresses[i])) {
            continue;
        }
        int fd = guard_open(addresses[i], (uint16_t)d->config->data_port);
        if (fd < 0) {
            LOG_ERROR("cannot reserve this node's address %s and data port %u: %s (is the address "
                      "set on %s, and no other weftd running here?)",
                      addr_format(addresses[i], text), d->config->data_port, strerror(-fd),
                      d->config->nic.interface);
            guard_down(d);
            return fd;
        }
        d->guard_fds[i] = fd;
    }
    return 0;
}

/* The folder that a socket is to be in: /run is empty after a boot. */
static int folder_make(const char *socket_path)
{
    char path[CONFIG_PATH_MAX];
    snprintf(path, sizeof(path), "%s", socket_path);
    const char *folder = dirname(path);
    if (mkdir(folder, 0755) == 0 || errno == EEXIST) {
        return 0;
    }
    int error = errno;
    LOG_ERROR("cannot make the folder %s for the sockets: %s (make it, writable by who runs weftd, "
              "or name another one under sockets)",
              folder, strerror(error));
    return -error;
}

static int folders_up(struct weftd *d)
{
    int rc = folder_make(d->config->sockets.admin);
    return rc == 0 ? folder_make(d->config->sockets.port) : rc;
}

/* They stay: others may use them by now. */
static void folders_down(struct weftd *d)
{
    (void)d;
}

static int nic_up(struct weftd *d)
{
    char runtime_dir[CONFIG_PATH_MAX];
    memcpy(runtime_dir, d->config->sockets.port, sizeof(runtime_dir));
    struct nic_options options = {
        .name = d->config->node,
        .runtime_dir = dirname(runtime_dir),
        .driver = (enum nic_driver)d->config->nic.driver,
        .device = d->config->nic.device,
        .interface = d->config->nic.interface,
        .data_port = (uint16_t)d->config->data_port,
        .hugepages = (enum nic_hugepages)d->config->nic.hugepages,
        .memory_mib = d->config->nic.memory_mib,
        .lcores = d->config->nic.lcores,
    };
    return nic_create(&d->nic, &options);
}

static void nic_down(struct weftd *d)
{
    nic_destroy(d->nic);
}

static void table_free(void *table)
{
    route_table_destroy(table);
}

/* The lcores of another NUMA node have the table in memory of their own. */
static void *table_copy(const void *table, uint32_t place)
{
    const struct route_table *from = table;
    void *memory = numa_alloc(from->size_bytes, place);
    return memory != NULL ? route_table_copy(from, memory) : NULL;
}

static int tables_up(struct weftd *d)
{
    uint32_t places[NIC_LCORES_MAX];
    struct publish_options options = {
        .readers = d->config->nic.lcores,
        .places = places,
        .copy = table_copy,
        .destroy = table_free,
        .destroy_copy = numa_free,
    };
    numa_places(places, options.readers);
    return publish_create_placed(&d->tables, &options);
}

static void tables_down(struct weftd *d)
{
    publish_destroy(d->tables);
}

static int taps_up(struct weftd *d)
{
    return tap_hub_create(&d->taps, d->config->nic.lcores, d->config->node,
                          d->config->nic.interface);
}

static void taps_down(struct weftd *d)
{
    tap_hub_destroy(d->taps);
}

static void cores_down(struct weftd *d)
{
    for (uint32_t i = d->config->nic.lcores; i-- > 0;) { /* the owner last */
        core_destroy(d->cores[i]);
    }
}

/* This node on the network: an address of one family or of both. */
static struct route_host host_of(const struct weftd *d)
{
    const struct config_member *self = self_of(d);
    bool four = addr_is_v4(&self->address);
    const struct in6_addr *other = &self->client_address;
    struct route_host host = {
        .port_be = htons((uint16_t)d->config->data_port),
        .vlan_be = htons((uint16_t)d->config->nic.vlan),
        .addr = four ? addr_v4(&self->address) : addr_v4(other),
        .addr6 = four ? *other : self->address,
        .port_sums = nic_sums(d->nic),
    };
    nic_mac(d->nic, host.mac);
    return host;
}

static int cores_up(struct weftd *d)
{
    struct core_options options = {
        .nic = d->nic,
        .tables = d->tables,
        .taps = d->taps,
        .host = host_of(d),
    };
    seal_master_draw(&options.master);
    for (uint32_t i = 0; i < d->config->nic.lcores; i++) {
        int rc = core_create(&d->cores[i], &options, i, i != 0 ? d->cores[0] : NULL);
        if (rc != 0) {
            cores_down(d);
            return rc;
        }
    }
    return 0;
}

static void stop_all(struct weftd *d)
{
    for (uint32_t i = 0; i < d->config->nic.lcores; i++) {
        core_stop(d->cores[i]);
    }
}

static int glue_up(struct weftd *d)
{
    return glue_create(&d->glue, d->config, d->cores, d->tables, d->taps);
}

static void glue_down(struct weftd *d)
{
    glue_destroy(d->glue);
}

/* Nobody sends requests here any more, and none is under way. */
static void on_drained(void *user)
{
    (void)user;
    struct weftd *d = atomic_load(&running);
    if (d != NULL) {
        stop_all(d);
    }
}

static int control_up(struct weftd *d)
{
    struct control_hooks hooks = glue_hooks(d->glue);
    hooks.on_drained = on_drained;
    int rc = control_create(&d->control, d->config, &d->keys, &hooks);
    keys_wipe(&d->keys);
    if (rc == 0 && (rc = glue_start(d->glue, d->control)) != 0) {
        control_destroy(d->control);
    }
    return rc;
}

static void control_down(struct weftd *d)
{
    control_destroy(d->control);
}

/* If the control thread cannot go on, neither can the node: it would route by a stale table. */
static void *control_main(void *arg)
{
    struct weftd *d = arg;
    int rc = control_run(d->control);
    if (rc != 0) {
        LOG_ERROR("control thread failed: %s; stopping", strerror(-rc));
        stop_all(d);
    }
    return NULL;
}

/* Signals are for the main thread. */
static int thread_up(struct weftd *d)
{
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = pthread_create(&d->control_thread, NULL, control_main, d);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -rc;
}

static void thread_down(struct weftd *d)
{
    control_stop(d->control);
    pthread_join(d->control_thread, NULL);
}

static const struct unit {
    const char *name;
    int (*up)(struct weftd *d);
    void (*down)(struct weftd *d);
} units[] = {
    {"config", config_up, config_down},
    {"keys", keys_up, keys_down},
    {"guard", guard_up, guard_down}, /* the kernel must not answer for the data port */
    {"folders", folders_up, folders_down},
    {"nic", nic_up, nic_down},          /* EAL, port, buffers */
    {"tables", tables_up, tables_down}, /* the pointer between the planes */
    {"taps", taps_up, taps_down},       /* live captures */
    {"cores", cores_up, cores_down},
    {"glue", glue_up, glue_down}, /* worker socket, neighbours */
    {"control", control_up, control_down},
    {"control thread", thread_up, thread_down},
};
#define UNITS (sizeof(units) / sizeof(units[0]))

/* The first time in good order, the second time at once; during the start, before its next step. */
static void on_signal(int signal)
{
    (void)signal;
    struct weftd *d = atomic_load(&running);
    if (d != NULL && stop_asked) {
        stop_all(d);
    } else if (d != NULL) {
        control_drain(d->control);
    }
    stop_asked = 1;
}

static void on_hangup(int signal)
{
    (void)signal;
    struct weftd *d = atomic_load(&running);
    if (d != NULL) {
        control_reload(d->control);
    }
}

static void catch_signals(void)
{
    struct sigaction again = {.sa_handler = on_hangup};
    struct sigaction stop = {.sa_handler = on_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGHUP, &again, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

static int lcore_main(void *core)
{
    slice_short();
    core_run(core);
    return 0;
}

/* Lcore 0 is this thread. */
static void run_lcores(struct weftd *d)
{
    atomic_store(&running, d);
    if (stop_asked) { /* just before that: nobody has been told of this node */
        stop_all(d);
    }
    for (uint32_t i = 1; i < d->config->nic.lcores; i++) {
        if (nic_launch(d->nic, i, lcore_main, d->cores[i]) != 0) {
            LOG_ERROR("cannot start lcore %u; stopping", i);
            stop_all(d);
        }
    }
    (void)lcore_main(d->cores[0]);
    nic_join(d->nic);
    atomic_store(&running, NULL);
}

static int weftd_run(struct weftd *d)
{
    size_t up = 0;
    int rc = 0;
    while (up < UNITS && !stop_asked && (rc = units[up].up(d)) == 0) {
        up++;
    }
    if (stop_asked) {
        LOG_INFO("stopping: asked to during the start");
        rc = 0;
    } else if (up == UNITS) {
        LOG_INFO("ready data_port=%u %s=%u", d->config->data_port,
                 d->config->gossip ? "seeds" : "members",
                 d->config->gossip ? d->config->seed_count : d->config->member_count);
        run_lcores(d);
        LOG_INFO("stopping");
    } else {
        fprintf(stderr, "weftd: could not start (%s): %s\n", units[up].name, weft_status_text(rc));
    }
    while (up > 0) {
        units[--up].down(d);
    }
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void usage(FILE *out)
{
    fputs(
        "weftd - the node daemon of Weft: routes AI inference requests\n"
        "\n"
        "usage: weftd --config FILE [--insecure]\n"
        "\n"
        "  -c, --config FILE  the node's YAML configuration (check it with: weft conf-check FILE)\n"
        "      --insecure     gossip without a mesh key if there is none: anybody may join\n"
        "  -h, --help         this text\n"
        "  -V, --version      version\n"
        "\n"
        "Runs in the foreground, logs to stderr. On SIGTERM or Ctrl-C it leaves the mesh, lets\n"
        "the requests under way end (10 s at most) and stops; a second time it stops at once.\n"
        "On SIGHUP it reads the mesh key and the policy again.\n"
        "Needs CAP_NET_RAW and CAP_NET_ADMIN (or root) for its network port, for the driver\n"
        "af_xdp CAP_BPF, too; for the driver none nothing.\n"
        "\n"
        "INFERENCE_ALLOWED_PROVIDERS in the environment (`local`, or names with commas): requests\n"
        "go to nodes of these providers only, by the mesh's policy.\n"
        "\n"
        "exit: 0 stopped, 1 it could not start or go on, 2 wrong usage\n"
        "\n"
        "example:\n"
        "  weftd --config /etc/weft/frankfurt.yaml\n",
        out);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {"insecure", no_argument, NULL, 'i'},
        {NULL, 0, NULL, 0},
    };
    struct weftd daemon = {.config_path = NULL, .guard_fds = {-1, -1}};
    int option;
    while ((option = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            daemon.config_path = optarg;
            break;
        case 'i':
            daemon.insecure = true;
            break;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        case 'V':
            puts("weftd " WEFT_RELEASE);
            return EXIT_SUCCESS;
        default:
            fputs("see weftd --help\n", stderr);
            return 2;
        }
    }
    if (daemon.config_path == NULL || optind != argc) {
        fputs("weftd: --config FILE is needed, and nothing else; see weftd --help\n", stderr);
        return 2;
    }
    catch_signals();
    return weftd_run(&daemon);
}
