/* SPDX-License-Identifier: Apache-2.0 */
/* test_serve.c - controlplane/cli/serve.h: when a program is started again, and that the written
 * configuration is one that a node takes. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/cli/serve.h"
#include "schemas/config.h"
#include "tests/unit/suite.h"

#define S UINT64_C(1000000000)

START_TEST(longer_each_time)
{
    struct keeper k;
    uint64_t now = 100 * S;
    keeper_init(&k, now);
    ck_assert(keeper_due(&k, now));
    keeper_started(&k, now);
    ck_assert(!keeper_due(&k, now));
    now += 5 * S; /* long enough to be worth another try, for ever */
    ck_assert(keeper_ended(&k, false, now));
    uint64_t pause = KEEPER_FIRST_NS;
    for (int i = 0; i < 40; i++) {
        ck_assert(!keeper_due(&k, now + pause - 1));
        ck_assert(keeper_due(&k, now + pause));
        now += pause;
        keeper_started(&k, now);
        now += 1;
        ck_assert(keeper_ended(&k, false, now));
        pause = 2 * pause < KEEPER_MOST_NS ? 2 * pause : KEEPER_MOST_NS;
    }
    ck_assert_uint_eq(pause, KEEPER_MOST_NS);
    /* It ran well: as at first. */
    keeper_started(&k, now);
    now += KEEPER_WELL_NS;
    ck_assert(keeper_ended(&k, false, now));
    ck_assert(keeper_due(&k, now + KEEPER_FIRST_NS));
}
END_TEST

START_TEST(without_hope)
{
    struct keeper k;
    uint64_t now = S;
    keeper_init(&k, now);
    for (uint32_t i = 0; i < KEEPER_FAILS; i++) {
        keeper_started(&k, now);
        now += KEEPER_SOUND_NS - 1;
        ck_assert_int_eq(keeper_ended(&k, false, now), i + 1 < KEEPER_FAILS);
    }
    /* What does not understand its command line never will. */
    keeper_init(&k, now);
    keeper_started(&k, now);
    ck_assert(!keeper_ended(&k, true, now + 100 * S));
}
END_TEST

static void complain(const char *path, unsigned line, const char *text, void *user)
{
    (void)user;
    printf("%s:%u: %s\n", path, line, text);
}

START_TEST(a_node_takes_it)
{
    char path[] = "/tmp/weft-test-serve-XXXXXX";
    char text[2048];
    struct config *config = NULL;
    const struct serve_node node = {.folder = "/run/x",
                                    .data_port = 7402,
                                    .latitude_deg = -33.5,
                                    .longitude_deg = 151.25,
                                    .tier = 3};
    size_t len = serve_config_write(&node, text, sizeof(text));
    ck_assert_uint_ne(len, 0);
    int fd = mkstemp(path);
    ck_assert(fd >= 0 && write(fd, text, len) == (ssize_t)len && close(fd) == 0);
    int rc = config_load(&config, path, complain, NULL);
    unlink(path);
    ck_assert_int_eq(rc, 0);
    ck_assert_str_eq(config->sockets.port, "/run/x/port.sock");
    ck_assert_str_eq(config->sockets.admin, "/run/x/admin.sock");
    ck_assert_uint_eq(config->data_port, 7402);
    const struct config_member *self = &config->members[config->self];
    ck_assert(self->latitude_deg == -33.5 && self->longitude_deg == 151.25);
    ck_assert_uint_eq(self->tier, 3);
    config_destroy(config);
    ck_assert_uint_eq(serve_config_write(&node, text, 100), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serve");
    TCase *tc = tcase_create("serve");
    tcase_add_test(tc, longer_each_time);
    tcase_add_test(tc, without_hope);
    tcase_add_test(tc, a_node_takes_it);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
