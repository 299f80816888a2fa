/* SPDX-License-Identifier: Apache-2.0 */
/* One of several ranks (collective/shard.h): what it has to tell the others, and to hear from them,
 * between the parts of a forward pass that it computes itself (forward.c). */
#include <errno.h>
#include <string.h>

#include "kernels/collective/collective.h"
#include "kernels/cpu/cpu_impl.h"
#include "kernels/model/part.h"

int cpu_ranks_sum(struct cpu *cpu, size_t floats)
{
    cpu->added[floats] = cpu_is_stopped(cpu) ? 1.0f : 0.0f;
    const int rc = collective_allreduce(cpu_team(cpu), cpu->added, floats + 1);
    cpu->agreed_stop = rc == 0 && cpu->added[floats] > 0.0f;
    return rc;
}

int cpu_ranks_forward(struct cpu *cpu)
{
    const struct model_place *place = &cpu->shard->place;
    const size_t floats = cpu->count * cpu->model->width;
    int rc = 0;
    for (uint32_t stage = 0; rc == 0 && stage < place->stages; stage++) {
        if (stage == place->stage)
            rc = cpu_run_stage(cpu);
        else if (cpu->watch)
            atomic_fetch_add_explicit(&cpu->watch->progress, 1, memory_order_relaxed);
        if (rc && rc != -ECANCELED)
            break;
        cpu->x[floats] = rc ? 1.0f : 0.0f;
        rc = collective_broadcast(cpu->shard->line, cpu->x, (floats + 1) * sizeof(*cpu->x),
                                  stage * place->shards);
        if (rc == 0 && cpu->x[floats] > 0.0f)
            rc = -ECANCELED;
    }
    return rc;
}

uint32_t cpu_ranks_rows_max(const struct cpu *cpu)
{
    const struct shard *s = cpu->shard;
    uint32_t most = 0;
    for (uint32_t r = 0; r < s->place.shards; r++) {
        const struct model_rows rows = model_vocab_rows(s->whole, r, s->place.shards);
        most = rows.end - rows.begin > most ? rows.end - rows.begin : most;
    }
    return most;
}

/* Row `index` of the logits, from all shards of the last stage. */
static int gather_row(struct cpu *cpu, size_t index)
{
    const struct shard *s = cpu->shard;
    const float *mine = cpu->part_logits + index * cpu->model->output.rows;
    const size_t most = cpu_ranks_rows_max(cpu);
    if (!s->team) {
        memcpy(cpu->row_logits, mine, cpu->model->vocab * sizeof(*mine));
        return 0;
    }
    const int rc = collective_allgather(s->team, mine, most * sizeof(*mine), cpu->gathered);
    for (uint32_t r = 0; rc == 0 && r < s->place.shards; r++) {
        const struct model_rows rows = model_vocab_rows(s->whole, r, s->place.shards);
        memcpy(cpu->row_logits + rows.begin, cpu->gathered + r * most,
               (rows.end - rows.begin) * sizeof(*mine));
    }
    return rc;
}

int cpu_ranks_logits(struct cpu *cpu, float *logits)
{
    const struct model_place *place = &cpu->shard->place;
    const size_t row_bytes = cpu->model->vocab * sizeof(*logits);
    const bool is_last = place->stage + 1 == place->stages;
    int rc = 0;
    if (is_last)
        cpu_run_logits(cpu, cpu->part_logits);
    for (size_t i = 0; rc == 0 && i < cpu->norm_count; i++) {
        rc = is_last ? gather_row(cpu, i) : 0;
        if (rc == 0 && cpu->shard->line)
            rc = collective_broadcast(cpu->shard->line, cpu->row_logits, row_bytes,
                                      (place->stages - 1) * place->shards);
        if (rc == 0 && logits)
            memcpy(logits + i * cpu->model->vocab, cpu->row_logits, row_bytes);
    }
    return rc;
}

bool cpu_ranks_answers(const struct cpu *cpu)
{
    return !cpu->shard || (cpu->shard->place.stage == 0 && cpu->shard->place.shard == 0);
}
