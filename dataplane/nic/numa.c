/* SPDX-License-Identifier: Apache-2.0 */
/* numa.c - see numa.h. */
#include "dataplane/nic/numa.h"

#include <linux/mempolicy.h>
#include <rte_lcore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define NODES_MAX  64u /* bits of the mask below */

void numa_places(uint32_t *places, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        unsigned node = rte_lcore_is_enabled(i) ? rte_lcore_to_socket_id(i) : 0;
        places[i] = node < NODES_MAX ? node : 0;
    }
}

/* The page in front of a block says how long it is. */
void *numa_alloc(size_t size, uint32_t place)
{
    size_t whole = size + PAGE_BYTES;
    size_t *head = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (head == MAP_FAILED) {
        return NULL;
    }
    if (place < NODES_MAX) { /* before the first touch; glibc has no wrapper */
        unsigned long mask = 1ul << place;
        (void)syscall(SYS_mbind, head, whole, MPOL_PREFERRED, &mask, (unsigned long)NODES_MAX, 0u);
    }
    *head = whole;
    return (char *)head + PAGE_BYTES;
}

void numa_free(void *memory)
{
    if (memory != NULL) {
        size_t *head = (size_t *)(void *)((char *)memory - PAGE_BYTES);
        munmap(head, *head);
    }
}
