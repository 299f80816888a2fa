/* SPDX-License-Identifier: Apache-2.0 */
/* test_tap.c - dataplane/tap with the reading end of controlplane/cli/capture.c: what is recorded,
 * full rings, readers that misbehave, and captures that come and go while an lcore runs. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/cli/capture.h"
#include "controlplane/cli/verdict.h"
#include "dataplane/route/stages.h"
#include "dataplane/tap/tap_hub.h"
#include "tests/unit/suite.h"

#define BURST   8u
#define SLOTS   64u
#define HEADERS (ROUTE_WEFT_OFFSET - ROUTE_START_IPV4)

static struct tap_hub *hub;
static struct capture *capture;
static struct capture_frame frame;
static struct route_frame frames[BURST];
static struct route_packet packets[BURST];

static void setup(void)
{
    ck_assert_int_eq(tap_hub_create(&hub, 2, "tokyo", "eth0"), 0);
    memset(frames, 0, sizeof(frames));
    memset(packets, 0, sizeof(packets));
    for (uint32_t i = 0; i < BURST; i++) {
        packets[i] = (struct route_packet){
            .frame = &frames[i],
            .start = ROUTE_START_IPV4,
            .len = 100 + i,
            .weft_len = (uint16_t)(58 + i),
        };
        packet_ether(&packets[i])->src[5] = (uint8_t)(i + 1);
    }
    capture = NULL;
}

static void teardown(void)
{
    capture_close(capture);
    tap_hub_destroy(hub);
}

static void begin(uint32_t snaplen)
{
    int fd = tap_hub_open(hub, snaplen, SLOTS);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(capture_map(&capture, fd), 0);
}

static void burst(uint32_t lcore, uint32_t count, uint64_t now_ns)
{
    struct tap *tap = tap_hub_lcore(hub, lcore);
    tap_in(tap, packets, count, now_ns);
    tap_out(tap, packets, count);
}

/* The next frame, which must be this one. */
static void expect(enum tap_point point, enum tap_verdict verdict, uint32_t len, uint8_t mark)
{
    ck_assert(capture_next(capture, &frame));
    ck_assert_uint_eq(frame.record.point, point);
    ck_assert_uint_eq(frame.record.verdict, verdict);
    ck_assert_uint_eq(frame.record.len, len);
    ck_assert_uint_eq(frame.captured, len);
    ck_assert_uint_eq(frame.data[11], mark);
}

START_TEST(nobody_captures)
{
    burst(0, BURST, 1);
    ck_assert_ptr_null(tap_hub_lcore(hub, 0)->current);
    begin(TAP_SNAPLEN_MAX);
    ck_assert(!capture_next(capture, &frame)); /* what was before is not in it */
    ck_assert_str_eq(capture_node(capture), "tokyo");
    ck_assert_str_eq(capture_interface(capture), "eth0");
}
END_TEST

/* Each as it came with its verdict, then as it left. */
START_TEST(verdicts)
{
    static struct route_core core;
    char text[256];
    struct tap *tap = tap_hub_lcore(hub, 0);
    begin(TAP_SNAPLEN_MAX);
    tap_in(tap, packets, 6, 5000);
    ck_assert(!capture_next(capture, &frame)); /* not before it is decided */
    route_drop(&core, &packets[0], ROUTE_DROP_bad_return);
    packets[1].action = ROUTE_SEND;
    packets[1].to = ROUTE_TO_NODE;
    packets[2].action = ROUTE_SEND;
    packets[2].to = ROUTE_TO_SENDER;
    packets[2].why = ROUTE_DROP_no_cookie + 1;
    packets[3].action = ROUTE_LET_GO; /* with no reason: the worker has it */
    packets[4].action = ROUTE_GONE;
    packets[4].frame = NULL; /* another lcore's: must not be looked at */
    packets[5].action = ROUTE_SEND;
    packets[5].to = ROUTE_TO_CLIENT;
    packets[6].action = ROUTE_LET_GO; /* from another lcore, delivered here */
    packet_ether(&packets[1])->src[5] = 91;
    packet_ether(&packets[2])->src[5] = 92;
    packets[2].len = 80;
    tap_out(tap, packets, 7);
    expect(TAP_NIC_IN, TAP_VERDICT_dropped, 100, 1);
    ck_assert_uint_eq(frame.record.why, ROUTE_DROP_bad_return + 1);
    ck_assert_uint_eq(frame.record.time_ns, 5000);
    verdict_text(&frame.record, text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, "dropped, bad_return: "));
    expect(TAP_NIC_IN, TAP_VERDICT_to_node, 101, 2); /* as it came, though changed since */
    expect(TAP_NIC_IN, TAP_VERDICT_answered, 102, 3);
    ck_assert_uint_eq(frame.record.why, ROUTE_DROP_no_cookie + 1);
    expect(TAP_NIC_IN, TAP_VERDICT_delivered, 103, 4);
    expect(TAP_NIC_IN, TAP_VERDICT_handed, 104, 5);
    expect(TAP_NIC_IN, TAP_VERDICT_to_client, 105, 6);
    expect(TAP_NIC_OUT, TAP_VERDICT_none, 101, 91);
    expect(TAP_NIC_OUT, TAP_VERDICT_none, 80, 92);
    expect(TAP_WORKER_OUT, TAP_VERDICT_none, 103, 4);
    expect(TAP_NIC_OUT, TAP_VERDICT_none, 105, 6);
    expect(TAP_WORKER_OUT, TAP_VERDICT_none, 106, 7);
    ck_assert(!capture_next(capture, &frame));
    ck_assert_uint_eq(capture_lost(capture), 0);
}
END_TEST

