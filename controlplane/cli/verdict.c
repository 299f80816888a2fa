/* SPDX-License-Identifier: Apache-2.0 */
/* verdict.c - see verdict.h. */
#include "controlplane/cli/verdict.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <weft/wire.h>

#include "schemas/base/clock.h"
#include "schemas/drops.def"

#define ETHER_BYTES 14u
#define VLAN_BYTES  4u
#define IPV4_BYTES  20u
#define IPV6_BYTES  40u
#define UDP_BYTES   8u
#define UDP         17u /* protocol or next header */
#define NOT_WEFT    "not Weft"

static const struct {
    bool worker;
    bool out;
    const char *text;
} points[] = {
#define POINT_ROW_(name, worker, out, text) {worker, out, text},
    TAP_POINTS(POINT_ROW_)
#undef POINT_ROW_
};

static const struct {
    const char *name;
    const char *text;
} verdicts[] =
    {
#define VERDICT_ROW_(name, text) {#name, text},
        TAP_VERDICTS(VERDICT_ROW_)
#undef VERDICT_ROW_
},
  drops[] = {
#define DROP_ROW_(name, text) {#name, text},
      WEFT_DROPS(DROP_ROW_)
#undef DROP_ROW_
};

bool verdict_goes_out(const struct tap_record *record)
{
    return record->point < TAP_POINT_COUNT && points[record->point].out;
}

bool verdict_of_worker(const struct tap_record *record)
{
    return record->point < TAP_POINT_COUNT && points[record->point].worker;
}

void verdict_text(const struct tap_record *record, char *out, size_t size)
{
    size_t why = record->why;
    if (record->verdict == TAP_VERDICT_none || record->verdict >= TAP_VERDICT_COUNT) {
        snprintf(out, size, "%s",
                 record->point < TAP_POINT_COUNT ? points[record->point].text : "?");
    } else if (why == 0 || why > sizeof(drops) / sizeof(drops[0])) {
        snprintf(out, size, "%s", verdicts[record->verdict].text);
    } else {
        snprintf(out, size, "%s, %s: %s", verdicts[record->verdict].name, drops[why - 1].name,
                 drops[why - 1].text);
    }
}

static void time_text(uint64_t time_ns, char *out, size_t size)
{
    time_t seconds = (time_t)(time_ns / NS_PER_S);
    struct tm local;
    localtime_r(&seconds, &local);
    size_t used = strftime(out, size, "%H:%M:%S", &local);
    snprintf(out + used, size - used, ".%06u", (unsigned)(time_ns % NS_PER_S / NS_PER_US));
}

/* Where the headers of a frame are; all 0 if it is not UDP. */
struct places {
    uint32_t addresses; /* source and destination behind each other */
    uint32_t udp;
    bool ip6;
};

static struct places find_udp(const uint8_t *data, uint32_t captured)
{
    uint32_t at = ETHER_BYTES;
    struct places none = {0, 0, false};
    if (captured < ETHER_BYTES + VLAN_BYTES) {
        return none;
    }
    if (data[12] == 0x81 && data[13] == 0) {
        at += VLAN_BYTES;
    }
    const uint8_t *type = data + at - 2;
    const uint8_t *ip = data + at;
    if (type[0] == 0x08 && type[1] == 0 && captured >= at + IPV4_BYTES + UDP_BYTES &&
        ip[0] == 0x45 && ip[9] == UDP) {
        return (struct places){at + 12, at + IPV4_BYTES, false};
    }
    if (type[0] == 0x86 && type[1] == 0xdd && captured >= at + IPV6_BYTES + UDP_BYTES &&
        ip[0] >> 4 == 6 && ip[6] == UDP) {
        return (struct places){at + 8, at + IPV6_BYTES, true};
    }
    return none;
}

static void endpoint_text(const uint8_t *address, bool ip6, const uint8_t *port, char *out,
                          size_t size)
{
    char text[INET6_ADDRSTRLEN] = "?";
    inet_ntop(ip6 ? AF_INET6 : AF_INET, address, text, sizeof(text));
    snprintf(out, size, ip6 ? "[%s]:%u" : "%s:%u", text, (unsigned)(port[0] << 8 | port[1]));
}

void verdict_line(const struct capture_frame *frame, const char *interface, char *out, size_t size)
{
    char time[32];
    char from[64] = "";
    char to[64] = "";
    char what[96] = NOT_WEFT;
    char verdict[160];
    const uint8_t *data = frame->data;
    struct places at = find_udp(data, frame->captured);
    bool udp = at.udp != 0;
    time_text(frame->time_ns, time, sizeof(time));
    if (udp) {
        endpoint_text(data + at.addresses, at.ip6, data + at.udp, from, sizeof(from));
        endpoint_text(data + at.addresses + (at.ip6 ? 16 : 4), at.ip6, data + at.udp + 2, to,
                      sizeof(to));
    }
    if (udp && frame->captured >= at.udp + UDP_BYTES + sizeof(struct weft_hdr)) {
        struct weft_hdr h;
        memcpy(&h, data + at.udp + UDP_BYTES, sizeof(h));
        if (h.ver_fmt >> 4 == WEFT_VERSION) {
            snprintf(what, sizeof(what), "%s conn=%016llx seq=%u offset=%u", weft_type_name(h.type),
                     (unsigned long long)h.conn_id, h.req_seq, h.offset);
        }
    }
    verdict_text(&frame->record, verdict, sizeof(verdict));
    snprintf(out, size, "%s %-3s %s %s%s%s %s len=%u: %s", time,
             verdict_goes_out(&frame->record) ? "out" : "in",
             verdict_of_worker(&frame->record) ? "worker" : interface, from, udp ? " > " : "", to,
             what, frame->record.len, verdict);
}
