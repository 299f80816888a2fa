/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are processes of one machine: a double buffer of parts in a memfd, one counter a rank,
 * a futex to sleep on, pidfds to know who is still alive. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernels/collective/collective.h"

#define SHM_MAGIC      UINT32_C(0x776c6f63)
#define SHM_PAGE       4096u
#define SHM_PART_MAX   ((size_t)64 << 20)
#define SPINS          2000u
#define LOOK_EVERY_NS  5000000u /* at who is alive, while waiting */
#define NS_PER_MS      UINT64_C(1000000)
#define FAILED_DEAD    1u
#define FAILED_TIMEOUT 2u

/* A cache line of its own: what one rank writes and all read. */
struct seat {
    _Alignas(64) _Atomic uint32_t meetings; /* this rank has come to; 1 = joined */
    _Atomic int32_t pid;                    /* 0 = not yet taken */
    _Atomic uint32_t has_left;
};

struct group {
    uint32_t magic;
    uint32_t ranks;
    uint64_t part_bytes;
    _Atomic uint32_t bell;   /* rises whenever somebody has come: what sleepers sleep on */
    _Atomic uint32_t failed; /* 0, or why */
    struct seat seats[COLLECTIVE_RANKS_MAX];
};

_Static_assert(sizeof(struct group) <= SHM_PAGE, "the parts begin at the second page");

struct shm {
    struct collective base; /* first */
    struct group *group;
    size_t map_bytes;
    uint32_t meetings; /* this rank has come to */
    uint64_t timeout_ns;
    struct pollfd alive[COLLECTIVE_RANKS_MAX]; /* pidfds; -1 for this rank */
};

static size_t map_bytes(uint32_t ranks, uint64_t part_bytes)
{
    return SHM_PAGE + 2 * (size_t)ranks * part_bytes;
}

