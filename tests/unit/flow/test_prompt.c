/* SPDX-License-Identifier: Apache-2.0 */
/* test_prompt.c - prompt.h: what is written is read back, everything else is refused. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"
#include "tests/unit/suite.h"

static struct prompt_spec base_spec(void)
{
    return (struct prompt_spec){
        .text = "hello", .text_len = 5, .max_tokens = 10, .top_p = 1.0f, .seed = 7};
}

static int parse_copy(const uint8_t *body, size_t len, weft_job_view_t *view)
{
    uint8_t *copy = malloc(len != 0 ? len : 1); /* exact size: the sanitizer sees overruns */
    memcpy(copy, body, len);
    if (len >= WEFT_PROMPT_LEAST) {
        prompt_seal(copy, len); /* what is wrong here is wrong on purpose */
    }
    weft_job_part_t *parts;
    int rc = prompt_parse(copy, len, view, &parts);
    for (size_t i = 0; rc == 0 && i < view->part_count; i++) {
        const weft_job_part_t *part = &view->parts[i];
        ck_assert(part->len == 0 || (const uint8_t *)part->text + part->len <= copy + len);
    }
    free(parts);
    free(copy);
    return rc;
}

START_TEST(round_trip)
{
    weft_job_part_t parts[2] = {{WEFT_ROLE_SYSTEM, "be brief", 8}, {WEFT_ROLE_USER, "", 0}};
    uint32_t tokens[3] = {1, 2, 70000};
    _Alignas(8) uint8_t body[256];
    weft_job_view_t view;
    weft_job_part_t *list;

    struct prompt_spec spec = base_spec();
    prompt_write(&spec, body);
    ck_assert_int_eq(prompt_parse(body, prompt_size(&spec), &view, &list), 0);
    ck_assert_uint_eq(view.part_count, 1);
    ck_assert_uint_eq(view.parts[0].role, 0);
    ck_assert_int_eq(memcmp(view.parts[0].text, "hello", 5), 0);
    ck_assert_uint_eq(view.max_tokens, 10);
    ck_assert_uint_eq(view.seed, 7);
    free(list);

    spec.parts = parts;
    spec.part_count = 2;
    prompt_write(&spec, body);
    ck_assert_int_eq(prompt_parse(body, prompt_size(&spec), &view, &list), 0);
    ck_assert_uint_eq(view.part_count, 2);
    ck_assert_uint_eq(view.parts[0].role, WEFT_ROLE_SYSTEM);
    ck_assert_uint_eq(view.parts[1].len, 0);
    free(list);

    spec.tokens = tokens;
    spec.token_count = 3;
    prompt_write(&spec, body);
    ck_assert_int_eq(prompt_parse(body, prompt_size(&spec), &view, &list), 0);
    ck_assert_ptr_null(list);
    ck_assert_uint_eq(view.token_count, 3);
    ck_assert_uint_eq(view.tokens[2], 70000);
}
END_TEST

START_TEST(size_limit)
{
    struct prompt_spec spec = base_spec();
    spec.text_len = WEFT_MESSAGE_MAX - sizeof(struct weft_prompt);
    ck_assert_uint_eq(prompt_size(&spec), WEFT_MESSAGE_MAX);
    spec.text_len++;
    ck_assert_uint_eq(prompt_size(&spec), 0);
    spec.text_len = SIZE_MAX;
    ck_assert_uint_eq(prompt_size(&spec), 0);
    weft_job_part_t parts[2] = {{1, "", SIZE_MAX - 4}, {1, "", SIZE_MAX}};
    spec.parts = parts;
    spec.part_count = 2;
    ck_assert_uint_eq(prompt_size(&spec), 0);
    spec.tokens = (const uint32_t[]){1};
    spec.token_count = SIZE_MAX / 4 + 2;
    ck_assert_uint_eq(prompt_size(&spec), 0);
}
END_TEST