/* A worker's datagram lies behind headers that are not written yet. */
START_TEST(worker_frames_get_headers)
{
    static const uint8_t version_and_protocol[] = {0x45, 17};
    struct tap *tap = tap_hub_lcore(hub, 0);
    memset(&frames[2], 0xee, ROUTE_WEFT_OFFSET);
    frames[2].weft.common.type = WEFT_T_GRANT;
    packets[2].len = 0;
    begin(TAP_SNAPLEN_MAX);
    tap_in(tap, packets, 2, 1);
    tap_in_worker(tap, packets + 2, 1);
    for (uint32_t i = 0; i < 3; i++) {
        packets[i].action = ROUTE_LET_GO;
        packets[i].why = (uint8_t)(i + 1);
    }
    tap_out(tap, packets, 3);
    expect(TAP_NIC_IN, TAP_VERDICT_dropped, 100, 1);
    expect(TAP_NIC_IN, TAP_VERDICT_dropped, 101, 2);
    ck_assert(capture_next(capture, &frame));
    ck_assert_uint_eq(frame.record.point, TAP_WORKER_IN);
    ck_assert_uint_eq(frame.record.why, 3);
    ck_assert_uint_eq(frame.record.len, HEADERS + 60);
    ck_assert_uint_eq(frame.data[14], version_and_protocol[0]);
    ck_assert_uint_eq(frame.data[23], version_and_protocol[1]);
    ck_assert_uint_eq(frame.data[36] << 8 | frame.data[37], WEFT_PORT_DEFAULT);
    ck_assert_uint_eq(frame.data[HEADERS + 1], WEFT_T_GRANT);
    uint32_t sum = 0; /* RFC 1071: a header with its checksum adds up to all ones */
    for (uint32_t i = 14; i < 34; i += 2) {
        sum += (uint32_t)frame.data[i] << 8 | frame.data[i + 1];
    }
    ck_assert_uint_eq((sum & 0xffff) + (sum >> 16), 0xffff);
}
END_TEST

START_TEST(frames_are_cut)
{
    begin(20);
    burst(0, 2, 1);
    ck_assert(capture_next(capture, &frame));
    ck_assert_uint_eq(frame.captured, 20);
    ck_assert_uint_eq(frame.record.len, 100);
    packets[0].len = ROUTE_FRAME_MAX; /* the longest frame fits a slot whole */
    capture_close(capture);
    tap_hub_close(hub);
    burst(0, 0, 1);
    burst(1, 0, 1);
    begin(TAP_SNAPLEN_MAX);
    burst(0, 1, 1);
    ck_assert(capture_next(capture, &frame));
    ck_assert_uint_eq(frame.captured, ROUTE_FRAME_MAX);
}
END_TEST

/* What does not fit is counted, in both directions, and room once made is used again. */
START_TEST(full_ring)
{
    for (uint32_t i = 0; i < BURST; i++) {
        packets[i].action = ROUTE_SEND;
    }
    begin(64);
    for (uint32_t i = 0; i < SLOTS / (2 * BURST); i++) {
        burst(0, BURST, 1);
    }
    ck_assert_uint_eq(capture_lost(capture), 0);
    burst(0, BURST, 1);
    ck_assert_uint_eq(capture_lost(capture), 2 * BURST);
    ck_assert_uint_eq(tap_hub_lcore(hub, 0)->lost, 2 * BURST);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert(capture_next(capture, &frame));
    }
    burst(0, BURST, 2); /* three of those coming in, none going out */
    ck_assert_uint_eq(capture_lost(capture), 2 * BURST + 2 * BURST - 3);
    uint32_t left = 0;
    while (capture_next(capture, &frame)) {
        left++;
    }
    ck_assert_uint_eq(left, SLOTS);
    ck_assert_uint_eq(frame.record.time_ns, 2);
    burst(0, BURST, 3);
    ck_assert(capture_next(capture, &frame));
    ck_assert_uint_eq(frame.record.time_ns, 3);
}
END_TEST

