/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h - the node's local question-and-answer socket: one request line in, one JSON value out,
 * closed. `weft status` is its client; control.c gives the answers.
 *
 * A request is a line of at most ADMIN_REQUEST_MAX bytes: a bare command (`status`) or
 * {"cmd":"status"}. Errors are answered as {"error": "..."}. At most ADMIN_CLIENTS_MAX clients are
 * served at once, each for at most ADMIN_TIME_NS; none can hold up the loop.
 *
 * A session is a request that is answered with one line of JSON and a descriptor, and whose
 * connection then stays: it ends when either side closes. `weft pcap` is a client of that kind.
 *
 * A question may also be answered later, from outside of the request's callback: admin_later.
 *
 * Threads: the loop's.
 */
#pragma once

#include <jansson.h>

#include "controlplane/loop/loop.h"
#include "schemas/base/clock.h"

#define ADMIN_CLIENTS_MAX  8u
#define ADMIN_SESSIONS_MAX 4u
#define ADMIN_LATERS_MAX   4u
#define ADMIN_REQUEST_MAX  1024u
#define ADMIN_TIME_NS      (2 * NS_PER_S) /* to ask in; to read some more of the answer in */
#define ADMIN_MODE         0660

struct admin;

/* The answer to a command, a new reference; NULL: no such command. */
typedef json_t *(*admin_answer_fn)(const char *command, void *user);

/* Listens at `path`. A socket file left behind is replaced, one that somebody listens on is not
 * (-EADDRINUSE), nor is anything that is no socket. Heap. Returns 0 or -errno. */
int admin_create(struct admin **admin, struct loop *loop, const char *path, admin_answer_fn fn,
                 void *user);

struct admin_session {
    const char *command;
    /* `request` is the object {"cmd":...} or NULL for a bare command. Gives the answer, a new
     * reference, and in `*fd` a descriptor that admin closes once it is sent; left at -1, the
     * answer is an ordinary one (a refusal) and no session begins. */
    json_t *(*open)(const json_t *request, int *fd, void *user);
    /* Exactly once after each successful open(), also if the answer could not be sent. */
    void (*close)(void *user);
    void *user;
};

/* Offers a session; `session` is copied, its `command` must stay. Returns 0 or -ENOSPC beyond
 * ADMIN_SESSIONS_MAX. */
int admin_offer(struct admin *admin, const struct admin_session *session);

struct admin_later {
    const char *command;
    /* `request` is the object {"cmd":...} or NULL for a bare command; `ticket` names the client.
     * Gives an answer to be sent at once, a new reference, or NULL: it is given to admin_answer(),
     * now or within the client's time. */
    json_t *(*ask)(const json_t *request, uint64_t ticket, void *user);
    void *user;
};

/* Copied, its `command` must stay. Returns 0 or -ENOSPC beyond ADMIN_LATERS_MAX. */
int admin_offer_later(struct admin *admin, const struct admin_later *later);

/* The answer, taken over, to the client of that ticket; if it has gone meanwhile, nobody gets it.
 */
void admin_answer(struct admin *admin, uint64_t ticket, json_t *answer);

/* Closes all and removes the socket file if it is still ours. NULL is fine. */
void admin_destroy(struct admin *admin);
