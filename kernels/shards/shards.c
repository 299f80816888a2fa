/* SPDX-License-Identifier: Apache-2.0 */
/* The first rank: starts the others, hands every order on before it does it itself, and begins anew
 * when one of them is lost. */
#include "kernels/shards/shards.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kernels/shards/kind.h"
#include "kernels/shards/orders.h"
#include "kernels/shards/pages.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define TIMEOUT_DEFAULT_MS 10000u
#define OPEN_TIMEOUT_NS    (600 * NS_PER_S) /* to read and pack a large model */
#define RETRY_NS           NS_PER_S         /* between two starts of a group */
#define GRACE_MS           2000             /* for a rank to end by itself */
#define LOOK_MS            20               /* at whether it shall go on waiting */
#define PAGE_SILENCE_PART  10u              /* of the time for a forward; for a page */
#define PART_BYTES         ((size_t)256 << 10)
#define DETAIL_BYTES       176u
#define FD_ABOVE           16 /* out of the way of those that a rank gets */

extern char **environ;

struct process {
    pid_t pid; /* 0 = none */
    int fd;    /* of orders; -1 = none */
    bool read; /* that it is ready: what it sends next are pages */
};

struct shards {
    struct exec base; /* first */
    const struct model *whole;
    struct model *part;
    struct shard shard;
    exec_t *inner;
    struct hello hello; /* but for the place */
    uint32_t ranks;
    struct process processes[SHARDS_RANKS_MAX];
    int team_fd; /* this rank's groups until it has joined them; -1 = none */
    int line_fd;
    bool started;
    bool joined;
    bool is_broken; /* a rank has missed an order */
    uint64_t started_ns;
    size_t page_bytes; /* of the whole model's page; 0 = they stay where they are */
    void *page;        /* a rank's part of one */
    char detail[DETAIL_BYTES];
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- processes ------------------------------------------------------------------------------ */

static bool has_ended(const struct process *p, int wait_ms)
{
    const int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    const bool ended = fd < 0 || poll(&pfd, 1, wait_ms) == 1;
    if (fd >= 0)
        close(fd);
    return ended;
}

static void end_process(struct process *p, int grace_ms)
{
    close_fd(&p->fd);
    if (p->pid == 0)
        return;
    if (grace_ms == 0 || !has_ended(p, grace_ms))
        kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    p->pid = 0;
}

/* All that a group is. */
static void stop(struct shards *s, int grace_ms)
{
    collective_destroy(s->shard.line);
    collective_destroy(s->shard.team);
    s->shard.line = s->shard.team = NULL;
    close_fd(&s->team_fd);
    close_fd(&s->line_fd);
    for (uint32_t i = 1; i < s->ranks; i++)
        close_fd(&s->processes[i].fd);
    for (uint32_t i = 1; i < s->ranks; i++)
        end_process(&s->processes[i], grace_ms);
    s->started = s->joined = s->is_broken = false;
}

/* `fd` becomes the child's `number`, unless there is none. */
static int give(posix_spawn_file_actions_t *actions, int fd, int number)
{
    return fd >= 0 ? posix_spawn_file_actions_adddup2(actions, fd, number) : 0;
}

static int spawn(struct shards *s, uint32_t rank, int orders_fd, int team_fd)
{
    posix_spawn_file_actions_t actions;
    char number[16];
    char *const argv[] = {"weft-worker", "--rank", number, NULL};
    (void)snprintf(number, sizeof(number), "%u/%u", rank, s->ranks);
    if (posix_spawn_file_actions_init(&actions))
        return -ENOMEM;
    int rc = give(&actions, orders_fd, ORDERS_FD);
    if (!rc)
        rc = give(&actions, team_fd, TEAM_FD);
    if (!rc)
        rc = give(&actions, s->line_fd, LINE_FD);
    if (!rc)
        rc = posix_spawn(&s->processes[rank].pid, "/proc/self/exe", &actions, NULL, argv, environ);
    if (rc)
        s->processes[rank].pid = 0;
    posix_spawn_file_actions_destroy(&actions);
    return -rc;
}

/* A descriptor that no rank's own number can be. */
static int move_up(int fd)
{
    const int moved = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, FD_ABOVE);
    const int rc = moved < 0 && fd >= 0 ? -errno : moved;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int start_rank(struct shards *s, uint32_t rank, int team_fd)
{
    int pair[2];
    struct hello hello = s->hello;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return -errno;
    s->processes[rank].fd = pair[0];
    s->processes[rank].read = false;
    int theirs = move_up(pair[1]);
    int rc = theirs < 0 ? theirs : 0;
    if (!rc)
        rc = spawn(s, rank, theirs, team_fd);
    close_fd(&theirs);
    hello.place.stage = rank / hello.place.shards;
    hello.place.shard = rank % hello.place.shards;
    return rc ? rc : orders_send(pair[0], &hello, sizeof(hello), s->hello.timeout_ms);
}

static int start_stage(struct shards *s, uint32_t stage)
{
    const uint32_t shards = s->hello.place.shards;
    int team_fd = -1;
    int rc = 0;
    if (shards > 1 && !kind_uses_nccl(&s->hello)) {
        team_fd = move_up(collective_shm_create(shards, PART_BYTES));
        rc = team_fd < 0 ? team_fd : 0;
    }
    for (uint32_t i = stage ? 0 : 1; !rc && i < shards; i++)
        rc = start_rank(s, stage * shards + i, team_fd);
    if (stage == 0)
        s->team_fd = team_fd;
    else
        close_fd(&team_fd);
    return rc;
}

/* Processes and memory; the ranks then open the model. */
static int start(struct shards *s)
{
    const uint32_t stages = s->hello.place.stages;
    int rc = 0;
    s->started_ns = clock_now_ns();
    if (stages > 1) {
        s->line_fd = move_up(collective_shm_create(s->ranks, PART_BYTES));
        rc = s->line_fd < 0 ? s->line_fd : 0;
    }
    for (uint32_t stage = 0; !rc && stage < stages; stage++)
        rc = start_stage(s, stage);
    s->started = rc == 0;
    if (rc) {
        LOG_WARN("cannot start the ranks: %s", strerror(-rc));
        stop(s, 0);
    }
    return rc;
}

/* ---- joining -------------------------------------------------------------------------------- */

static bool is_stopped(const struct exec_watch *watch)
{
    return watch && atomic_load_explicit(&watch->stop, memory_order_relaxed);
}

/* Until the rank has opened its part. -ECANCELED if the caller does not want to wait any more. */
static int wait_ready(const struct shards *s, uint32_t rank, const struct exec_watch *watch)
{
    struct pollfd pfd = {.fd = s->processes[rank].fd, .events = POLLIN};
    uint8_t ready;
    for (;;) {
        if (is_stopped(watch))
            return -ECANCELED;
        if (clock_now_ns() - s->started_ns > OPEN_TIMEOUT_NS)
            return -ETIMEDOUT;
        if (poll(&pfd, 1, LOOK_MS) == 1)
            break;
    }
    const ssize_t n = recv(pfd.fd, &ready, sizeof(ready), MSG_PEEK);
    return n == 1 ? 0 : -EPIPE;
}

/* GPUs meet by an id that all of them know. */
static int tell_id(const struct shards *s, uint8_t id[COLLECTIVE_NCCL_ID_BYTES])
{
    int rc = kind_make_id(id);
    for (uint32_t i = 1; !rc && i < s->ranks; i++)
        rc = orders_send(s->processes[i].fd, id, COLLECTIVE_NCCL_ID_BYTES, s->hello.timeout_ms);
    return rc;
}

static int join(struct shards *s, const struct exec_watch *watch)
{
    const struct model_place *place = &s->shard.place;
    uint8_t id[COLLECTIVE_NCCL_ID_BYTES] = {0};
    int lines[SHARDS_RANKS_MAX];
    int rc = 0;
    for (uint32_t i = 1; !rc && i < s->ranks; i++) {
        lines[i - 1] = s->processes[i].fd;
        rc = wait_ready(s, i, watch);
    }
    if (!rc && place->shards > 1 && kind_uses_nccl(&s->hello))
        rc = tell_id(s, id);
    if (!rc && place->shards > 1)
        rc = kind_join(&s->shard, &s->hello, s->inner, s->team_fd, id, lines, s->ranks - 1);
    if (!rc && place->stages > 1)
        rc = collective_shm_join(&s->shard.line, s->line_fd, 0, s->hello.timeout_ms);
    if (rc)
        return rc;
    close_fd(&s->team_fd);
    close_fd(&s->line_fd);
    s->joined = true;
    return 0;
}

/* ---- exec.h --------------------------------------------------------------------------------- */

/* The group ends and another one begins. What slots held is lost with it. */
static int begin_anew(struct shards *s, int rc)
{
    LOG_WARN("a rank is lost (%s); starting all of them again", strerror(-rc));
    stop(s, 0);
    (void)start(s);
    return -ESTALE;
}

static int tell(struct shards *s, const struct order *order, const void *data, size_t size)
{
    int rc = 0;
    for (uint32_t i = 1; !rc && i < s->ranks; i++) {
        rc = orders_send(s->processes[i].fd, order, sizeof(*order), s->hello.timeout_ms);
        if (!rc)
            rc = orders_send(s->processes[i].fd, data, size, s->hello.timeout_ms);
    }
    return rc;
}

/* All ranks there, or why not. */
static int gather_ranks(struct shards *s, const struct exec_watch *watch)
{
    if (s->is_broken)
        return begin_anew(s, -EPIPE);
    if (s->joined)
        return 0;
    if (!s->started) {
        /* Where slots have been placed meanwhile new ranks do not know. */
        if (clock_now_ns() - s->started_ns >= RETRY_NS)
            (void)start(s);
        return -ESTALE;
    }
    const int rc = join(s, watch);
    return rc == 0 || rc == -ECANCELED ? rc : begin_anew(s, rc);
}

static int shards_forward(exec_t *self, const struct exec_row *rows, size_t count,
                          const struct exec_out *out, struct exec_watch *watch)
{
    struct shards *s = (struct shards *)self;
    const struct order order = {.kind = ORDER_FORWARD, .count = (uint32_t)count};
    if (count == 0 || count > s->hello.batch_max)
        return -EINVAL;
    int rc = gather_ranks(s, watch);
    if (rc)
        return rc;
    rc = tell(s, &order, rows, count * sizeof(*rows));
    if (!rc)
        rc = exec_forward_to(s->inner, rows, count, out, watch);
    return rc == 0 || rc == -EINVAL || rc == -ECANCELED ? rc : begin_anew(s, rc);
}

/* The next forward deals with a rank that cannot be told. */
static int shards_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count,
                        uint32_t used)
{
    struct shards *s = (struct shards *)self;
    const struct order order = {.kind = ORDER_PLACE, .count = count, .slot = slot, .used = used};
    const int rc = exec_place(s->inner, slot, pages, count, used);
    if (rc == 0 && s->started && tell(s, &order, pages, count * sizeof(*pages)))
        s->is_broken = true;
    return rc;
}