/* Room made between the two calls must not shift verdicts. */
START_TEST(no_gap_in_a_burst)
{
    struct tap *tap = tap_hub_lcore(hub, 0);
    for (uint32_t i = 0; i < BURST; i++) {
        packets[i].action = ROUTE_LET_GO;
        packets[i].why = (uint8_t)(i + 1);
    }
    begin(64);
    for (uint32_t i = 0; i < SLOTS / BURST - 1; i++) {
        burst(0, BURST, 1);
    }
    burst(0, BURST - 2, 1);
    tap_in(tap, packets, 4, 2); /* two slots left */
    for (uint32_t i = 0; i < 10; i++) {
        ck_assert(capture_next(capture, &frame));
    }
    tap_in_worker(tap, packets + 4, 2);
    tap_out(tap, packets, 6);
    ck_assert_uint_eq(capture_lost(capture), 4);
    uint8_t last[2] = {0, 0};
    while (capture_next(capture, &frame)) {
        last[0] = last[1];
        last[1] = frame.record.why;
    }
    ck_assert(last[0] == 1 && last[1] == 2);
}
END_TEST

START_TEST(lcores_in_the_order_of_time)
{
    static const uint64_t times[] = {10, 20, 30, 40, 50, 60};
    begin(64);
    for (uint32_t i = 0; i < 6; i++) {
        packets[0].action = ROUTE_LET_GO;
        packets[0].why = ROUTE_DROP_not_ours + 1;
        burst((i / 2 + 1) % 2, 1, times[i]);
    }
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert(capture_next(capture, &frame));
        ck_assert_uint_eq(frame.record.time_ns, times[i]);
        ck_assert_uint_eq(frame.lcore, (i / 2 + 1) % 2);
    }
}
END_TEST

/* The reader may write anything into the memory; the lcore stays within its slots. */
START_TEST(hostile_reader)
{
    struct stat st;
    struct tap_shm *shm;
    int fd = tap_hub_open(hub, TAP_SNAPLEN_MAX, SLOTS);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(ftruncate(fd, 4096), -1); /* sealed */
    shm = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(shm, MAP_FAILED);
    srand(7);
    for (uint32_t i = 0; i < 2000; i++) {
        for (uint32_t k = 0; k < BURST; k++) {
            packets[k].action = rand() % 2 == 0 ? ROUTE_SEND : ROUTE_LET_GO;
        }
        burst(0, BURST, i);
        memset(shm, rand(), i % 2 == 0 ? sizeof(*shm) : (size_t)st.st_size);
        shm->rings[0].ring.tail = (uint32_t)rand() * 5u;
    }
    munmap(shm, (size_t)st.st_size);
    close(fd);
    tap_hub_close(hub);
    burst(0, 1, 1);
    burst(1, 1, 1);
    ck_assert_uint_eq(tap_hub_reap(hub), 0);
}
END_TEST

/* And the reader does not believe memory that is not a tap's. */
START_TEST(unsound_memory)
{
    struct tap_shm *shm;
    int fd = memfd_create("test", MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(fd, (off_t)tap_shm_bytes(1, SLOTS)), 0);
    ck_assert_int_eq(capture_map(&capture, fcntl(fd, F_DUPFD, 0)), -EPROTO); /* not sealed */
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    ck_assert_int_eq(capture_map(&capture, fcntl(fd, F_DUPFD, 0)), -EPROTO); /* no head */
    shm = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct tap_shm good = {.magic = TAP_MAGIC,
                           .version = TAP_VERSION,
                           .lcores = 1,
                           .slots = SLOTS,
                           .drop_count = ROUTE_DROP_COUNT};
    memcpy(shm, &good, 4096);
    ck_assert_int_eq(capture_map(&capture, fcntl(fd, F_DUPFD, 0)), 0);
    capture_close(capture);
    uint32_t *const numbers[] = {&shm->magic, &shm->version, &shm->lcores, &shm->slots,
                                 &shm->drop_count};
    for (uint32_t i = 0; i < 5; i++) {
        *numbers[i] += 1;
        ck_assert_int_eq(capture_map(&capture, fcntl(fd, F_DUPFD, 0)), -EPROTO);
        *numbers[i] -= 1;
    }
    capture = NULL;
    munmap(shm, 4096);
    close(fd);
}
END_TEST

