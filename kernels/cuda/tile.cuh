/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tile.cuh - tiles of 16-bit numbers in shared memory: how they lie there, how they come there
 * beside the computing, and how a warp takes mma's fragments (mma.cuh) out of them. What is inline
 * PTX has a twin for the emulator: its copies arrive when they are waited for, not before, and its
 * ldmatrix reads what another lane points at.
 *
 * A row has 64 numbers: 128 bytes, all banks once, in eight pieces of 16 bytes. Piece p of row r
 * lies at p ^ (r % 8): eight rows' pieces of the same number, which is what ldmatrix takes at a
 * time, are then in different banks, and so are the eight pieces of one row, which is what copies
 * write. (It is the order that TMA and wgmma call the 128-byte swizzle.)
 */
#pragma once

#include "kernels/cuda/device.cuh"

#define TILE_COLS   64u /* numbers of a row */
#define TILE_PIECES 8u  /* of 16 bytes */
#define PIECE_COLS  8u

/* Where a piece lies, counted in pieces. */
static __device__ __forceinline__ unsigned tile_at(unsigned row, unsigned piece)
{
    return row * TILE_PIECES + (piece ^ (row & 7u));
}

#ifdef __CUDACC__

/* Copies of a thread from global to shared memory that go on beside its other work, in groups. */
struct async_copies {
    /* The first `bytes` of 16, zeros behind them; both places aligned to 16. */
    __device__ __forceinline__ void copy(uint4 *to, const void *from, unsigned bytes)
    {
        const unsigned at = (unsigned)__cvta_generic_to_shared(to);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                     "r"(bytes)
                     : "memory");
    }
    /* What has been copied since the last one is a group. */
    __device__ __forceinline__ void commit()
    {
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    /* Until all but the last LATEST groups are there, for this thread: a barrier makes it all
     * threads'. */
    template <unsigned LATEST> __device__ __forceinline__ void wait()
    {
        asm volatile("cp.async.wait_group %0;" ::"n"(LATEST) : "memory");
    }
};

/* Four matrices of 8 x 8: lane l points at row l % 8 of matrix l / 8, and gets of each matrix the
 * numbers 2 (l % 4) and the next of row l / 4. All lanes of the warp come here. */
static __device__ __forceinline__ void take_matrices(uint32_t (&out)[4], const uint4 *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at));
}

/* The same, turned: a lane gets of each matrix the numbers l / 4 of rows 2 (l % 4) and the next. */
static __device__ __forceinline__ void take_matrices_turned(uint32_t (&out)[4], const uint4 *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at));
}

#else

#define ASYNC_COPIES_MAX 160u

struct async_copies {
    struct {
        uint4 *to;
        const void *from;
        unsigned bytes;
        unsigned group;
    } waiting[ASYNC_COPIES_MAX];
    unsigned count = 0;
    unsigned group = 0;

    void copy(uint4 *to, const void *from, unsigned bytes)
    {
        if (count == ASYNC_COPIES_MAX || bytes > sizeof(uint4))
            emu_fail("%u copies wait, one of %u bytes", count, bytes);
        waiting[count++] = {to, from, bytes, group};
    }
    void commit()
    {
        group++;
    }
    template <unsigned LATEST> void wait()
    {
        unsigned kept = 0;
        for (unsigned i = 0; i < count; i++) {
            if (waiting[i].group + LATEST < group)
                arrive(waiting[i].to, waiting[i].from, waiting[i].bytes);
            else
                waiting[kept++] = waiting[i];
        }
        count = kept;
    }

  private:
    static void arrive(uint4 *to, const void *from, unsigned bytes)
    {
        uint16_t *numbers = reinterpret_cast<uint16_t *>(to);
        if (bytes == sizeof(uint4)) {
            *to = *static_cast<const uint4 *>(from);
            return;
        }
        for (unsigned i = 0; i < PIECE_COLS; i++)
            numbers[i] =
                i * sizeof(*numbers) < bytes ? static_cast<const uint16_t *>(from)[i] : (uint16_t)0;
    }
};

static inline void take_matrices(uint32_t (&out)[4], const uint4 *row)
{
    const unsigned lane = threadIdx.x % WARP;
    const uint8_t *all = emu_all_lanes(row);
    for (unsigned i = 0; i < 4; i++) {
        const uint4 *from;
        memcpy(&from, all + (i * 8 + lane / 4) * sizeof(from), sizeof(from));
        out[i] = reinterpret_cast<const uint32_t *>(from)[lane % 4];
    }
}

static inline void take_matrices_turned(uint32_t (&out)[4], const uint4 *row)
{
    const unsigned lane = threadIdx.x % WARP;
    const uint8_t *all = emu_all_lanes(row);
    for (unsigned i = 0; i < 4; i++) {
        const uint4 *from[2];
        memcpy(from, all + (i * 8 + lane % 4 * 2) * sizeof(from[0]), sizeof(from));
        out[i] = reinterpret_cast<const uint16_t *>(from[0])[lane / 4] |
                 (uint32_t) reinterpret_cast<const uint16_t *>(from[1])[lane / 4] << 16;
    }
}

#endif
