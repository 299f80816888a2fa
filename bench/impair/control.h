/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - changes to a running switch: a Unix socket that takes one line a connection and
 * answers with one JSON object, as nodes' admin sockets do. What the lines do is main.c's.
 * Nonblocking; a silent or slow peer costs a place out of CONTROL_PEERS_MAX and nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define CONTROL_PEERS_MAX 16u
#define CONTROL_LINE_MAX  4096u

struct control_peer {
    bool used;
    int fd;
    char line[CONTROL_LINE_MAX];
    size_t line_size;
    char *answer; /* malloc'ed by the handler */
    size_t answer_size;
    size_t answered;
};

/* Returns the answer to a line (without its newline), to be freed by control; NULL without memory.
 * The handler may use the line up. */
typedef char *control_handler(void *context, char *line);

struct control {
    int fd;
    int epoll;
    char path[108];
    control_handler *handle;
    void *context;
    struct control_peer peers[CONTROL_PEERS_MAX];
};

/* Listens on `path`, readable and writable by the owner alone, and adds itself to the epoll
 * instance; events carry pointers into *control (control_event). Replaces a socket that nobody
 * listens on. Returns 0 or a negative errno: -EADDRINUSE if somebody does. */
int control_init(struct control *control, const char *path, int epoll, control_handler *handle,
                 void *context);
void control_deinit(struct control *control);

/* Is this event's pointer one of ours? If so it is dealt with. */
bool control_event(struct control *control, void *pointer);

/* The other side: sends a line, prints the answer to stdout. Returns 0 if it says "ok", 1 if not,
 * or a negative errno. */
int control_tell(const char *path, const char *line);
