/* SPDX-License-Identifier: Apache-2.0 */
/* homes.c - see homes.h. */
#include "dataplane/route/homes.h"

static struct home *home_of(struct homes *homes, uint32_t session)
{
    return &homes->at[session & (HOMES - 1)];
}

/* True: the choice is the home now, by its id. */
static bool go_home(const struct route_table *table, struct route_load *loads,
                    const struct route_query *query, const struct home *home,
                    struct route_choice *choice)
{
    uint16_t index = route_table_find(table, home->node);
    return index != ROUTE_INDEX_NONE &&
           route_prefer_home(table, loads, query, index, home->prompt_bytes, choice);
}

void homes_steer(struct homes *homes, const struct route_table *table, struct route_load *loads,
                 const struct route_query *query, uint32_t session, uint64_t now_ns,
                 struct route_choice *choice)
{
    struct home *home = home_of(homes, session);
    bool known = home->session == session && home->model == query->model &&
                 now_ns - home->used_ns <= HOME_LIFE_NS;
    uint16_t node = table->nodes[choice->node].id;
    if (!known || (home->node != node && !go_home(table, loads, query, home, choice))) {
        home->session = session;
        home->model = query->model;
        home->node = node;
    }
    home->used_ns = now_ns;
    home->prompt_bytes = query->prompt_bytes;
}

void homes_correct(struct homes *homes, uint32_t session, uint16_t node)
{
    struct home *home = home_of(homes, session);
    if (home->session == session) {
        home->node = node;
    }
}
