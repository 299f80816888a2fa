/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_serve.c - `weft serve`: starts node, worker and gateway, starts again what ends, stops them
 * from the outside in. Their log lines name their program and go where ours go. They are in process
 * groups of their own: a Ctrl-C is ours alone, so that running answers can end before the node
 * does.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/serve.h"
#include "controlplane/cli/serve_folder.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"
#include "schemas/config.h"

#define ARGS_MAX       64
#define TURN_MS        200
#define ASK_MS         1000
#define STOP_NODE_NS   (3 * NS_PER_S)
#define STOP_OTHERS_NS (15 * NS_PER_S) /* the gateway lets answers end for ten */
#define PORT_FIRST     7400u
#define PORT_TRIES     200u

const char cmd_serve_usage[] =
    "--model FILE [OPTION]...\n"
    "\n"
    "A node, a worker and OpenAI's API on this machine, until Ctrl-C; no root, no configuration.\n"
    "\n"
    "  --model FILE           the model, GGUF; up to 8 times for as many models\n"
    "  --listen [ADDR:]PORT   where HTTP clients come to; default 127.0.0.1:8080\n"
    "  --keys FILE            only for holders of these API keys; see weft-gateway --help\n"
    "  --cors ORIGIN          pages from there may ask, too\n"
    "  --tls-cert FILE, --tls-key FILE   HTTPS in place of HTTP (PEM); SIGHUP reads both again\n"
    "  --state DIR            keeps there what was registered at the API\n"
    "  --otlp URL, --otlp-ratio R   traces go to that collector; see weft-gateway --help\n"
    "  --name NAME            what clients call the model; default: after the file's name.\n"
    "                         Of several models, one each\n"
    "  --models-mib N         memory for all models that are loaded at a time; the others are\n"
    "                         loaded when they are asked for; default: three quarters of it\n"
    "  --backend WHERE        auto, cpu or cuda\n"
    "  --gemm HOW, --threads N, --slots N, --context N   as weft-worker has them\n"
    "  --kv-dir DIR           keeps prompts' beginnings from one start to the next\n"
    "  --position LAT,LON     where this machine is, in degrees\n"
    "  --tier N               its hardware tier, 0 to 7; default 0\n"
    "  --config FILE          the node's own configuration, for one that is part of a mesh\n"
    "                         (which may need root)\n"
    "\n"
    "What ends is started again, later each time. Ctrl-C lets running answers end for ten\n"
    "seconds; the second one does not.\n"
    "\n"
    "examples:\n"
    "  weft serve --model \"$(scripts/model-fetch)\"\n"
    "  weft serve --model a.gguf --model b.gguf --listen 8000 --keys keys.txt\n"
    "\n"
    "exit: 0 stopped, 1 something would not run, 2 wrong usage\n";

enum role { NODE, WORKER, GATEWAY, ROLES };
static const char *const role_programs[ROLES] = {"weftd", "weft-worker", "weft-gateway"};

struct program {
    struct keeper keeper;
    pid_t pid; /* 0 = it does not run */
    const char *args[ARGS_MAX + 1];
    int count;
};

struct serve {
    /* options */
    const char *listen;
    const char *scheme;
    const char *config_option;
    struct serve_node node;
    size_t models; /* so many; they are the worker's arguments */
    struct program programs[ROLES];
    /* what is there */
    char folder[80]; /* "" = none of ours */
    int lock;        /* of it; -1 = none */
    char programs_dir[PATH_MAX];
    char config_path[CONFIG_PATH_MAX + 16];
    char admin[CONFIG_PATH_MAX];
    char port[CONFIG_PATH_MAX];
    char client[CONFIG_PATH_MAX + 8]; /* "unix:" and that */
    int signals;
    bool stopping;
    bool now;    /* the second Ctrl-C */
    bool failed; /* something would not run */
    bool ready;  /* said so */
};

/* ---- options ---- */

enum option_id {
    OPT_MODEL = 256,
    OPT_LISTEN,
    OPT_CONFIG,
    OPT_POSITION,
    OPT_TIER,
    OPT_WORKER,  /* goes to the worker as it is */
    OPT_GATEWAY, /* and to the gateway */
    OPT_TLS_CERT,
};

static const struct option options[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"position", required_argument, NULL, OPT_POSITION},
    {"tier", required_argument, NULL, OPT_TIER},
    {"name", required_argument, NULL, OPT_WORKER},
    {"backend", required_argument, NULL, OPT_WORKER},
    {"gemm", required_argument, NULL, OPT_WORKER},
    {"threads", required_argument, NULL, OPT_WORKER},
    {"slots", required_argument, NULL, OPT_WORKER},
    {"context", required_argument, NULL, OPT_WORKER},
    {"models-mib", required_argument, NULL, OPT_WORKER},
    {"kv-dir", required_argument, NULL, OPT_WORKER},
    {"keys", required_argument, NULL, OPT_GATEWAY},
    {"cors", required_argument, NULL, OPT_GATEWAY},
    {"tls-cert", required_argument, NULL, OPT_TLS_CERT},
    {"tls-key", required_argument, NULL, OPT_GATEWAY},
    {"state", required_argument, NULL, OPT_GATEWAY},
    {"otlp", required_argument, NULL, OPT_GATEWAY},
    {"otlp-ratio", required_argument, NULL, OPT_GATEWAY},
    {NULL, 0, NULL, 0},
};

