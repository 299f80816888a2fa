/* SPDX-License-Identifier: Apache-2.0 */
/* test_query.c - query.c: what each field of a query becomes on the wire, and what is refused. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/client/client_impl.h"
#include "tests/unit/suite.h"

static const struct client_homes no_homes;

static int encode(const weft_query_t *q, struct weft_req_hdr *hdr)
{
    uint8_t *body = NULL;
    uint32_t len = 0;
    int rc = query_encode(q, &no_homes, hdr, &body, &len);
    ck_assert(rc == 0 || body == NULL);
    free(body);
    return rc;
}

static weft_query_t base_query(void)
{
    return (weft_query_t){.model = "m", .text = "t", .text_len = 1};
}

START_TEST(fields)
{
    weft_query_t q = base_query();
    struct weft_req_hdr h;
    ck_assert_int_eq(encode(&q, &h), 0);
    ck_assert_uint_eq(h.model, weft_model_id("m"));
    ck_assert_uint_eq(h.tiers, 0x07);
    ck_assert_uint_eq(h.max_tokens, 256);
    ck_assert_uint_eq(h.session, 0);
    ck_assert_uint_eq(h.want, 0);
    q.tags = "eu,gdpr";
    q.tier_min = 2;
    q.tier_max = 5;
    q.has_tiers = true;
    q.vram_mib = 65;
    q.radius_km = 50;
    q.priority = 15;
    q.session = "s";
    q.end_to_end = true;
    q.has_position = true;
    q.latitude_deg = 48.2;
    q.longitude_deg = 16.4;
    q.max_tokens = 100000;
    ck_assert_int_eq(encode(&q, &h), 0);
    ck_assert_uint_eq(h.req_tags, weft_tag_mask("eu") | weft_tag_mask("gdpr"));
    const weft_query_more_t more = {.jurisdiction = "FR"};
    q.more = &more;
    ck_assert_int_eq(encode(&q, &h), 0);
    ck_assert_uint_eq(h.req_tags,
                      weft_tag_mask("eu") | weft_tag_mask("gdpr") | weft_jurisdiction_mask("FR"));
    ck_assert_uint_eq(h.tiers, 0x25);
    ck_assert_uint_eq(h.vram_64mib, 2); /* rounded up */
    ck_assert_uint_eq(h.radius_km, 50);
    ck_assert_uint_eq(h.prio_mode, 0xf0);
    ck_assert_uint_ne(h.session, 0);
    ck_assert_uint_eq(h.want, WEFT_WANT_E2E | WEFT_WANT_POSITION);
    ck_assert_uint_eq(h.x, weft_cell_x(16.4));
    ck_assert_uint_eq(h.y, weft_cell_y(48.2));
    ck_assert_uint_eq(h.max_tokens, 65535);
    q.tier_min = q.tier_max = 0; /* tier 0 alone */
    ck_assert_int_eq(encode(&q, &h), 0);
    ck_assert_uint_eq(h.tiers, 0);
    q.has_tiers = false;
    q.tier_min = 9; /* not looked at */
    ck_assert_int_eq(encode(&q, &h), 0);
    ck_assert_uint_eq(h.tiers, 0x07);
}
END_TEST

START_TEST(sampling)
{
    const char *const stops[] = {"###", "User:"};
    weft_query_t q = base_query();
    struct weft_req_hdr h;
    uint8_t *body = NULL;
    uint32_t len = 0;
    q.repetition_penalty = 1.5f;
    q.presence_penalty = -1.0f;
    q.frequency_penalty = 2.0f;
    q.logprobs = 3;
    q.no_thinking = true;
    q.stop = stops;
    q.stop_count = 2;
    ck_assert_int_eq(query_encode(&q, &no_homes, &h, &body, &len), 0);
    weft_job_view_t view;
    weft_job_part_t *parts;
    ck_assert_int_eq(prompt_parse(body, len, &view, &parts), 0);
    ck_assert_float_eq(view.repetition_penalty, 1.5f);
    ck_assert_float_eq(view.presence_penalty, -1.0f);
    ck_assert_float_eq(view.frequency_penalty, 2.0f);
    ck_assert_uint_eq(view.logprobs, 3);
    ck_assert_int_eq(view.no_thinking, 1);
    ck_assert_uint_eq(view.stop_count, 2);
    ck_assert_uint_eq(view.stops[1].len, 5);
    ck_assert_mem_eq(view.stops[1].text, "User:", 5);
    free(parts);
    free(body);
}
END_TEST

START_TEST(refusals)
{
    weft_message_t odd = {"wizard", "x", 1};
    weft_message_t null = {"user", NULL, 1};
    char name[65];
    memset(name, 'm', sizeof(name));
    name[64] = '\0';
    char stop[WEFT_STOP_BYTES_MAX + 2];
    memset(stop, 's', sizeof(stop));
    stop[sizeof(stop) - 1] = '\0';
    const char *stops[WEFT_STOPS_MAX + 1];
    for (size_t i = 0; i <= WEFT_STOPS_MAX; i++) {
        stops[i] = "x";
    }
    const char *const empty = "";
    const char *const longer = stop;
    const weft_query_more_t country = {.jurisdiction = "de"};
    const weft_query_more_t nowhere = {.jurisdiction = ""};
    weft_query_t bad[29];
    for (size_t i = 0; i < 29; i++) {
        bad[i] = base_query();
    }
    bad[0].model = NULL;
    bad[1].model = "";
    bad[2].model = name;
    bad[3].text = NULL;
    bad[4].tags = "eu,nowhere";
    bad[5].tags = "eu,,us";
    bad[27].more = &country;
    bad[28].more = &nowhere;
    bad[6].has_tiers = true;
    bad[6].tier_min = 1; /* above tier_max */
    bad[7].has_tiers = true;
    bad[7].tier_max = 8;
    bad[8].radius_km = 20038;
    bad[9].vram_mib = UINT32_MAX;
    bad[10].priority = 16;
    bad[11].temperature = NAN;
    bad[12].top_p = 1.5f;
    bad[13].min_p = -1.0f;
    bad[14].messages = &odd;
    bad[14].message_count = 1;
    bad[15].messages = &null;
    bad[15].message_count = 1;
    bad[16].has_position = true;
    bad[16].latitude_deg = INFINITY;
    bad[17].stop_count = 1;
    bad[18].stop = stops;
    bad[18].stop_count = WEFT_STOPS_MAX + 1;
    bad[19].stop = &empty;
    bad[19].stop_count = 1;
    bad[20].stop = &longer;
    bad[20].stop_count = 1;
    bad[21].logprobs = WEFT_LOGPROBS_MAX + 1;
    bad[22].repetition_penalty = -1.0f;
    bad[23].presence_penalty = 101.0f;
    bad[24].frequency_penalty = NAN;
    bad[25].repetition_penalty = INFINITY;
    bad[26].embed = WEFT_EMBED_LAST + 1;
    struct weft_req_hdr h;
    for (size_t i = 0; i < 29; i++) {
        ck_assert_msg(encode(&bad[i], &h) == -EINVAL, "query %zu", i);
    }
    weft_query_t big = base_query();
    big.text_len = WEFT_MESSAGE_MAX;
    ck_assert_int_eq(encode(&big, &h), -E2BIG);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client/query");
    TCase *t = tcase_create("query");
    tcase_add_test(t, fields);
    tcase_add_test(t, sampling);
    tcase_add_test(t, refusals);
    suite_add_tcase(s, t);
    return suite_main(s);
}
