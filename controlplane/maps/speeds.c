/* SPDX-License-Identifier: Apache-2.0 */
/* speeds.c - see speeds.h. */
#include "controlplane/maps/speeds.h"

#include <math.h>

#define CODE_MAX 255u

uint8_t speeds_code(uint32_t value, uint8_t told)
{
    if (value == 0) {
        return 0;
    }
    double steps = SPEEDS_STEPS * log2(value);
    if (told != 0 && fabs(steps - (told - 1.0)) <= 1.0) {
        return told;
    }
    steps = fmin(round(steps), CODE_MAX - 1.0);
    return (uint8_t)(1.0 + steps);
}

uint32_t speeds_value(uint8_t code)
{
    return code == 0 ? 0 : (uint32_t)lround(exp2((code - 1.0) / SPEEDS_STEPS));
}

/* Of so many streams together. What was measured with fewer is what more get, if nothing else is
 * known: a machine that is full gives no more. */
static double together(const struct speeds *speeds, uint32_t streams)
{
    double below = speeds_value(speeds->decode[0]);
    uint32_t below_streams = 1;
    for (uint32_t i = 1; i < SPEEDS_BATCHES && below_streams < streams; i++) {
        uint32_t at_streams = 1u << i;
        double at = speeds_value(speeds->decode[i]);
        if (at <= 0) {
            continue;
        }
        if (at_streams >= streams) {
            double part = (double)(streams - below_streams) / (at_streams - below_streams);
            return below + (at - below) * part;
        }
        below = at;
        below_streams = at_streams;
    }
    return below;
}

uint32_t speeds_stream(const struct speeds *speeds)
{
    uint32_t streams = speeds->running + 1u;
    streams = streams < speeds->slots ? streams : speeds->slots;
    if (speeds->decode[0] == 0 || streams <= 1) {
        return speeds_value(speeds->decode[0]);
    }
    double each = together(speeds, streams) / streams;
    return each < 1 ? 1 : (uint32_t)lround(each);
}
