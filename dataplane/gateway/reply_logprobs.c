/* SPDX-License-Identifier: Apache-2.0 */
/* reply_logprobs.c - log probabilities as chats and completions have them, kept until the text of
 * their tokens goes out; see reply.h. */
#include <math.h>

#include "dataplane/gateway/reply.h"

#define IMPOSSIBLE (-9999.0) /* JSON has no infinity; what OpenAI says instead */

static double value_of(const weft_logprob_t *l)
{
    return isfinite(l->logprob) ? (double)l->logprob : IMPOSSIBLE;
}

static void text_add(struct buf *b, const weft_logprob_t *l)
{
    buf_add_text(b, "\"");
    buf_add_json(b, l->text, l->len);
    buf_add_text(b, "\"");
}

static void comma_add(struct buf *b)
{
    if (buf_len(b) != 0) {
        buf_add_text(b, ",");
    }
}

/* ---- chats ---- */

/* {"token":...,"logprob":...,"bytes":[...], without its end. */
static void token_add(struct buf *b, const weft_logprob_t *l)
{
    buf_add_text(b, "{\"token\":");
    text_add(b, l);
    buf_add_format(b, ",\"logprob\":%.6g,\"bytes\":[", value_of(l));
    for (size_t i = 0; i < l->len; i++) {
        buf_add_format(b, i != 0 ? ",%u" : "%u", (unsigned)(uint8_t)l->text[i]);
    }
    buf_add_text(b, "]");
}

static void chat_keep(struct buf *b, const weft_logprob_t *list, size_t count)
{
    comma_add(b);
    token_add(b, &list[0]);
    buf_add_text(b, ",\"top_logprobs\":[");
    for (size_t i = 1; i < count; i++) {
        buf_add_text(b, i != 1 ? "," : "");
        token_add(b, &list[i]);
        buf_add_text(b, "}");
    }
    buf_add_text(b, "]}");
}

/* ---- completions ---- */

static uint64_t characters(const weft_logprob_t *l)
{
    uint64_t count = 0;
    for (size_t i = 0; i < l->len; i++) {
        count += ((uint8_t)l->text[i] & 0xc0) != 0x80;
    }
    return count;
}

static void completion_keep(struct reply_logprobs *l, const weft_logprob_t *list, size_t count)
{
    comma_add(&l->tokens);
    text_add(&l->tokens, &list[0]);
    comma_add(&l->values);
    buf_add_format(&l->values, "%.6g", value_of(&list[0]));
    comma_add(&l->offsets);
    buf_add_format(&l->offsets, "%llu", (unsigned long long)l->at);
    l->at += characters(&list[0]);
    comma_add(&l->tops);
    buf_add_text(&l->tops, "{");
    for (size_t i = 1; i < count; i++) {
        buf_add_text(&l->tops, i != 1 ? "," : "");
        text_add(&l->tops, &list[i]);
        buf_add_format(&l->tops, ":%.6g", value_of(&list[i]));
    }
    buf_add_text(&l->tops, "}");
}

/* ---- either ---- */

void reply_logprobs_keep(struct reply *r, uint32_t choice, const weft_logprob_t *list, size_t count)
{
    struct reply_logprobs *l = &r->choices[choice].logprobs;
    if (r->request->kind == API_CHAT) {
        chat_keep(&l->tokens, list, count);
    } else {
        completion_keep(l, list, count);
    }
}

bool reply_logprobs_kept(const struct reply *r, uint32_t choice)
{
    return buf_len(&r->choices[choice].logprobs.tokens) != 0;
}

/* Moves all of `from` to the end of the reply. */
static void list_add(struct reply *r, const char *before, struct buf *from)
{
    buf_add_text(&r->out, before);
    if (buf_len(from) != 0) {
        buf_add(&r->out, from->data + from->at, buf_len(from));
    }
    r->out.failed = r->out.failed || from->failed;
    from->at = from->end = 0;
}

void reply_logprobs_add(struct reply *r, uint32_t choice)
{
    struct reply_logprobs *l = &r->choices[choice].logprobs;
    if (!reply_logprobs_kept(r, choice)) {
        buf_add_text(&r->out, "\"logprobs\":null");
    } else if (r->request->kind == API_CHAT) {
        list_add(r, "\"logprobs\":{\"content\":[", &l->tokens);
        buf_add_text(&r->out, "],\"refusal\":null}");
    } else {
        list_add(r, "\"logprobs\":{\"tokens\":[", &l->tokens);
        list_add(r, "],\"token_logprobs\":[", &l->values);
        list_add(r, "],\"top_logprobs\":[", &l->tops);
        list_add(r, "],\"text_offset\":[", &l->offsets);
        buf_add_text(&r->out, "]}");
    }
}

void reply_logprobs_deinit(struct reply_logprobs *l)
{
    buf_deinit(&l->tokens);
    buf_deinit(&l->values);
    buf_deinit(&l->tops);
    buf_deinit(&l->offsets);
}
