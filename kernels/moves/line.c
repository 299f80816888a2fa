/* SPDX-License-Identifier: Apache-2.0 */
/* See line.h. */
#include "kernels/moves/line.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "schemas/base/clock.h"

#define TAG_BYTES crypto_aead_chacha20poly1305_ietf_ABYTES

_Static_assert(LINE_KEY_BYTES == crypto_aead_chacha20poly1305_ietf_KEYBYTES, "keys are keys");

int line_init(struct line *line, int fd, int stop_fd, const uint8_t key[LINE_KEY_BYTES],
              bool caller)
{
    *line =
        (struct line){.fd = fd, .stop_fd = stop_fd, .deadline_ns = UINT64_MAX, .caller = caller};
    memcpy(line->key, key, sizeof(line->key));
    line->sealed = malloc(LINE_RECORD_MAX + TAG_BYTES);
    return line->sealed ? 0 : -ENOMEM;
}

void line_deinit(struct line *line)
{
    free(line->sealed);
    sodium_memzero(line, sizeof(*line));
}

/* Waits until the connection is ready for `events`. */
static int line_wait(const struct line *line, short events)
{
    const uint64_t now_ns = clock_now_ns();
    struct pollfd fds[2] = {{.fd = line->fd, .events = events},
                            {.fd = line->stop_fd, .events = POLLIN}};
    if (now_ns >= line->deadline_ns)
        return -ETIMEDOUT;
    const uint64_t left_ms = (line->deadline_ns - now_ns) / NS_PER_MS + 1;
    const int rc = poll(fds, 2, left_ms < 60000 ? (int)left_ms : 60000);
    if (rc < 0 && errno != EINTR)
        return -errno;
    return rc > 0 && fds[1].revents ? -ECANCELED : 0;
}

static int put_all(struct line *line, const uint8_t *data, size_t size)
{
    while (size) {
        const ssize_t put = send(line->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return errno == ECONNRESET ? -EPIPE : -errno;
        const int rc = put < 0 ? line_wait(line, POLLOUT) : 0;
        if (rc)
            return rc;
        data += put > 0 ? put : 0;
        size -= put > 0 ? (size_t)put : 0;
    }
    return 0;
}

static int get_all(struct line *line, uint8_t *data, size_t size)
{
    while (size) {
        const ssize_t got = recv(line->fd, data, size, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            return -EPIPE;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        const int rc = got < 0 ? line_wait(line, POLLIN) : 0;
        if (rc)
            return rc;
        data += got > 0 ? got : 0;
        size -= got > 0 ? (size_t)got : 0;
    }
    return 0;
}

static void nonce_of(uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES], bool by_caller,
                     uint64_t count)
{
    memset(nonce, 0, crypto_aead_chacha20poly1305_ietf_NPUBBYTES);
    nonce[0] = by_caller;
    memcpy(nonce + 4, &count, sizeof(count));
}

static int send_record(struct line *line, const uint8_t *data, size_t size)
{
    uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
    nonce_of(nonce, line->caller, line->sent++);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(line->sealed, NULL, data, size, NULL, 0, NULL,
                                                    nonce, line->key);
    return put_all(line, line->sealed, size + TAG_BYTES);
}

static int receive_record(struct line *line, uint8_t *data, size_t size)
{
    uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
    const int rc = get_all(line, line->sealed, size + TAG_BYTES);
    if (rc)
        return rc;
    nonce_of(nonce, !line->caller, line->received++);
    return crypto_aead_chacha20poly1305_ietf_decrypt(data, NULL, NULL, line->sealed,
                                                     size + TAG_BYTES, NULL, 0, nonce, line->key)
               ? -EBADMSG
               : 0;
}

int line_send(struct line *line, const void *data, size_t size)
{
    const uint8_t *at = data;
    int rc = 0;
    for (size_t part; rc == 0 && size; size -= part, at += part) {
        part = size < LINE_RECORD_MAX ? size : LINE_RECORD_MAX;
        rc = send_record(line, at, part);
    }
    return rc;
}

int line_receive(struct line *line, void *data, size_t size)
{
    uint8_t *at = data;
    int rc = 0;
    for (size_t part; rc == 0 && size; size -= part, at += part) {
        part = size < LINE_RECORD_MAX ? size : LINE_RECORD_MAX;
        rc = receive_record(line, at, part);
    }
    return rc;
}
