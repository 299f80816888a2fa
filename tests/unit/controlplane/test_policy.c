/* SPDX-License-Identifier: Apache-2.0 */
/* test_policy.c - controlplane/maps/policy.c and policy_file.c: what is signed is taken whole or
 * not at all, older files never, and verdicts equal a plain reading of the rules. */
#include "controlplane/maps/policy.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define FILE_MAX 65536u

static struct policy_key key;
static uint8_t secret[crypto_sign_SECRETKEYBYTES];

static void key_make(void)
{
    uint8_t seed[crypto_sign_SEEDBYTES] = {42};
    ck_assert_int_ge(sodium_init(), 0);
    crypto_sign_seed_keypair(key.bytes, secret, seed);
}

static struct policy *read_signed(const char *text, const struct policy *in_force,
                                  struct policy_error *error)
{
    static char file[FILE_MAX];
    size_t size = strlen(text);
    key_make();
    memcpy(file, text, size);
    size += policy_sign(text, size, secret, file + size);
    return policy_read(file, size, &key, 1, in_force, error);
}

#define HEAD "weft-policy 1\nversion 7\nissued 1790000000\nproviders local,acme\n"

START_TEST(reads)
{
    struct policy_error error;
    struct policy *policy = read_signed(
        HEAD "# who is who\n\nexpires 1800000000 # then\n"
             "node 12 provider=cloudy jurisdiction=US tags=us\n"
             "node 3  tags=eu,gdpr  provider=local jurisdiction=DE\nnode 4 provider=acme\n",
        NULL, &error);
    ck_assert_ptr_nonnull(policy);
    ck_assert_int_eq(error.fault, POLICY_FAULT_NONE);
    ck_assert_uint_eq(policy->version, 7);
    ck_assert_uint_eq(policy->node_count, 3);
    ck_assert_str_eq(policy_node(policy, 3)->jurisdiction, "DE");
    ck_assert_uint_eq(policy_node(policy, 3)->tags, weft_tag_mask("eu") | weft_tag_mask("gdpr"));
    ck_assert_str_eq(policy_node(policy, 4)->jurisdiction, "");
    ck_assert_ptr_null(policy_node(policy, 5));
    ck_assert(!policy_is_expired(policy, 1799999999) && policy_is_expired(policy, 1800000000));
    policy_destroy(policy);
}
END_TEST

START_TEST(faults_and_their_lines)
{
    static const struct {
        const char *text;
        enum policy_fault fault;
        uint32_t line;
    } cases[] = {
        {"weft-policy 2\nversion 1\n", POLICY_FAULT_FORMAT, 1},
        {"weft-policy 1\nversion 1\nproviders local\n", POLICY_FAULT_MISSING, 0},
        {HEAD "version 8\n", POLICY_FAULT_TWICE, 5},
        {HEAD "providers x\n", POLICY_FAULT_TWICE, 5},
        {HEAD "node 1 provider=local\nnode 1 provider=acme\n", POLICY_FAULT_TWICE, 0},
        {HEAD "node 1\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 1 jurisdiction=DE\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 1 provider=local provider=local\n", POLICY_FAULT_LINE, 5},
        {HEAD "node -1 provider=local\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 4294967295 provider=local\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 99999999999999999999999 provider=local\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 1 provider=local jurisdiction=de\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 1 provider=local tags=eu,nonsense\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 1 provider=\n", POLICY_FAULT_LINE, 5},
        {HEAD "node 1 provider=a;b\n", POLICY_FAULT_LINE, 5},
        {HEAD "anything\n", POLICY_FAULT_LINE, 5},
        {HEAD "issued\n", POLICY_FAULT_LINE, 5},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct policy_error error;
        ck_assert_ptr_null(read_signed(cases[i].text, NULL, &error));
        ck_assert_msg(error.fault == cases[i].fault && error.line == cases[i].line,
                      "case %zu: fault %d line %u", i, error.fault, error.line);
        ck_assert_str_ne(policy_fault_text(error.fault), "?");
    }
}
END_TEST

/* Any byte of the file changed, any end cut off, another key: nothing of it counts. */
START_TEST(only_as_it_was_signed)
{
    static char file[FILE_MAX];
    const char *text = HEAD "node 3 provider=local tags=eu\n";
    size_t size = strlen(text);
    struct policy_error error;
    key_make();
    memcpy(file, text, size);
    size += policy_sign(text, size, secret, file + size);
    struct policy *policy = policy_read(file, size, &key, 1, NULL, &error);
    ck_assert_ptr_nonnull(policy);
    policy_destroy(policy);
    for (size_t i = 0; i < size - 1; i++) {
        char kept = file[i];
        file[i] = (char)(kept ^ 1);
        /* Hex of the other case is the same signature; one bit never turns one into the other. */
        ck_assert_ptr_null(policy_read(file, size, &key, 1, NULL, &error));
        file[i] = kept;
    }
    for (size_t cut = 0; cut < size - 1; cut++) {
        ck_assert_ptr_null(policy_read(file, cut, &key, 1, NULL, &error));
    }
    struct policy_key other = {{1}};
    ck_assert_ptr_null(policy_read(file, size, &other, 1, NULL, &error));
    ck_assert_int_eq(error.fault, POLICY_FAULT_SIGNATURE);
    ck_assert_ptr_null(policy_read(file, size, &key, 0, NULL, &error));
}
END_TEST

