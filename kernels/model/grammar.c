/* SPDX-License-Identifier: Apache-2.0 */
/* The automaton: frames of values that have begun, one thread for each way the bytes so far can be
 * meant. See grammar.h; grammar_schema.c compiles. */
#include "kernels/model/grammar.h"

#include <string.h>

#include "kernels/model/grammar_impl.h"

#define INT_DIGITS      15u
#define FRACTION_DIGITS 15u
#define EXPONENT_DIGITS 2u
#define SPACE_OVER      255u
#define SPACES_MAX      20u

enum phase {
    OPEN, /* containers: behind the first bracket */
    KEY,
    COLON,
    VALUE,
    AFTER, /* behind a value, or inside of it */
    NEXT,  /* behind a comma */
    /* strings */
    PLAIN,
    ESCAPE,
    HEX_1,
    HEX_2,
    HEX_2_LOW, /* no surrogates */
    HEX_2_ZERO,
    HEX_3,
    HEX_3_ZERO,
    HEX_4_ZERO,
    HEX_4,
    UTF8_1, /* one more byte of a character */
    UTF8_2,
    UTF8_2_E0,
    UTF8_2_ED,
    UTF8_3,
    UTF8_3_F0,
    UTF8_3_F4,
    /* numbers */
    SIGN,
    ZERO,
    INT,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_INT,
};

enum outcome {
    DEAD,
    STAYS,  /* the byte is taken, the value goes on */
    ENDS,   /* the byte is the value's last */
    ENDED,  /* the value had ended before this byte */
    BEGINS, /* a value within it begins with this byte */
};

static void go(struct grammar_frame *f, enum phase phase)
{
    f->phase = (uint8_t)phase;
    f->space = 0;
}

