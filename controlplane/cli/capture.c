/* SPDX-License-Identifier: Apache-2.0 */
/* capture.c - see capture.h. */
#include "controlplane/cli/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <weft/wire.h>

#include "controlplane/cli/ask.h"
#include "schemas/drops.def"

#define ANSWER_MS  3000
#define ANSWER_MAX 1024u
#define HEADERS    42u /* Ethernet, IPv4, UDP */

#define DROP_COUNT_(name, text) +1
#define DROP_COUNT              (0 WEFT_DROPS(DROP_COUNT_))

struct capture {
    int socket_fd; /* -1: none */
    struct tap_shm *shm;
    size_t bytes;
    uint32_t lcores;
    uint32_t slots;
    uint64_t wall_offset_ns;
    char node[TAP_NAME_MAX];
    char interface[TAP_NAME_MAX];
    struct ring_end ends[TAP_LCORES_MAX];
};

/* ---- mapping ---- */

/* Copies what is used of the head, checked: the numbers must fit the memory's size. */
static bool head_take(struct capture *c)
{
    const struct tap_shm *shm = c->shm;
    c->lcores = shm->lcores;
    c->slots = shm->slots;
    c->wall_offset_ns = shm->wall_offset_ns;
    memcpy(c->node, shm->node, sizeof(c->node));
    memcpy(c->interface, shm->interface, sizeof(c->interface));
    c->node[TAP_NAME_MAX - 1] = c->interface[TAP_NAME_MAX - 1] = '\0';
    return shm->magic == TAP_MAGIC && shm->version == TAP_VERSION &&
           shm->drop_count == DROP_COUNT && c->lcores >= 1 && c->lcores <= TAP_LCORES_MAX &&
           c->slots >= TAP_SLOTS_MIN && c->slots <= TAP_SLOTS_MAX &&
           (c->slots & (c->slots - 1)) == 0 && tap_shm_bytes(c->lcores, c->slots) == c->bytes;
}

int capture_map(struct capture **out, int fd)
{
    struct stat st;
    *out = NULL;
    struct capture *c = calloc(1, sizeof(*c));
    int rc = c == NULL ? -ENOMEM : 0;
    int seals = fcntl(fd, F_GET_SEALS);
    if (rc == 0 && (fstat(fd, &st) != 0 || seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
                    st.st_size < (off_t)TAP_SLOTS_OFFSET)) {
        rc = -EPROTO;
    }
    if (rc == 0) {
        c->socket_fd = -1;
        c->bytes = (size_t)st.st_size;
        void *memory = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rc = memory == MAP_FAILED ? -errno : 0;
        c->shm = rc == 0 ? memory : NULL;
    }
    if (rc == 0 && !head_take(c)) {
        rc = -EPROTO;
    }
    close(fd);
    if (rc < 0) {
        capture_close(c);
        return rc;
    }
    for (uint32_t i = 0; i < c->lcores; i++) {
        ring_end_init(&c->ends[i], &c->shm->rings[i].ring, tap_shm_slots(c->shm, i, c->slots),
                      c->slots);
    }
    *out = c;
    return 0;
}

void capture_close(struct capture *c)
{
    if (c == NULL) {
        return;
    }
    if (c->shm != NULL) {
        munmap(c->shm, c->bytes);
    }
    if (c->socket_fd >= 0) {
        close(c->socket_fd);
    }
    free(c);
}

/* ---- asking ---- */

/* The answer's line and the descriptor that comes with it, -1 if none does. Returns the bytes of
 * the line or -errno. */
static ssize_t answer_take(int socket_fd, char *line, size_t size, int *fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = line, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = CMSG_LEN(sizeof(int)), /* no padding for another */
    };
    struct pollfd wait = {.fd = socket_fd, .events = POLLIN};
    *fd = -1;
    if (poll(&wait, 1, ANSWER_MS) <= 0) {
        return -ETIMEDOUT;
    }
    ssize_t got = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) {
        return got < 0 ? -errno : -EPROTO;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(fd, CMSG_DATA(header), sizeof(*fd));
    }
    return got;
}

/* A refusal's own words, made printable. */
static void refusal_take(const char *line, size_t len, char *error, size_t size)
{
    json_t *answer = json_loadb(line, len, 0, NULL);
    const char *text = json_string_value(json_object_get(answer, "error"));
    snprintf(error, size, "%s", text != NULL ? text : "the node gave no capture");
    for (char *c = error; *c != '\0'; c++) {
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
    }
    json_decref(answer);
}

