/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of rope.cu, attend.cu and prefill.cu: a paged cache whose pages lie in any order, heads
 * that share keys, lengths around the ends of pages, rounds and splits. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/expand.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/ref.h"
#include "tests/gpu/cases.h"

#define EPSILON   1e-6f
#define TOLERANCE 2e-5f
#define SLOTS     3u

/* A cache on the host, to be put on the device: floats as the case gave them, and as stored. */
struct cache {
    struct kv_view kv; /* its pointers are the device's */
    uint32_t *tables;
    uint32_t page_count;
    uint32_t context;
    uint8_t *image; /* what the device has, or should have */
    size_t image_bytes;
};

/* To the nearest half, ties to even; beyond the largest: infinity. */
static uint16_t to_half(float value)
{
    uint32_t bits, sign;
    memcpy(&bits, &value, sizeof(bits));
    sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits >= 0x47800000u) { /* 65,536 */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (bits < 0x38800000u) { /* 2^-14: the sum's last bit is that of a subnormal half */
        const float sum = fabsf(value) + 0.5f;
        memcpy(&bits, &sum, sizeof(bits));
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    bits += (15u << 23) - (127u << 23) + 0xfffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | bits >> 13);
}

/* Every slot gets pages of its own, in random order; one page stays nobody's. */
static void make_cache(struct lab *lab, struct cache *c, uint32_t kv_heads, uint32_t width,
                       uint32_t context, bool is_half)
{
    const uint32_t stride = (context + OP_PAGE - 1) / OP_PAGE;
    const size_t page = (size_t)2 * kv_heads * OP_PAGE * width * (is_half ? 2 : 4);
    c->page_count = SLOTS * stride + 1;
    c->context = context;
    c->tables = lab_host(lab, SLOTS * stride * sizeof(uint32_t));
    for (uint32_t i = 0; i < SLOTS * stride; i++) {
        const uint32_t other = lab_below(lab, i + 1);
        c->tables[i] = c->tables[other];
        c->tables[other] = i + 1;
    }
    c->image_bytes = page * c->page_count;
    c->image = lab_host(lab, c->image_bytes);
    memset(c->image, 0xff, c->image_bytes);
    c->kv =
        (struct kv_view){.table_stride = stride,
                         .kv_heads = kv_heads,
                         .head_group = 1,
                         .head_width = width,
                         .is_half = is_half,
                         .tables = lab_upload(lab, c->tables, SLOTS * stride * sizeof(uint32_t))};
}

static size_t value_index(const struct cache *c, struct op_row row, uint32_t is_value,
                          uint32_t head)
{
    const uint32_t page = c->tables[row.slot * c->kv.table_stride + row.position / OP_PAGE];
    return ((((size_t)page * 2 + is_value) * c->kv.kv_heads + head) * OP_PAGE +
            row.position % OP_PAGE) *
           c->kv.head_width;
}

/* Puts a head's values into the image; `values` becomes what is really stored. */
static void store(struct cache *c, struct op_row row, uint32_t is_value, uint32_t head,
                  float *values)
{
    const size_t at = value_index(c, row, is_value, head);
    for (uint32_t i = 0; i < c->kv.head_width; i++) {
        if (c->kv.is_half) {
            const uint16_t bits = to_half(values[i]);
            memcpy(c->image + (at + i) * 2, &bits, sizeof(bits));
            values[i] = cpu_half_to_float(bits);
        } else {
            memcpy(c->image + (at + i) * 4, &values[i], sizeof(float));
        }
    }
}

/* ---- rope ---------------------------------------------------------------------------------- */

struct rope_scene {
    struct cache cache;
    struct rope_args op;
    float *q;
    float *k;
    float *v;
    float *norms[2];
    float *angles;
    struct op_row rows[4];
};

