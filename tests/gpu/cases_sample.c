/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of sample.cu: its tokens are those of kernels/model/sampler.c, which the processor uses. */
#include <math.h>
#include <string.h>

#include "kernels/cuda/ops.h"
#include "kernels/model/sampler.h"
#include "tests/gpu/cases.h"

#define ROWS 16u

static float random_logit(struct lab *lab)
{
    switch (lab_below(lab, 20)) {
    case 0:
        return -INFINITY;
    case 1:
        return NAN;
    case 2:
        return 2.0f; /* equals */
    case 3:
        return lab_below(lab, 2) ? 0.0f : -0.0f;
    default:
        return lab_float(lab) * 6.0f;
    }
}

static struct sample_params random_params(struct lab *lab)
{
    static const float temperatures[] = {0.0f, 0.3f, 0.8f, 1.0f, 1.7f, -1.0f};
    static const float top_ps[] = {0.0f, 0.5f, 0.9f, 1.0f, 0.99f};
    static const float min_ps[] = {0.0f, 0.0f, 0.05f, 1.0f, 0.3f};
    static const uint32_t top_ks[] = {0, 1, 5, 40, 100000};
    return (struct sample_params){
        .temperature = temperatures[lab_below(lab, 6)],
        .top_p = top_ps[lab_below(lab, 5)],
        .min_p = min_ps[lab_below(lab, 5)],
        .top_k = top_ks[lab_below(lab, 5)],
        .seed = lab_random(lab),
        .position = lab_below(lab, 4) ? lab_below(lab, 10000) : lab_random(lab),
    };
}

void case_sample(struct lab *lab)
{
    struct sample_args op = {.count = ROWS, .vocab = 1 + lab_below(lab, 1500)};
    struct sample_params params[ROWS];
    uint32_t got[ROWS];
    float *logits = lab_host(lab, (size_t)ROWS * op.vocab * sizeof(float));
    struct sampler_candidate *scratch = lab_host(lab, op.vocab * sizeof(*scratch));
    for (size_t i = 0; i < (size_t)ROWS * op.vocab; i++)
        logits[i] = i / op.vocab == 3 ? NAN : random_logit(lab); /* a row without a candidate */
    for (uint32_t r = 0; r < ROWS; r++)
        params[r] = random_params(lab);
    op.logits = lab_upload(lab, logits, (size_t)ROWS * op.vocab * sizeof(float));
    op.params = lab_upload(lab, params, sizeof(params));
    op.tokens = lab_device(lab, sizeof(got));
    if (lab_is_well(lab))
        lab_check(lab, op_sample(lab->device, &op), "op_sample");
    lab_download(lab, got, op.tokens, sizeof(got));
    for (uint32_t r = 0; r < ROWS && lab_is_well(lab); r++) {
        const struct sampler_params p = {.temperature = params[r].temperature,
                                         .top_p = params[r].top_p,
                                         .min_p = params[r].min_p,
                                         .top_k = params[r].top_k,
                                         .seed = params[r].seed};
        const uint32_t want =
            sampler_pick(&p, params[r].position, logits + (size_t)r * op.vocab, op.vocab, scratch);
        if (got[r] != want)
            lab_fail(lab, "row %u (T %g, p %g, min %g, k %u of %u) is %u, not %u", r,
                     (double)p.temperature, (double)p.top_p, (double)p.min_p, p.top_k, op.vocab,
                     got[r], want);
    }
}
