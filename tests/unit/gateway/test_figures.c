/* SPDX-License-Identifier: Apache-2.0 */
/* test_figures.c - figures.h: what is counted, that tables are bounded, and the text's form. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "dataplane/gateway/figures.h"
#include "tests/unit/suite.h"

static struct figures f;

static char *text_of(const json_t *status)
{
    struct buf out = {.data = NULL};
    size_t len;
    figures_write(&f, status, &out);
    return buf_give(&out, &len);
}

/* The value of a line that begins so; -1 = there is none. */
static double value(const char *text, const char *line)
{
    char start[256];
    snprintf(start, sizeof(start), "\n%s ", line);
    const char *at = strstr(text, start);
    return at != NULL ? strtod(at + strlen(start), NULL) : -1;
}

START_TEST(answers)
{
    memset(&f, 0, sizeof(f));
    const weft_result_t whole = {.finish = WEFT_FINISH_STOP,
                                 .prompt_tokens = 10,
                                 .new_tokens = 5,
                                 .total_us = 500000,
                                 .first_token_us = 100000,
                                 .failovers = 1};
    const weft_result_t ends[] = {
        whole,
        whole,
        {.status = WEFT_E_MESH_FULL, .finish = WEFT_FINISH_REFUSED},
        {.status = WEFT_E_CANCELLED, .finish = WEFT_FINISH_CANCELLED, .new_tokens = 3},
        {.status = WEFT_E_WORKER_LOST, .finish = WEFT_FINISH_FAILED, .new_tokens = 2},
    };
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        figures_answer(&f, "m", i == 0 ? "alice" : NULL, &ends[i]);
    }
    char *text = text_of(NULL);
    ck_assert(value(text, "weft_gateway_answers_total{model_name=\"m\"}") == 5);
    ck_assert(value(text, "vllm:request_success_total{model_name=\"m\"}") == 2);
    ck_assert(value(text, "weft_gateway_refused_total{model_name=\"m\"}") == 1);
    ck_assert(value(text, "weft_gateway_cancelled_total{model_name=\"m\"}") == 1);
    ck_assert(value(text, "weft_gateway_failed_total{model_name=\"m\"}") == 1);
    ck_assert(value(text, "vllm:prompt_tokens_total{model_name=\"m\"}") == 20);
    ck_assert(value(text, "vllm:generation_tokens_total{model_name=\"m\"}") == 15);
    ck_assert(value(text, "weft_gateway_failovers_total{model_name=\"m\"}") == 2);
#define TTFT "gen_ai_server_time_to_first_token_seconds"
    ck_assert(value(text, TTFT "_bucket{gen_ai_request_model=\"m\",le=\"0.08\"}") == 0);
    ck_assert(value(text, TTFT "_bucket{gen_ai_request_model=\"m\",le=\"0.1\"}") == 2);
    ck_assert(value(text, TTFT "_bucket{gen_ai_request_model=\"m\",le=\"+Inf\"}") == 2);
    ck_assert(value(text, TTFT "_sum{gen_ai_request_model=\"m\"}") == 0.2);
#define TPOT "gen_ai_server_time_per_output_token_seconds"
    ck_assert(value(text, TPOT "_sum{gen_ai_request_model=\"m\"}") == 0.2);
    ck_assert(value(text, "gen_ai_server_request_duration_seconds_count{gen_ai_request_model="
                          "\"m\"}") == 2);
    free(text);
    struct buf out = {.data = NULL};
    figures_write_usage(&f, 7, &out);
    json_t *usage = json_loadb(out.data, buf_len(&out), 0, NULL);
    const json_t *key = json_array_get(json_object_get(usage, "keys"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(key, "key")), "alice");
    ck_assert_int_eq(json_integer_value(json_object_get(key, "completion_tokens")), 5);
    json_decref(usage);
    buf_deinit(&out);
}
END_TEST

START_TEST(slo)
{
    memset(&f, 0, sizeof(f));
    const weft_result_t r = {.finish = WEFT_FINISH_STOP,
                             .new_tokens = 11,
                             .first_token_us = 100000,
                             .total_us = 600000}; /* 50 ms between tokens */
    const weft_result_t one = {.finish = WEFT_FINISH_STOP, .new_tokens = 1, .first_token_us = 9};
    const weft_result_t cut = {.status = WEFT_E_WORKER_LOST, .first_token_us = 1};
    const weft_result_t gone = {.status = WEFT_E_CANCELLED};
    const struct {
        struct figures_slo slo;
        const weft_result_t *result;
        uint64_t met, missed;
    } cases[] = {
        {{0, 0}, &r, 0, 0},   {{100, 0}, &r, 1, 0},  {{99, 0}, &r, 0, 1},   {{0, 50}, &r, 1, 0},
        {{0, 49}, &r, 0, 1},  {{100, 50}, &r, 1, 0}, {{99, 50}, &r, 0, 1},  {{100, 49}, &r, 0, 1},
        {{0, 1}, &one, 1, 0}, {{9, 9}, &cut, 0, 1},  {{9, 9}, &gone, 0, 0},
    };
    uint64_t met = 0;
    uint64_t missed = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        figures_slo(&f, "m", cases[i].slo, cases[i].result);
        met += cases[i].met;
        missed += cases[i].missed;
        ck_assert_uint_eq(f.model_count == 0 ? 0 : f.models[0].slo_met, met);
        ck_assert_uint_eq(f.model_count == 0 ? 0 : f.models[0].slo_missed, missed);
    }
}
END_TEST