/* ---- pages outside ---- */

static int share_of(const struct shards *s, uint32_t rank, struct model_share *out)
{
    struct model_place place = s->shard.place;
    place.stage = rank / place.shards;
    place.shard = rank % place.shards;
    return model_share(s->whole, &place, out);
}

/* Whoever moves a page holds up all that is asked of the engine, and a rank does nothing but copy:
 * it is given a part of the time that it may compute in silence. */
static uint32_t page_silence_ms(const struct shards *s)
{
    return s->hello.timeout_ms / PAGE_SILENCE_PART + 1;
}

/* Of a rank but the first. */
static int fetch_part(struct shards *s, uint32_t rank, const struct model_share *share)
{
    struct process *p = &s->processes[rank];
    uint8_t ready;
    int rc = p->read ? 0 : orders_receive(p->fd, &ready, sizeof(ready), page_silence_ms(s));
    p->read = p->read || rc == 0;
    return rc ? rc
              : orders_receive(p->fd, s->page, shards_part_bytes(s->whole, share),
                               page_silence_ms(s));
}

/* What has failed half-way is the next forward's to deal with, and what slots held is lost then. */
static int broken(struct shards *s, int rc)
{
    s->is_broken = s->is_broken || rc;
    return rc;
}

static int shards_page_out(exec_t *self, uint32_t page, void *out)
{
    struct shards *s = (struct shards *)self;
    struct order order = {.kind = ORDER_PAGE_OUT, .slot = page};
    struct model_share share;
    if (!s->joined || s->is_broken)
        return -EAGAIN;
    int rc = exec_page_out(s->inner, page, s->page);
    if (rc)
        return rc;
    for (uint32_t i = 1; !rc && i < s->ranks; i++) { /* all at once, then one by one */
        rc = share_of(s, i, &share);
        order.count = (uint32_t)shards_part_bytes(s->whole, &share);
        if (!rc)
            rc = orders_send(s->processes[i].fd, &order, sizeof(order), page_silence_ms(s));
    }
    for (uint32_t i = 0; !rc && i < s->ranks; i++) {
        rc = share_of(s, i, &share);
        if (!rc && i)
            rc = fetch_part(s, i, &share);
        if (!rc)
            shards_part_put(s->whole, &share, s->page, out);
    }
    return broken(s, rc);
}

