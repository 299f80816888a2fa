/* SPDX-License-Identifier: Apache-2.0 */
/* A rank but the first: opens its part of the model, then does what it is told until the first rank
 * closes the socket, by its own will or by its death. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/shards/kind.h"
#include "kernels/shards/orders.h"
#include "kernels/shards/shards.h"
#include "schemas/base/log.h"
#include "schemas/base/slice.h"

struct rank {
    struct hello hello;
    struct model *whole;
    struct model *part;
    struct shard shard;
    exec_t *exec;
    struct exec_row *rows; /* of the forward in hand */
    uint32_t *pages;       /* of the slot in hand */
    uint32_t pages_max;
    void *page; /* that goes out or comes in; NULL until there is one */
};

bool shards_is_rank(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], "--rank") == 0;
}

static int open_part(struct rank *r, char *why, size_t why_size)
{
    const struct hello *h = &r->hello;
    struct stat st;
    if (stat(h->model_path, &st) || (uint64_t)st.st_size != h->file_bytes)
        return -ESTALE;
    int rc = model_open(&r->whole, h->model_path, why, why_size);
    if (!rc)
        rc = model_part(&r->part, r->whole, &h->place, why, why_size);
    if (rc)
        return rc;
    r->shard = (struct shard){.whole = r->whole, .place = h->place};
    rc = kind_open(&r->exec, h, r->part, &r->shard, why, why_size);
    if (rc)
        return rc;
    struct exec_info info;
    exec_info(r->exec, &info);
    r->pages_max = info.context / EXEC_PAGE_TOKENS + 1;
    r->rows = calloc(h->batch_max, sizeof(*r->rows));
    r->pages = calloc(r->pages_max, sizeof(*r->pages));
    return r->rows && r->pages ? 0 : -ENOMEM;
}

static int join_groups(struct rank *r)
{
    const struct model_place *place = &r->hello.place;
    const uint8_t ready = 1;
    const int line = ORDERS_FD;
    uint8_t id[COLLECTIVE_NCCL_ID_BYTES];
    int rc = orders_send(ORDERS_FD, &ready, sizeof(ready), ORDERS_FOREVER);
    if (!rc && place->shards > 1 && kind_uses_nccl(&r->hello))
        rc = orders_receive(ORDERS_FD, id, sizeof(id), ORDERS_FOREVER);
    if (!rc && place->shards > 1)
        rc = kind_join(&r->shard, &r->hello, r->exec, TEAM_FD, id, &line, 1);
    if (!rc && place->stages > 1)
        rc = collective_shm_join(&r->shard.line, LINE_FD,
                                 place->stage * place->shards + place->shard, r->hello.timeout_ms);
    return rc;
}

static int do_forward(struct rank *r, const struct order *order)
{
    const struct exec_out nowhere = {0};
    if (order->count > r->hello.batch_max)
        return -EPROTO;
    int rc = orders_receive(ORDERS_FD, r->rows, order->count * sizeof(*r->rows), ORDERS_FOREVER);
    if (rc)
        return rc;
    rc = exec_forward_to(r->exec, r->rows, order->count, &nowhere, NULL);
    /* The first rank found the same, and said so. */
    return rc == -EINVAL || rc == -ECANCELED ? 0 : rc;
}

static int do_place(struct rank *r, const struct order *order)
{
    if (order->count > r->pages_max)
        return -EPROTO;
    const int rc =
        orders_receive(ORDERS_FD, r->pages, order->count * sizeof(*r->pages), ORDERS_FOREVER);
    return rc ? rc : exec_place(r->exec, order->slot, r->pages, order->count, order->used);
}

static int do_page(struct rank *r, const struct order *order)
{
    struct exec_info info;
    exec_info(r->exec, &info);
    if (order->count == 0 || order->count != info.page_bytes)
        return -EPROTO;
    if (!r->page && !(r->page = malloc(info.page_bytes)))
        return -ENOMEM;
    int rc = 0;
    if (order->kind == ORDER_PAGE_IN) {
        rc = orders_receive(ORDERS_FD, r->page, info.page_bytes, ORDERS_FOREVER);
        return rc ? rc : exec_page_in(r->exec, order->slot, r->page);
    }
    rc = exec_page_out(r->exec, order->slot, r->page);
    return rc ? rc : orders_send(ORDERS_FD, r->page, info.page_bytes, ORDERS_FOREVER);
}

static int do_order(struct rank *r, const struct order *order)
{
    switch (order->kind) {
    case ORDER_FORWARD:
        return do_forward(r, order);
    case ORDER_PLACE:
        return do_place(r, order);
    case ORDER_PAGE_OUT:
    case ORDER_PAGE_IN:
        return do_page(r, order);
    default:
        return -EPROTO;
    }
}

static int obey(struct rank *r)
{
    for (;;) {
        struct order order;
        int rc = orders_receive(ORDERS_FD, &order, sizeof(order), ORDERS_FOREVER);
        if (rc)
            return rc == -EPIPE || rc == -ECONNRESET ? 0 : rc;
        rc = do_order(r, &order);
        if (rc)
            return rc;
    }
}

static void close_rank(struct rank *r)
{
    exec_destroy(r->exec);
    collective_destroy(r->shard.line);
    collective_destroy(r->shard.team);
    model_destroy(r->part);
    model_destroy(r->whole);
    free(r->rows);
    free(r->pages);
    free(r->page);
}

int shards_rank_main(void)
{
    static struct rank r;
    char why[256] = "";
    log_init(LOG_LEVEL_INFO, "weft-rank");
    slice_usual(); /* who started it may hand over */
    int rc = orders_receive(ORDERS_FD, &r.hello, sizeof(r.hello), ORDERS_FOREVER);
    if (rc || r.hello.magic != ORDERS_MAGIC) {
        LOG_ERROR("a rank is started by weft-worker --shards, not by hand");
        return 2;
    }
    r.hello.model_path[PATH_BYTES - 1] = 0;
    rc = open_part(&r, why, sizeof(why));
    if (rc)
        LOG_ERROR("cannot open its part of %s: %s", r.hello.model_path,
                  why[0] ? why : strerror(-rc));
    if (!rc)
        rc = join_groups(&r);
    if (!rc)
        rc = obey(&r);
    if (rc)
        LOG_WARN("stage %u shard %u ends: %s", r.hello.place.stage, r.hello.place.shard,
                 strerror(-rc));
    close_rank(&r);
    return rc ? 1 : 0;
}
