/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rule.h - what one direction of a bad link does to its frames, and the words for it. The words are
 * read here for matrix.c (files) and control.c (changes while it runs); switch.c obeys the rules.
 * Pure functions, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum impair_jitter { IMPAIR_JITTER_UNIFORM, IMPAIR_JITTER_NORMAL, IMPAIR_JITTER_PARETO };

#define IMPAIR_DELAY_NS_MAX       UINT64_C(3600000000000)
#define IMPAIR_QUEUE_BYTES        (64u * 1024u)
#define IMPAIR_REORDER_NS         UINT64_C(10000000)
#define IMPAIR_MTU_MIN            68u
#define IMPAIR_RATE_MAX           UINT64_C(1000000000000)
#define IMPAIR_SIZE_MAX           (1024u * 1024u * 1024u)
#define IMPAIR_PARETO_SHAPE       3.0
#define IMPAIR_PARETO_JITTERS_MAX 100.0

/* All zeros: a perfect link. Probabilities are in 0..1. */
struct impair_rule {
    uint64_t delay_ns;
    /* uniform: half the width; normal: standard deviation; pareto: mean of what is added (Lomax
     * with IMPAIR_PARETO_SHAPE, cut at IMPAIR_PARETO_JITTERS_MAX times this). Never below 0. */
    uint64_t jitter_ns;
    enum impair_jitter jitter;
    double loss; /* independent; with bursts, between them */
    /* Gilbert-Elliott: the chances, per frame, that a burst begins and ends, and of loss in it. */
    double burst_begin;
    double burst_end;
    double burst_loss;
    double duplicate;
    double reorder; /* this share is held back reorder_ns longer than its delay */
    uint64_t reorder_ns;
    bool keep_order; /* jitter never lets a frame overtake another */
    double flip;     /* per byte of an UDP payload: one of its bits turns */
    bool flip_repair;
    uint64_t rate_bits; /* a second, frame from MAC address to last byte; 0 = no limit */
    uint32_t queue_bytes;
    uint32_t ecn_bytes; /* beyond this backlog, what can be marked is; 0 = never */
    uint32_t mtu;       /* of the IP packet; 0 = no limit */
    bool mtu_tell;      /* the sender gets the ICMP error; else it hears nothing */
    bool cut;
};

/* Changes what `word` ("loss=10%") names and nothing else. Returns 0, or -EINVAL with a sentence of
 * static storage in *why. The README has the words. */
int impair_rule_word(struct impair_rule *rule, const char *word, const char **why);
