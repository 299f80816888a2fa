/* SPDX-License-Identifier: Apache-2.0 */
/* grammar_range.c - see grammar_range.h. What can follow some digits is a few intervals: one for
 * each number of digits more. No product is above 10^15. */
#include "kernels/model/grammar_range.h"

#include <math.h>
#include <stddef.h>

static const uint64_t tens[] = {
    UINT64_C(1),
    UINT64_C(10),
    UINT64_C(100),
    UINT64_C(1000),
    UINT64_C(10000),
    UINT64_C(100000),
    UINT64_C(1000000),
    UINT64_C(10000000),
    UINT64_C(100000000),
    UINT64_C(1000000000),
    UINT64_C(10000000000),
    UINT64_C(100000000000),
    UINT64_C(1000000000000),
    UINT64_C(10000000000000),
    UINT64_C(100000000000000),
    UINT64_C(1000000000000000),
};

static uint32_t whole_max(const struct grammar_range *range)
{
    return range->fraction != 0 ? RANGE_REAL_DIGITS : RANGE_INT_DIGITS;
}

/* ---- bounds ---- */

static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};

bool range_is_asked(const json_t *schema)
{
    for (size_t i = 0; i < 4; i++) {
        if (json_object_get(schema, keys[i])) {
            return true;
        }
    }
    return false;
}

/* The first number within a bound, in units, from below (`up`) or from above: as a double that is
 * what readers of the decimal number compare. All of them are below 2^53, and so exact. */
static int64_t bound_of(const json_t *value, const struct grammar_range *range, bool up,
                        bool exclusive)
{
    const double unit = (double)tens[range->fraction];
    const int64_t most = (int64_t)tens[whole_max(range) + range->fraction] - 1;
    double number = json_number_value(value);
    number = exclusive ? nextafter(number, up ? INFINITY : -INFINITY) : number;
    if (number * unit > (double)most || number * unit < -(double)most) {
        return number > 0 ? (up ? most + 1 : most) : (up ? -most : -most - 1);
    }
    double first = nearbyint(number * unit) + (up ? -1 : 1);
    while (up ? first / unit < number : first / unit > number) {
        first += up ? 1 : -1;
    }
    return (int64_t)first;
}

bool range_of(const json_t *schema, bool integer, struct grammar_range *out)
{
    out->fraction = integer ? 0 : RANGE_FRACTION;
    out->high = (int64_t)tens[whole_max(out) + out->fraction] - 1;
    out->low = -out->high;
    for (size_t i = 0; i < 4; i++) {
        const json_t *value = json_object_get(schema, keys[i]);
        if (value == NULL) {
            continue;
        }
        if (!json_is_number(value)) {
            return false;
        }
        const bool up = i < 2;
        const int64_t bound = bound_of(value, out, up, i % 2 == 1);
        if (up && bound > out->low) {
            out->low = bound;
        } else if (!up && bound < out->high) {
            out->high = bound;
        }
    }
    const struct grammar_digits none = {.value = 0};
    out->rest = range_rest(out, &none);
    return true;
}

/* ---- digits ---- */

/* Is there a multiple of `step` from `low` to `high`? */
static bool has_multiple(uint64_t low, uint64_t high, uint64_t step)
{
    return low <= high && (low + step - 1) / step <= high / step;
}

/* With so many digits more before the point, how many bytes of a point and digits behind it? */
static uint32_t rest_behind(const struct grammar_range *range, const struct grammar_digits *at,
                            uint32_t more, uint64_t low, uint64_t high)
{
    const uint64_t unit = tens[range->fraction - at->behind];
    const uint64_t first = at->value * tens[more] * unit;
    const uint64_t last = (at->value + 1) * tens[more] * unit - 1;
    const uint64_t from = low > first ? low : first;
    const uint64_t to = high < last ? high : last;
    const uint32_t least = at->point && at->behind == 0;
    if (!at->point && has_multiple(from, to, unit)) {
        return 0;
    }
    for (uint32_t digits = least; at->point && at->behind + digits <= range->fraction; digits++) {
        if (has_multiple(from, to, tens[range->fraction - at->behind - digits])) {
            return digits;
        }
    }
    for (uint32_t digits = 1; !at->point && digits <= range->fraction; digits++) {
        if (has_multiple(from, to, tens[range->fraction - digits])) {
            return 1 + digits;
        }
    }
    return RANGE_NEVER;
}

static uint32_t rest_of_digits(const struct grammar_range *range, const struct grammar_digits *at,
                               uint64_t low, uint64_t high)
{
    uint32_t best = RANGE_NEVER;
    const bool grows = !at->point && at->value != 0; /* nothing follows a zero */
    const uint32_t more = grows ? whole_max(range) - at->whole : 0;
    for (uint32_t digits = 0; digits <= more && digits < best; digits++) {
        const uint32_t rest = rest_behind(range, at, digits, low, high);
        best = rest != RANGE_NEVER && digits + rest < best ? digits + rest : best;
    }
    return best;
}

uint32_t range_rest(const struct grammar_range *range, const struct grammar_digits *at)
{
    const int64_t low = at->negative ? -range->high : range->low;
    const int64_t high = at->negative ? -range->low : range->high;
    const int64_t least = at->negative; /* zero has no sign */
    uint32_t best = RANGE_NEVER;
    if (range->low > range->high) {
        return RANGE_NEVER;
    }
    if (at->whole != 0) {
        return high < least ? RANGE_NEVER
                            : rest_of_digits(range, at, (uint64_t)(low > least ? low : least),
                                             (uint64_t)high);
    }
    for (uint64_t digit = 0; digit < 10; digit++) {
        const struct grammar_digits next = {digit, 1, 0, at->negative, false};
        const uint32_t rest = range_rest(range, &next);
        best = rest != RANGE_NEVER && rest + 1 < best ? rest + 1 : best;
    }
    if (!at->negative) {
        const struct grammar_digits below = {.negative = true};
        const uint32_t rest = range_rest(range, &below);
        best = rest != RANGE_NEVER && rest + 1 < best ? rest + 1 : best;
    }
    return best;
}

bool range_step(const struct grammar_range *range, struct grammar_digits *at, uint8_t byte)
{
    struct grammar_digits next = *at;
    if (byte >= '0' && byte <= '9') {
        const bool full = at->point        ? at->behind == range->fraction
                          : at->whole != 0 ? at->value == 0 || at->whole == whole_max(range)
                                           : false;
        if (full) {
            return false;
        }
        next.value = next.value * 10 + (byte - '0');
        next.behind += next.point;
        next.whole += !next.point;
    } else if (byte == '-' && at->whole == 0 && !at->negative) {
        next.negative = true;
    } else if (byte == '.' && at->whole != 0 && !at->point && range->fraction != 0) {
        next.point = true;
    } else {
        return false;
    }
    if (range_rest(range, &next) == RANGE_NEVER) {
        return false;
    }
    *at = next;
    return true;
}
