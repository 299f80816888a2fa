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

#define IP_AT    14u
#define UDP_AT   34u
#define WEFT_AT  42u
#define NOT_WEFT "not Weft"

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

static void endpoint_text(const uint8_t *address, const uint8_t *port, char *out, size_t size)
{
    char text[INET_ADDRSTRLEN] = "?";
    inet_ntop(AF_INET, address, text, sizeof(text));
    snprintf(out, size, "%s:%u", text, (unsigned)(port[0] << 8 | port[1]));
}

void verdict_line(const struct capture_frame *frame, const char *interface, char *out, size_t size)
{
    char time[32];
    char from[32] = "";
    char to[32] = "";
    char what[96] = NOT_WEFT;
    char verdict[160];
    const uint8_t *data = frame->data;
    bool udp = frame->captured >= WEFT_AT && data[12] == 8 && data[13] == 0 &&
               data[IP_AT] == 0x45 && data[IP_AT + 9] == 17;
    time_text(frame->time_ns, time, sizeof(time));
    if (udp) {
        endpoint_text(data + IP_AT + 12, data + UDP_AT, from, sizeof(from));
        endpoint_text(data + IP_AT + 16, data + UDP_AT + 2, to, sizeof(to));
    }
    if (udp && frame->captured >= WEFT_AT + sizeof(struct weft_hdr)) {
        struct weft_hdr h;
        memcpy(&h, data + WEFT_AT, sizeof(h));
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
