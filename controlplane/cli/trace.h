/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - one request followed through the mesh: what its ingress knew, which nodes it could have
 * gone to and what barred the others (query.h), which one is chosen and by what rule
 * (dataplane/route/choose.h), and, if it was sent, who served it and where its time went. Used by
 * cmd_trace.c. Pure; no I/O but printing.
 *
 * Times come from three clocks, none of which is compared with another: the client's (whole
 * request, first token), the worker's (queue, prompt, answer), and the ingress's probes (round trip
 * to the node that served). What is left is the client's way to its ingress and all packet paths
 * together.
 */
#pragma once

#include <weft/client.h>

#include "controlplane/cli/query.h"

/* The words of a request, as the SDK takes them; query and words must stay as long as `out`. */
#define TRACE_TAGS_MAX 256u
struct trace_words {
    char tags[TRACE_TAGS_MAX];
    weft_query_more_t more;
};
void trace_request(const struct query *query, struct trace_words *words, weft_query_t *out);

/*
 * The account, a new reference: `ingress` {node, id, tier, by, table_epoch, ...}, what
 * query_answer() says, `why` (in words, of would_choose), `request` (null without `result`): the
 * SDK's account of it (report.h), `as_expected`, `predicted_ms`, `hops` [{from, to, what, ms,
 * measured}] or
 * [{at, what, ms}]. `answer` is query_answer()'s of that status; `by`: how the request went to its
 * ingress.
 */
json_t *trace_account(const json_t *status, const json_t *answer, const weft_result_t *result,
                      const char *by);

/* The account for people. */
void trace_print(FILE *out, const json_t *account);
