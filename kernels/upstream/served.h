/* SPDX-License-Identifier: Apache-2.0 */
/*
 * served.h - the models that weft-upstream serves, each with a relay and a port of its own: those
 * that it was told, or all that services register (follow.h), as many as a node takes. A model that
 * nobody has registered for SERVED_GONE_NS goes when its last answer has ended; until then it has
 * no room, and the mesh looks elsewhere.
 *
 * Threads: one, the ports'.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/stay.h"
#include "kernels/upstream/registry.h"
#include "kernels/upstream/relay.h"
#include "schemas/base/clock.h"

#define SERVED_MAX     STAY_PORTS_MAX
#define SERVED_GONE_NS (30 * NS_PER_S)

struct served_model {
    char name[REGISTRY_MODEL_MAX]; /* what clients call it */
    struct relay *relay;           /* NULL: this place is free */
    bool told;                     /* by the settings: it stays */
    uint64_t gone_ns;              /* nobody has registered it since; 0 = somebody has */
    void *user;                    /* the program's */
};

struct served {
    const struct relay_options *options; /* of each relay; its endpoints are those of the first */
    struct served_model models[SERVED_MAX];
    bool told_full; /* to the log, that there are more */
};

/* Returns the place, or -ENOSPC, -ENOMEM. */
int served_add(struct served *served, const char *name, bool told);
/* All models that are registered now; `count` names. */
void served_offer(struct served *served, char (*names)[REGISTRY_MODEL_MAX], size_t count,
                  uint64_t now_ns);
/* Is it time for it to go? Close its port first. */
bool served_is_over(const struct served_model *model, uint64_t now_ns);
void served_remove(struct served_model *model);
void served_deinit(struct served *served);