static bool space(struct grammar_frame *f, uint8_t byte)
{
    if (f->space == 0 && byte == ' ')
        f->space = SPACE_OVER;
    else if (f->space == 0 && byte == '\n')
        f->space = 1;
    else if (f->space >= 1 && f->space <= SPACES_MAX && (byte == ' ' || byte == '\t'))
        f->space++;
    else
        return false;
    return true;
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static bool fits(const struct grammar *g, uint32_t depth, uint16_t node)
{
    return depth + g->nodes[node].need <= GRAMMAR_DEPTH_MAX;
}

/* ---- strings ---- */

static void character(const struct node *n, struct grammar_frame *f)
{
    if (f->count < n->min || n->max != NO_LIMIT)
        f->count++;
    f->phase = PLAIN;
}

static enum outcome string_plain(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    static const struct {
        uint8_t first;
        uint8_t last;
        uint8_t phase;
    } leads[] = {{0xc2, 0xdf, UTF8_1},    {0xe0, 0xe0, UTF8_2_E0}, {0xe1, 0xec, UTF8_2},
                 {0xed, 0xed, UTF8_2_ED}, {0xee, 0xef, UTF8_2},    {0xf0, 0xf0, UTF8_3_F0},
                 {0xf1, 0xf3, UTF8_3},    {0xf4, 0xf4, UTF8_3_F4}};
    if (byte == '"')
        return f->count >= n->min ? ENDS : DEAD;
    if (byte < 0x20 || (n->max != NO_LIMIT && f->count >= n->max))
        return DEAD;
    if (byte == '\\') {
        f->phase = ESCAPE;
        return STAYS;
    }
    if (byte < 0x80) {
        character(n, f);
        return STAYS;
    }
    for (size_t i = 0; i < sizeof(leads) / sizeof(leads[0]); i++) {
        if (byte >= leads[i].first && byte <= leads[i].last) {
            f->phase = leads[i].phase;
            return STAYS;
        }
    }
    return DEAD;
}

static enum outcome string_escape(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    if (byte == 'u') {
        f->phase = HEX_1;
        return STAYS;
    }
    if (byte == 0 || strchr("\"\\/bfnrt", byte) == NULL)
        return DEAD;
    character(n, f);
    return STAYS;
}

/* After so many zeros the next must not make U+0000: JSON has it, many readers of JSON do not. */
static uint8_t next_hex(uint8_t phase, uint8_t low)
{
    const bool zero = low == '0';
    switch (phase) {
    case HEX_1:
        return zero ? HEX_2_ZERO : low == 'd' ? HEX_2_LOW : HEX_2;
    case HEX_2_ZERO:
        return zero ? HEX_3_ZERO : HEX_3;
    case HEX_3_ZERO:
        return zero ? HEX_4_ZERO : HEX_4;
    case HEX_3:
        return HEX_4;
    default:
        return HEX_3;
    }
}

static enum outcome string_hex(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    const uint8_t low = byte | 0x20;
    if (!is_digit(byte) && !(low >= 'a' && low <= 'f'))
        return DEAD;
    if (f->phase == HEX_2_LOW && !(byte >= '0' && byte <= '7'))
        return DEAD;
    if (f->phase == HEX_4_ZERO && byte == '0')
        return DEAD;
    if (f->phase == HEX_4 || f->phase == HEX_4_ZERO)
        character(n, f);
    else
        f->phase = next_hex(f->phase, low);
    return STAYS;
}

/* RFC 3629, section 4: neither overlong nor surrogate nor beyond U+10FFFF. */
static enum outcome string_utf8(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    const uint8_t least = f->phase == UTF8_2_E0 ? 0xa0 : f->phase == UTF8_3_F0 ? 0x90 : 0x80;
    const uint8_t most = f->phase == UTF8_2_ED ? 0x9f : f->phase == UTF8_3_F4 ? 0x8f : 0xbf;
    if (byte < least || byte > most)
        return DEAD;
    if (f->phase == UTF8_1)
        character(n, f);
    else
        f->phase = f->phase >= UTF8_3 ? UTF8_2 : UTF8_1;
    return STAYS;
}

static enum outcome string_step(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    if (f->phase == PLAIN)
        return string_plain(n, f, byte);
    if (f->phase == ESCAPE)
        return string_escape(n, f, byte);
    return f->phase <= HEX_4 ? string_hex(n, f, byte) : string_utf8(n, f, byte);
}

static uint32_t string_rest(const struct node *n, const struct grammar_frame *f)
{
    static const uint8_t left[] = {
        [ESCAPE] = 1,     [HEX_1] = 4,  [HEX_2] = 3,      [HEX_2_LOW] = 3,
        [HEX_2_ZERO] = 3, [HEX_3] = 2,  [HEX_3_ZERO] = 2, [HEX_4_ZERO] = 1,
        [HEX_4] = 1,      [UTF8_1] = 1, [UTF8_2] = 2,     [UTF8_2_E0] = 2,
        [UTF8_2_ED] = 2,  [UTF8_3] = 3, [UTF8_3_F0] = 3,  [UTF8_3_F4] = 3};
    uint32_t missing = f->count < n->min ? n->min - f->count : 0;
    missing -= f->phase != PLAIN && missing ? 1 : 0;
    return missing + 1 + (f->phase != PLAIN ? left[f->phase] : 0);
}

/* ---- numbers ---- */

static bool number_may_end(const struct grammar_frame *f)
{
    return f->phase == ZERO || f->phase == INT || f->phase == FRACTION || f->phase == EXPONENT_INT;
}

static enum outcome number_go(struct grammar_frame *f, enum phase phase, uint16_t count)
{
    f->phase = (uint8_t)phase;
    f->count = count;
    return STAYS;
}

static enum outcome number_digit(struct grammar_frame *f, uint8_t byte)
{
    switch (f->phase) {
    case SIGN:
        return number_go(f, byte == '0' ? ZERO : INT, 1);
    case INT:
        return f->count < INT_DIGITS ? number_go(f, INT, f->count + 1) : DEAD;
    case POINT:
        return number_go(f, FRACTION, 1);
    case FRACTION:
        return f->count < FRACTION_DIGITS ? number_go(f, FRACTION, f->count + 1) : DEAD;
    case EXPONENT:
    case EXPONENT_SIGN:
        return number_go(f, EXPONENT_INT, 1);
    case EXPONENT_INT:
        return f->count < EXPONENT_DIGITS ? number_go(f, EXPONENT_INT, f->count + 1) : DEAD;
    default:
        return DEAD; /* behind a zero */
    }
}

/* A frame of a number between bounds: `keys` are its digits, `at` the rest of what is known. */
#define DIGITS_NEGATIVE 0x100u
#define DIGITS_POINT    0x200u

static struct grammar_digits digits_of(const struct grammar_frame *f)
{
    return (struct grammar_digits){f->keys, (uint8_t)f->count, (uint8_t)f->at,
                                   (f->at & DIGITS_NEGATIVE) != 0, (f->at & DIGITS_POINT) != 0};
}

static enum outcome ranged_step(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    struct grammar_digits at = digits_of(f);
    if (!range_step(&n->range, &at, byte))
        return range_rest(&n->range, &at) == 0 ? ENDED : DEAD;
    f->keys = at.value;
    f->count = at.whole;
    f->at =
        (uint16_t)(at.behind | (at.negative ? DIGITS_NEGATIVE : 0) | (at.point ? DIGITS_POINT : 0));
    return STAYS;
}

static uint32_t number_rest(const struct node *n, const struct grammar_frame *f)
{
    const struct grammar_digits at = digits_of(f);
    return n->ranged ? range_rest(&n->range, &at) : !number_may_end(f);
}

static enum outcome number_step(const struct node *n, struct grammar_frame *f, uint8_t byte)
{
    const bool real = !n->integer;
    if (n->ranged)
        return ranged_step(n, f, byte);
    if (is_digit(byte))
        return number_digit(f, byte);
    if (real && byte == '.' && (f->phase == ZERO || f->phase == INT))
        return number_go(f, POINT, 0);
    if (real && (byte | 0x20) == 'e' && number_may_end(f) && f->phase != EXPONENT_INT)
        return number_go(f, EXPONENT, 0);
    if (f->phase == EXPONENT && (byte == '+' || byte == '-'))
        return number_go(f, EXPONENT_SIGN, 0);
    return number_may_end(f) ? ENDED : DEAD;
}

/* ---- texts that are given ---- */

static bool literal_has_ended(const struct grammar *g, const struct grammar_frame *f)
{
    return g->entries[f->range.first].len == f->at;
}

/* Leaves those that go on with the byte: they lie together, behind one that ends here. */
static bool literal_narrow(const struct grammar *g, struct grammar_frame *f, uint8_t byte)
{
    uint32_t low = f->range.first;
    uint32_t high = f->range.end;
    low += low < high && g->entries[low].len == f->at;
    const uint32_t end = high;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (g->bytes[g->entries[middle].text + f->at] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    uint32_t last = low;
    while (last < end && g->bytes[g->entries[last].text + f->at] == byte)
        last++;
    if (last == low)
        return false;
    f->range.first = low;
    f->range.end = last;
    f->at++;
    return true;
}

static bool literal_is_over(const struct grammar *g, const struct grammar_frame *f)
{
    return f->range.end - f->range.first == 1 && literal_has_ended(g, f);
}

static enum outcome literal_step(const struct grammar *g, struct grammar_frame *f, uint8_t byte)
{
    if (!literal_narrow(g, f, byte))
        return f->at && literal_has_ended(g, f) ? ENDED : DEAD;
    return literal_is_over(g, f) ? ENDS : STAYS;
}

static enum outcome call_step(const struct grammar *g, struct grammar_frame *f, uint8_t byte,
                              uint16_t *child)
{
    switch (f->phase) {
    case KEY:
        if (!literal_narrow(g, f, byte))
            return DEAD;
        if (literal_is_over(g, f))
            go(f, VALUE);
        return STAYS;
    case VALUE:
        go(f, AFTER);
        *child = g->entries[f->range.first].node;
        return BEGINS;
    default:
        return byte == '}' ? ENDS : DEAD;
    }
}

/* ---- containers ---- */

/* Keys that may come next: those up to the first that has to. */
static uint64_t keys_next(const struct grammar *g, const struct node *n, uint32_t next,
                          uint32_t depth)
{
    uint64_t keys = 0;
    for (uint32_t i = next; i < n->count; i++) {
        const struct entry *e = entry_at(g, n, i);
        if (fits(g, depth, e->node))
            keys |= UINT64_C(1) << i;
        if (e->required)
            break;
    }
    return keys;
}

static enum outcome object_key(const struct grammar *g, const struct node *n,
                               struct grammar_frame *f, uint8_t byte)
{
    uint64_t left = 0;
    for (uint64_t keys = f->keys; keys; keys &= keys - 1) {
        const uint32_t i = (uint32_t)__builtin_ctzll(keys);
        const struct entry *e = entry_at(g, n, i);
        if (e->len <= f->at || g->bytes[e->text + f->at] != byte)
            continue;
        left |= UINT64_C(1) << i;
        if (e->len == f->at + 1) { /* no key is the beginning of another: quotes end it */
            f->count = (uint16_t)(i + 1);
            go(f, COLON);
        }
    }
    f->keys = left;
    f->at++;
    return left ? STAYS : DEAD;
}

static enum outcome object_step(const struct grammar *g, const struct node *n,
                                struct grammar_frame *f, uint8_t byte, uint32_t depth,
                                uint16_t *child)
{
    switch (f->phase) {
    case KEY:
        return object_key(g, n, f, byte);
    case COLON:
        go(f, VALUE);
        return byte == ':' ? STAYS : DEAD;
    default:
        break;
    }
    if (space(f, byte))
        return STAYS;
    if (f->phase == VALUE) {
        go(f, AFTER);
        *child = entry_at(g, n, f->count - 1u)->node;
        return BEGINS;
    }
    if (byte == '}' && f->phase != NEXT)
        return rest_of(g, n, f->count) == 0 ? ENDS : DEAD;
    const uint64_t keys = keys_next(g, n, f->count, depth);
    if (keys == 0 || byte != (f->phase == AFTER ? ',' : '"'))
        return DEAD;
    if (f->phase == AFTER) {
        go(f, NEXT);
        return STAYS;
    }
    go(f, KEY);
    f->keys = keys;
    f->at = 1;
    return STAYS;
}

static enum outcome map_step(const struct grammar *g, const struct node *n, struct grammar_frame *f,
                             uint8_t byte, uint32_t depth, uint16_t *child)
{
    const bool room = fits(g, depth, n->child) && fits(g, depth, g->key);
    if (f->phase == COLON) {
        go(f, VALUE);
        return byte == ':' ? STAYS : DEAD;
    }
    if (space(f, byte))
        return STAYS;
    if (f->phase == VALUE) {
        go(f, AFTER);
        *child = n->child;
        return BEGINS;
    }
    if (byte == '}' && f->phase != NEXT)
        return ENDS;
    if (f->phase == AFTER) {
        go(f, NEXT);
        return byte == ',' && room ? STAYS : DEAD;
    }
    go(f, COLON);
    *child = g->key;
    return room ? BEGINS : DEAD;
}

static enum outcome array_step(const struct grammar *g, const struct node *n,
                               struct grammar_frame *f, uint8_t byte, uint32_t depth,
                               uint16_t *child)
{
    const bool room = (n->max == NO_LIMIT || f->count < n->max) && fits(g, depth, n->child);
    if (space(f, byte))
        return STAYS;
    if (byte == ']' && f->phase != NEXT)
        return f->count >= n->min ? ENDS : DEAD;
    if (!room)
        return DEAD;
    if (f->phase == AFTER) {
        go(f, NEXT);
        return byte == ',' ? STAYS : DEAD;
    }
    go(f, AFTER);
    if (n->max != NO_LIMIT || f->count < n->min)
        f->count++;
    *child = n->child;
    return BEGINS;
}

/* ---- one thread ---- */

static enum outcome frame_step(const struct grammar *g, struct grammar_thread *t, uint8_t byte,
                               uint16_t *child)
{
    struct grammar_frame *f = &t->frames[t->depth - 1];
    if (t->depth == 1) { /* the answer itself */
        const bool begins = f->phase == VALUE;
        f->phase = AFTER;
        *child = g->root;
        return begins ? BEGINS : DEAD;
    }
    const struct node *n = &g->nodes[f->node];
    switch (n->kind) {
    case NODE_STRING:
        return string_step(n, f, byte);
    case NODE_NUMBER:
        return number_step(n, f, byte);
    case NODE_LITERALS:
        return literal_step(g, f, byte);
    case NODE_CALL:
        return call_step(g, f, byte, child);
    case NODE_OBJECT:
        return object_step(g, n, f, byte, t->depth, child);
    case NODE_MAP:
        return map_step(g, n, f, byte, t->depth, child);
    default:
        return array_step(g, n, f, byte, t->depth, child);
    }
}

/* A value's first byte. */
static enum outcome frame_begin(const struct grammar *g, uint16_t node, struct grammar_frame *f,
                                uint8_t byte)
{
    const struct node *n = &g->nodes[node];
    uint16_t none;
    *f = (struct grammar_frame){.node = node};
    switch (n->kind) {
    case NODE_STRING:
        f->phase = PLAIN;
        return byte == '"' ? STAYS : DEAD;
    case NODE_NUMBER:
        f->phase = SIGN;
        if (n->ranged)
            return ranged_step(n, f, byte);
        return byte == '-' ? STAYS : is_digit(byte) ? number_digit(f, byte) : DEAD;
    case NODE_ARRAY:
        return byte == '[' ? STAYS : DEAD;
    case NODE_CALL:
    case NODE_LITERALS:
        f->range.first = n->first;
        f->range.end = n->first + n->count;
        f->phase = KEY;
        return n->kind == NODE_CALL ? call_step(g, f, byte, &none) : literal_step(g, f, byte);
    default:
        return byte == '{' ? STAYS : DEAD;
    }
}

static void thread_copy(struct grammar_thread *to, const struct grammar_thread *from)
{
    to->depth = from->depth;
    memcpy(to->frames, from->frames, from->depth * sizeof(from->frames[0]));
}

static void thread_add(struct grammar_state *out, const struct grammar_thread *t)
{
    if (out->threads < GRAMMAR_THREADS_MAX)
        thread_copy(&out->thread[out->threads++], t);
}

static void thread_begin(const struct grammar *g, struct grammar_thread *t, uint16_t node,
                         uint8_t byte, struct grammar_state *out)
{
    const struct node *n = &g->nodes[node];
    const uint32_t count = n->kind == NODE_CHOICE ? n->count : 1;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t value = n->kind == NODE_CHOICE ? entry_at(g, n, i)->node : node;
        if (!fits(g, t->depth, value))
            continue;
        const enum outcome outcome = frame_begin(g, value, &t->frames[t->depth], byte);
        if (outcome == STAYS)
            t->depth++;
        if (outcome == STAYS || outcome == ENDS)
            thread_add(out, t);
        if (outcome == STAYS)
            t->depth--;
    }
}

static void thread_step(const struct grammar *g, struct grammar_thread *t, uint8_t byte,
                        struct grammar_state *out)
{
    uint16_t child = NODE_NONE;
    enum outcome outcome = frame_step(g, t, byte, &child);
    while (outcome == ENDED) {
        t->depth--;
        outcome = frame_step(g, t, byte, &child);
    }
    if (outcome == BEGINS) {
        thread_begin(g, t, child, byte, out);
    } else if (outcome != DEAD) {
        t->depth -= outcome == ENDS;
        thread_add(out, t);
    }
}

static bool thread_is_over(const struct grammar_thread *t)
{
    return t->depth == 1 && t->frames[0].phase == AFTER;
}

static bool thread_may_end(const struct grammar *g, const struct grammar_thread *t)
{
    const struct grammar_frame *f = &t->frames[t->depth - 1];
    if (t->depth != 2)
        return thread_is_over(t);
    const struct node *n = &g->nodes[f->node];
    return (n->kind == NODE_NUMBER && number_rest(n, f) == 0) ||
           (n->kind == NODE_LITERALS && literal_has_ended(g, f));
}

/* ---- how far the end is ---- */

static uint32_t keys_rest(const struct grammar *g, const struct node *n, uint64_t keys, uint32_t at)
{
    uint32_t least = COST_MAX;
    for (; keys; keys &= keys - 1) {
        const uint32_t i = (uint32_t)__builtin_ctzll(keys);
        const struct entry *e = entry_at(g, n, i);
        const uint32_t bytes =
            cost_add(e->len - at + 1, cost_add(g->nodes[e->node].cost, rest_of(g, n, i + 1)));
        least = bytes < least ? bytes : least;
    }
    return least;
}

static uint32_t object_rest(const struct grammar *g, const struct node *n,
                            const struct grammar_frame *f, uint32_t depth)
{
    const uint32_t rest = rest_of(g, n, f->count);
    switch (f->phase) {
    case KEY:
        return keys_rest(g, n, f->keys, f->at) + 1;
    case NEXT:
        return keys_rest(g, n, keys_next(g, n, f->count, depth), 0) + 1;
    case OPEN:
        return rest - (rest != 0) + 1;
    case AFTER:
        return rest + 1;
    default:
        return cost_add(rest, g->nodes[entry_at(g, n, f->count - 1u)->node].cost) +
               (f->phase == COLON) + 1;
    }
}

static uint32_t map_rest(const struct grammar *g, const struct node *n, enum phase phase)
{
    const uint32_t cost = g->nodes[n->child].cost;
    return phase == COLON ? cost + 2 : phase == VALUE ? cost + 1 : phase == NEXT ? cost + 4 : 1;
}

static uint32_t array_rest(const struct grammar *g, const struct node *n,
                           const struct grammar_frame *f)
{
    const uint64_t item = (uint64_t)g->nodes[n->child].cost + 1;
    uint64_t missing = f->count < n->min ? n->min - f->count : 0;
    if (f->phase == NEXT && missing == 0)
        missing = 1;
    const uint64_t bytes = missing * item - (f->phase != AFTER && missing) + 1;
    return bytes < COST_MAX ? (uint32_t)bytes : COST_MAX;
}

static uint32_t literal_rest(const struct grammar *g, const struct grammar_frame *f, bool call)
{
    uint32_t least = COST_MAX;
    for (uint32_t i = f->range.first; i < f->range.end; i++) {
        const struct entry *e = &g->entries[i];
        const uint32_t bytes = cost_add(e->len - f->at, call ? g->nodes[e->node].cost + 1 : 0);
        least = bytes < least ? bytes : least;
    }
    return call && f->phase == AFTER ? 1 : least;
}

static uint32_t frame_rest(const struct grammar *g, const struct grammar_frame *f, uint32_t depth)
{
    if (depth == 1)
        return f->phase == VALUE ? g->nodes[g->root].cost : 0;
    const struct node *n = &g->nodes[f->node];
    switch (n->kind) {
    case NODE_STRING:
        return string_rest(n, f);
    case NODE_NUMBER:
        return number_rest(n, f);
    case NODE_LITERALS:
    case NODE_CALL:
        return literal_rest(g, f, n->kind == NODE_CALL);
    case NODE_OBJECT:
        return object_rest(g, n, f, depth);
    case NODE_MAP:
        return map_rest(g, n, f->phase);
    default:
        return array_rest(g, n, f);
    }
}

/* ---- the whole ---- */

void grammar_begin(const struct grammar *g, struct grammar_state *state)
{
    (void)g;
    state->threads = 1;
    state->thread[0].depth = 1;
    state->thread[0].frames[0] = (struct grammar_frame){.node = NODE_NONE, .phase = VALUE};
}

/* Most of the time there is one thread that goes on as one. */
bool grammar_step(const struct grammar *g, struct grammar_state *state, uint8_t byte)
{
    struct grammar_thread now[GRAMMAR_THREADS_MAX];
    const uint32_t threads = state->threads;
    for (uint32_t i = 0; i < threads; i++)
        thread_copy(&now[i], &state->thread[i]);
    state->threads = 0;
    for (uint32_t i = 0; i < threads; i++)
        thread_step(g, &now[i], byte, state);
    return state->threads != 0;
}

bool grammar_may_end(const struct grammar *g, const struct grammar_state *state)
{
    for (uint32_t i = 0; i < state->threads; i++)
        if (thread_may_end(g, &state->thread[i]))
            return true;
    return false;
}

bool grammar_must_end(const struct grammar_state *state)
{
    for (uint32_t i = 0; i < state->threads; i++)
        if (!thread_is_over(&state->thread[i]))
            return false;
    return true;
}

uint32_t grammar_rest(const struct grammar *g, const struct grammar_state *state)
{
    uint32_t least = COST_MAX;
    for (uint32_t i = 0; i < state->threads; i++) {
        const struct grammar_thread *t = &state->thread[i];
        uint32_t bytes = 0;
        for (uint32_t d = 1; d <= t->depth; d++)
            bytes = cost_add(bytes, frame_rest(g, &t->frames[d - 1], d));
        least = bytes < least ? bytes : least;
    }
    return least;
}

void grammar_copy(struct grammar_state *to, const struct grammar_state *from)
{
    to->threads = from->threads;
    for (uint32_t i = 0; i < from->threads; i++)
        thread_copy(&to->thread[i], &from->thread[i]);
}

bool grammar_equal(const struct grammar_state *a, const struct grammar_state *b)
{
    bool equal = a->threads == b->threads;
    for (uint32_t i = 0; equal && i < a->threads; i++)
        equal = a->thread[i].depth == b->thread[i].depth &&
                memcmp(a->thread[i].frames, b->thread[i].frames,
                       a->thread[i].depth * sizeof(a->thread[i].frames[0])) == 0;
    return equal;
}

uint32_t grammar_free_text(const struct grammar *g, const struct grammar_state *state)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < state->threads; i++) {
        const struct grammar_thread *t = &state->thread[i];
        const struct grammar_frame *f = &t->frames[t->depth - 1];
        const struct node *n = t->depth > 1 ? &g->nodes[f->node] : NULL;
        if (!n || n->kind != NODE_STRING || f->phase != PLAIN)
            continue;
        const uint32_t room = n->max == NO_LIMIT ? UINT32_MAX : (uint32_t)n->max - f->count;
        most = room > most ? room : most;
    }
    return most;
}
