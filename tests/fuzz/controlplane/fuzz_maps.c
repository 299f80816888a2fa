/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_maps.c - any bytes to the decoders of controlplane/maps: resource messages, coordinates,
 * policy files and states. The first byte picks one. A
 * policy is signed here, or the fuzzer would never get past the signature. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/maps/policy.h"
#include "controlplane/maps/resource.h"
#include "controlplane/maps/state.h"
#include "controlplane/maps/vivaldi.h"

#define POLICY_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Sizes are not kept: a message is written as short as it can be. */
static void resources(const uint8_t *data, size_t size)
{
    struct resource_message message, again;
    uint8_t out[RESOURCE_WIRE_MAX];
    if (resource_read(&message, data, size)) {
        size_t length = resource_write(&message, out);
        expect(message.facts.model_count <= RESOURCE_MODELS_MAX && length <= sizeof(out) &&
               resource_read(&again, out, length) && memcmp(&message, &again, sizeof(again)) == 0);
    }
}

static void coordinates(const uint8_t *data, size_t size)
{
    struct vivaldi_coord coord;
    uint8_t again[VIVALDI_WIRE_BYTES];
    if (vivaldi_read(&coord, data, size)) {
        struct vivaldi own;
        vivaldi_init(&own, 1);
        expect(vivaldi_update(&own, &coord, 0.05) && vivaldi_valid(&own.at));
        vivaldi_write(&coord, again);
        expect(memcmp(again, data, size) == 0);
    }
}

static void policies(const uint8_t *data, size_t size)
{
    static char file[POLICY_MAX + POLICY_SIGNATURE_LINE_MAX];
    struct policy_key key = {{0}};
    uint8_t seed[crypto_sign_SEEDBYTES] = {7}, secret[crypto_sign_SECRETKEYBYTES];
    struct policy_error error;
    size = size < POLICY_MAX ? size : POLICY_MAX;
    expect(policy_read(data, size, &key, 0, NULL, &error) == NULL);
    crypto_sign_seed_keypair(key.bytes, secret, seed);
    memcpy(file, data, size);
    if (size > 0 && file[size - 1] != '\n') {
        file[size - 1] = '\n';
    }
    size += policy_sign(file, size, secret, file + size);
    struct policy *policy = policy_read(file, size, &key, 1, NULL, &error);
    expect((policy != NULL) == (error.fault == POLICY_FAULT_NONE));
    for (uint32_t i = 0; policy != NULL && i < policy->node_count; i++) {
        const struct policy_node *node = &policy->nodes[i];
        expect(node->provider < policy->provider_count && node->jurisdiction[2] == '\0' &&
               (i == 0 || policy->nodes[i - 1].node < node->node) &&
               policy_node(policy, node->node) == node);
    }
    policy_destroy(policy);
}

/* Of the last models there may have been no room for the speeds. */
static void forget_untold(struct members_facts *kept, const struct members_facts *told)
{
    static const struct speeds none;
    for (uint32_t i = kept->model_count; i-- > 0;) {
        if (memcmp(&told->models[i].speeds, &none, sizeof(none)) != 0) {
            return;
        }
        kept->models[i].speeds = none;
    }
}

static void states(const uint8_t *data, size_t size)
{
    struct members_facts facts;
    struct vivaldi_coord coord;
    struct state_doubts doubts;
    uint8_t again[STATE_BYTES_MAX];
    uint32_t dropped;
    if (!state_read(&facts, &coord, &doubts, data, size)) {
        return;
    }
    expect(facts.model_count <= MEMBERS_MODELS_MAX && vivaldi_valid(&coord));
    struct members_facts kept = facts;
    struct state_doubts told = doubts;
    size_t length = state_write(&facts, &coord, &doubts, 1, 1, 1, again, &dropped);
    if (dropped == 0) {
        bool read = state_read(&facts, &coord, &doubts, again, length);
        forget_untold(&kept, &facts);
        expect(read && memcmp(&kept, &facts, sizeof(facts)) == 0 &&
               memcmp(&told, &doubts, sizeof(doubts)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const decoders[])(const uint8_t *, size_t) = {resources, coordinates, policies,
                                                                states};
    if (size > 0) {
        decoders[data[0] % 4](data + 1, size - 1);
    }
    return 0;
}
