/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.h - which node may see which request: provider, jurisdiction and tags of every node, from
 * one signed and versioned file. Hard rules: a request is never sent to a node that they exclude,
 * whatever it costs. Sans-I/O: the file comes as bytes, from wherever.
 *
 *     weft-policy 1
 *     version 42                  # rises with each issue; an older file is never taken
 *     issued 1790000000           # seconds since 1970; `expires` likewise, 0 or absent: never
 *     providers local,acme        # allow-list; nodes of others are excluded
 *     node 7 provider=local jurisdiction=DE tags=eu,gdpr key=0123...   # its identity, if given
 *     signature 0123...           # hex: Ed25519 over all bytes before this line
 *
 * One statement a line, in any order but the first and the last; '#' begins a comment. A node that
 * the file does not list is excluded. An expired policy goes on excluding what it excludes, and
 * says that it is old: an outage of the issuer takes no mesh down (policy_is_expired(), for
 * alarms).
 *
 * Keys that may sign are given by the caller. Memory: heap, 48 bytes a node, at most
 * POLICY_NODES_MAX. A policy never changes once made: any number of threads may read it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/policy.def"

#define POLICY_BYTES_MAX         (4u << 20)
#define POLICY_NODES_MAX         65536u
#define POLICY_PROVIDERS_MAX     32u /* bits of a mask */
#define POLICY_PROVIDER_NAME_MAX 32u /* zero included */
#define POLICY_JURISDICTIONS_MAX 8u
#define POLICY_KEY_BYTES         32u
#define POLICY_SIGNATURE_BYTES   64u
#define POLICY_PROVIDERS_ALL     UINT32_MAX
#define POLICY_PROVIDERS_ENV     "INFERENCE_ALLOWED_PROVIDERS"

#define POLICY_VERDICT_ENUM_(name, text) POLICY_##name,
enum policy_verdict { POLICY_VERDICTS(POLICY_VERDICT_ENUM_) };
#define POLICY_FAULT_ENUM_(name, text) POLICY_FAULT_##name,
enum policy_fault { POLICY_FAULTS(POLICY_FAULT_ENUM_) };

struct policy_node {
    uint32_t node;
    uint32_t tags;    /* bits of tags.def */
    uint8_t provider; /* index */
    char jurisdiction[3];
    bool has_key;
    uint8_t key[POLICY_KEY_BYTES]; /* its identity; another node with that id is not listed */
};

struct policy {
    uint64_t version;
    uint64_t issued_s;
    uint64_t expires_s; /* 0 = never */
    uint32_t provider_count;
    char providers[POLICY_PROVIDERS_MAX][POLICY_PROVIDER_NAME_MAX];
    uint32_t providers_allowed; /* mask: those of the allow-list */
    uint32_t node_count;
    struct policy_node nodes[]; /* by rising id */
};

/* What a request asks for. */
struct policy_request {
    uint32_t tags;               /* the node must have all of them */
    uint32_t providers;          /* mask of those the asker allows; POLICY_PROVIDERS_ALL */
    uint32_t jurisdiction_count; /* 0 = any */
    char jurisdictions[POLICY_JURISDICTIONS_MAX][3];
};

struct policy_key {
    uint8_t bytes[POLICY_KEY_BYTES]; /* Ed25519, public */
};

struct policy_error {
    enum policy_fault fault;
    uint32_t line; /* 0 = the file as a whole */
};

/* Makes a policy of a file that one of `keys` has signed and that is newer than `in_force` (NULL:
 * any version). Free it with policy_destroy(). NULL: *error says why, and nothing of the file
 * counts. The signature is checked before anything else is read. */
struct policy *policy_read(const void *data, size_t size, const struct policy_key *keys,
                           uint32_t key_count, const struct policy *in_force,
                           struct policy_error *error);

/* NULL is fine. */
void policy_destroy(struct policy *policy);

/* Ends a file's text, whose last line is ended, with its signature line. `secret` is libsodium's 64
 * bytes. Returns the length of the line, which goes behind the text. */
#define POLICY_SIGNATURE_LINE_MAX 144u
size_t policy_sign(const void *text, size_t size, const uint8_t secret[64],
                   char line[POLICY_SIGNATURE_LINE_MAX]);

/* `policy` NULL: there is none; then only a request that asks for nothing is permitted.
 * `position_suspect`: position_is_suspect() of the node; then nothing is believed of its place. */
enum policy_verdict policy_permits(const struct policy *policy, uint32_t node,
                                   bool position_suspect, const struct policy_request *request);

/* NULL: not listed. */
const struct policy_node *policy_node(const struct policy *policy, uint32_t node);

bool policy_is_expired(const struct policy *policy, uint64_t now_s);

/* Narrows the allow-list by a list of names with commas (POLICY_PROVIDERS_ENV): the mask of those
 * in both. Names that the policy does not know count for nothing. NULL or "": the policy's own. It
 * can only take away. */
uint32_t policy_providers(const struct policy *policy, const char *names);

/* Sentences of policy.def. */
const char *policy_verdict_text(enum policy_verdict verdict);
const char *policy_fault_text(enum policy_fault fault);
