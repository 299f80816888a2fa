/* SPDX-License-Identifier: Apache-2.0 */
/*
 * components.h - parts of an inference at different nodes, an experiment
 * (--experimental-components; /v1/components/run). Pure: JSON in, queries out, vectors and text in,
 * JSON out.
 *
 *   {"stages": [
 *     {"component": "encode", "model": A, "input": TEXT, "among": [TEXT, ...], "weft": {...}},
 *     {"component": "decode", "model": B, "max_tokens": N, "temperature": T, "weft": {...}}]}
 *
 * Encode makes a vector of each text where A is, under its own constraints. The text of `among`
 * whose vector is nearest to the input's (the cosine: vectors have length 1) goes on to decode,
 * which answers the input behind it where B is, under its own. Vectors come back to the gateway and
 * go no further; what is handed on is text.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "dataplane/gateway/api.h"

#define COMPONENTS_AMONG_MAX 15u
#define COMPONENTS_CALLS_MAX (1 + COMPONENTS_AMONG_MAX + 1) /* the last is decode's */
#define COMPONENTS_DIM_MAX   65536u

struct components {
    json_t *root;              /* the body */
    struct api_request encode; /* prompt 0 is the input */
    struct api_request decode; /* once chosen */
    uint32_t texts;
    float *vectors[1 + COMPONENTS_AMONG_MAX]; /* heap */
    size_t dimensions;
    double similarity[COMPONENTS_AMONG_MAX];
    uint32_t best;
    struct buf text; /* decode's, as the inside of a JSON string */
    struct utf8_hold hold;
    weft_result_t results[COMPONENTS_CALLS_MAX];
};

/* Zero-fill it first; components_deinit() either way. False: the error is set. */
bool components_read(struct components *c, const char *body, size_t len, struct api_error *error);
void components_deinit(struct components *c);

/* The query of text `i` of encode, and its end; false: there is no such vector. */
weft_query_t components_encode(const struct components *c, uint32_t i);
bool components_vector(struct components *c, uint32_t i, const float *vector, size_t count,
                       const weft_result_t *result);
/* All vectors are there: decode's query, which lives as long as `c`. False: the error is set. */
bool components_decode(struct components *c, weft_query_t *query, struct api_error *error);
void components_text(struct components *c, const char *text, size_t len);
/* The whole account. */
void components_write(struct components *c, const weft_result_t *decoded, const char *id,
                      struct buf *out);