START_TEST(sampling_out_of_range_is_refused)
{
    const float bad[][3] = {{NAN, 1, 0}, {-1, 1, 0}, {INFINITY, 1, 0}, {101, 1, 0},
                            {0, NAN, 0}, {0, 0, 0},  {0, 2, 0},        {0, -1, 0},
                            {0, 1, NAN}, {0, 1, 2},  {0, 1, -0.5f}};
    weft_job_view_t view;
    uint8_t body[128];
    struct prompt_spec spec = base_spec();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        spec.temperature = bad[i][0];
        spec.top_p = bad[i][1];
        spec.min_p = bad[i][2];
        prompt_write(&spec, body);
        ck_assert_int_eq(parse_copy(body, prompt_size(&spec), &view), WEFT_E_BAD_REQUEST);
    }
    spec = base_spec();
    spec.max_tokens = 0;
    prompt_write(&spec, body);
    ck_assert_int_eq(parse_copy(body, prompt_size(&spec), &view), WEFT_E_BAD_REQUEST);
}
END_TEST

START_TEST(every_cut_and_lie_is_refused)
{
    weft_job_part_t parts[2] = {{WEFT_ROLE_SYSTEM, "be brief", 8}, {WEFT_ROLE_USER, "why?", 4}};
    struct prompt_spec spec = base_spec();
    spec.parts = parts;
    spec.part_count = 2;
    uint8_t body[256];
    prompt_write(&spec, body);
    size_t len = prompt_size(&spec);
    weft_job_view_t view;
    ck_assert_int_eq(parse_copy(body, len, &view), 0);
    for (size_t cut = 0; cut < len; cut++) {
        ck_assert_int_eq(parse_copy(body, cut, &view), WEFT_E_BAD_REQUEST);
    }
    ck_assert_int_eq(parse_copy(body, len + 1, &view), WEFT_E_BAD_REQUEST); /* a byte too many */
    struct weft_prompt *head = (struct weft_prompt *)(void *)body;
    const struct weft_prompt good = *head;
    const uint32_t counts[] = {0, 1, 3, PROMPT_PARTS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        head->parts = counts[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    }
    *head = good;
    head->kind = 9;
    ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    *head = good;
    const uint16_t lens[] = {0, 39, 41, 43, 46, 200, UINT16_MAX};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        head->hdr_len = lens[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    }
    *head = good;
    struct weft_part *part = (struct weft_part *)(void *)(head + 1);
    part->role = WEFT_ROLE_TOOLS + 1;
    ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    part->role = WEFT_ROLE_USER;
    part->len = UINT32_MAX;
    ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
}
END_TEST

/* A trace goes along; stop strings may begin where the fields of an older writer end. */
START_TEST(trace_goes_along)
{
    const struct trace_context trace = {1, 2, 3, TRACEPARENT_SAMPLED};
    weft_job_part_t stop = {0, "no trace but a stop string, and a long one", 42};
    weft_job_view_t view;
    uint8_t body[256];
    for (int i = 0; i < 4; i++) {
        struct prompt_spec spec = base_spec();
        spec.trace = (i & 1) != 0 ? trace : (struct trace_context){0};
        spec.stops = &stop;
        spec.stop_count = (i & 2) != 0;
        prompt_write(&spec, body);
        ck_assert_int_eq(parse_copy(body, prompt_size(&spec), &view), 0);
        ck_assert_str_eq(view.traceparent,
                         (i & 1) != 0 ? "00-00000000000000010000000000000002-0000000000000003-01"
                                      : "");
        ck_assert_uint_eq(view.stop_count, spec.stop_count);
    }
    /* The last of them had both: now as if its writer had known of no trace. */
    const size_t cut = sizeof(struct weft_prompt) - offsetof(struct weft_prompt, format_at);
    struct weft_prompt *head = (struct weft_prompt *)(void *)body;
    size_t len = head->hdr_len - cut;
    head->hdr_len = (uint16_t)len;
    head->stops_at = offsetof(struct weft_prompt, format_at);
    memmove(body + head->stops_at, body + sizeof(*head), len - head->stops_at);
    memcpy(body + len, "hi", 2);
    ck_assert_int_eq(parse_copy(body, len + 2, &view), 0);
    ck_assert_str_eq(view.traceparent, "");
    ck_assert_uint_eq(view.stop_count, 1);
}
END_TEST

/* The session's last node goes along; an older writer's format begins where that would stand. */
START_TEST(session_node_goes_along)
{
    weft_job_view_t view;
    uint8_t body[256];
    struct prompt_spec spec = base_spec();
    spec.session_node = WEFT_NODE_NONE;
    spec.format = WEFT_FORMAT_SCHEMA;
    spec.format_text = "{\"type\": 1}";
    spec.format_len = 11;
    prompt_write(&spec, body);
    ck_assert_int_eq(parse_copy(body, prompt_size(&spec), &view), 0);
    ck_assert_uint_eq(view.session_node, WEFT_NODE_NONE);
    const size_t cut = sizeof(struct weft_prompt) - offsetof(struct weft_prompt, session_node);
    struct weft_prompt *head = (struct weft_prompt *)(void *)body;
    size_t len = prompt_size(&spec) - cut;
    head->hdr_len = (uint16_t)(head->hdr_len - cut);
    head->format_at = offsetof(struct weft_prompt, session_node);
    memmove(body + head->format_at, body + sizeof(*head), len - head->format_at);
    ck_assert_int_eq(parse_copy(body, len, &view), 0);
    ck_assert_uint_eq(view.session_node, 0);
    ck_assert_uint_eq(view.format_len, 11);
}
END_TEST

static void expect_state(const uint8_t *body, size_t len, const char *state)
{
    weft_job_view_t view;
    uint8_t *copy = malloc(len);
    weft_job_part_t *parts;
    memcpy(copy, body, len);
    prompt_seal(copy, len);
    ck_assert_int_eq(prompt_parse(copy, len, &view, &parts), 0);
    ck_assert_uint_eq(view.tracestate_len, strlen(state));
    ck_assert(view.tracestate_len == 0 || memcmp(view.tracestate, state, strlen(state)) == 0);
    free(parts);
    free(copy);
}

/* A tracestate goes along with a trace, behind all other texts; one that is not fit for a header,
 * or lies elsewhere, is none, and no reason to refuse. */
START_TEST(trace_state_goes_along)
{
    static const char state[] = "vendor=a:b c,x@y=1";
    weft_job_part_t stop = {0, "stop", 4};
    uint8_t body[512];
    struct weft_prompt *head = (struct weft_prompt *)(void *)body;
    for (int i = 0; i < 8; i++) {
        struct prompt_spec spec = base_spec();
        spec.trace = (struct trace_context){1, 2, (uint64_t)(i & 1), 0};
        spec.trace_state = state;
        spec.trace_state_len = sizeof(state) - 1;
        spec.stops = &stop;
        spec.stop_count = (i & 2) != 0;
        spec.format = (i & 4) != 0 ? WEFT_FORMAT_SCHEMA : WEFT_FORMAT_NONE;
        spec.format_text = "{}";
        spec.format_len = (i & 4) != 0 ? 2 : 0;
        prompt_write(&spec, body);
        expect_state(body, prompt_size(&spec), (i & 1) != 0 ? state : "");
    }
    struct prompt_spec spec = base_spec();
    spec.trace = (struct trace_context){1, 2, 3, 0};
    spec.trace_state = state;
    spec.trace_state_len = sizeof(state) - 1;
    prompt_write(&spec, body);
    const struct weft_prompt good = *head;
    const size_t len = prompt_size(&spec);
    head->trace_state_at = head->hdr_len; /* of the prompt */
    expect_state(body, len, "");
    head->trace_state_at = UINT16_MAX;
    head->trace_state_len = UINT16_MAX;
    expect_state(body, len, "");
    *head = good;
    head->trace_state_at = 8; /* of the fields */
    expect_state(body, len, "");
    *head = good;
    body[head->trace_state_at + 6] = '\n'; /* would begin a header of its own */
    expect_state(body, len, "");
}
END_TEST

/* Formats and trace as an older writer has them, whose fields end where the format's text begins.
 */
START_TEST(texts_of_older_writers)
{
    const struct trace_context trace = {1, 2, 3, TRACEPARENT_SAMPLED};
    static const char schema[] = "{\"type\": \"object\", \"required\": []}";
    static const size_t ends[] = {offsetof(struct weft_prompt, trace_flags),
                                  offsetof(struct weft_prompt, session_node)};
    for (int i = 0; i < 2; i++) {
        const size_t fields = ends[i];
        struct prompt_spec spec = base_spec();
        weft_job_part_t *parts;
        weft_job_view_t view;
        uint8_t body[256];
        spec.trace = trace;
        spec.format = WEFT_FORMAT_SCHEMA;
        spec.format_text = schema;
        spec.format_len = sizeof(schema) - 1;
        prompt_write(&spec, body);
        const size_t len = prompt_size(&spec), cut = sizeof(struct weft_prompt) - fields;
        struct weft_prompt *head = (struct weft_prompt *)(void *)body;
        head->format_at = (uint16_t)fields;
        head->hdr_len = (uint16_t)(head->hdr_len - cut);
        memmove(body + fields, body + sizeof(*head), len - sizeof(*head));
        uint8_t *copy = malloc(len - cut);
        memcpy(copy, body, len - cut);
        prompt_seal(copy, len - cut);
        ck_assert_int_eq(prompt_parse(copy, len - cut, &view, &parts), 0);
        ck_assert_mem_eq(view.format_text, schema, sizeof(schema) - 1);
        ck_assert_uint_eq(view.tracestate_len, 0);
        ck_assert_uint_eq(strlen(view.traceparent), i == 1 ? 55 : 0);
        free(parts);
        free(copy);
    }
}
END_TEST

static struct prompt_spec controlled_spec(const weft_job_part_t *stops, size_t count)
{
    struct prompt_spec spec = base_spec();
    spec.repetition = 1.25f;
    spec.presence = -2.0f;
    spec.frequency = 0.5f;
    spec.logprobs = 5;
    spec.no_thinking = true;
    spec.stops = stops;
    spec.stop_count = count;
    return spec;
}

static const weft_job_part_t three_stops[] = {{0, "###", 3}, {0, "\n\n", 2}, {0, "User:", 5}};

static void check_controls(const weft_job_view_t *view)
{
    ck_assert_float_eq(view->repetition_penalty, 1.25f);
    ck_assert_float_eq(view->presence_penalty, -2.0f);
    ck_assert_float_eq(view->frequency_penalty, 0.5f);
    ck_assert_uint_eq(view->logprobs, 5);
    ck_assert_int_eq(view->no_thinking, 1);
    ck_assert_uint_eq(view->stop_count, 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(view->stops[i].len, three_stops[i].len);
        ck_assert_mem_eq(view->stops[i].text, three_stops[i].text, three_stops[i].len);
    }
}

START_TEST(controls_round_trip)
{
    static const uint32_t given[] = {7, 8};
    static const uint32_t tokens[] = {1, 2, 3};
    const weft_job_part_t chat[] = {{WEFT_ROLE_USER, "why?", 4}, {WEFT_ROLE_ASSISTANT, "so", 2}};
    for (unsigned kind = 0; kind < 3; kind++) {
        struct prompt_spec spec = controlled_spec(three_stops, 3);
        weft_job_view_t view;
        weft_job_part_t *list;
        _Alignas(8) uint8_t body[256];
        uint32_t len;
        spec.parts = kind == 1 ? chat : NULL;
        spec.part_count = kind == 1 ? 2 : 0;
        spec.tokens = kind == 2 ? tokens : NULL;
        spec.token_count = kind == 2 ? 3 : 0;
        prompt_write(&spec, body);
        ck_assert_int_eq(prompt_parse(body, prompt_size(&spec), &view, &list), 0);
        check_controls(&view);
        ck_assert_uint_eq(view.part_count, kind == 1 ? 2 : kind == 0 ? 1 : 0);
        free(list);
        uint8_t *resumed = prompt_resumed(body, (uint32_t)prompt_size(&spec), given, 2, &len);
        ck_assert_ptr_nonnull(resumed);
        ck_assert_int_eq(prompt_parse(resumed, len, &view, &list), 0);
        check_controls(&view);
        ck_assert_uint_eq(view.resume_count, 2);
        ck_assert_mem_eq(view.resume, given, sizeof(given));
        ck_assert_uint_eq(view.token_count, kind == 2 ? 3 : 0);
        free(list);
        free(resumed);
    }
}
END_TEST

START_TEST(older_header_means_nothing_of_what_it_lacks)
{
    struct prompt_spec spec = base_spec();
    uint8_t body[256];
    prompt_write(&spec, body);
    size_t cut = sizeof(struct weft_prompt) - WEFT_PROMPT_LEAST;
    size_t len = prompt_size(&spec) - cut;
    memmove(body + WEFT_PROMPT_LEAST, body + sizeof(struct weft_prompt), len - WEFT_PROMPT_LEAST);
    uint16_t hdr_len = WEFT_PROMPT_LEAST;
    memcpy(body + offsetof(struct weft_prompt, hdr_len), &hdr_len, sizeof(hdr_len));
    prompt_seal(body, len);
    weft_job_view_t view;
    weft_job_part_t *list;
    ck_assert_int_eq(prompt_parse(body, len, &view, &list), 0);
    ck_assert_uint_eq(view.parts[0].len, 5);
    ck_assert_mem_eq(view.parts[0].text, "hello", 5);
    ck_assert_uint_eq(view.stop_count + view.logprobs, 0);
    ck_assert_float_eq(view.repetition_penalty, 1.0f);
    free(list);
    /* A header of whole words only: tokens and parts behind it are read as such. */
    memmove(body + WEFT_PROMPT_LEAST + 2, body + WEFT_PROMPT_LEAST, len - WEFT_PROMPT_LEAST);
    hdr_len += 2;
    memcpy(body + offsetof(struct weft_prompt, hdr_len), &hdr_len, sizeof(hdr_len));
    prompt_seal(body, len + 2);
    ck_assert_int_eq(prompt_parse(body, len + 2, &view, &list), WEFT_E_BAD_REQUEST);
}
END_TEST

START_TEST(formats_are_flagged_and_bounded)
{
    struct prompt_spec spec = controlled_spec(three_stops, 3);
    spec.format = WEFT_FORMAT_SCHEMA;
    spec.format_text = "{\"a\":1}";
    spec.format_len = 7;
    _Alignas(8) uint8_t body[256];
    weft_job_view_t view;
    weft_job_part_t *list;
    prompt_write(&spec, body);
    const size_t len = prompt_size(&spec);
    ck_assert_int_eq(prompt_parse(body, len, &view, &list), 0);
    check_controls(&view);
    ck_assert_int_eq(view.format, WEFT_FORMAT_SCHEMA);
    ck_assert_uint_eq(view.format_len, 7);
    ck_assert_mem_eq(view.format_text, spec.format_text, 7);
    free(list);
    struct weft_prompt *head = (struct weft_prompt *)(void *)body;
    const struct weft_prompt good = *head;
    for (unsigned lie = 0; lie < 6; lie++) {
        *head = good;
        head->flags ^=
            lie == 0 ? WEFT_PROMPT_F_FORMATTED : 0; /* or an old worker would ignore it */
        head->flags |= lie == 1 ? WEFT_PROMPT_F_EMBED_MEAN : 0;
        head->format = lie == 2 ? WEFT_FORMAT_CALL + 1 : lie == 3 ? 0 : head->format;
        head->format_at = lie == 4 ? 60 : lie == 5 ? 250 : head->format_at;
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    }
}
END_TEST

START_TEST(controls_out_of_range_are_refused)
{
    struct prompt_spec spec = controlled_spec(three_stops, 3);
    _Alignas(8) uint8_t body[256];
    weft_job_view_t view;
    prompt_write(&spec, body);
    const size_t len = prompt_size(&spec);
    struct weft_prompt *head = (struct weft_prompt *)(void *)body;
    const struct weft_prompt good = *head;
    const float bad[] = {NAN, INFINITY, -101.0f, 101.0f};
    ck_assert_int_eq(parse_copy(body, len, &view), 0);
    for (size_t i = 0; i < 4; i++) {
        head->repetition = bad[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
        *head = good;
        head->presence = bad[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
        *head = good;
        head->frequency = bad[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
        *head = good;
    }
    head->logprobs = WEFT_LOGPROBS_MAX + 1;
    ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    *head = good;
    head->flags = 0x80;
    ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    head->flags = WEFT_PROMPT_F_EMBED_LAST;
    ck_assert_int_eq(parse_copy(body, len, &view), 0);
    ck_assert_int_eq(view.embed, 2);
    head->flags = WEFT_PROMPT_F_EMBED_LAST | WEFT_PROMPT_F_EMBED_MEAN;
    ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    *head = good;
    const uint16_t counts[] = {7, WEFT_STOPS_MAX + 1, UINT16_MAX};
    for (size_t i = 0; i < 3; i++) {
        head->stops = counts[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
        *head = good;
    }
    const uint16_t places[] = {
        0, 8, 63, sizeof(good) + 15, sizeof(good) + 16, sizeof(good) + 17, UINT16_MAX};
    for (size_t i = 0; i < 7; i++) {
        head->stops_at = places[i];
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
        *head = good;
    }
    const uint8_t lens[] = {0, 200};
    for (size_t i = 0; i < 2; i++) {
        body[sizeof(good)] = lens[i]; /* of the first string */
        ck_assert_int_eq(parse_copy(body, len, &view), WEFT_E_BAD_REQUEST);
    }
}
END_TEST

START_TEST(every_flipped_bit_is_noticed)
{
    struct prompt_spec spec = base_spec();
    uint8_t body[256];
    prompt_write(&spec, body);
    size_t len = prompt_size(&spec);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        weft_job_view_t view;
        weft_job_part_t *parts;
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = prompt_parse(body, len, &view, &parts);
        ck_assert_msg(rc == WEFT_E_CORRUPT, "bit %zu: %d", bit, rc);
        free(parts);
        body[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

START_TEST(resumed_body_is_the_same_behind_its_tokens)
{
    static const uint32_t tokens[] = {7, 8, 9};
    struct prompt_spec spec = base_spec();
    uint8_t body[256];
    uint32_t len;
    prompt_write(&spec, body);
    uint8_t *resumed = prompt_resumed(body, (uint32_t)prompt_size(&spec), tokens, 3, &len);
    weft_job_view_t view;
    weft_job_part_t *parts;
    ck_assert_ptr_nonnull(resumed);
    ck_assert_uint_eq(len, prompt_size(&spec) + sizeof(tokens));
    ck_assert_int_eq(prompt_parse(resumed, len, &view, &parts), 0);
    ck_assert_uint_eq(view.resume_count, 3);
    ck_assert_mem_eq(view.resume, tokens, sizeof(tokens));
    ck_assert_uint_eq(view.parts[0].len, spec.text_len);
    ck_assert_mem_eq(view.parts[0].text, spec.text, spec.text_len);
    free(parts);
    struct weft_prompt *head = (struct weft_prompt *)(void *)resumed;
    head->max_tokens = 2; /* fewer than were given */
    ck_assert_int_eq(parse_copy(resumed, len, &view), WEFT_E_BAD_REQUEST);
    free(resumed);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/prompt");
    TCase *t = tcase_create("prompt");
    tcase_add_test(t, round_trip);
    tcase_add_test(t, size_limit);
    tcase_add_test(t, sampling_out_of_range_is_refused);
    tcase_add_test(t, every_cut_and_lie_is_refused);
    tcase_add_test(t, trace_goes_along);
    tcase_add_test(t, session_node_goes_along);
    tcase_add_test(t, trace_state_goes_along);
    tcase_add_test(t, texts_of_older_writers);
    tcase_add_test(t, every_flipped_bit_is_noticed);
    tcase_add_test(t, controls_round_trip);
    tcase_add_test(t, older_header_means_nothing_of_what_it_lacks);
    tcase_add_test(t, controls_out_of_range_are_refused);
    tcase_add_test(t, formats_are_flagged_and_bounded);
    tcase_add_test(t, resumed_body_is_the_same_behind_its_tokens);
    suite_add_tcase(s, t);
    return suite_main(s);
}