static int shards_page_in(exec_t *self, uint32_t page, const void *in)
{
    struct shards *s = (struct shards *)self;
    struct order order = {.kind = ORDER_PAGE_IN, .slot = page};
    struct model_share share;
    if (!s->joined || s->is_broken)
        return -EAGAIN;
    int rc = share_of(s, 0, &share);
    if (!rc)
        shards_part_take(s->whole, &share, in, s->page);
    if (!rc)
        rc = exec_page_in(s->inner, page, s->page);
    if (rc)
        return rc;
    for (uint32_t i = 1; !rc && i < s->ranks; i++) {
        rc = share_of(s, i, &share);
        order.count = (uint32_t)shards_part_bytes(s->whole, &share);
        shards_part_take(s->whole, &share, in, s->page);
        if (!rc)
            rc = orders_send(s->processes[i].fd, &order, sizeof(order), page_silence_ms(s));
        if (!rc)
            rc = orders_send(s->processes[i].fd, s->page, order.count, page_silence_ms(s));
    }
    return broken(s, rc);
}

static void shards_info(const exec_t *self, struct exec_info *out)
{
    const struct shards *s = (const struct shards *)self;
    exec_info(s->inner, out);
    out->ranks = s->ranks;
    if (s->shard.place.shards > 1) { /* bits are those of as many shards only */
        out->mode = NULL;
        out->detail = s->detail;
    }
    out->page_bytes = s->page_bytes;
    out->weight_bytes = s->whole->weight_bytes;
    out->kv_bytes *= s->ranks;
}

