/* SPDX-License-Identifier: Apache-2.0 */
/* tap_hub.c - see tap_hub.h. */
#include "dataplane/tap/tap_hub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "schemas/base/clock.h"

/* The reader can make the memory neither smaller, which would kill an lcore, nor larger. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

struct tap_hub {
    uint32_t lcores;
    uint32_t generation;
    char node[TAP_NAME_MAX];
    char interface[TAP_NAME_MAX];
    struct tap_view *view; /* the running capture */
    struct {
        struct tap_view *view;
        uint32_t generation; /* the one without it */
    } retired[TAP_RETIRED_MAX];
    uint32_t retired_count;
    struct tap taps[];
};

int tap_hub_create(struct tap_hub **out, uint32_t lcores, const char *node, const char *interface)
{
    *out = NULL;
    if (lcores == 0 || lcores > TAP_LCORES_MAX) {
        return -EINVAL;
    }
    size_t size = sizeof(struct tap_hub) + lcores * sizeof(struct tap);
    size_t whole = (size + _Alignof(struct tap) - 1) / _Alignof(struct tap) * _Alignof(struct tap);
    struct tap_hub *hub = aligned_alloc(_Alignof(struct tap_hub), whole);
    if (hub == NULL) {
        return -ENOMEM;
    }
    memset(hub, 0, whole);
    hub->lcores = lcores;
    snprintf(hub->node, sizeof(hub->node), "%s", node);
    snprintf(hub->interface, sizeof(hub->interface), "%s", interface);
    for (uint32_t i = 0; i < lcores; i++) {
        tap_init(&hub->taps[i], i);
    }
    *out = hub;
    return 0;
}

static void view_free(struct tap_view *view)
{
    if (view != NULL) {
        munmap(view->shm, view->bytes);
        free(view);
    }
}

void tap_hub_destroy(struct tap_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    view_free(hub->view);
    for (uint32_t i = 0; i < hub->retired_count; i++) {
        view_free(hub->retired[i].view);
    }
    free(hub);
}

struct tap *tap_hub_lcore(struct tap_hub *hub, uint32_t lcore)
{
    return &hub->taps[lcore];
}

static void announce(struct tap_hub *hub)
{
    hub->generation++;
    for (uint32_t i = 0; i < hub->lcores; i++) {
        atomic_store_explicit(&hub->taps[i].wanted, hub->view, memory_order_release);
        atomic_store_explicit(&hub->taps[i].generation, hub->generation, memory_order_release);
    }
}

static uint64_t wall_offset(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (uint64_t)wall.tv_sec * NS_PER_S + (uint64_t)wall.tv_nsec - clock_now_ns();
}

/* Returns the descriptor of sealed memory of `size` bytes, or -errno. */
static int memory_make(size_t size, struct tap_shm **shm)
{
    int fd = memfd_create("weft-tap", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)size) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *shm = memory;
    return fd;
}

int tap_hub_open(struct tap_hub *hub, uint32_t snaplen, uint32_t slots)
{
    uint32_t rounded = TAP_SLOTS_MIN;
    if (snaplen == 0 || snaplen > TAP_SNAPLEN_MAX || slots == 0 || slots > TAP_SLOTS_MAX) {
        return -EINVAL;
    }
    tap_hub_reap(hub);
    if (hub->view != NULL || hub->retired_count == TAP_RETIRED_MAX) {
        return -EBUSY;
    }
    while (rounded < slots) {
        rounded *= 2;
    }
    struct tap_view *view = calloc(1, sizeof(*view));
    if (view == NULL) {
        return -ENOMEM;
    }
    view->slots = rounded;
    view->snaplen = snaplen;
    view->bytes = tap_shm_bytes(hub->lcores, rounded);
    int fd = memory_make(view->bytes, &view->shm);
    if (fd < 0) {
        free(view);
        return fd;
    }
    struct tap_shm *shm = view->shm;
    shm->magic = TAP_MAGIC;
    shm->version = TAP_VERSION;
    shm->lcores = hub->lcores;
    shm->slots = rounded;
    shm->snaplen = snaplen;
    shm->drop_count = ROUTE_DROP_COUNT;
    shm->wall_offset_ns = wall_offset();
    memcpy(shm->node, hub->node, sizeof(shm->node));
    memcpy(shm->interface, hub->interface, sizeof(shm->interface));
    hub->view = view;
    announce(hub);
    return fd;
}

void tap_hub_close(struct tap_hub *hub)
{
    if (hub->view == NULL) {
        return;
    }
    struct tap_view *view = hub->view;
    hub->view = NULL;
    announce(hub);
    hub->retired[hub->retired_count].view = view;
    hub->retired[hub->retired_count++].generation = hub->generation;
    tap_hub_reap(hub);
}

uint32_t tap_hub_reap(struct tap_hub *hub)
{
    uint32_t oldest = hub->generation;
    for (uint32_t i = 0; i < hub->lcores; i++) {
        uint32_t seen = atomic_load_explicit(&hub->taps[i].seen, memory_order_acquire);
        oldest = (int32_t)(seen - oldest) < 0 ? seen : oldest;
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < hub->retired_count; i++) {
        if ((int32_t)(oldest - hub->retired[i].generation) >= 0) {
            view_free(hub->retired[i].view);
        } else {
            hub->retired[left++] = hub->retired[i];
        }
    }
    hub->retired_count = left;
    return left;
}