/* A rank's part of the meeting in hand. */
static uint8_t *part_of(const struct shm *s, uint32_t rank)
{
    const size_t half = s->meetings % 2;
    return (uint8_t *)s->group + SHM_PAGE +
           (half * s->base.ranks + rank) * (size_t)s->group->part_bytes;
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void ring(struct group *group)
{
    atomic_fetch_add(&group->bell, 1);
    (void)syscall(SYS_futex, &group->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void sleep_on(struct group *group, uint32_t bell)
{
    const struct timespec limit = {.tv_nsec = LOOK_EVERY_NS};
    (void)syscall(SYS_futex, &group->bell, FUTEX_WAIT, bell, &limit, NULL, 0);
}

/* The first reason stays. */
static int fail(struct group *group, uint32_t reason)
{
    uint32_t none = 0;
    if (atomic_compare_exchange_strong(&group->failed, &none, reason))
        ring(group);
    return atomic_load(&group->failed) == FAILED_TIMEOUT ? -ETIMEDOUT : -EPIPE;
}

static bool has_come(const struct shm *s, uint32_t rank)
{
    const uint32_t theirs =
        atomic_load_explicit(&s->group->seats[rank].meetings, memory_order_acquire);
    return (int32_t)(theirs - s->meetings) >= 0;
}

/* Is one that has not come dead or gone? Those who have done their part may leave. */
static bool is_broken(struct shm *s)
{
    (void)poll(s->alive, s->base.ranks, 0);
    for (uint32_t r = 0; r < s->base.ranks; r++) {
        const bool is_gone =
            atomic_load(&s->group->seats[r].has_left) || (s->alive[r].revents & POLLIN);
        if (is_gone && !has_come(s, r))
            return true;
    }
    return false;
}

static bool all_have_come(const struct shm *s)
{
    for (uint32_t r = 0; r < s->base.ranks; r++)
        if (!has_come(s, r))
            return false;
    return true;
}

/* Counts this rank in and waits for the others. What they wrote before is visible then. */
static int meet(struct shm *s)
{
    struct group *group = s->group;
    atomic_store_explicit(&group->seats[s->base.rank].meetings, s->meetings, memory_order_release);
    ring(group);
    for (uint32_t i = 0; i < SPINS; i++)
        if (all_have_come(s))
            return 0;
    const uint64_t begin = now_ns();
    for (;;) {
        const uint32_t bell = atomic_load(&group->bell);
        if (all_have_come(s))
            return 0;
        if (atomic_load(&group->failed))
            return fail(group, FAILED_DEAD);
        if (is_broken(s))
            return fail(group, FAILED_DEAD);
        if (s->timeout_ns && now_ns() - begin > s->timeout_ns)
            return fail(group, FAILED_TIMEOUT);
        sleep_on(group, bell);
    }
}

/* The next meeting: its part may be written, unless the group has failed. */
static int begin_meeting(struct shm *s)
{
    if (atomic_load(&s->group->failed))
        return fail(s->group, FAILED_DEAD);
    s->meetings++;
    return 0;
}

static int shm_allreduce(struct collective *self, float *data, size_t count)
{
    struct shm *s = (struct shm *)self;
    const size_t most = (size_t)s->group->part_bytes / sizeof(float);
    while (count) {
        const size_t now = count < most ? count : most;
        int rc = begin_meeting(s);
        if (rc)
            return rc;
        memcpy(part_of(s, self->rank), data, now * sizeof(*data));
        rc = meet(s);
        if (rc)
            return rc;
        memcpy(data, part_of(s, 0), now * sizeof(*data));
        for (uint32_t r = 1; r < self->ranks; r++) {
            const float *theirs = (const float *)(const void *)part_of(s, r);
            for (size_t i = 0; i < now; i++)
                data[i] += theirs[i];
        }
        data += now;
        count -= now;
    }
    return 0;
}

static int shm_allgather(struct collective *self, const void *mine, size_t size_bytes, void *all)
{
    struct shm *s = (struct shm *)self;
    for (size_t done = 0; done < size_bytes;) {
        const size_t left = size_bytes - done;
        const size_t now = left < s->group->part_bytes ? left : (size_t)s->group->part_bytes;
        int rc = begin_meeting(s);
        if (rc)
            return rc;
        memcpy(part_of(s, self->rank), (const uint8_t *)mine + done, now);
        rc = meet(s);
        if (rc)
            return rc;
        for (uint32_t r = 0; r < self->ranks; r++)
            memcpy((uint8_t *)all + r * size_bytes + done, part_of(s, r), now);
        done += now;
    }
    return 0;
}

static int shm_broadcast(struct collective *self, void *data, size_t size_bytes, uint32_t root)
{
    struct shm *s = (struct shm *)self;
    if (root >= self->ranks)
        return -EINVAL;
    for (size_t done = 0; done < size_bytes;) {
        const size_t left = size_bytes - done;
        const size_t now = left < s->group->part_bytes ? left : (size_t)s->group->part_bytes;
        int rc = begin_meeting(s);
        if (rc)
            return rc;
        if (self->rank == root)
            memcpy(part_of(s, root), (uint8_t *)data + done, now);
        rc = meet(s);
        if (rc)
            return rc;
        if (self->rank != root)
            memcpy((uint8_t *)data + done, part_of(s, root), now);
        done += now;
    }
    return 0;
}

static int shm_check(struct collective *self)
{
    struct shm *s = (struct shm *)self;
    if (atomic_load(&s->group->failed))
        return fail(s->group, FAILED_DEAD);
    (void)poll(s->alive, self->ranks, 0);
    for (uint32_t r = 0; r < self->ranks; r++)
        if ((s->alive[r].revents & POLLIN) || atomic_load(&s->group->seats[r].has_left))
            return -EPIPE;
    return 0;
}

static void shm_destroy(struct collective *self)
{
    struct shm *s = (struct shm *)self;
    if (s->group && s->meetings) {
        atomic_store(&s->group->seats[self->rank].has_left, 1);
        ring(s->group);
    }
    for (uint32_t r = 0; r < COLLECTIVE_RANKS_MAX; r++)
        if (s->alive[r].fd >= 0)
            close(s->alive[r].fd);
    if (s->group)
        munmap(s->group, s->map_bytes);
    free(s);
}

static const struct collective_ops shm_ops = {
    .allreduce = shm_allreduce,
    .allgather = shm_allgather,
    .broadcast = shm_broadcast,
    .check = shm_check,
    .destroy = shm_destroy,
};

int collective_shm_create(uint32_t ranks, size_t part_bytes)
{
    if (ranks == 0 || ranks > COLLECTIVE_RANKS_MAX || part_bytes == 0 || part_bytes > SHM_PART_MAX)
        return -EINVAL;
    const struct group group = {
        .magic = SHM_MAGIC, .ranks = ranks, .part_bytes = (part_bytes + 63) / 64 * 64};
    const int fd = memfd_create("weft-collective", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)map_bytes(ranks, group.part_bytes)) ||
        pwrite(fd, &group, sizeof(group), 0) != (ssize_t)sizeof(group)) {
        const int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static int map_group(struct shm *s, int fd)
{
    struct group group;
    struct stat st;
    if (pread(fd, &group, sizeof(group), 0) != (ssize_t)sizeof(group) || fstat(fd, &st))
        return -EINVAL;
    if (group.magic != SHM_MAGIC || group.ranks == 0 || group.ranks > COLLECTIVE_RANKS_MAX ||
        group.part_bytes == 0 || group.part_bytes > SHM_PART_MAX || group.part_bytes % 64 ||
        (size_t)st.st_size != map_bytes(group.ranks, group.part_bytes))
        return -EINVAL;
    s->map_bytes = (size_t)st.st_size;
    s->base.ranks = group.ranks;
    void *map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    s->group = map;
    return 0;
}

/* Waits until every seat is taken, and takes hold of every process: until all have done so nobody
 * goes on, so no number can have become another process's. */
static int meet_first(struct shm *s)
{
    const uint64_t begin = now_ns();
    for (uint32_t r = 0; r < s->base.ranks; r++) {
        int32_t pid;
        while (!(pid = atomic_load(&s->group->seats[r].pid))) {
            if (atomic_load(&s->group->failed))
                return fail(s->group, FAILED_DEAD);
            if (s->timeout_ns && now_ns() - begin > s->timeout_ns)
                return fail(s->group, FAILED_TIMEOUT);
            sleep_on(s->group, atomic_load(&s->group->bell));
        }
        if (r == s->base.rank)
            continue;
        s->alive[r].fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (s->alive[r].fd < 0)
            return fail(s->group, FAILED_DEAD);
    }
    const int rc = begin_meeting(s);
    return rc ? rc : meet(s);
}

int collective_shm_join(struct collective **out, int fd, uint32_t rank, uint32_t timeout_ms)
{
    *out = NULL;
    struct shm *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->base.ops = &shm_ops;
    s->base.rank = rank;
    s->timeout_ns = timeout_ms * NS_PER_MS;
    for (uint32_t r = 0; r < COLLECTIVE_RANKS_MAX; r++)
        s->alive[r] = (struct pollfd){.fd = -1, .events = POLLIN};
    int rc = map_group(s, fd);
    int32_t nobody = 0;
    if (!rc && rank >= s->base.ranks)
        rc = -EINVAL;
    if (!rc &&
        !atomic_compare_exchange_strong(&s->group->seats[rank].pid, &nobody, (int32_t)getpid()))
        rc = -EBUSY;
    if (!rc) {
        ring(s->group);
        rc = meet_first(s);
    }
    if (rc) {
        shm_destroy(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}