static void make_rope(struct lab *lab, struct rope_scene *s)
{
    const uint32_t width = 4 * (1 + lab_below(lab, 20));
    const uint32_t kv_heads = 1 + lab_below(lab, 3);
    const uint32_t context = 40;
    memset(s, 0, sizeof(*s));
    s->op.heads = kv_heads * (1 + lab_below(lab, 3));
    s->op.count = 1 + lab_below(lab, 4);
    s->op.epsilon = EPSILON;
    s->op.rope_pairs = 1 + lab_below(lab, width / 2);
    s->op.is_halves = lab_below(lab, 2);
    make_cache(lab, &s->cache, kv_heads, width, context, lab_below(lab, 2));
    s->q = lab_floats(lab, (size_t)s->op.count * s->op.heads * width);
    s->k = lab_floats(lab, (size_t)s->op.count * kv_heads * width);
    s->v = lab_floats(lab, (size_t)s->op.count * kv_heads * width);
    s->angles = lab_floats(lab, (size_t)context * 2 * s->op.rope_pairs);
    for (int i = 0; i < 2; i++)
        s->norms[i] = lab_below(lab, 3) ? lab_floats(lab, width) : NULL;
    for (uint32_t c = 0; c < s->op.count; c++) /* a position apart, so that none is met twice */
        s->rows[c] = (struct op_row){lab_below(lab, SLOTS), lab_below(lab, 10) * 4 + c};
}

static void run_rope(struct lab *lab, struct rope_scene *s)
{
    const uint32_t width = s->cache.kv.head_width;
    const size_t kv = (size_t)s->op.count * s->cache.kv.kv_heads * width * sizeof(float);
    s->op.q = lab_upload(lab, s->q, (size_t)s->op.count * s->op.heads * width * sizeof(float));
    s->op.k = lab_upload(lab, s->k, kv);
    s->op.v = lab_upload(lab, s->v, kv);
    s->op.angles =
        lab_upload(lab, s->angles, (size_t)s->cache.context * 2 * s->op.rope_pairs * sizeof(float));
    s->op.q_norm = s->norms[0] ? lab_upload(lab, s->norms[0], width * sizeof(float)) : NULL;
    s->op.k_norm = s->norms[1] ? lab_upload(lab, s->norms[1], width * sizeof(float)) : NULL;
    s->op.rows = lab_upload(lab, s->rows, sizeof(s->rows));
    s->cache.kv.pages = lab_device(lab, s->cache.image_bytes);
    s->op.kv = s->cache.kv;
    if (lab_is_well(lab))
        lab_check(lab, op_rope(lab->device, &s->op), "op_rope");
}

/* The same on the host: q in place, the cache's image filled. */
static void expect_rope(struct rope_scene *s)
{
    const uint32_t width = s->cache.kv.head_width;
    const uint32_t pairs = s->op.rope_pairs;
    for (uint32_t c = 0; c < s->op.count; c++) {
        const float *angles = s->angles + (size_t)s->rows[c].position * 2 * pairs;
        for (uint32_t h = 0; h < s->op.heads; h++)
            ref_turn(s->q + ((size_t)c * s->op.heads + h) * width, width, s->norms[0], EPSILON,
                     angles, pairs, s->op.is_halves);
        for (uint32_t h = 0; h < s->cache.kv.kv_heads; h++) {
            const size_t at = ((size_t)c * s->cache.kv.kv_heads + h) * width;
            ref_turn(s->k + at, width, s->norms[1], EPSILON, angles, pairs, s->op.is_halves);
            store(&s->cache, s->rows[c], 0, h, s->k + at);
            store(&s->cache, s->rows[c], 1, h, s->v + at);
        }
    }
}

/* Every value of the cache is as expected, and those that nobody wrote are still poison. */
static void compare_cache(struct lab *lab, const struct cache *c, const uint8_t *got)
{
    const size_t step = c->kv.is_half ? 2 : 4;
    for (size_t at = 0; at < c->image_bytes && lab_is_well(lab); at += step) {
        uint16_t halves[2];
        float a;
        float b;
        memcpy(&a, got + at, step);
        memcpy(&b, c->image + at, step);
        if (c->kv.is_half) {
            memcpy(&halves[0], got + at, 2);
            memcpy(&halves[1], c->image + at, 2);
            a = cpu_half_to_float(halves[0]);
            b = cpu_half_to_float(halves[1]);
        }
        const float tolerance = c->kv.is_half ? 2e-3f : TOLERANCE;
        if (isnan(a) != isnan(b) || (!isnan(b) && !(fabsf(a - b) <= tolerance * (1 + fabsf(b)))))
            lab_fail(lab, "cache at byte %zu is %g, not %g", at, (double)a, (double)b);
    }
}

void case_rope(struct lab *lab)
{
    struct rope_scene s;
    make_rope(lab, &s);
    run_rope(lab, &s);
    expect_rope(&s);
    const size_t count = (size_t)s.op.count * s.op.heads * s.cache.kv.head_width;
    float *got = lab_host(lab, count * sizeof(float));
    uint8_t *pages = lab_host(lab, s.cache.image_bytes);
    lab_download(lab, got, s.op.q, count * sizeof(float));
    lab_download(lab, pages, s.cache.kv.pages, s.cache.image_bytes);
    lab_compare(lab, "q", got, s.q, count, TOLERANCE);
    compare_cache(lab, &s.cache, pages);
}