START_TEST(never_back)
{
    struct policy_error error;
    struct policy *seven = read_signed(HEAD, NULL, &error);
    ck_assert_ptr_nonnull(seven);
    ck_assert_ptr_null(read_signed(HEAD, seven, &error));
    ck_assert_int_eq(error.fault, POLICY_FAULT_OLD);
    ck_assert_ptr_null(
        read_signed("weft-policy 1\nversion 6\nissued 1890000000\nproviders x\n", seven, &error));
    struct policy *eight =
        read_signed("weft-policy 1\nversion 8\nissued 1\nproviders x\n", seven, &error);
    ck_assert_ptr_nonnull(eight);
    policy_destroy(eight);
    policy_destroy(seven);
}
END_TEST

START_TEST(verdicts_like_a_plain_reading)
{
    static const char *const places[] = {"DE", "FR", "US", ""};
    static const char *const providers[] = {"local", "acme", "cloudy"};
    static char text[FILE_MAX];
    struct rng rng = {4};
    struct {
        uint32_t provider, place, tags;
    } nodes[60];
    size_t size = (size_t)snprintf(text, sizeof(text), HEAD);
    for (uint32_t i = 0; i < 60; i++) {
        nodes[i].provider = rng_below(&rng, 3);
        nodes[i].place = rng_below(&rng, 4);
        nodes[i].tags = rng_below(&rng, 8);
        size += (size_t)snprintf(text + size, sizeof(text) - size, "node %u provider=%s", 2 * i,
                                 providers[nodes[i].provider]);
        if (nodes[i].place < 3) {
            size += (size_t)snprintf(text + size, sizeof(text) - size, " jurisdiction=%s",
                                     places[nodes[i].place]);
        }
        static const char *const tags[] = {"",     "eu",      "us",      "eu,us",
                                           "apac", "eu,apac", "us,apac", "eu,us,apac"};
        if (nodes[i].tags != 0) {
            size +=
                (size_t)snprintf(text + size, sizeof(text) - size, " tags=%s", tags[nodes[i].tags]);
        }
        size += (size_t)snprintf(text + size, sizeof(text) - size, "\n");
    }
    struct policy_error error;
    struct policy *policy = read_signed(text, NULL, &error);
    ck_assert_ptr_nonnull(policy);
    for (uint32_t i = 0; i < 20000; i++) {
        struct policy_request request = {.tags = rng_below(&rng, 8),
                                         .providers = POLICY_PROVIDERS_ALL,
                                         .jurisdiction_count = rng_below(&rng, 3)};
        static const char *const lists[] = {NULL, "local", "acme, local", "nobody"};
        uint32_t list = rng_below(&rng, 4);
        request.providers =
            list == 0 ? POLICY_PROVIDERS_ALL : policy_providers(policy, lists[list]);
        for (uint32_t j = 0; j < request.jurisdiction_count; j++) {
            strcpy(request.jurisdictions[j], places[rng_below(&rng, 3)]);
        }
        uint32_t id = rng_below(&rng, 120);
        bool suspect = rng_below(&rng, 5) == 0;
        enum policy_verdict want = POLICY_PERMITTED;
        if (id % 2 != 0) {
            want = POLICY_UNLISTED;
        } else {
            bool provider_ok = nodes[id / 2].provider == 0
                                   ? list != 3
                                   : nodes[id / 2].provider == 1 && (list == 0 || list == 2);
            bool place_ok = request.jurisdiction_count == 0;
            for (uint32_t j = 0; j < request.jurisdiction_count; j++) {
                place_ok |= strcmp(request.jurisdictions[j], places[nodes[id / 2].place]) == 0;
            }
            want = !provider_ok                                          ? POLICY_PROVIDER
                   : !place_ok                                           ? POLICY_JURISDICTION
                   : suspect && request.jurisdiction_count > 0           ? POLICY_POSITION
                   : (nodes[id / 2].tags & request.tags) != request.tags ? POLICY_TAGS
                                                                         : POLICY_PERMITTED;
        }
        ck_assert_int_eq(policy_permits(policy, id, suspect, &request), want);
    }
    policy_destroy(policy);
}
END_TEST

START_TEST(without_a_policy)
{
    struct policy_request request = {.providers = POLICY_PROVIDERS_ALL};
    ck_assert_int_eq(policy_permits(NULL, 1, false, &request), POLICY_PERMITTED);
    request.tags = 1;
    ck_assert_int_eq(policy_permits(NULL, 1, false, &request), POLICY_NO_POLICY);
    request = (struct policy_request){.providers = 1};
    ck_assert_int_eq(policy_permits(NULL, 1, false, &request), POLICY_NO_POLICY);
    ck_assert_str_ne(policy_verdict_text(POLICY_NO_POLICY), "?");
}
END_TEST

START_TEST(the_list_of_providers_only_takes_away)
{
    struct policy_error error;
    struct policy *policy = read_signed(HEAD "node 1 provider=cloudy\n", NULL, &error);
    ck_assert_uint_eq(policy_providers(policy, NULL), 3);
    ck_assert_uint_eq(policy_providers(policy, ""), 3);
    ck_assert_uint_eq(policy_providers(policy, "local"), 1);
    ck_assert_uint_eq(policy_providers(policy, " acme , cloudy"), 2); /* known, not allowed */
    ck_assert_uint_eq(policy_providers(policy, ","), 0);
    ck_assert_uint_eq(policy_providers(policy, "loca"), 0);
    policy_destroy(policy);
}
END_TEST

MAIN_OF("policy", reads, faults_and_their_lines, only_as_it_was_signed, never_back,
        verdicts_like_a_plain_reading, without_a_policy, the_list_of_providers_only_takes_away)
