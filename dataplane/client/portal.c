/* SPDX-License-Identifier: Apache-2.0 */
/* portal.c - see portal.h. */
#include "dataplane/client/portal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/client/attach.h"

int portal_init(struct portal *p, const char *name)
{
    size_t prefix = strlen(PORTAL_PREFIX);
    size_t len = strlen(name);
    memset(p, 0, sizeof(*p));
    p->socket = p->wake_node = -1;
    if (len <= prefix || len - prefix >= sizeof(p->path)) {
        return -EINVAL;
    }
    memcpy(p->path, name + prefix, len - prefix + 1);
    return 0;
}

void portal_close(struct portal *p)
{
    if (p->shm != NULL) {
        munmap(p->shm, sizeof(*p->shm));
    }
    if (p->wake_node >= 0) {
        close(p->wake_node);
    }
    if (p->socket >= 0) {
        close(p->socket);
    }
    p->shm = NULL;
    p->socket = p->wake_node = -1;
    p->asleep = p->more = p->pushed = false;
    p->wakes = 0;
    p->since_ns = 0;
    p->state = PORTAL_CLOSED;
}

int portal_begin(struct portal *p)
{
    struct port_client_hello hello = {
        .magic = PORT_CLIENT_MAGIC,
        .version = PORT_CLIENT_VERSION,
        .size = sizeof(hello),
    };
    strncpy(hello.program, program_invocation_short_name, sizeof(hello.program) - 1);
    p->socket = attach_hello(p->path, &hello, sizeof(hello));
    if (p->socket < 0) {
        int rc = p->socket;
        p->socket = -1;
        return rc;
    }
    p->state = PORTAL_GREETING;
    return 0;
}

int portal_greeted(struct portal *p)
{
    struct attachment a;
    int rc = attach_take(p->socket, PORT_CLIENT_FDS, sizeof(*p->shm), sizeof(*p->shm), &a);
    if (rc == -EAGAIN) {
        return rc;
    }
    if (rc != 0) {
        portal_close(p);
        return rc;
    }
    p->shm = a.map;
    p->wake_node = a.fds[PORT_CLIENT_FD_WAKE_NODE];
    ring_end_init(&p->in, &p->shm->to_client, p->shm->to_client_slots, PORT_CLIENT_SLOTS);
    ring_end_init(&p->out, &p->shm->to_node, p->shm->to_node_slots, PORT_CLIENT_SLOTS);
    p->state = PORTAL_OPEN;
    return 0;
}

bool portal_push(struct portal *p, const void *datagram, uint32_t len)
{
    struct ring_slot *slot = ring_reserve(&p->out);
    if (slot == NULL) {
        p->pushed = true; /* it had better be awake */
        return false;
    }
    memcpy(slot->data, datagram, len);
    slot->len = len;
    ring_commit(&p->out);
    p->pushed = true;
    return true;
}

void portal_wake(struct portal *p)
{
    if (p->pushed && ring_must_wake(&p->out)) {
        uint64_t one = 1;
        /* The node never reads it: it can only fail when the counter is full, after 2^64 times. */
        ssize_t written = write(p->wake_node, &one, sizeof(one));
        (void)written;
    }
    p->pushed = false;
}

void portal_rouse(struct portal *p)
{
    if (p->asleep) {
        uint32_t still = atomic_exchange_explicit(&p->in.ring->asleep, 0, memory_order_relaxed);
        p->wakes += still == 0; /* the node took it: its byte has come or will come */
        p->asleep = false;
    }
}

uint32_t portal_pop(struct portal *p, void *out, uint32_t max)
{
    struct ring_slot *slot = ring_peek(&p->in);
    if (slot == NULL) {
        return 0;
    }
    /* Copied out before it is looked at: the node could change it meanwhile. */
    uint32_t len = *(volatile uint32_t *)&slot->len;
    bool sound = len != 0 && len <= max && len <= RING_DATA_MAX;
    if (sound) {
        memcpy(out, slot->data, len);
    }
    ring_release(&p->in);
    return sound ? len : 1;
}

void portal_look(struct portal *p)
{
    char byte;
    ssize_t got;
    do {
        got = recv(p->socket, &byte, sizeof(byte), MSG_DONTWAIT);
        p->wakes -= got > 0 && p->wakes > 0 ? 1 : 0;
    } while (got > 0 && p->wakes > 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        portal_close(p);
    }
}

void portal_rest(struct portal *p)
{
    p->asleep = ring_sleep_begin(&p->in);
    p->more = !p->asleep;
}
