/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.cu - op_sample(): logits to tokens as kernels/model/sampler.h defines it, without the
 * logits leaving the device.
 *
 *   logits [count][vocab], params [count] -> tokens [count]
 *   grid (count), block 512
 *
 * Every question of the sampler is one of rank: the first so many in an order, by number (top-k) or
 * by weight (top-p, the draw). A candidate's place in the order is a 64-bit key, so a search over
 * its bytes from the top, with a histogram of what each byte value holds, finds where the prefix
 * ends: eight passes over the logits, no sort, nothing stored. Weights are summed as whole numbers
 * of 2^-44, so neither threads nor order matter.
 *
 * The exponential is kernels/model/fixed.h's, operation by operation.
 *
 * Variants considered:
 *  1. a sort of all candidates (radix sort of 150,000 pairs): several times the bytes. No.
 *  2. candidates above a threshold gathered first, then sorted in shared memory: fewer passes with
 *     a narrow top-k, the same code for the rest; worth it if sampling ever shows in a profile.
 *  3. float64 sums: depend on the order of atomics. No.
 */
#include <errno.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/model/philox.h"

#define THREADS     512u
#define WARPS       (THREADS / WARP)
#define BINS        256u
#define WEIGHT_UNIT 17592186044416.0f /* 2^44 */
#define NOBODY      0xffffffffu

/* As fixed_exp_negative(). */
static __device__ __forceinline__ float exp_negative(float x)
{
    const float round = 12582912.0f;
    const float clamped = x < -87.0f ? -87.0f : x;
    const float n = __fadd_rn(__fadd_rn(__fmul_rn(clamped, 1.44269504f), round), -round);
    float r = __fadd_rn(clamped, -__fmul_rn(n, 0.693359375f));
    r = __fadd_rn(r, -__fmul_rn(n, -2.12194440e-4f));
    float p = 1.0f / 5040;
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 720);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 120);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 24);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 6);
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    const unsigned power = __float_as_uint(__fadd_rn(n, round));
    return x <= -87.0f ? 0.0f : __uint_as_float(__float_as_uint(p) + (power << 23));
}

/* The order that a search goes through, and what it adds up. */
enum search_by { BY_COUNT, BY_WEIGHT };

/* A row of logits, and who of it still counts. */
struct candidates {
    const float *logits;
    uint32_t count;
    float most; /* largest logit */
    float temperature;
    float least;     /* weight below which nobody counts */
    uint64_t border; /* key below which nobody counts */
    bool by_id;      /* order: lower ids first; else heavier ones, then lower ids */
    unsigned long long *bins;
    unsigned long long *answer; /* [2]: key's bytes so far, what lies before them */

    __device__ __forceinline__ float weight(uint32_t i) const
    {
        const float logit = logits[i];
        return exp_negative(logit < most ? __fdiv_rn(__fadd_rn(logit, -most), temperature) : 0.0f);
    }

    __device__ __forceinline__ uint64_t key(uint32_t i, float w) const
    {
        const uint64_t id = 0xffffffffu - i;
        return by_id ? id : (uint64_t)__float_as_uint(w) << 32 | id;
    }

    /* What candidate i adds; 0 if it does not count. */
    __device__ __forceinline__ unsigned long long share(uint32_t i, search_by by,
                                                        uint64_t *its_key) const
    {
        if (!(logits[i] > -INFINITY))
            return 0;
        const float w = weight(i);
        *its_key = key(i, w);
        if (*its_key < border || w < least)
            return 0;
        return by == BY_COUNT ? 1 : (unsigned long long)(w * WEIGHT_UNIT);
    }

    /* All there is; every thread gets it. */
    __device__ __forceinline__ unsigned long long total(search_by by) const
    {
        unsigned long long mine = 0;
        uint64_t unused;
        __syncthreads();
        if (threadIdx.x == 0)
            answer[0] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count; i += THREADS)
            mine += share(i, by, &unused);
        if (mine)
            atomicAdd(&answer[0], mine);
        __syncthreads();
        return answer[0];
    }

    /* Fills the bins with what the keys that begin with `found` hold, by their byte at `shift`. */
    __device__ __forceinline__ void fill(search_by by, uint64_t found, unsigned shift) const
    {
        for (uint32_t b = threadIdx.x; b < BINS; b += THREADS)
            bins[b] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
            uint64_t its_key = 0;
            const unsigned long long mine = share(i, by, &its_key);
            if (mine && (shift == 56 || its_key >> (shift + 8) == found >> (shift + 8)))
                atomicAdd(&bins[its_key >> shift & 0xffu], mine);
        }
        __syncthreads();
    }

    /* The key of the last one of the shortest prefix of the order that holds `wanted`, which is
     * 1 .. total(). */
    __device__ __forceinline__ uint64_t search(search_by by, unsigned long long wanted) const
    {
        uint64_t found = 0;
        unsigned long long before = 0;
        for (unsigned shift = 64; shift;) {
            shift -= 8;
            fill(by, found, shift);
            if (threadIdx.x == 0) {
                unsigned bin = BINS - 1;
                while (bin && before + bins[bin] < wanted)
                    before += bins[bin--];
                answer[0] = found | (unsigned long long)bin << shift;
                answer[1] = before;
            }
            __syncthreads();
            found = answer[0];
            before = answer[1];
            __syncthreads();
        }
        return found;
    }
};

