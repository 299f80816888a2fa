/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_stages.c - arbitrary frames through the whole packet path, as ingress and as target. The
 * first byte says who sends it; valid cookies and return tags are put in, so that the input gets
 * past them. */
#include <stdlib.h>

#include "tests/unit/route/fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct route_core *core;
    static struct route_table *table;
    if (core == NULL) {
        core = fixture_core(2);
        table = fixture_table(2);
    }
    if (size < 2) {
        return 0;
    }
    static struct route_frame frame;
    struct route_packet p;
    uint8_t mode = data[0];
    fixture_request(&p, &frame, 2, 1);
    size = size - 1 < WEFT_DATAGRAM_MAX ? size - 1 : WEFT_DATAGRAM_MAX;
    memcpy(frame.weft.bytes, data + 1, size);
    struct route_host from = {
        .addr = (mode & 1) != 0 ? node_addr(1) : client_addr(),
        .port_be = htons(CLIENT_PORT),
    };
    struct route_hop to = {.addr = node_addr(2), .port_be = htons(PORT_DATA)};
    if ((mode & 2) != 0) {
        frame.weft.req.first.cookie =
            seal_cookie(&core->seal, from.addr, from.port_be, frame.weft.common.conn_id);
    }
    if ((mode & 4) != 0) {
        seal_return(&core->seal, &frame.weft.rsp.ret, frame.weft.common.conn_id);
    }
    p = (struct route_packet){.frame = &frame, .weft_len = (uint16_t)size};
    p.from_worker = p.own = (mode & 8) != 0;
    p.len = packet_compose(&frame, (uint32_t)size, &from, &to);
    uint32_t sent = p.len;
    run_stages(core, table, &p, mode);
    if (p.action == ROUTE_DELIVER) {
        stage_second_chance(core, table, &p, ROUTE_DROP_refused, -1005);
        stage_rewrite(core, table, &p, 1);
    }
    /* Nothing stays undecided, nothing grows. */
    if (p.action == ROUTE_UNDECIDED || (p.action == ROUTE_SEND && p.len > sent)) {
        abort();
    }
    return 0;
}
