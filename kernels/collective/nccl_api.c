/* SPDX-License-Identifier: Apache-2.0 */
/* See nccl_api.h. */
#include "kernels/collective/nccl_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static struct nccl_api api;
static bool is_there;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A function's address by way of an object's, as POSIX allows and C does not. */
static bool find(void *library, const char *name, void *to, size_t size)
{
    void *at = dlsym(library, name);
    if (at)
        memcpy(to, &at, size);
    return at != NULL;
}

/* The library stays open until the end. */
static void load(void)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
#ifdef WEFT_NCCL_LIBRARY /* where it was when this was built */
    library = library ? library : dlopen(WEFT_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
#endif
    is_there = library != NULL;
#define NCCL_FIND(name) is_there = is_there && find(library, #name, &api.name, sizeof(api.name));
    NCCL_CALLS(NCCL_FIND)
#undef NCCL_FIND
}

const struct nccl_api *nccl_api(void)
{
    (void)pthread_once(&once, load);
    return is_there ? &api : NULL;
}
