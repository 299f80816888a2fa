/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_telemetry.c - dataplane/nic/telemetry over DPDK's own socket, asked as dpdk-telemetry.py
 * does; and that the names of metrics.def are the packet path's. EAL starts once per process and
 * does not survive fork: CK_FORK=no. Skipped (77) where a network namespace may not be made.
 */
#include <check.h>
#include <glob.h>
#include <jansson.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dataplane/nic/nic.h"
#include "dataplane/nic/telemetry.h"
#include "dataplane/route/stages.h"
#include "schemas/metrics.def"
#include "tests/unit/suite.h"

#define SKIPPED 77

static char folder[] = "/tmp/weft-telemetry-XXXXXX";
static int fd = -1;

/* Each counter of the table is a field of the packet path, and none is left out. */
#define FIELD_BYTES_(name, kind, unit, text) +sizeof(((struct route_counters *)NULL)->name)
_Static_assert(0 WEFT_METRICS_ROUTE(FIELD_BYTES_) == offsetof(struct route_counters, drops),
               "metrics.def names all counters");

static void counters_tell(telemetry_emit emit, void *out, void *user)
{
    uint64_t value = *(const uint64_t *)user;
#define EMIT_(name, kind, unit, text) emit(out, #name, value++);
    WEFT_METRICS_ROUTE(EMIT_)
#undef EMIT_
}

static void drops_tell(telemetry_emit emit, void *out, void *user)
{
    (void)user;
    for (unsigned i = 0; i < ROUTE_DROP_COUNT; i++) {
        emit(out, route_drop_name(i), INT64_MAX - i);
    }
}

static void lcore_tell(uint32_t lcore, telemetry_emit emit, void *out, void *user)
{
    (void)user;
    emit(out, "received", lcore + 40);
}

static void stages_tell(telemetry_stage_emit emit, void *out, void *user)
{
    struct telemetry_stage stage = {"rx", 10, 20, 30};
    (void)user;
    emit(out, &stage);
}

static uint64_t first = 100;
static const struct telemetry_hooks hooks = {
    .lcores = 2,
    .counters = counters_tell,
    .drops = drops_tell,
    .lcore = lcore_tell,
    .stages = stages_tell,
    .user = &first,
};

static void client_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char pattern[128];
    char greeting[1024];
    glob_t found;
    snprintf(pattern, sizeof(pattern), "%s/dpdk/*/dpdk_telemetry.v2", folder);
    ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", found.gl_pathv[0]);
    globfree(&found);
    fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_gt(recv(fd, greeting, sizeof(greeting), 0), 0);
}

static void client_close(void)
{
    close(fd);
}

/* The value that the command answers with, borrowed from `*whole`. */
static json_t *ask(const char *command, json_t **whole)
{
    static char text[65536];
    char key[64];
    ck_assert_int_eq(send(fd, command, strlen(command), 0), (ssize_t)strlen(command));
    ssize_t got = recv(fd, text, sizeof(text), 0);
    ck_assert_int_gt(got, 0);
    *whole = json_loadb(text, (size_t)got, 0, NULL);
    ck_assert_msg(*whole != NULL, "%.*s", (int)got, text);
    snprintf(key, sizeof(key), "%.*s", (int)strcspn(command, ","), command);
    return json_object_get(*whole, key);
}

static json_int_t figure(const char *command, const char *name)
{
    json_t *whole;
    json_t *value = json_object_get(ask(command, &whole), name);
    ck_assert_msg(json_is_integer(value), "%s has no %s", command, name);
    json_int_t number = json_integer_value(value);
    json_decref(whole);
    return number;
}

static void expect_nothing(const char *command)
{
    json_t *whole;
    json_t *value = ask(command, &whole);
    ck_assert_msg(json_object_size(value) == 0 && json_array_size(value) == 0, "%s", command);
    json_decref(whole);
}

START_TEST(figures)
{
    json_t *whole;
    ck_assert_int_eq(telemetry_start(&hooks), 0);
    ck_assert_int_eq(telemetry_start(&hooks), 0);
    ck_assert_int_eq(figure("/weft/counters", "received"), 100);
    ck_assert_int_eq(figure("/weft/counters", "chosen"), 102);
    first = 200; /* asked anew each time */
    ck_assert_int_eq(figure("/weft/counters", "received"), 200);
    ck_assert_int_eq(figure("/weft/stages", "rx/p99_ns"), 20);
    ck_assert_int_eq(figure("/weft/stages", "rx/samples"), 30);
    ck_assert_int_eq(figure("/weft/lcore,1", "received"), 41);
    ck_assert_uint_eq(json_object_size(ask("/weft/drops", &whole)), ROUTE_DROP_COUNT);
    json_decref(whole);
    ck_assert_uint_eq(json_array_size(ask("/weft/lcores", &whole)), 2);
    json_decref(whole);
    static const char *const wrong[] = {"/weft/lcore,2", "/weft/lcore", "/weft/lcore,-1",
                                        "/weft/lcore,x", "/weft/lcore,1x"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        expect_nothing(wrong[i]);
    }
}
END_TEST

START_TEST(members)
{
    struct telemetry_member rows[2] = {
        {.name = "tokyo", .id = 1, .tier = 2, .alive = true, .rtt_us = 0, .room = 9},
        {.name = "new-york.1", .id = 3, .tier = 1, .rtt_us = 410, .queue_us = 77},
    };
    json_t *whole;
    telemetry_members(rows, 2);
    memset(rows, 'x', sizeof(rows)); /* copied */
    json_t *names = ask("/weft/members", &whole);
    ck_assert_uint_eq(json_array_size(names), 2);
    ck_assert_str_eq(json_string_value(json_array_get(names, 1)), "new-york.1");
    json_decref(whole);
    ck_assert_int_eq(figure("/weft/member,new-york.1", "rtt_us"), 410);
    ck_assert_int_eq(figure("/weft/member,tokyo", "alive"), 1);
    expect_nothing("/weft/member,paris");
    expect_nothing("/weft/member");
    telemetry_members(NULL, 0);
    expect_nothing("/weft/members");
}
END_TEST

START_TEST(nothing_after_the_stop)
{
    telemetry_stop();
    telemetry_stop();
    static const char *const commands[] = {"/weft/counters", "/weft/drops",   "/weft/stages",
                                           "/weft/lcores",   "/weft/lcore,0", "/weft/members"};
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        expect_nothing(commands[i]);
    }
    ck_assert_int_eq(telemetry_start(&hooks), 0);
    ck_assert_int_eq(figure("/weft/counters", "received"), 200);
    telemetry_stop();
}
END_TEST

int main(void)
{
    struct nic *nic;
    struct nic_options options = {
        .name = "telemetry",
        .runtime_dir = folder,
        .interface = "w0",
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = 64,
        .lcores = 1,
    };
    if (unshare(CLONE_NEWNET) != 0 ||
        system("ip link add w0 type veth peer name w1 && ip link set w0 up") != 0) {
        fputs("skipped: may not make a network namespace (needs root and iproute2)\n", stderr);
        return SKIPPED;
    }
    if (mkdtemp(folder) == NULL || nic_create(&nic, &options) != 0) {
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("telemetry");
    TCase *tc = tcase_create("telemetry");
    tcase_add_checked_fixture(tc, client_open, client_close);
    tcase_add_test(tc, figures);
    tcase_add_test(tc, members);
    tcase_add_test(tc, nothing_after_the_stop);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    nic_destroy(nic);
    if (rmdir(folder) != 0) { /* the port leaves nothing behind */
        perror(folder);
        status++;
    }
    return status;
}
