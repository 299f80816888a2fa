/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shelf.h - which models of a worker are loaded. Pure: it is told what there is and what time it
 * is, and says what to do next; library.h does it.
 *
 * All loaded models together fit `budget_bytes`. A model that is asked for and is away is loaded as
 * soon as there is room for it. Room comes from models that nobody uses, the one used least
 * recently first. If all that are loaded are busy, the one that has been there longest has to give
 * way once its turn is over: it takes nothing new (what is asked of it waits for its next turn),
 * ends what it has, and goes. So no model starves another, and none is loaded for nothing. A turn
 * lasts at least SHELF_TURN_NS and SHELF_TURN_LOADS times what loading the model takes.
 *
 * One thing happens at a time: while a model is loading or leaving nothing else begins.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SHELF_MODELS_MAX 8u
#define SHELF_TURN_NS    UINT64_C(1000000000)
#define SHELF_TURN_LOADS 4u

enum shelf_state {
    SHELF_AWAY = 0,
    SHELF_LOADING,
    SHELF_READY,
    SHELF_CLOSING, /* loaded, takes nothing new */
    SHELF_LEAVING, /* being unloaded */
};

struct shelf_model {
    enum shelf_state state;
    uint64_t bytes;      /* that it takes when loaded */
    uint64_t load_ns;    /* that loading it takes */
    uint64_t since_ns;   /* when it came into this state (CLOSING: when it became READY) */
    uint64_t used_ns;    /* when a request of its came or ended last */
    uint64_t retry_ns;   /* AWAY: not to be tried before; loading has failed */
    uint32_t open;       /* requests it computes */
    uint32_t waiting;    /* requests that wait for it to be loaded */
    uint64_t waiting_ns; /* when the oldest of them came */
    uint64_t drain_ns;   /* READY, CLOSING: until `open` will have ended, as predicted */
};

struct shelf {
    uint64_t budget_bytes;
    uint32_t count;
    struct shelf_model models[SHELF_MODELS_MAX];
};

enum shelf_act {
    SHELF_NOTHING = 0,
    SHELF_LOAD,   /* AWAY -> LOADING */
    SHELF_CLOSE,  /* READY -> CLOSING */
    SHELF_OPEN,   /* CLOSING -> READY: nobody wants its place any more */
    SHELF_UNLOAD, /* READY or CLOSING, without requests -> LEAVING */
};

struct shelf_step {
    enum shelf_act act;
    uint32_t model;
};

/* What to do now. To be asked again after anything has changed, and while anybody waits. */
struct shelf_step shelf_next(const struct shelf *shelf, uint64_t now_ns);

/* Nanoseconds until the model will be loaded, as predicted; 0 if it is. */
uint64_t shelf_wait_ns(const struct shelf *shelf, uint32_t model, uint64_t now_ns);

/* Does anybody wait for a model that is not there? */
bool shelf_is_wanted(const struct shelf *shelf);
