/* SPDX-License-Identifier: Apache-2.0 */
/* rule.c - the words of rule.h: a table of keys, each value up to three parts parted by '/'. */
#include "bench/impair/rule.h"

#include "schemas/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_MAX 3
#define WORD_MAX  128

struct unit {
    const char *name;
    double factor;
};

static const struct unit times[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
static const struct unit shares[] = {{"%", 0.01}, {NULL, 0}};
static const struct unit rates[] = {
    {"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {NULL, 0}};
static const struct unit sizes[] = {
    {"", 1}, {"B", 1}, {"KiB", 1024}, {"MiB", 1024.0 * 1024.0}, {NULL, 0}};

/* A plain 0 needs no unit. */
static int read_amount(const char *text, const struct unit *units, double max, double *amount)
{
    char *end;
    if (text == NULL || (text[0] != '.' && (text[0] < '0' || text[0] > '9'))) {
        return -EINVAL;
    }
    double n = strtod(text, &end);
    if (end[0] == '\0' && n == 0) {
        *amount = 0;
        return 0;
    }
    for (; units->name != NULL; units++) {
        if (strcmp(end, units->name) == 0) {
            *amount = n * units->factor;
            return isfinite(*amount) && *amount <= max ? 0 : -EINVAL;
        }
    }
    return -EINVAL;
}

static int read_time(const char *text, uint64_t *ns)
{
    double amount;
    if (read_amount(text, times, (double)IMPAIR_DELAY_NS_MAX, &amount) != 0) {
        return -EINVAL;
    }
    *ns = (uint64_t)amount;
    return 0;
}

static int read_share(const char *text, double *share)
{
    return read_amount(text, shares, 1, share);
}

static int read_size(const char *text, uint32_t *bytes)
{
    double amount;
    if (read_amount(text, sizes, IMPAIR_SIZE_MAX, &amount) != 0) {
        return -EINVAL;
    }
    *bytes = (uint32_t)amount;
    return 0;
}

/* One of two words; NULL and `no` are the second. */
static int read_choice(const char *text, const char *yes, const char *no, bool *chosen)
{
    *chosen = text != NULL && strcmp(text, yes) == 0;
    return *chosen || text == NULL || strcmp(text, no) == 0 ? 0 : -EINVAL;
}

static int take_delay(struct impair_rule *r, char **parts)
{
    return parts[1] == NULL ? read_time(parts[0], &r->delay_ns) : -EINVAL;
}

static int take_jitter(struct impair_rule *r, char **parts)
{
    static const char *const names[] = {
        [IMPAIR_JITTER_UNIFORM] = "uniform",
        [IMPAIR_JITTER_NORMAL] = "normal",
        [IMPAIR_JITTER_PARETO] = "pareto",
    };
    const char *name = parts[1] != NULL ? parts[1] : names[IMPAIR_JITTER_UNIFORM];
    for (int i = 0; i <= IMPAIR_JITTER_PARETO; i++) {
        if (strcmp(name, names[i]) == 0) {
            r->jitter = (enum impair_jitter)i;
            return parts[2] == NULL ? read_time(parts[0], &r->jitter_ns) : -EINVAL;
        }
    }
    return -EINVAL;
}

static int take_loss(struct impair_rule *r, char **parts)
{
    return parts[1] == NULL ? read_share(parts[0], &r->loss) : -EINVAL;
}

static int take_burst(struct impair_rule *r, char **parts)
{
    r->burst_loss = 1;
    r->burst_end = 1;
    if (read_share(parts[0], &r->burst_begin) != 0) {
        return -EINVAL;
    }
    if (parts[1] == NULL) {
        return r->burst_begin == 0 ? 0 : -EINVAL;
    }
    return read_share(parts[1], &r->burst_end) != 0 ||
                   (parts[2] != NULL && read_share(parts[2], &r->burst_loss) != 0)
               ? -EINVAL
               : 0;
}

static int take_duplicate(struct impair_rule *r, char **parts)
{
    return parts[1] == NULL ? read_share(parts[0], &r->duplicate) : -EINVAL;
}

static int take_reorder(struct impair_rule *r, char **parts)
{
    r->reorder_ns = IMPAIR_REORDER_NS;
    if (parts[1] != NULL && (parts[2] != NULL || read_time(parts[1], &r->reorder_ns) != 0)) {
        return -EINVAL;
    }
    return read_share(parts[0], &r->reorder);
}

static int take_order(struct impair_rule *r, char **parts)
{
    return parts[1] == NULL ? read_choice(parts[0], "keep", "free", &r->keep_order) : -EINVAL;
}

static int take_flip(struct impair_rule *r, char **parts)
{
    return parts[2] != NULL || read_choice(parts[1], "repair", "", &r->flip_repair) != 0
               ? -EINVAL
               : read_share(parts[0], &r->flip);
}

static int take_rate(struct impair_rule *r, char **parts)
{
    double bits;
    r->queue_bytes = IMPAIR_QUEUE_BYTES;
    r->ecn_bytes = 0;
    if (read_amount(parts[0], rates, (double)IMPAIR_RATE_MAX, &bits) != 0 ||
        (bits != 0 && bits < 1) ||
        (parts[1] != NULL && read_size(parts[1], &r->queue_bytes) != 0)) {
        return -EINVAL;
    }
    r->rate_bits = (uint64_t)bits;
    return parts[2] != NULL ? read_size(parts[2], &r->ecn_bytes) : 0;
}

static int take_mtu(struct impair_rule *r, char **parts)
{
    if (parts[2] != NULL || read_choice(parts[1], "tell", "", &r->mtu_tell) != 0 ||
        read_size(parts[0], &r->mtu) != 0) {
        return -EINVAL;
    }
    return r->mtu == 0 || r->mtu >= IMPAIR_MTU_MIN ? 0 : -EINVAL;
}

static int take_cut(struct impair_rule *r, char **parts)
{
    return parts[1] == NULL ? read_choice(parts[0], "yes", "no", &r->cut) : -EINVAL;
}

static const struct key {
    const char *name;
    int (*take)(struct impair_rule *rule, char **parts);
    const char *form;
} keys[] = {
    {"delay", take_delay, "delay takes a time: delay=120ms"},
    {"jitter", take_jitter, "jitter takes a time and uniform, normal or pareto: jitter=5ms/normal"},
    {"loss", take_loss, "loss takes a share: loss=10%"},
    {"burst", take_burst, "burst takes begin/end[/loss], shares: burst=1%/25%/100%"},
    {"duplicate", take_duplicate, "duplicate takes a share: duplicate=1%"},
    {"reorder", take_reorder, "reorder takes a share and how much later: reorder=5%/20ms"},
    {"order", take_order, "order is keep or free: order=keep"},
    {"flip", take_flip, "flip takes a share of bytes, and repair: flip=0.01%/repair"},
    {"rate", take_rate, "rate takes bits a second[/queue[/mark beyond]]: rate=10mbit/64KiB/32KiB"},
    {"mtu", take_mtu, "mtu takes bytes from 68 or 0, and tell: mtu=1280/tell"},
    {"cut", take_cut, "cut is yes or no: cut=yes"},
};

int impair_rule_word(struct impair_rule *rule, const char *word, const char **why)
{
    char copy[WORD_MAX];
    char *parts[PARTS_MAX + 1] = {NULL};
    size_t length = strlen(word);
    *why = "not one of: delay jitter loss burst duplicate reorder order flip rate mtu cut";
    if (length >= sizeof(copy)) {
        return -EINVAL;
    }
    memcpy(copy, word, length + 1);
    char *at = strchr(copy, '=');
    if (at == NULL) {
        return -EINVAL;
    }
    *at++ = '\0';
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(copy, keys[i].name) != 0) {
            continue;
        }
        *why = keys[i].form;
        for (size_t n = 0; at != NULL; n++) {
            if (n == PARTS_MAX) {
                return -EINVAL;
            }
            parts[n] = strsep(&at, "/");
        }
        struct impair_rule changed = *rule;
        if (keys[i].take(&changed, parts) != 0) {
            return -EINVAL;
        }
        *rule = changed;
        return 0;
    }
    return -EINVAL;
}