/* ---- attend -------------------------------------------------------------------------------- */

#define COLUMNS_MAX 150u
#define COLUMNS_FEW 5u

struct attend_scene {
    struct cache cache;
    struct attend_args op;
    struct op_row rows[COLUMNS_MAX];
    float *keys; /* [slot][kv head][position][width], as stored */
    float *values;
    float *q;
    size_t out_count;
};

static void make_attend(struct lab *lab, struct attend_scene *s, uint32_t width, uint32_t sharing,
                        uint32_t context)
{
    const uint32_t kv_heads = 1 + lab_below(lab, 2);
    memset(s, 0, sizeof(*s));
    make_cache(lab, &s->cache, kv_heads, width, context, lab_below(lab, 2));
    s->cache.kv.head_group = sharing;
    s->cache.kv.head_skip = lab_below(lab, 2) ? lab_below(lab, sharing) : 0; /* parts of models */
    const size_t count = (size_t)SLOTS * kv_heads * context * width;
    s->keys = lab_floats(lab, count);
    s->values = lab_floats(lab, count);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        for (uint32_t h = 0; h < kv_heads; h++)
            for (uint32_t p = 0; p < context; p++) {
                const size_t at = (((size_t)slot * kv_heads + h) * context + p) * width;
                store(&s->cache, (struct op_row){slot, p}, 0, h, s->keys + at);
                store(&s->cache, (struct op_row){slot, p}, 1, h, s->values + at);
            }
    s->op.heads = kv_heads * sharing - s->cache.kv.head_skip;
    s->op.heads -= lab_below(lab, s->op.heads < sharing ? s->op.heads : sharing);
    s->op.scale = 1.0f / sqrtf((float)width) * 4.0f; /* sharper than random keys would give */
    s->op.count = 1 + lab_below(lab, COLUMNS_FEW);
    s->out_count = (size_t)s->op.count * s->op.heads * width;
    s->q = lab_floats(lab, s->out_count);
    for (uint32_t c = 0; c < s->op.count; c++)
        s->rows[c] = (struct op_row){lab_below(lab, SLOTS), lab_below(lab, context)};
    s->op.length_max = context;
}

static void upload_attend(struct lab *lab, struct attend_scene *s)
{
    const uint32_t width = s->cache.kv.head_width;
    s->cache.kv.pages = lab_upload(lab, s->cache.image, s->cache.image_bytes);
    s->op.kv = s->cache.kv;
    s->op.q = lab_upload(lab, s->q, s->out_count * sizeof(float));
    s->op.out = lab_device(lab, s->out_count * sizeof(float));
    s->op.partial = lab_device(lab, op_partial_floats(s->op.count, s->op.heads, width) * 4);
    s->op.rows = lab_upload(lab, s->rows, sizeof(s->rows));
}

static void run_attend(struct lab *lab, struct attend_scene *s)
{
    upload_attend(lab, s);
    if (lab_is_well(lab))
        lab_check(lab, op_attend(lab->device, &s->op), "op_attend");
}

static void expect_attend(const struct attend_scene *s, float *want)
{
    const struct kv_view *kv = &s->cache.kv;
    for (uint32_t c = 0; c < s->op.count; c++)
        for (uint32_t h = 0; h < s->op.heads; h++) {
            const uint32_t kv_head = (kv->head_skip + h) / kv->head_group;
            const size_t from = ((size_t)s->rows[c].slot * kv->kv_heads + kv_head) *
                                s->cache.context * kv->head_width;
            const size_t at = ((size_t)c * s->op.heads + h) * kv->head_width;
            ref_attend(s->q + at, s->keys + from, s->values + from, s->rows[c].position + 1,
                       kv->head_width, s->op.scale, want + at);
        }
}

static void check_attend(struct lab *lab, struct attend_scene *s)
{
    float *want = lab_host(lab, s->out_count * sizeof(float));
    float *got = lab_host(lab, s->out_count * sizeof(float));
    expect_attend(s, want);
    run_attend(lab, s);
    lab_download(lab, got, s->op.out, s->out_count * sizeof(float));
    lab_compare(lab, "attention", got, want, s->out_count, TOLERANCE);
}