/* The largest logit and its lowest id; NOBODY if there is none. */
static __device__ __forceinline__ uint32_t find_most(const float *logits, uint32_t count,
                                                     unsigned long long *answer, float *most)
{
    unsigned long long best = 0;
    if (threadIdx.x == 0)
        answer[0] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
        const float logit = logits[i] == 0.0f ? 0.0f : logits[i]; /* minus zero equals zero */
        if (!(logit > -INFINITY))
            continue;
        const unsigned bits = __float_as_uint(logit);
        const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
        const unsigned long long key = (unsigned long long)ordered << 32 | (0xffffffffu - i);
        best = key > best ? key : best;
    }
    if (best)
        atomicMax(&answer[0], best);
    __syncthreads();
    const unsigned long long winner = answer[0];
    __syncthreads();
    const uint32_t id = 0xffffffffu - (uint32_t)winner;
    *most = winner ? logits[id] : 0.0f;
    return winner ? id : NOBODY;
}

/* fraction * total as a whole number, at least 1 and at most the total. */
static __device__ __forceinline__ unsigned long long part_of(double fraction,
                                                             unsigned long long total)
{
    const unsigned long long part = (unsigned long long)ceil(fraction * (double)total);
    return part < 1 ? 1 : part < total ? part : total;
}

/* Sets the border behind the candidates that top-k and top-p leave. */
static __device__ __forceinline__ void narrow(candidates *c, const sample_params &params,
                                              bool limited, bool nucleus)
{
    if (limited)
        c->border = c->search(BY_COUNT, params.top_k);
    if (nucleus)
        c->border = c->search(BY_WEIGHT, part_of((double)params.top_p, c->total(BY_WEIGHT)));
}

static __global__ void __launch_bounds__(THREADS) sample_kernel(sample_args op)
{
    SHARED_ARRAY(unsigned long long, bins, [BINS]);
    SHARED_ARRAY(unsigned long long, answer, [2]);
    const sample_params params = op.params[blockIdx.x];
    candidates c;
    c.logits = op.logits + (size_t)blockIdx.x * op.vocab;
    c.count = op.vocab;
    c.temperature = params.temperature;
    c.least = 0.0f;
    c.border = 0;
    c.by_id = false;
    c.bins = bins;
    c.answer = answer;
    const uint32_t greedy = find_most(c.logits, c.count, answer, &c.most);
    if (!(params.temperature > 0.0f) || greedy == NOBODY) {
        if (threadIdx.x == 0)
            op.tokens[blockIdx.x] = greedy;
        return;
    }
    const bool nucleus = params.top_p > 0.0f && params.top_p < 1.0f;
    const bool limited = params.top_k && params.top_k < c.total(BY_COUNT);
    narrow(&c, params, limited, nucleus);
    c.least = params.min_p > 0.0f && params.min_p <= 1.0f ? params.min_p : 0.0f;
    c.by_id = !limited && !nucleus;
    /* sampler_pick() goes through candidates by id, or from the worst to the best. */
    const unsigned long long total = c.total(BY_WEIGHT);
    const unsigned long long drawn =
        (unsigned long long)(philox_uniform(params.seed, params.position) * (double)total);
    const uint64_t key = c.search(BY_WEIGHT, c.by_id ? drawn + 1 : total - drawn);
    if (threadIdx.x == 0)
        op.tokens[blockIdx.x] = 0xffffffffu - (uint32_t)key;
}

int op_sample(const struct device *device, const struct sample_args *op)
{
    if (op->count == 0 || op->vocab == 0 || op->vocab > OP_VOCAB_MAX)
        return -EINVAL;
    return LAUNCH(sample_kernel, dim3(op->count), dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
}
