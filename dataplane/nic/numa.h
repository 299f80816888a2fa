/* SPDX-License-Identifier: Apache-2.0 */
/*
 * numa.h - memory near a CPU: which NUMA node an lcore runs on, and blocks of ordinary memory that
 * the kernel is asked to keep on one (mbind(2), preferred: a node that is full or not there is no
 * error). EAL's own memory is for packet buffers.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of lcore 0..count-1, 0 where it is not known. EAL must run. */
void numa_places(uint32_t *places, uint32_t count);

/* Page-aligned, zeroed; NULL if there is none. */
void *numa_alloc(size_t size, uint32_t place);
void numa_free(void *memory);
