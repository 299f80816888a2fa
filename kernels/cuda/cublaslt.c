/* SPDX-License-Identifier: Apache-2.0 */
/* See cublaslt.h. What the library's heuristic says of a shape is kept, for as many shapes as a
 * model has times some numbers of columns. */
#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cublaslt_api.h"

#define PLANS     64u
#define WORKSPACE ((size_t)32 << 20) /* what NVIDIA asks for on sm_90 */

/* How a shape is multiplied. The library sees columns first: w is [cols][rows] there, transposed.
 */
struct plan {
    struct cublaslt_product shape; /* without its memory; rows 0: unused */
    lt_desc_t how;
    lt_layout_t w, x, y;
    struct lt_algo algo;
    bool is_there; /* the library has something for it */
};

struct cublaslt {
    const struct device *device;
    lt_handle_t handle;
    lt_wish_t wish;
    void *workspace;
    struct plan plans[PLANS];
    uint32_t next; /* to be given up for another */
};

/* ---- the library itself ---------------------------------------------------------------------- */

static struct lt_api api;
static bool is_there;
static char not_there[160];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A function's address by way of an object's, as POSIX allows and C does not. */
static bool find(void *opened, const char *name, void *to, size_t size)
{
    void *at = dlsym(opened, name);
    if (at)
        memcpy(to, &at, size);
    return at != NULL;
}

/* It stays open until the end. */
static void load(void)
{
    const char *path = getenv("WEFT_CUBLASLT");
    const char *const names[] = {path, "libcublasLt.so.13", "libcublasLt.so.12"};
    void *opened = NULL;
    for (size_t i = 0; !opened && i < (path ? 1 : sizeof(names) / sizeof(names[0])); i++)
        opened = names[i] ? dlopen(names[i], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!opened) {
        const char *error = dlerror();
        (void)snprintf(not_there, sizeof(not_there), "there is no cuBLASLt: %s",
                       error ? error : "not found");
        return;
    }
    is_there = true;
#define LT_FIND(member, name, result, arguments)                                                   \
    if (!find(opened, name, &api.member, sizeof(api.member))) {                                    \
        is_there = false;                                                                          \
        (void)snprintf(not_there, sizeof(not_there), "this cuBLASLt has no %s", name);             \
    }
    LT_CALLS(LT_FIND)
#undef LT_FIND
}

/* ---- plans ----------------------------------------------------------------------------------- */

static struct cublaslt_product shape_of(const struct cublaslt_product *p)
{
    struct cublaslt_product shape = *p;
    shape.w = NULL;
    shape.x = NULL;
    shape.y = NULL;
    return shape;
}

static bool is_same(const struct cublaslt_product *a, const struct cublaslt_product *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->columns == b->columns &&
           a->w_stride == b->w_stride && a->x_stride == b->x_stride && a->y_stride == b->y_stride &&
           a->number == b->number && a->is_added == b->is_added;
}

static void plan_deinit(struct plan *p)
{
    if (p->y)
        (void)api.layout_destroy(p->y);
    if (p->x)
        (void)api.layout_destroy(p->x);
    if (p->w)
        (void)api.layout_destroy(p->w);
    if (p->how)
        (void)api.desc_destroy(p->how);
    *p = (struct plan){0};
}

static void plan_init(struct plan *p, const struct cublaslt *library,
                      const struct cublaslt_product *shape)
{
    const int kind = shape->number == OP_BF16 ? LT_R_16BF : LT_R_16F;
    const int32_t turned = LT_OP_T;
    struct lt_found found = {0};
    int count = 0;
    *p = (struct plan){.shape = shape_of(shape)};
    p->is_there =
        api.desc_create(&p->how, LT_COMPUTE_32F, LT_R_32F) == LT_SUCCESS &&
        api.desc_set(p->how, LT_DESC_TRANSA, &turned, sizeof(turned)) == LT_SUCCESS &&
        api.layout_create(&p->w, kind, shape->cols, shape->rows, shape->w_stride) == LT_SUCCESS &&
        api.layout_create(&p->x, kind, shape->cols, shape->columns, shape->x_stride) ==
            LT_SUCCESS &&
        api.layout_create(&p->y, LT_R_32F, shape->rows, shape->columns, shape->y_stride) ==
            LT_SUCCESS &&
        api.find(library->handle, p->how, p->w, p->x, p->y, p->y, library->wish, 1, &found,
                 &count) == LT_SUCCESS &&
        count == 1 && found.status == LT_SUCCESS;
    p->algo = found.algo;
}

static const struct plan *plan_of(struct cublaslt *library, const struct cublaslt_product *product)
{
    for (uint32_t i = 0; i < PLANS; i++)
        if (library->plans[i].shape.rows && is_same(&library->plans[i].shape, product))
            return &library->plans[i];
    struct plan *p = &library->plans[library->next];
    library->next = (library->next + 1) % PLANS;
    plan_deinit(p);
    plan_init(p, library, product);
    return p;
}

/* ---- cublaslt.h -------------------------------------------------------------------------------
 */

int cublaslt_open(struct cublaslt **out, const struct device *device, char *why, size_t why_size)
{
    const size_t workspace = WORKSPACE;
    *out = NULL;
    (void)pthread_once(&once, load);
    if (!is_there) {
        (void)snprintf(why, why_size, "%s", not_there);
        return -ENOTSUP;
    }
    struct cublaslt *library = calloc(1, sizeof(*library));
    if (!library)
        return -ENOMEM;
    library->device = device;
    int rc = device_alloc(&library->workspace, WORKSPACE);
    if (!rc && (api.create(&library->handle) != LT_SUCCESS ||
                api.wish_create(&library->wish) != LT_SUCCESS ||
                api.wish_set(library->wish, LT_WISH_WORKSPACE_BYTES, &workspace,
                             sizeof(workspace)) != LT_SUCCESS))
        rc = -EIO;
    if (rc) {
        (void)snprintf(why, why_size, "cuBLASLt %u does not start on this device",
                       cublaslt_version(library));
        cublaslt_close(library);
        return rc;
    }
    *out = library;
    return 0;
}

void cublaslt_close(struct cublaslt *library)
{
    if (!library)
        return;
    for (uint32_t i = 0; i < PLANS; i++)
        plan_deinit(&library->plans[i]);
    if (library->wish)
        (void)api.wish_destroy(library->wish);
    if (library->handle)
        (void)api.destroy(library->handle);
    device_free(library->workspace);
    free(library);
}

uint32_t cublaslt_version(const struct cublaslt *library)
{
    (void)library;
    return (uint32_t)api.get_version();
}

int cublaslt_run(struct cublaslt *library, const struct cublaslt_product *product)
{
    const float one = 1.0f;
    const float before = product->is_added ? 1.0f : 0.0f;
    if (product->rows == 0 || product->columns == 0 || product->number == OP_F32)
        return -EINVAL;
    const struct plan *p = plan_of(library, product);
    if (!p->is_there)
        return -ENOTSUP;
    return api.matmul(library->handle, p->how, &one, product->w, p->w, product->x, p->x, &before,
                      product->y, p->y, product->y, p->y, &p->algo, library->workspace, WORKSPACE,
                      library->device->stream) == LT_SUCCESS
               ? 0
               : -EIO;
}