void case_attend(struct lab *lab)
{
    static const uint32_t widths[] = {4, 16, 64, 80, 128};
    struct attend_scene s;
    const uint32_t width = widths[lab_below(lab, 5)];
    make_attend(lab, &s, width, 1 + lab_below(lab, 10), 1 + lab_below(lab, 70));
    check_attend(lab, &s);
    lab_deinit(lab);
    make_attend(lab, &s, 8, 1 + lab_below(lab, 3), 600); /* rounds and splits */
    for (uint32_t c = 0; c < s.op.count; c++)
        s.rows[c].position = 254 + lab_below(lab, 4) + 256 * lab_below(lab, 2);
    check_attend(lab, &s);
}

/* Beyond 32 splits of 256 positions they become longer. */
void case_attend_long(struct lab *lab)
{
    struct attend_scene s;
    make_attend(lab, &s, 4, 1, OP_SPLIT_LEAST * OP_SPLITS_MAX + 40);
    s.op.count = 3;
    s.rows[0].position = OP_SPLIT_LEAST * OP_SPLITS_MAX - 1;
    s.rows[1].position = OP_SPLIT_LEAST * OP_SPLITS_MAX;
    s.rows[2].position = OP_SPLIT_LEAST * OP_SPLITS_MAX + 39;
    s.out_count = (size_t)s.op.count * s.op.heads * 4;
    s.q = lab_floats(lab, s.out_count);
    check_attend(lab, &s);
}

/* A column is the same bits alone, and in launches for longer columns. */
void case_attend_alone(struct lab *lab)
{
    struct attend_scene s;
    make_attend(lab, &s, 16, 3, 560);
    const size_t step = (size_t)s.op.heads * 16;
    float *together = lab_host(lab, s.out_count * sizeof(float));
    float *alone = lab_host(lab, step * sizeof(float));
    run_attend(lab, &s);
    lab_download(lab, together, s.op.out, s.out_count * sizeof(float));
    const uint32_t count = s.op.count;
    const float *q = s.op.q;
    const struct op_row *rows = s.op.rows;
    for (uint32_t c = 0; c < count && lab_is_well(lab); c++) {
        s.op.q = q + c * step;
        s.op.rows = rows + c;
        s.op.count = 1;
        s.op.length_max = s.rows[c].position + 1;
        lab_check(lab, op_attend(lab->device, &s.op), "op_attend");
        lab_download(lab, alone, s.op.out, step * sizeof(float));
        if (memcmp(alone, together + c * step, step * sizeof(float)) != 0)
            lab_fail(lab, "column %u depends on its neighbours", c);
    }
}

/* ---- prefill ------------------------------------------------------------------------------- */

#define HALVES 6e-3f /* tolerance: 11 bits, sharp softmax */

/* Pieces of prompts one after the other: some columns of a slot each, positions rising. */
static void make_pieces(struct lab *lab, struct attend_scene *s, uint32_t count)
{
    s->op.count = 0;
    for (uint32_t slot = 0; slot < SLOTS && s->op.count < count; slot++) {
        const uint32_t left = count - s->op.count;
        uint32_t take = slot + 1 == SLOTS ? left : 1 + lab_below(lab, left);
        take = take < s->cache.context ? take : s->cache.context;
        const uint32_t first = lab_below(lab, s->cache.context - take + 1);
        for (uint32_t i = 0; i < take; i++)
            s->rows[s->op.count++] = (struct op_row){slot, first + i};
    }
    s->out_count = (size_t)s->op.count * s->op.heads * s->cache.kv.head_width;
    s->q = lab_floats(lab, s->out_count);
}

/* Whole tiles, or cut in any other way. */
static uint32_t make_tiles(struct lab *lab, const struct attend_scene *s, struct op_tile *tiles,
                           bool is_whole)
{
    const uint32_t most = op_tile_columns(s->cache.kv.head_group);
    uint32_t count = 0;
    for (uint32_t c = 0; c < s->op.count; c++) {
        struct op_tile *last = &tiles[count - (count ? 1 : 0)];
        if (count && last->count < most && s->rows[c - 1].slot == s->rows[c].slot &&
            (is_whole || lab_below(lab, 3)))
            last->count++;
        else
            tiles[count++] = (struct op_tile){c, 1};
    }
    return count;
}