int capture_open(struct capture **out, const char *socket, uint32_t snaplen, uint32_t slots,
                 char *error, size_t error_size)
{
    char request[128];
    char line[ANSWER_MAX];
    int fd;
    *out = NULL;
    error[0] = '\0';
    snprintf(request, sizeof(request), "{\"cmd\":\"tap\",\"snaplen\":%u,\"slots\":%u}", snaplen,
             slots);
    int socket_fd = ask_open(socket, request);
    if (socket_fd < 0) {
        return socket_fd;
    }
    ssize_t len = answer_take(socket_fd, line, sizeof(line), &fd);
    int rc = len < 0 ? (int)len : fd < 0 ? -EPERM : capture_map(out, fd);
    if (len >= 0 && fd < 0) {
        refusal_take(line, (size_t)len, error, error_size);
    } else if (rc == -EPROTO) {
        snprintf(error, error_size, "weftd and weft are of different versions");
    }
    if (rc < 0) {
        close(socket_fd);
        return rc;
    }
    (*out)->socket_fd = socket_fd;
    return 0;
}

/* ---- reading ---- */

static void headers_make(struct capture_frame *frame)
{
    uint16_t ip_len = (uint16_t)(frame->record.len - 14);
    uint16_t udp_len = (uint16_t)(frame->record.len - 34);
    uint8_t headers[HEADERS] = {
        [12] = 0x08,
        [14] = 0x45,
        [16] = (uint8_t)(ip_len >> 8),
        [17] = (uint8_t)ip_len,
        [22] = 64, /* hops */
        [23] = 17, /* UDP */
        [26] = 127,
        [29] = 1,
        [30] = 127,
        [33] = 1,
        [34] = (uint8_t)(WEFT_PORT_DEFAULT >> 8),
        [35] = (uint8_t)WEFT_PORT_DEFAULT,
        [36] = (uint8_t)(WEFT_PORT_DEFAULT >> 8),
        [37] = (uint8_t)WEFT_PORT_DEFAULT,
        [38] = (uint8_t)(udp_len >> 8),
        [39] = (uint8_t)udp_len,
    };
    uint32_t sum = 0;
    for (uint32_t i = 14; i < 34; i += 2) { /* RFC 1071 */
        sum += (uint32_t)headers[i] << 8 | headers[i + 1];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    headers[24] = (uint8_t)(sum >> 8);
    headers[25] = (uint8_t)sum;
    memcpy(frame->data, headers, frame->captured < HEADERS ? frame->captured : HEADERS);
}

bool capture_next(struct capture *c, struct capture_frame *frame)
{
    uint64_t oldest_ns = UINT64_MAX;
    struct ring_slot *oldest = NULL;
    for (uint32_t i = 0; i < c->lcores; i++) {
        struct ring_slot *slot = ring_peek(&c->ends[i]);
        if (slot == NULL) {
            continue;
        }
        uint64_t time_ns;
        memcpy(&time_ns, slot->data, sizeof(time_ns)); /* first in the record */
        if (oldest == NULL || time_ns < oldest_ns) {
            oldest = slot;
            oldest_ns = time_ns;
            frame->lcore = i;
        }
    }
    if (oldest == NULL) {
        return false;
    }
    uint32_t len = oldest->len;
    len = len < sizeof(frame->record) ? (uint32_t)sizeof(frame->record)
          : len > RING_DATA_MAX       ? RING_DATA_MAX
                                      : len;
    memcpy(&frame->record, oldest->data, sizeof(frame->record));
    frame->captured = len - (uint32_t)sizeof(frame->record);
    memcpy(frame->data, oldest->data + sizeof(frame->record), frame->captured);
    ring_release(&c->ends[frame->lcore]);
    frame->time_ns = frame->record.time_ns + c->wall_offset_ns;
    if (frame->record.point >= TAP_POINT_COUNT) {
        frame->record.point = TAP_NIC_IN;
    }
    if (frame->record.len < frame->captured) {
        frame->record.len = (uint16_t)frame->captured;
    }
    if (frame->record.point == TAP_WORKER_IN && frame->record.len >= HEADERS) {
        headers_make(frame);
    }
    return true;
}

bool capture_ended(const struct capture *c)
{
    struct pollfd poll_fd = {.fd = c->socket_fd, .events = POLLIN};
    return c->socket_fd >= 0 && poll(&poll_fd, 1, 0) > 0;
}

uint64_t capture_lost(const struct capture *c)
{
    uint64_t lost = 0;
    for (uint32_t i = 0; i < c->lcores; i++) {
        lost += atomic_load_explicit(&c->shm->rings[i].lost, memory_order_relaxed);
    }
    return lost;
}

const char *capture_node(const struct capture *c)
{
    return c->node;
}

const char *capture_interface(const struct capture *c)
{
    return c->interface;
}