static bool arg_add(struct program *p, const char *arg)
{
    if (p->count == ARGS_MAX) {
        return false;
    }
    p->args[p->count++] = arg;
    return true;
}

static bool position_take(struct serve *s, const char *text)
{
    char latitude[32];
    const char *comma = strchr(text, ',');
    if (comma == NULL || (size_t)(comma - text) >= sizeof(latitude)) {
        return false;
    }
    memcpy(latitude, text, (size_t)(comma - text));
    latitude[comma - text] = '\0';
    return cli_real(latitude, -90, 90, &s->node.latitude_deg) &&
           cli_real(comma + 1, -180, 180, &s->node.longitude_deg);
}

/* Soon, not when the worker looks: that starts again and again. */
static bool model_take(struct serve *s, const char *flag, const char *value)
{
    char magic[4] = "";
    errno = 0;
    FILE *file = fopen(value, "re");
    if (file == NULL || fread(magic, 1, sizeof(magic), file) == 0) {
        fprintf(stderr, "weft serve: %s: %s\n", value, errno != 0 ? strerror(errno) : "is empty");
        s->failed = true;
    } else if (memcmp(magic, "GGUF", sizeof(magic)) != 0) {
        fprintf(stderr, "weft serve: %s is not a GGUF file; scripts/model-fetch gets one\n", value);
        s->failed = true;
    }
    if (file != NULL) {
        fclose(file);
    }
    s->models++;
    return arg_add(&s->programs[WORKER], flag) && arg_add(&s->programs[WORKER], value);
}

/* `flag` is "--name", as it was given. */
static bool option_take(struct serve *s, int option, const char *flag, const char *value)
{
    struct program *p = &s->programs[option == OPT_WORKER ? WORKER : GATEWAY];
    uint64_t number;
    switch (option) {
    case OPT_MODEL:
        return model_take(s, flag, value);
    case OPT_LISTEN:
        s->listen = value;
        return value[0] != '\0';
    case OPT_CONFIG:
        s->config_option = value;
        return value[0] != '\0';
    case OPT_POSITION:
        return position_take(s, value);
    case OPT_TIER:
        if (!cli_number(value, 0, 7, &number)) {
            return false;
        }
        s->node.tier = (uint32_t)number;
        return true;
    case OPT_TLS_CERT:
        s->scheme = "https";
        return arg_add(p, flag) && arg_add(p, value);
    default:
        return arg_add(p, flag) && arg_add(p, value);
    }
}

