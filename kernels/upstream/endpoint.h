/* SPDX-License-Identifier: Apache-2.0 */
/*
 * endpoint.h - one server: where it is, how it is doing, and the probes that find out. What becomes
 * of requests is relay.h's.
 *
 * Probes are GET /models: before the first request, when the breaker's pause is over, and every
 * ENDPOINT_PROBE_NS if nothing else has shown that the server lives. Whatever it answers short of
 * 401, 403 and 5xx shows that; a list in which the model does not stand is told to the log once.
 *
 * Threads: one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/upstream/answer.h"
#include "kernels/upstream/body.h"
#include "kernels/upstream/breaker.h"
#include "kernels/upstream/http.h"
#include "kernels/upstream/pace.h"
#include "kernels/upstream/where.h"

#define ENDPOINT_PROBE_NS      (15 * NS_PER_S)
#define ENDPOINT_PROBE_MS      5000L
#define ENDPOINT_BUSY_NS       NS_PER_S /* pause after "busy" that names none */
#define ENDPOINT_URL_MAX       (WHERE_URL_MAX + 32)
#define ENDPOINT_LIST_MAX      (256u << 10) /* bytes of the list of models */
#define ENDPOINT_NAME_MAX      64u
#define ENDPOINT_MODEL_MAX     128u
#define ENDPOINT_KEY_MAX       1024u
#define ENDPOINT_PATH_MAX      512u
#define ENDPOINT_ENDPOINTS_MAX 16u
#define ENDPOINT_ID_MAX        20u
#define ENDPOINT_WAIT_MAX_US   (UINT32_MAX - 1) /* more means draining: WEFT_QUEUE_DRAINING */

/* As configured. */
struct endpoint_config {
    char name[ENDPOINT_NAME_MAX];   /* for the log and the allow list; "" = the host */
    char model[ENDPOINT_MODEL_MAX]; /* the server's name for the model */
    char key[ENDPOINT_KEY_MAX];     /* "" = none */
    char ca_path[ENDPOINT_PATH_MAX];
    struct where where;
    enum body_resume resume;
    uint32_t slots;  /* requests at a time; 0 = as many as come */
    double price_in; /* per million tokens, for the account in the log; 0 = unknown */
    double price_out;
};

/* What a registered server says of itself. */
struct endpoint_told {
    bool told;
    uint32_t room; /* requests that it would take now */
    uint32_t queue_us;
    uint32_t age_s; /* since it said so */
};

struct endpoint {
    bool there;               /* else all is zero */
    bool leaving;             /* asked no more, and gone when its last call is */
    bool seen;                /* relay_mark() */
    char id[ENDPOINT_ID_MAX]; /* of the registry; "" = configured */
    struct endpoint_told told;
    uint32_t limit; /* calls at a time, by what it has told; UINT32_MAX = it has not */
    struct endpoint_config config;
    struct http_peer *peer;
    char chat_url[ENDPOINT_URL_MAX];
    char text_url[ENDPOINT_URL_MAX];
    char embed_url[ENDPOINT_URL_MAX];
    char models_url[ENDPOINT_URL_MAX];
    struct breaker breaker;
    struct pace pace;
    uint32_t open;     /* requests under way */
    uint64_t used_ns;  /* when the last one ended */
    uint64_t heard_ns; /* last sign of life */
    struct http *http; /* the relay's */
    struct http_call *probe;
    char *list; /* the probe's answer */
    size_t list_len;
    bool probed;       /* at least once */
    bool told_missing; /* that the model is not listed */
    /* Totals, for the log. */
    uint64_t answers, failures, tokens_in, tokens_out;
};

/* `config` is copied. Returns 0 or -ENOMEM. */
int endpoint_init(struct endpoint *endpoint, const struct endpoint_config *config,
                  struct http *http, uint64_t seed);
void endpoint_deinit(struct endpoint *endpoint);

/* It has told its load: so many more than are open now. The same telling, only older, says nothing
 * new. */
void endpoint_tell(struct endpoint *endpoint, const struct endpoint_told *told);

const char *endpoint_name(const struct endpoint *endpoint);

/* Further requests that it may be given, whether it is well or not; UINT32_MAX = as many as come.
 */
uint32_t endpoint_places(const struct endpoint *endpoint);
/* Would a request go there now? */
bool endpoint_has_room(const struct endpoint *endpoint, uint64_t now_ns);

/* A request that was under way there is no more. */
void endpoint_release(struct endpoint *endpoint, uint64_t now_ns);

/* Begins a probe if one is due. */
void endpoint_tick(struct endpoint *endpoint, uint64_t now_ns);
uint64_t endpoint_due_ns(const struct endpoint *endpoint, uint64_t now_ns);

/* What an answer, or its lack, says of the server. `end` NULL: the request was given up because
 * nothing came. */
void endpoint_judge(struct endpoint *endpoint, enum answer_verdict verdict,
                    const struct http_end *end, uint64_t now_ns);

/* Microseconds until somebody could be served, if nobody can now; what a request waits otherwise.
 */
uint32_t endpoint_wait_us(const struct endpoint *endpoint, uint64_t now_ns);

/* How long it has had nothing to do, for pace.h. */
double endpoint_silence_s(const struct endpoint *endpoint, uint64_t now_ns);

/* A line in the log: answers, failures, tokens, speeds, cost. */
void endpoint_log_account(const struct endpoint *endpoint);
