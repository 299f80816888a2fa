/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.h - what a backend is: something that runs batches of rows through a model and keeps a KV
 * cache per slot. Implemented by kernels/cpu; used by kernels/engine. Plain C: no type of any
 * accelerator's toolkit occurs here.
 *
 * A row is one token of one sequence. Rows of several sequences, and several neighbouring rows of
 * one (a piece of a prompt), go through together, so that continuous batching and chunked prefill
 * are nothing special. The logits of a row do not depend on what else is in its batch, not in a
 * single bit: a stream that moves between batches or nodes of one kind goes on unchanged.
 *
 * Threads: one backend belongs to one thread at a time; it may use threads of its own inside
 * exec_forward(), which returns when all is done. Two things are open to other threads meanwhile:
 * the struct exec_watch that was given to exec_forward(), and exec_info().
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXEC_PAGE_TOKENS 16u /* positions of a page of the KV cache */

/* One token at its place. Rows of the same slot follow each other in a batch with positions rising
 * by one, the first at most one beyond the last position the slot has seen. An earlier position
 * forgets all from there on: slots are reused by beginning at 0. */
struct exec_row {
    uint32_t slot;
    uint32_t position;
    uint32_t token;
    bool want_logits;
    bool want_state; /* the stream behind the last layer and norm: what logits are made of */
};

/* Where results go: those of the rows that want them, in the rows' order. */
struct exec_out {
    float *logits; /* `vocab` floats each; NULL if none is wanted */
    float *states; /* `width` floats each; the same */
};

/* A running forward, seen from outside. `stop` asks it to give up: it looks several times a layer,
 * and oftener where a layer is long, so that it obeys within milliseconds. `progress` rises by one
 * with every layer and says that something is computing. Both are the caller's to reset. */
struct exec_watch {
    _Atomic bool stop;
    _Atomic uint32_t progress;
};

struct exec_info {
    const char *backend; /* "cpu", ...; static */
    const char *detail;  /* "avx2", ...; static */
    uint32_t slots;
    uint32_t context;   /* positions of a slot */
    uint32_t pages;     /* of the KV cache, EXEC_PAGE_TOKENS positions each; 0 = no exec_place() */
    uint32_t batch_max; /* rows of a batch */
    uint32_t vocab;
    uint32_t width;      /* floats of a state; 0 = the backend gives none */
    size_t weight_bytes; /* read once per batch */
    size_t kv_bytes;     /* KV cache of all slots when full */
    size_t work_bytes;   /* everything else allocated */
    size_t free_bytes;   /* memory of the device still free, as far as known; else 0 */
    size_t page_bytes;   /* of one page outside, exec_page_out(); 0 = the backend cannot */
    const char *mode;    /* backends with equal modes compute the same bits; static. NULL: only with
                          * equal `backend` and `detail` */
    uint32_t ranks;      /* processes that compute together; 0 = this one alone */
};

typedef struct exec exec_t;

/* A backend's functions. `self` is the first member of the backend's own struct. */
struct exec_ops {
    int (*forward)(exec_t *self, const struct exec_row *rows, size_t count,
                   const struct exec_out *out, struct exec_watch *watch);
    /* May be NULL. */
    int (*place)(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count, uint32_t used);
    /* May be NULL. */
    int (*page_out)(exec_t *self, uint32_t page, void *out);
    int (*page_in)(exec_t *self, uint32_t page, const void *in);
    void (*info)(const exec_t *self, struct exec_info *out);
    void (*destroy)(exec_t *self);
};

struct exec {
    const struct exec_ops *ops;
};

/* Runs the rows. `watch` may be NULL. Returns 0, -EINVAL (nothing has run) for rows that break the
 * rules above or want what has no place, -ECANCELED if it was stopped, -ESTALE if a rank was lost
 * and with it all that slots and pages held, or a backend's -errno. After -ECANCELED the slots of
 * the batch end where their first row began, so that the same rows may come again; other slots are
 * as they were. After -ESTALE the backend may be used again, every slot from position 0. */
static inline int exec_forward_to(exec_t *exec, const struct exec_row *rows, size_t count,
                                  const struct exec_out *out, struct exec_watch *watch)
{
    return exec->ops->forward(exec, rows, count, out, watch);
}

/* From now on the slot's positions lie in these pages, the first EXEC_PAGE_TOKENS in pages[0] and
 * so on; rows beyond them are -EINVAL. `used` positions hold something already, computed before in
 * these pages, by any slot. A page may belong to several slots as long as none of them writes to
 * it. Until the first call a slot has pages of its own: who places one slot places all it uses.
 * Returns 0, -EINVAL for a slot, a page or a
 * count that is not there, -ENOTSUP. */
static inline int exec_place(exec_t *exec, uint32_t slot, const uint32_t *pages, uint32_t count,
                             uint32_t used)
{
    return exec->ops->place ? exec->ops->place(exec, slot, pages, count, used) : -ENOTSUP;
}

/* What a page of the KV cache holds, as `page_bytes` bytes that any backend of the same mode with
 * the same model takes back, into any page: a sequence goes on there as if it had never left. Not
 * while anything is computed. Returns 0, -EINVAL for a page that is not there, -ENOTSUP. */
static inline int exec_page_out(exec_t *exec, uint32_t page, void *out)
{
    return exec->ops->page_out ? exec->ops->page_out(exec, page, out) : -ENOTSUP;
}

static inline int exec_page_in(exec_t *exec, uint32_t page, const void *in)
{
    return exec->ops->page_in ? exec->ops->page_in(exec, page, in) : -ENOTSUP;
}

/* The same where no state is wanted. */
static inline int exec_forward(exec_t *exec, const struct exec_row *rows, size_t count,
                               float *logits, struct exec_watch *watch)
{
    const struct exec_out out = {.logits = logits};
    return exec_forward_to(exec, rows, count, &out, watch);
}

static inline void exec_info(const exec_t *exec, struct exec_info *out)
{
    exec->ops->info(exec, out);
}

/* NULL is fine. */
static inline void exec_destroy(exec_t *exec)
{
    if (exec)
        exec->ops->destroy(exec);
}