static void shards_destroy(exec_t *self)
{
    struct shards *s = (struct shards *)self;
    stop(s, GRACE_MS);
    exec_destroy(s->inner);
    model_destroy(s->part);
    free(s->page);
    free(s);
}

static const struct exec_ops shards_ops = {
    .forward = shards_forward,
    .place = shards_place,
    .page_out = shards_page_out,
    .page_in = shards_page_in,
    .info = shards_info,
    .destroy = shards_destroy,
};

static int fill_hello(struct shards *s, const struct shards_options *options)
{
    struct stat st;
    const size_t length = strlen(options->model_path);
    if (length >= PATH_BYTES)
        return -ENAMETOOLONG;
    if (stat(options->model_path, &st))
        return -errno;
    s->hello = (struct hello){
        .magic = ORDERS_MAGIC,
        .timeout_ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_DEFAULT_MS,
        .place = s->shard.place,
        .threads = options->cpu.threads,
        .exact = options->cpu.exact,
        .force_portable = options->cpu.force_portable,
        .slots = options->cpu.slots,
        .context = options->cpu.context,
        .batch_max = options->cpu.batch_max,
        .pages = options->cpu.pages,
        .is_cuda = options->is_cuda,
        .half_kv = options->half_kv,
        .fast = options->fast,
        .gemm = options->gemm,
        .file_bytes = (uint64_t)st.st_size,
    };
    memcpy(s->hello.model_path, options->model_path, length + 1);
    return 0;
}

/* This rank's own part; the sizes it has come to are those of all. */
static int open_inner(struct shards *s, char *why, size_t why_size)
{
    struct exec_info info;
    int rc = kind_check(&s->hello, why, why_size);
    if (!rc)
        rc = model_part(&s->part, s->whole, &s->shard.place, why, why_size);
    if (!rc)
        rc = kind_open(&s->inner, &s->hello, s->part, &s->shard, why, why_size);
    if (rc)
        return rc;
    exec_info(s->inner, &info);
    s->hello.slots = info.slots;
    s->hello.context = info.context;
    s->hello.batch_max = info.batch_max;
    s->hello.pages = info.pages;
    (void)snprintf(s->detail, sizeof(s->detail), "%u shards, %s", s->shard.place.shards,
                   info.mode && !s->hello.is_cuda ? info.mode : info.detail);
    if (s->hello.is_cuda) /* pages there are cut otherwise */
        return 0;
    s->page_bytes = shards_page_bytes(s->whole);
    s->page = malloc(s->page_bytes);
    return s->page ? 0 : -ENOMEM;
}

int shards_create(exec_t **out, const struct model *model, const struct shards_options *options,
                  char *why, size_t why_size)
{
    const uint32_t shards = options->shards ? options->shards : 1;
    const uint32_t stages = options->stages ? options->stages : 1;
    *out = NULL;
    if (shards > SHARDS_RANKS_MAX || stages > SHARDS_RANKS_MAX / shards) {
        (void)snprintf(why, why_size, "%u stages of %u shards are more than %u ranks", stages,
                       shards, SHARDS_RANKS_MAX);
        return -EINVAL;
    }
    struct shards *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->base.ops = &shards_ops;
    s->whole = model;
    s->ranks = shards * stages;
    s->team_fd = s->line_fd = -1;
    for (uint32_t i = 0; i < SHARDS_RANKS_MAX; i++)
        s->processes[i].fd = -1;
    s->shard.whole = model;
    s->shard.place = (struct model_place){.stages = stages, .shards = shards};
    int rc = fill_hello(s, options);
    if (!rc)
        rc = open_inner(s, why, why_size);
    if (!rc)
        rc = start(s);
    if (!rc) {
        rc = join(s, NULL);
        if (rc)
            (void)snprintf(why, why_size, "a rank did not come up: %s", strerror(-rc));
    }
    if (rc) {
        shards_destroy(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}
