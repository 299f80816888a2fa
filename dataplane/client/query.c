/* SPDX-License-Identifier: Apache-2.0 */
/* query.c - a weft_query_t becomes a request header and a body; see client_impl.h. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/client/client_impl.h"

#define QUERY_MAX_TOKENS 256u
#define QUERY_RADIUS_MAX 20037u /* half the Earth's circumference, km */
#define QUERY_TAG_MAX    32u

static int query_tags(const char *text, uint32_t *mask)
{
    *mask = 0;
    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, ",");
        char name[QUERY_TAG_MAX];
        if (len == 0 || len >= sizeof(name)) {
            return -EINVAL;
        }
        memcpy(name, text, len);
        name[len] = '\0';
        uint32_t bit = weft_tag_mask(name);
        if (bit == 0) {
            return -EINVAL;
        }
        *mask |= bit;
        text += len + (text[len] == ',');
    }
    return 0;
}

/* The policy tags and the jurisdiction: what the node's own tags must contain. */
static int query_policy(const weft_query_t *q, uint32_t *mask)
{
    const char *jurisdiction = q->more != NULL ? q->more->jurisdiction : NULL;
    uint32_t bits = jurisdiction != NULL ? weft_jurisdiction_mask(jurisdiction) : 0;
    if (query_tags(q->tags, mask) != 0 || (jurisdiction != NULL && bits == 0)) {
        return -EINVAL;
    }
    *mask |= bits;
    return 0;
}

static uint32_t query_tokens(const weft_query_t *q)
{
    if (q->embed != WEFT_EMBED_NONE) {
        return 1; /* as much work, more or less */
    }
    return q->max_tokens != 0 ? q->max_tokens : QUERY_MAX_TOKENS;
}

static int query_header(const weft_query_t *q, struct weft_req_hdr *hdr)
{
    uint32_t tier_min = q->has_tiers ? q->tier_min : 0;
    uint32_t tier_max = q->has_tiers ? q->tier_max : WEFT_TIER_MAX;
    uint32_t units = q->vram_mib / WEFT_VRAM_UNIT_MIB + (q->vram_mib % WEFT_VRAM_UNIT_MIB != 0);
    uint32_t tags;
    if (q->model == NULL || q->model[0] == '\0' || strlen(q->model) >= WEFT_MODEL_NAME_MAX ||
        tier_min > tier_max || tier_max > WEFT_TIER_MAX || q->priority > 15 ||
        q->radius_km > QUERY_RADIUS_MAX || units > UINT16_MAX || query_policy(q, &tags) != 0) {
        return -EINVAL;
    }
    uint32_t tokens = query_tokens(q);
    memset(hdr, 0, sizeof(*hdr));
    hdr->prio_mode = (uint8_t)(q->priority << 4);
    if (q->session != NULL && q->session[0] != '\0') {
        hdr->session = weft_model_id(q->session); /* the same hash: any text to 32 bits, not 0 */
    }
    hdr->model = weft_model_id(q->model);
    hdr->req_tags = tags;
    hdr->vram_64mib = (uint16_t)units;
    hdr->radius_km = (uint16_t)q->radius_km;
    hdr->tiers = (uint8_t)(tier_min << 4 | tier_max);
    hdr->max_tokens = tokens < UINT16_MAX ? (uint16_t)tokens : UINT16_MAX;
    hdr->want = q->end_to_end ? WEFT_WANT_E2E : 0;
    if (q->has_position) {
        if (!isfinite(q->latitude_deg) || !isfinite(q->longitude_deg)) {
            return -EINVAL;
        }
        hdr->want |= WEFT_WANT_POSITION;
        hdr->x = weft_cell_x(q->longitude_deg);
        hdr->y = weft_cell_y(q->latitude_deg);
    }
    return 0;
}

static uint32_t query_role(const char *name)
{
    for (uint32_t role = WEFT_ROLE_SYSTEM; name != NULL && role <= WEFT_ROLE_TOOLS; role++) {
        if (strcmp(name, weft_role_name(role)) == 0) {
            return role;
        }
    }
    return 0;
}

