/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard.h - what a backend needs to know to be one of several ranks: its place in the network
 * (model/part.h) and whom it computes with. All ranks run the same forwards with the same rows.
 *
 * Within a stage each rank computes its heads' and its MLP rows' share of what goes onto the
 * stream, and the shares are added up, twice a layer; a stop that a rank was asked for goes with
 * the sum, so that all of them stop at the same place. Each has the logits of its rows of the
 * vocabulary, which are gathered. From stage to stage the stream is handed on.
 *
 * Plain C: used by kernels/cpu and kernels/cuda, filled in by kernels/shards.
 */
#pragma once

#include "kernels/collective/collective.h"
#include "kernels/model/part.h"

struct shard {
    const struct model *whole; /* the network that the backend's model is a part of */
    struct model_place place;
    struct collective *team; /* ranks of the same stage, in the shards' order; NULL: one shard */
    struct collective *line; /* all ranks, stage after stage; NULL: one stage */
};
