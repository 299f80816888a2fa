/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the letters and tickets by which two members agree on a way (controlplane/gossip/ways.h).
 * An input is a row of steps: a kind, who, how long time goes on, and what comes. Checked: nothing
 * is connected that was not asked for here, there is never more than fits, and all of it ends. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/gossip/ways.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP_WANT, STEP_LETTER, STEP_ECHO, STEP_TICKET, STEP_TICK, STEP_OPS };

static void require(int is_so)
{
    if (!is_so)
        abort();
}

static uint32_t in_state(const struct ways *ways, uint32_t begin, enum way_state state)
{
    uint32_t count = 0;
    for (uint32_t i = begin; i < begin + WAYS_MAX; i++)
        count += ways->all[i].state == state;
    return count;
}

static void take(struct ways *ways, const struct way_out *out, uint32_t asking_before)
{
    if (out->act == WAY_CONNECT) {
        require(asking_before > 0 && out->index < WAYS_MAX);
        require(ways->all[out->index].state == WAY_CONNECTING);
        ways_end(ways, out->index);
    }
    require(out->act != WAY_FAILED || (out->status < 0 && asking_before > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ways ways = {0};
    struct way_out out = {0};
    struct way came;
    uint8_t letter[WAY_LETTER_BYTES + 4] = {0};
    uint64_t now_ns = 1;
    while (size >= 3) {
        const uint8_t op = data[0] % STEP_OPS;
        const uint32_t slot = data[1] % 4;
        now_ns += (uint64_t)data[2] * 10000000;
        data += 3;
        size -= 3;
        const size_t len = size < sizeof(letter) ? size : sizeof(letter);
        const uint32_t asking = in_state(&ways, 0, WAY_ASKING);
        if (op != STEP_ECHO && op != STEP_TICK) {
            memcpy(letter, data, len);
            data += len;
            size -= len;
        }
        if (op == STEP_WANT) {
            (void)ways_want(&ways, slot, letter[0], letter[1], letter[2], letter + 3, now_ns);
        } else if (op == STEP_LETTER) {
            ways_input(&ways, slot, letter, len, letter[8] & 1 ? -1 : 0, now_ns, &out);
            take(&ways, &out, asking);
        } else if (op == STEP_ECHO) { /* what this side has said comes back as an answer */
            memcpy(letter, out.letter, sizeof(out.letter));
            letter[0] = 2;
            memset(letter + 4, 0, 12);
            ways_input(&ways, slot, letter, WAY_LETTER_BYTES, 0, now_ns, &out);
            take(&ways, &out, asking);
        } else if (op == STEP_TICKET) {
            const uint32_t expected = in_state(&ways, WAYS_MAX, WAY_EXPECTED);
            const int good = ways_came(&ways, letter, now_ns, &came);
            require(in_state(&ways, WAYS_MAX, WAY_EXPECTED) == expected - (uint32_t)good);
        } else {
            for (int i = 0; i < (int)(4 * WAYS_MAX) && ways_tick(&ways, now_ns, &out); i++)
                require(out.act == WAY_SAY || out.act == WAY_FAILED);
            require(!ways_tick(&ways, now_ns, &out));
        }
    }
    for (int i = 0; i < 1000 && ways_next_ns(&ways) != UINT64_MAX; i++) {
        now_ns = ways_next_ns(&ways) > now_ns ? ways_next_ns(&ways) : now_ns;
        (void)ways_tick(&ways, now_ns, &out);
    }
    require(ways_next_ns(&ways) == UINT64_MAX);
    return 0;
}