static int options_read(struct serve *s, int argc, char **argv)
{
    static char flags[sizeof(options) / sizeof(options[0])][16];
    int index = 0;
    opterr = 0; /* own words */
    for (int c; (c = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (c == '?') {
            return cli_usage_error("serve", "%s is no option, or lacks its value",
                                   argv[optind - 1]);
        }
        snprintf(flags[index], sizeof(flags[index]), "--%s", options[index].name);
        if (!option_take(s, c, flags[index], optarg)) {
            return cli_usage_error("serve", "--%s cannot be %s", options[index].name, optarg);
        }
    }
    if (optind != argc || s->models == 0) {
        return cli_usage_error("serve", "--model FILE is needed, and nothing else");
    }
    return s->failed ? CLI_ERROR : CLI_OK;
}

/* ---- what has to be there ---- */

static bool port_is_free(uint32_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool free = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return free;
}

/* Two in a row that nobody has: another `weft serve` may run. */
static uint32_t port_find(void)
{
    uint32_t port = PORT_FIRST;
    while (port < PORT_FIRST + PORT_TRIES && !(port_is_free(port) && port_is_free(port + 1))) {
        port += 2;
    }
    return port;
}

static int folder_make(struct serve *s)
{
    const char *base = serve_folder_base();
    unsigned left = serve_folders_clean(base);
    int rc = serve_folder_make(base, s->folder, sizeof(s->folder), &s->lock);
    if (left > 0) {
        LOG_INFO("removed what was left behind folders=%u in=%s", left, base);
    }
    if (rc != 0) {
        fprintf(stderr, "weft serve: no folder for sockets: %s\n", strerror(-rc));
        return CLI_ERROR;
    }
    return CLI_OK;
}

static int config_make(struct serve *s)
{
    char text[2048];
    if (folder_make(s) != CLI_OK) {
        return CLI_ERROR;
    }
    s->node.folder = s->folder;
    s->node.data_port = port_find();
    size_t len = serve_config_write(&s->node, text, sizeof(text));
    snprintf(s->config_path, sizeof(s->config_path), "%s/node.yaml", s->folder);
    snprintf(s->admin, sizeof(s->admin), "%s/admin.sock", s->folder);
    snprintf(s->port, sizeof(s->port), "%s/port.sock", s->folder);
    FILE *file = fopen(s->config_path, "we");
    bool good = file != NULL && len != 0 && fwrite(text, 1, len, file) == len;
    if ((file != NULL && fclose(file) != 0) || !good) {
        fprintf(stderr, "weft serve: %s: %s\n", s->config_path, strerror(errno));
        return CLI_ERROR;
    }
    return CLI_OK;
}

static void config_error(const char *path, unsigned line, const char *text, void *user)
{
    (void)user;
    if (line == 0) {
        fprintf(stderr, "%s: %s\n", path, text); /* of the whole file */
    } else {
        fprintf(stderr, "%s:%u: %s\n", path, line, text);
    }
}

/* The node's own configuration says where its sockets are. */
static int config_take(struct serve *s)
{
    struct config *config = NULL;
    if (config_load(&config, s->config_option, config_error, NULL) != 0) {
        return CLI_ERROR;
    }
    memcpy(s->admin, config->sockets.admin, sizeof(s->admin));
    memcpy(s->port, config->sockets.port, sizeof(s->port));
    snprintf(s->config_path, sizeof(s->config_path), "%s", s->config_option);
    config_destroy(config);
    return CLI_OK;
}

static bool commands_make(struct serve *s)
{
    struct program *node = &s->programs[NODE];
    struct program *worker = &s->programs[WORKER];
    struct program *gateway = &s->programs[GATEWAY];
    snprintf(s->client, sizeof(s->client), "unix:%s", s->port);
    return arg_add(node, "--config") && arg_add(node, s->config_path) &&
           arg_add(worker, "--port") && arg_add(worker, s->port) && arg_add(gateway, "--node") &&
           arg_add(gateway, s->client) && arg_add(gateway, "--admin") &&
           arg_add(gateway, s->admin) && arg_add(gateway, "--listen") &&
           arg_add(gateway, s->listen);
}

/* The others are where this program is. */
static void programs_find(struct serve *s)
{
    ssize_t len = readlink("/proc/self/exe", s->programs_dir, sizeof(s->programs_dir) - 1);
    s->programs_dir[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(s->programs_dir, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
}

/* ---- processes ---- */

static void child_run(const struct serve *s, enum role role)
{
    char path[PATH_MAX + 32];
    char *args[ARGS_MAX + 2];
    const struct program *p = &s->programs[role];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nobody is left behind */
    snprintf(path, sizeof(path), "%s/%s", s->programs_dir, role_programs[role]);
    args[0] = path;
    for (int i = 0; i < p->count; i++) {
        args[1 + i] = (char *)(uintptr_t)p->args[i];
    }
    args[1 + p->count] = NULL;
    execv(path, args);
    fprintf(stderr, "weft serve: %s: %s\n", path, strerror(errno));
    _exit(CLI_USAGE);
}

static void program_start(struct serve *s, enum role role, uint64_t now_ns)
{
    struct program *p = &s->programs[role];
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        child_run(s, role);
    }
    keeper_started(&p->keeper, now_ns);
    if (pid < 0) {
        LOG_ERROR("cannot start %s: %s", role_programs[role], strerror(errno));
        s->failed = !keeper_ended(&p->keeper, false, now_ns);
        return;
    }
    p->pid = pid;
}

static void end_log(enum role role, int status, bool hope)
{
    const char *then = hope ? "it is started again" : "it would not run";
    if (WIFSIGNALED(status)) {
        LOG_WARN("%s ended by signal %d; %s", role_programs[role], WTERMSIG(status), then);
    } else {
        LOG_WARN("%s ended with status %d; %s", role_programs[role], WEXITSTATUS(status), then);
    }
}

/* Takes notice of all that have ended. */
static void programs_reap(struct serve *s, uint64_t now_ns)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        for (int role = 0; role < ROLES; role++) {
            struct program *p = &s->programs[role];
            if (p->pid != pid) {
                continue;
            }
            p->pid = 0;
            bool usage = WIFEXITED(status) && WEXITSTATUS(status) == CLI_USAGE;
            bool hope = keeper_ended(&p->keeper, usage, now_ns);
            if (!s->stopping) {
                end_log((enum role)role, status, hope);
                s->failed = s->failed || !hope;
            }
        }
    }
}