START_TEST(tables_are_bounded)
{
    memset(&f, 0, sizeof(f));
    const weft_result_t result = {.new_tokens = 1};
    const weft_result_t unknown = {.status = WEFT_E_UNKNOWN_MODEL};
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        figures_answer(&f, name, name, &result);
        figures_answer(&f, name, NULL, &unknown);
        figures_status(&f, 100 + i);
    }
    ck_assert_uint_eq(f.model_count, FIGURES_MODELS_MAX);
    ck_assert_uint_eq(f.key_count, FIGURES_KEYS_MAX);
    ck_assert_str_eq(f.models[FIGURES_MODELS_MAX - 1].name, "other");
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f.model_count; i++) {
        sum += f.models[i].new_tokens;
    }
    ck_assert_uint_eq(sum, 1000); /* nothing is lost */
}
END_TEST

START_TEST(the_mesh)
{
    memset(&f, 0, sizeof(f));
    json_t *status = json_loads("{\"members\":[{\"name\":\"a\",\"alive\":true,\"room\":3,\"queue_"
                                "us\":1500,\"rtt_us\":null},"
                                "{\"name\":\"b\",\"alive\":false}],"
                                "\"counters\":{\"received\":17,\"drops\":{\"loop\":2}},"
                                "\"moves\":{\"pages_moved\":5,\"what\":1}}",
                                0, NULL);
    char *text = text_of(status);
    ck_assert(value(text, "weft_member_up{node=\"a\"}") == 1);
    ck_assert(value(text, "weft_member_up{node=\"b\"}") == 0);
    ck_assert(value(text, "weft_member_room{node=\"a\"}") == 3);
    ck_assert(value(text, "weft_member_queue_seconds{node=\"a\"}") == 0.0015);
    ck_assert(value(text, "weft_member_rtt_seconds{node=\"a\"}") == -1);
    ck_assert(value(text, "weft_node_received_total") == 17);
    ck_assert(value(text, "weft_node_drops_total{reason=\"loop\"}") == 2);
    ck_assert(value(text, "weft_node_pages_moved_total") == 5);
    ck_assert(value(text, "weft_node_what_total") == -1);
    free(text);
    json_decref(status);
}
END_TEST

#define WORKER_LABELS "{model_name=\"m\",pid=\"7\""

START_TEST(the_workers)
{
    memset(&f, 0, sizeof(f));
    json_t *status = json_loads("{\"members\":[],\"counters\":{},\"workers\":[{\"model\":\"m\","
                                "\"pid\":7,\"running\":3,\"waiting\":2,\"kv_pages\":200,"
                                "\"kv_pages_used\":50,\"memory_mib\":2,\"prefix_hits\":48,"
                                "\"decode_tps\":100,\"decode_tps_2\":180,\"decode_tps_8\":0}]}",
                                0, NULL);
    char *text = text_of(status);
    ck_assert(value(text, "weft_worker_requests_running" WORKER_LABELS "}") == 3);
    ck_assert(value(text, "weft_worker_requests_waiting" WORKER_LABELS "}") == 2);
    ck_assert(value(text, "vllm:kv_cache_usage_perc" WORKER_LABELS "}") == 0.25);
    ck_assert(value(text, "weft_worker_memory_bytes" WORKER_LABELS "}") == 2 << 20);
    ck_assert(value(text, "vllm:prefix_cache_hits_total" WORKER_LABELS "}") == 48);
    ck_assert(value(text, "weft_worker_decode_tokens_per_second" WORKER_LABELS ",streams=\"1\"}") ==
              100);
    ck_assert(value(text, "weft_worker_decode_tokens_per_second" WORKER_LABELS ",streams=\"2\"}") ==
              180);
    ck_assert(value(text, "weft_worker_decode_tokens_per_second" WORKER_LABELS ",streams=\"8\"}") ==
              -1); /* not measured: not told */
    free(text);
    json_decref(status);
}
END_TEST

/* Each line is a comment, or NAME[{...}] VALUE; each name has its type before it. */
START_TEST(form)
{
    memset(&f, 0, sizeof(f));
    const weft_result_t result = {.new_tokens = 2, .total_us = 5, .first_token_us = 2};
    figures_answer(&f, "a\"b", "k", &result);
    figures_status(&f, 0); /* is none */
    figures_status(&f, 200);
    ck_assert_uint_eq(f.statuses[0].count, 1);
    char *text = text_of(NULL);
    char *rest = NULL;
    char type[128] = "";
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (sscanf(line, "# TYPE %127s", type) == 1 || line[0] == '#') {
            continue;
        }
        char *end;
        const char *space = strrchr(line, ' ');
        ck_assert_ptr_nonnull(space);
        (void)strtod(space + 1, &end);
        ck_assert_msg(*end == '\0', "%s", line);
        ck_assert_msg(strncmp(line, type, strlen(type)) == 0, "%s after the type of %s", line,
                      type);
    }
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_figures");
    TCase *tc = tcase_create("figures");
    tcase_add_test(tc, answers);
    tcase_add_test(tc, slo);
    tcase_add_test(tc, tables_are_bounded);
    tcase_add_test(tc, the_mesh);
    tcase_add_test(tc, the_workers);
    tcase_add_test(tc, form);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