/* A NaN fails each comparison. */
static bool query_sampling_is_fine(const struct prompt_spec *s)
{
    return s->temperature >= 0.0f && s->temperature <= PROMPT_TEMPERATURE_MAX && s->top_p > 0.0f &&
           s->top_p <= 1.0f && s->min_p >= 0.0f && s->min_p <= 1.0f && s->repetition >= 0.0f &&
           s->repetition <= PROMPT_PENALTY_MAX && s->presence >= -PROMPT_PENALTY_MAX &&
           s->presence <= PROMPT_PENALTY_MAX && s->frequency >= -PROMPT_PENALTY_MAX &&
           s->frequency <= PROMPT_PENALTY_MAX && s->logprobs <= WEFT_LOGPROBS_MAX &&
           s->embed <= WEFT_EMBED_LAST && s->format <= WEFT_FORMAT_CALL &&
           s->format_len <= WEFT_FORMAT_MAX &&
           (s->format != WEFT_FORMAT_NONE) >= (s->format_len != 0) &&
           (s->format == WEFT_FORMAT_NONE || s->embed == WEFT_EMBED_NONE);
}

static int query_stops(const weft_query_t *q, weft_job_part_t *stops)
{
    if (q->stop_count > WEFT_STOPS_MAX || (q->stop_count != 0 && q->stop == NULL)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < q->stop_count; i++) {
        size_t len = q->stop[i] != NULL ? strnlen(q->stop[i], WEFT_STOP_BYTES_MAX + 1) : 0;
        if (len == 0 || len > WEFT_STOP_BYTES_MAX) {
            return -EINVAL;
        }
        stops[i] = (weft_job_part_t){0, q->stop[i], len};
    }
    return 0;
}

/* Only with a traceparent has a tracestate a meaning. */
static void query_trace_state(const weft_query_t *q, char text[TRACESTATE_BYTES],
                              struct prompt_spec *spec)
{
    struct tracestate state = {.count = 0};
    if (q->traceparent != NULL && q->more != NULL && q->more->tracestate != NULL) {
        tracestate_add(&state, q->more->tracestate, strlen(q->more->tracestate));
    }
    spec->trace_state = text;
    spec->trace_state_len = tracestate_write(&state, text);
}

static int query_prompt(const weft_query_t *q, weft_job_part_t *parts, weft_job_part_t *stops,
                        struct prompt_spec *spec)
{
    *spec = (struct prompt_spec){
        .parts = parts,
        .part_count = q->message_count,
        .text = q->text,
        .text_len = q->text_len,
        .max_tokens = query_tokens(q),
        .temperature = q->temperature,
        .top_p = q->top_p == 0.0f ? 1.0f : q->top_p,
        .min_p = q->min_p,
        .top_k = q->top_k,
        .seed = q->seed,
        .repetition = q->repetition_penalty,
        .presence = q->presence_penalty,
        .frequency = q->frequency_penalty,
        .logprobs = q->logprobs,
        .stops = stops,
        .stop_count = q->stop_count,
        .no_thinking = q->no_thinking,
        .embed = q->embed,
        .format = q->format,
        .format_text = q->format_text,
        .format_len = q->format_text != NULL ? strlen(q->format_text) : 0,
    };
    if (!query_sampling_is_fine(spec) || query_stops(q, stops) != 0 ||
        (q->traceparent != NULL && !traceparent_parse(q->traceparent, &spec->trace))) {
        return -EINVAL;
    }
    for (size_t i = 0; i < q->message_count; i++) {
        const weft_message_t *m = &q->messages[i];
        parts[i] = (weft_job_part_t){query_role(m->role), m->text, m->len};
        if (parts[i].role == 0 || (m->text == NULL && m->len != 0)) {
            return -EINVAL;
        }
    }
    return 0;
}

int query_encode(const weft_query_t *q, const struct client_homes *homes, struct weft_req_hdr *hdr,
                 uint8_t **body, uint32_t *body_len)
{
    bool chat = q->message_count != 0;
    if (chat ? q->messages == NULL || q->message_count > PROMPT_PARTS_MAX : q->text == NULL) {
        return -EINVAL;
    }
    int rc = query_header(q, hdr);
    if (rc != 0) {
        return rc;
    }
    weft_job_part_t *parts = chat ? calloc(q->message_count, sizeof(*parts)) : NULL;
    if (chat && parts == NULL) {
        return -ENOMEM;
    }
    weft_job_part_t stops[WEFT_STOPS_MAX];
    char state[TRACESTATE_BYTES];
    struct prompt_spec spec;
    rc = query_prompt(q, parts, stops, &spec);
    spec.session_node = homes_find(homes, hdr->session, hdr->model);
    query_trace_state(q, state, &spec);
    size_t size = rc == 0 ? prompt_size(&spec) : 0;
    if (rc == 0 && size == 0) {
        rc = -E2BIG;
    }
    if (rc == 0) {
        *body = malloc(size);
        *body_len = (uint32_t)size;
        rc = *body != NULL ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        prompt_write(&spec, *body);
    }
    free(parts);
    return rc;
}