static void run_prefill(struct lab *lab, const struct attend_scene *s, float *out, bool is_whole)
{
    struct op_tile tiles[COLUMNS_MAX] = {{0, 0}};
    const uint32_t tile_count = make_tiles(lab, s, tiles, is_whole);
    const struct prefill_args op = {
        .q = s->op.q,
        .out = out,
        .rows = s->op.rows,
        .kv = s->op.kv,
        .scale = s->op.scale,
        .heads = s->op.heads,
        .tile_count = tile_count,
        .out_stride = s->op.heads * s->op.kv.head_width,
        .tiles = lab_upload(lab, tiles, sizeof(tiles)),
    };
    if (lab_is_well(lab))
        lab_check(lab, op_prefill(lab->device, &op), "op_prefill");
}

static void check_prefill(struct lab *lab, uint32_t width, uint32_t sharing, uint32_t context,
                          uint32_t count)
{
    struct attend_scene s;
    make_attend(lab, &s, width, sharing, context);
    make_pieces(lab, &s, count);
    const size_t bytes = s.out_count * sizeof(float);
    float *want = lab_host(lab, bytes);
    float *got = lab_host(lab, bytes);
    float *again = lab_host(lab, bytes);
    expect_attend(&s, want);
    upload_attend(lab, &s);
    run_prefill(lab, &s, s.op.out, true);
    lab_download(lab, got, s.op.out, bytes);
    lab_compare(lab, "prompt's attention", got, want, s.out_count, HALVES);
    float *other = lab_device(lab, bytes);
    run_prefill(lab, &s, other, false);
    lab_download(lab, again, other, bytes);
    if (lab_is_well(lab) && memcmp(got, again, bytes) != 0)
        lab_fail(lab, "columns depend on the tiles they are in");
    lab_deinit(lab);
}

void case_prefill(struct lab *lab)
{
    static const uint32_t widths[] = {4, 12, 64, 80, 128, 160, OP_HEAD_MAX};
    check_prefill(lab, widths[lab_below(lab, 7)], 1 + lab_below(lab, 5), 1 + lab_below(lab, 90),
                  1 + lab_below(lab, 40));
    check_prefill(lab, 8, 1 + lab_below(lab, 20), 70 + lab_below(lab, 200),
                  1 + lab_below(lab, COLUMNS_MAX));
}

void case_norm(struct lab *lab)
{
    uint32_t picks[9];
    struct norm_args op = {.epsilon = EPSILON, .width = 1 + lab_below(lab, 700), .count = 9};
    op.out_stride = op.width;
    const float *x = lab_floats(lab, (size_t)op.width * 12);
    const float *weight = lab_floats(lab, op.width);
    const bool is_picked = lab_below(lab, 2);
    const size_t count = (size_t)op.count * op.width;
    float *want = lab_host(lab, count * sizeof(float));
    float *got = lab_host(lab, count * sizeof(float));
    for (uint32_t c = 0; c < op.count; c++) {
        picks[c] = is_picked ? lab_below(lab, 12) : c;
        ref_norm(x + (size_t)picks[c] * op.width, weight, op.width, EPSILON,
                 want + (size_t)c * op.width);
    }
    op.x = lab_upload(lab, x, (size_t)op.width * 12 * sizeof(float));
    op.x_rows = is_picked ? lab_upload(lab, picks, sizeof(picks)) : NULL;
    op.weight = lab_upload(lab, weight, op.width * sizeof(float));
    op.out = lab_device(lab, count * sizeof(float));
    if (lab_is_well(lab))
        lab_check(lab, op_norm(lab->device, &op), "op_norm");
    lab_download(lab, got, op.out, count * sizeof(float));
    lab_compare(lab, "norm", got, want, count, TOLERANCE);
}

void case_swiglu_apart(struct lab *lab)
{
    const uint32_t count = 1 + lab_below(lab, 700);
    const float *gate = lab_floats(lab, count);
    const float *up = lab_floats(lab, count);
    float *want = lab_host(lab, count * sizeof(float));
    float *got = lab_host(lab, count * sizeof(float));
    float *out = lab_upload(lab, gate, count * sizeof(float));
    const float *up_there = lab_upload(lab, up, count * sizeof(float));
    const struct swiglu_args op = {
        .gate = out, .up = up_there, .out = out, .width = count, .columns = 1, .out_stride = count};
    ref_swiglu(gate, up, count, want);
    if (lab_is_well(lab))
        lab_check(lab, op_swiglu(lab->device, &op), "op_swiglu");
    lab_download(lab, got, out, count * sizeof(float));
    lab_compare(lab, "swiglu", got, want, count, 1e-6f);
}
