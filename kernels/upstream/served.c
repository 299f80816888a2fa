/* SPDX-License-Identifier: Apache-2.0 */
/* served.c - see served.h. */
#include "kernels/upstream/served.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "schemas/base/log.h"

static struct served_model *find(struct served *served, const char *name)
{
    for (size_t i = 0; i < SERVED_MAX; i++)
        if (served->models[i].relay && strcmp(served->models[i].name, name) == 0)
            return &served->models[i];
    return NULL;
}

int served_add(struct served *served, const char *name, bool told)
{
    size_t place = 0;
    while (place < SERVED_MAX && served->models[place].relay)
        place++;
    if (place == SERVED_MAX)
        return -ENOSPC;
    struct served_model *model = &served->models[place];
    struct relay_options options = *served->options;
    options.seed += place;
    const int rc = relay_create(&model->relay, &options);
    if (rc)
        return rc;
    (void)snprintf(model->name, sizeof(model->name), "%s", name);
    model->told = told;
    model->gone_ns = 0;
    return (int)place;
}

void served_offer(struct served *served, char (*names)[REGISTRY_MODEL_MAX], size_t count,
                  uint64_t now_ns)
{
    bool there[SERVED_MAX] = {false};
    for (size_t i = 0; i < count; i++) {
        const struct served_model *known = find(served, names[i]);
        const int place =
            known ? (int)(known - served->models) : served_add(served, names[i], false);
        if (place >= 0)
            there[place] = true;
        if (place >= 0 && !known)
            LOG_INFO("model=%s is registered", names[i]);
        if (place == -ENOSPC && !served->told_full) {
            LOG_WARN("model=%s is left out: a node takes %u models of its workers", names[i],
                     SERVED_MAX);
            served->told_full = true;
        }
    }
    for (size_t i = 0; i < SERVED_MAX; i++) {
        struct served_model *model = &served->models[i];
        if (there[i])
            model->gone_ns = 0;
        else if (model->relay && !model->told && model->gone_ns == 0)
            model->gone_ns = now_ns;
    }
}

bool served_is_over(const struct served_model *model, uint64_t now_ns)
{
    return model->relay && model->gone_ns && now_ns >= model->gone_ns + SERVED_GONE_NS &&
           relay_is_idle(model->relay);
}

void served_remove(struct served_model *model)
{
    LOG_INFO("model=%s is registered no more", model->name);
    relay_log_account(model->relay);
    relay_destroy(model->relay);
    *model = (struct served_model){.user = model->user};
}

void served_deinit(struct served *served)
{
    for (size_t i = 0; i < SERVED_MAX; i++) {
        relay_destroy(served->models[i].relay);
        served->models[i].relay = NULL;
    }
}