/* The others need the node's socket. */
static bool may_start(const struct serve *s, enum role role)
{
    return role == NODE || (s->programs[NODE].pid != 0 && access(s->port, F_OK) == 0);
}

static void programs_keep(struct serve *s, uint64_t now_ns)
{
    for (int role = 0; role < ROLES; role++) {
        struct program *p = &s->programs[role];
        if (p->pid == 0 && keeper_due(&p->keeper, now_ns) && may_start(s, (enum role)role)) {
            program_start(s, (enum role)role, now_ns);
        }
    }
}

/* ---- waiting ---- */

static void signals_read(struct serve *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        /* The kernel's own is the terminal's end, somebody's is a wish. */
        if (info.ssi_signo == SIGHUP && info.ssi_code == SI_USER) {
            if (s->programs[GATEWAY].pid != 0) {
                kill(s->programs[GATEWAY].pid, SIGHUP);
            }
        } else if (info.ssi_signo != SIGCHLD) {
            s->now = s->stopping;
            s->stopping = true;
        }
    }
}

static void wait_turn(struct serve *s)
{
    struct pollfd wait = {.fd = s->signals, .events = POLLIN};
    (void)poll(&wait, 1, TURN_MS);
    signals_read(s);
    programs_reap(s, clock_now_ns());
}

/* The workers' models, with commas. */
static void models_list(const json_t *workers, char *out, size_t size)
{
    size_t index;
    const json_t *worker;
    size_t used = 0;
    out[0] = '\0';
    json_array_foreach(workers, index, worker)
    {
        const char *model = json_string_value(json_object_get(worker, "model"));
        int len = snprintf(out + used, size - used, "%s%s", index == 0 ? "" : ",",
                           model != NULL ? model : "?");
        used += len > 0 && (size_t)len < size - used ? (size_t)len : 0;
    }
}

/* Says once where it is, when the node has its worker, with all models, and the gateway runs. */
static void ready_look(struct serve *s)
{
    json_t *status = NULL;
    if (s->ready || s->programs[GATEWAY].pid == 0 ||
        ask(s->admin, "status", ASK_MS, &status) != 0) {
        return;
    }
    const json_t *workers = json_object_get(status, "workers");
    if (json_array_size(workers) >= s->models) {
        char models[512];
        s->ready = true;
        models_list(workers, models, sizeof(models));
        const char *address = strchr(s->listen, ':') != NULL ? "" : "127.0.0.1:";
        LOG_INFO("ready api=%s://%s%s/v1 map=%s://%s%s/ model=%s admin=%s", s->scheme, address,
                 s->listen, s->scheme, address, s->listen, models, s->admin);
    }
    json_decref(status);
}

static void program_stop(struct serve *s, enum role role, uint64_t patience_ns)
{
    struct program *p = &s->programs[role];
    uint64_t until_ns = clock_now_ns() + patience_ns;
    bool told_again = false;
    if (p->pid != 0) {
        kill(p->pid, SIGTERM);
    }
    while (p->pid != 0 && clock_now_ns() < until_ns) {
        wait_turn(s);
        if (s->now && !told_again && p->pid != 0) {
            told_again = true;
            kill(p->pid, SIGTERM); /* the gateway understands: at once */
            until_ns = clock_now_ns() + STOP_NODE_NS;
        }
    }
    if (p->pid != 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
        p->pid = 0;
    }
}

static int serve_run(struct serve *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* nobody has to read the log */
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0) {
        fprintf(stderr, "weft serve: %s\n", strerror(errno));
        return CLI_ERROR;
    }
    for (int role = 0; role < ROLES; role++) {
        keeper_init(&s->programs[role].keeper, clock_now_ns());
    }
    while (!s->stopping && !s->failed) {
        programs_keep(s, clock_now_ns());
        wait_turn(s);
        ready_look(s);
    }
    s->stopping = true;
    LOG_INFO("stopping");
    program_stop(s, GATEWAY, STOP_OTHERS_NS);
    program_stop(s, WORKER, STOP_OTHERS_NS);
    program_stop(s, NODE, STOP_NODE_NS);
    close(s->signals);
    return s->failed ? CLI_ERROR : CLI_OK;
}

int cmd_serve(int argc, char **argv)
{
    static struct serve serve;
    serve = (struct serve){.listen = "8080", .scheme = "http", .lock = -1};
    int rc = options_read(&serve, argc, argv);
    if (rc == CLI_OK) {
        log_init(LOG_LEVEL_INFO, "serve");
        rc = serve.config_option != NULL ? config_take(&serve) : config_make(&serve);
    }
    if (rc == CLI_OK && !commands_make(&serve)) {
        rc = cli_usage_error("serve", "too many options");
    }
    if (rc == CLI_OK) {
        programs_find(&serve);
        rc = serve_run(&serve);
    }
    serve_folder_remove(serve.folder, serve.lock);
    return rc;
}
