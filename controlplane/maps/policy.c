/* SPDX-License-Identifier: Apache-2.0 */
/* policy.c - what a policy (policy.h) says of a node and a request. policy_file.c reads files. */
#include "controlplane/maps/policy.h"

#include <stdlib.h>
#include <string.h>

void policy_destroy(struct policy *policy)
{
    free(policy);
}

const struct policy_node *policy_node(const struct policy *policy, uint32_t node)
{
    uint32_t low = 0, high = policy->node_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (policy->nodes[middle].node < node) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < policy->node_count && policy->nodes[low].node == node;
    return found ? &policy->nodes[low] : NULL;
}

bool policy_is_expired(const struct policy *policy, uint64_t now_s)
{
    return policy->expires_s != 0 && now_s >= policy->expires_s;
}

static bool asks_nothing(const struct policy_request *request)
{
    return request->tags == 0 && request->jurisdiction_count == 0 &&
           request->providers == POLICY_PROVIDERS_ALL;
}

static bool jurisdiction_allowed(const struct policy_request *request, const char *jurisdiction)
{
    for (uint32_t i = 0; i < request->jurisdiction_count; i++) {
        if (strcmp(request->jurisdictions[i], jurisdiction) == 0) {
            return true;
        }
    }
    return request->jurisdiction_count == 0;
}

enum policy_verdict policy_permits(const struct policy *policy, uint32_t node,
                                   bool position_suspect, const struct policy_request *request)
{
    if (policy == NULL) {
        return asks_nothing(request) ? POLICY_PERMITTED : POLICY_NO_POLICY;
    }
    const struct policy_node *entry = policy_node(policy, node);
    if (entry == NULL) {
        return POLICY_UNLISTED;
    }
    uint32_t allowed = policy->providers_allowed & request->providers;
    if (((allowed >> entry->provider) & 1) == 0) {
        return POLICY_PROVIDER;
    }
    if (!jurisdiction_allowed(request, entry->jurisdiction)) {
        return POLICY_JURISDICTION;
    }
    if (position_suspect && request->jurisdiction_count > 0) {
        return POLICY_POSITION;
    }
    return (entry->tags & request->tags) == request->tags ? POLICY_PERMITTED : POLICY_TAGS;
}

uint32_t policy_providers(const struct policy *policy, const char *names)
{
    if (names == NULL || names[0] == '\0') {
        return policy->providers_allowed;
    }
    uint32_t mask = 0;
    while (*names != '\0') {
        names += strspn(names, ", \t");
        size_t length = strcspn(names, ", \t");
        for (uint32_t i = 0; i < policy->provider_count; i++) {
            if (length > 0 && strlen(policy->providers[i]) == length &&
                memcmp(policy->providers[i], names, length) == 0) {
                mask |= UINT32_C(1) << i;
            }
        }
        names += length;
    }
    return mask & policy->providers_allowed;
}

const char *policy_verdict_text(enum policy_verdict verdict)
{
#define VERDICT_TEXT_(name, text) [POLICY_##name] = text,
    static const char *const texts[] = {POLICY_VERDICTS(VERDICT_TEXT_)};
    return (size_t)verdict < sizeof(texts) / sizeof(texts[0]) ? texts[verdict] : "?";
}

const char *policy_fault_text(enum policy_fault fault)
{
#define FAULT_TEXT_(name, text) [POLICY_FAULT_##name] = text,
    static const char *const texts[] = {POLICY_FAULTS(FAULT_TEXT_)};
    return (size_t)fault < sizeof(texts) / sizeof(texts[0]) ? texts[fault] : "?";
}
