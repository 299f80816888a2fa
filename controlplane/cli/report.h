/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.h - a finished request in words and as JSON. Pure: takes a result, writes text; cmd_run.c
 * prints it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <weft/client.h>

/* Refused before any work was done, as opposed to failed or cut short. */
bool report_is_refusal(int status);

/* One sentence without a line end: who served and where the time went, or why not. */
void report_sentence(const weft_result_t *result, char *out, size_t size);

/* A new object, NULL without memory. `text` need not be valid UTF-8; what is not becomes U+FFFD. */
json_t *report_json(const weft_result_t *result, const char *text, size_t len);

/* One log probability as a JSON object. */
json_t *report_logprob(const weft_logprob_t *logprob);
