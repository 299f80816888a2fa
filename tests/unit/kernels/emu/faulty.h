/* SPDX-License-Identifier: Apache-2.0 */
/* faulty.h - small kernels, most of them wrong in one way, for test_emu.c. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum faulty {
    FAULTY_NOTHING,        /* a correct one: barriers, shuffles, votes, atomics, shared memory */
    FAULTY_BARRIER_SKIP,   /* one thread goes round the barrier */
    FAULTY_BARRIER_OTHER,  /* two halves of a block at two barriers */
    FAULTY_SHUFFLE_LANES,  /* a lane of the mask never comes */
    FAULTY_SHARED_RACE,    /* neighbours' values without a barrier */
    FAULTY_WARP_RACE,      /* the same within a warp, without __syncwarp */
    FAULTY_DEVICE_RACE,    /* blocks add to one word without an atomic */
    FAULTY_SHARED_BEYOND,  /* behind the end of an array (seen by the address sanitizer) */
    FAULTY_SHARED_TOO_BIG, /* more shared memory than there is */
    FAULTY_BLOCK_TOO_BIG,
};

#define FAULTY_THREADS 96u
#define FAULTY_BLOCKS  3u

/* Runs one. The correct one writes out[FAULTY_BLOCKS * FAULTY_THREADS + 1], the last a count.
 * Returns the runtime's error. */
int faulty_run(enum faulty which, uint32_t *out);

/* Rounds a float to a half and back as the kernels see it. */
float faulty_half(float value);

/* Captures a kernel that adds *step to *total, changes *step, replays it `times` times. */
uint32_t faulty_graph(uint32_t times);

#ifdef __cplusplus
}
#endif