START_TEST(one_at_a_time)
{
    begin(64);
    ck_assert_int_eq(tap_hub_open(hub, 64, SLOTS), -EBUSY);
    burst(0, 1, 1);
    tap_hub_close(hub);
    tap_hub_close(hub); /* nothing left to end */
    ck_assert_uint_eq(tap_hub_reap(hub), 1);
    burst(0, 0, 2);
    ck_assert_uint_eq(tap_hub_reap(hub), 1); /* the other lcore may still use it */
    burst(1, 0, 2);
    ck_assert_uint_eq(tap_hub_reap(hub), 0);
    ck_assert_int_eq(tap_hub_open(hub, 0, SLOTS), -EINVAL);
    ck_assert_int_eq(tap_hub_open(hub, TAP_SNAPLEN_MAX + 1, SLOTS), -EINVAL);
    ck_assert_int_eq(tap_hub_open(hub, 64, 0), -EINVAL);
    ck_assert_int_eq(tap_hub_open(hub, 64, TAP_SLOTS_MAX + 1), -EINVAL);
    /* Sleeping lcores let go of nothing: in the end no more can begin. */
    for (uint32_t i = 0; i < TAP_RETIRED_MAX; i++) {
        close(tap_hub_open(hub, 64, SLOTS));
        tap_hub_close(hub);
    }
    ck_assert_int_eq(tap_hub_open(hub, 64, SLOTS), -EBUSY);
    burst(0, 0, 3);
    burst(1, 0, 3);
    ck_assert_uint_eq(tap_hub_reap(hub), 0);
    struct tap_hub *none;
    ck_assert_int_eq(tap_hub_create(&none, TAP_LCORES_MAX + 1, "", ""), -EINVAL);
    tap_hub_destroy(none);
}
END_TEST

/* ---- captures come and go while an lcore runs ---- */

#define CAPTURES 300

static _Atomic int stop_lcore;

static void *lcore_main(void *arg)
{
    uint32_t lcore = *(const uint32_t *)arg;
    static _Thread_local struct route_frame mine;
    struct route_packet own[4];
    for (uint64_t now_ns = 1; !atomic_load(&stop_lcore); now_ns++) {
        for (uint32_t i = 0; i < 4; i++) {
            own[i] = (struct route_packet){
                .frame = &mine, .len = 60, .action = ROUTE_LET_GO, .why = (uint8_t)(1 + i)};
        }
        tap_in(tap_hub_lcore(hub, lcore), own, 4, now_ns);
        tap_out(tap_hub_lcore(hub, lcore), own, 4);
        if (now_ns % 64 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

/* In each capture the frames of an lcore come whole bursts at a time and in order. */
static void capture_check(void)
{
    uint64_t last_ns[2] = {0, 0};
    uint8_t next_why[2] = {1, 1};
    for (uint32_t seen = 0, tries = 0; seen < 40 && tries < 10000; tries++) {
        if (!capture_next(capture, &frame)) {
            sched_yield();
            continue;
        }
        uint32_t i = frame.lcore;
        ck_assert_uint_ge(frame.record.time_ns, last_ns[i]);
        ck_assert(frame.record.why == next_why[i] || frame.record.why == 1);
        next_why[i] = (uint8_t)(frame.record.why % 4 + 1);
        last_ns[i] = frame.record.time_ns;
        seen++;
    }
}

START_TEST(captures_come_and_go)
{
    pthread_t threads[2];
    uint32_t numbers[2] = {0, 1};
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, lcore_main, &numbers[i]), 0);
    }
    for (int i = 0; i < CAPTURES; i++) {
        int fd = tap_hub_open(hub, 64, SLOTS);
        if (fd == -EBUSY) {
            sched_yield();
            continue;
        }
        ck_assert_int_eq(capture_map(&capture, fd), 0);
        if (i % 3 != 0) {
            capture_check();
        }
        tap_hub_close(hub);
        capture_close(capture);
        capture = NULL;
    }
    while (tap_hub_reap(hub) > 0) {
        sched_yield();
    }
    atomic_store(&stop_lcore, 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tap");
    TCase *tc = tcase_create("tap");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, nobody_captures);
    tcase_add_test(tc, verdicts);
    tcase_add_test(tc, worker_frames_get_headers);
    tcase_add_test(tc, frames_are_cut);
    tcase_add_test(tc, full_ring);
    tcase_add_test(tc, no_gap_in_a_burst);
    tcase_add_test(tc, lcores_in_the_order_of_time);
    tcase_add_test(tc, hostile_reader);
    tcase_add_test(tc, unsound_memory);
    tcase_add_test(tc, one_at_a_time);
    tcase_add_test(tc, captures_come_and_go);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
