/* SPDX-License-Identifier: Apache-2.0 */
/* test_matrix.c - words, lines and files: what they set, what they leave alone, what they refuse.
 */
#include "bench/impair/matrix.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct impair_matrix m;
static char why[512];
static char folder[] = "/tmp/weft-impair-XXXXXX";

static void setup(void)
{
    memset(&m, 0, sizeof(m));
    ck_assert_int_eq(impair_matrix_port(&m, "tokyo"), 0);
    ck_assert_int_eq(impair_matrix_port(&m, "paris"), 0);
    ck_assert_int_eq(impair_matrix_port(&m, "client"), 0);
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static void teardown(void)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/rules", folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/rtt", folder);
    unlink(path);
    rmdir(folder);
}

static int line(const char *text)
{
    char copy[8192];
    ck_assert_uint_lt(strlen(text), sizeof(copy));
    strcpy(copy, text);
    why[0] = '\0';
    return impair_matrix_line(&m, copy, folder, why, sizeof(why));
}

static int load(void)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/rules", folder);
    return impair_matrix_load(&m, path, why, sizeof(why));
}

START_TEST(names)
{
    ck_assert_int_eq(impair_matrix_port(&m, "tokyo"), -17);
    ck_assert_int_lt(impair_matrix_port(&m, ""), 0);
    ck_assert_int_lt(impair_matrix_port(&m, "a b"), 0);
    ck_assert_int_lt(impair_matrix_port(&m, "a,b"), 0);
    ck_assert_int_lt(impair_matrix_port(&m, "\"a\""), 0);
    ck_assert_int_lt(impair_matrix_port(&m, "thirty-two-characters-are-too-many"), 0);
    char name[16];
    for (uint32_t i = m.ports; i < IMPAIR_PORTS_MAX; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        ck_assert_int_eq(impair_matrix_port(&m, name), 0);
    }
    ck_assert_int_eq(impair_matrix_port(&m, "one-more"), -28);
    ck_assert_int_eq(line("* -> * delay=1ms"), 0); /* with all 64 */
    ck_assert_uint_eq(m.rules[63][63].delay_ns, NS_PER_MS);
}
END_TEST

START_TEST(words)
{
    ck_assert_int_eq(line("default delay=120ms jitter=5ms/normal loss=10% burst=1%/25%/50% "
                          "duplicate=2% reorder=5%/20ms order=keep flip=0.01%/repair "
                          "rate=10mbit/64KiB/32KiB mtu=1280/tell cut=yes"),
                     0);
    const struct impair_rule *r = &m.rules[0][1];
    ck_assert_uint_eq(r->delay_ns, 120 * NS_PER_MS);
    ck_assert_uint_eq(r->jitter_ns, 5 * NS_PER_MS);
    ck_assert_int_eq(r->jitter, IMPAIR_JITTER_NORMAL);
    ck_assert_double_eq_tol(r->loss, 0.1, 1e-12);
    ck_assert_double_eq_tol(r->burst_begin, 0.01, 1e-12);
    ck_assert_double_eq_tol(r->burst_end, 0.25, 1e-12);
    ck_assert_double_eq_tol(r->burst_loss, 0.5, 1e-12);
    ck_assert_double_eq_tol(r->duplicate, 0.02, 1e-12);
    ck_assert_double_eq_tol(r->reorder, 0.05, 1e-12);
    ck_assert_uint_eq(r->reorder_ns, 20 * NS_PER_MS);
    ck_assert(r->keep_order && r->flip_repair && r->mtu_tell && r->cut);
    ck_assert_double_eq_tol(r->flip, 0.0001, 1e-12);
    ck_assert_uint_eq(r->rate_bits, 10000000);
    ck_assert_uint_eq(r->queue_bytes, 65536);
    ck_assert_uint_eq(r->ecn_bytes, 32768);
    ck_assert_uint_eq(r->mtu, 1280);
    ck_assert_int_eq(line("default delay=0 jitter=0 loss=0 burst=0 duplicate=0 reorder=0 "
                          "order=free flip=0 rate=0 mtu=0 cut=no"),
                     0);
    ck_assert(r->delay_ns == 0 && r->jitter_ns == 0 && r->loss == 0 && r->burst_begin == 0 &&
              r->duplicate == 0 && r->reorder == 0 && !r->keep_order && r->flip == 0 &&
              !r->flip_repair && r->rate_bits == 0 && r->mtu == 0 && !r->mtu_tell && !r->cut);
}
END_TEST

START_TEST(refused_words)
{
    static const char *const bad[] = {
        "delay",
        "delay=",
        "delay=5",
        "delay=-5ms",
        "delay=5ms/6ms",
        "delay=2h",
        "delay=9999s",
        "delay=nanms",
        "delay=infs",
        "jitter=1ms/odd",
        "jitter=1ms/normal/x",
        "loss=10",
        "loss=101%",
        "loss=-1%",
        "loss=1%/2%",
        "burst=1%",
        "burst=1%/2%/3%/4%",
        "reorder=1%/5",
        "order=yes",
        "flip=1%/fix",
        "rate=5",
        "rate=0.5bit",
        "rate=1mbit/x",
        "mtu=67",
        "mtu=1280/x",
        "cut=maybe",
        "cut",
        "colour=blue",
        "=5ms",
        "delay==5ms",
        "loss=1e999%",
        "delay=0x10ms/",
    };
    struct impair_rule zero = {0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[128];
        snprintf(text, sizeof(text), "default loss=5%% %s", bad[i]);
        ck_assert_msg(line(text) < 0, "taken: %s", bad[i]);
        ck_assert_str_ne(why, "");
        ck_assert_msg(memcmp(&m.rules[0][1], &zero, sizeof(zero)) == 0, "half taken: %s", bad[i]);
    }
}
END_TEST

START_TEST(lines_reach_their_pairs)
{
    ck_assert_int_eq(line("default delay=1ms loss=1%"), 0);
    ck_assert_int_eq(line("tokyo -> paris,client delay=5ms # the long way"), 0);
    ck_assert_int_eq(line("  paris\t<->  client   cut=yes\r\n"), 0);
    ck_assert_int_eq(line("* -> tokyo duplicate=1%"), 0);
    ck_assert_int_eq(line("   # nothing"), 0);
    ck_assert_int_eq(line(""), 0);
    ck_assert_uint_eq(m.rules[0][1].delay_ns, 5 * NS_PER_MS);
    ck_assert_uint_eq(m.rules[0][2].delay_ns, 5 * NS_PER_MS);
    ck_assert_uint_eq(m.rules[1][0].delay_ns, NS_PER_MS);
    ck_assert_double_eq_tol(m.rules[0][1].loss, 0.01, 1e-12); /* what is not named stays */
    ck_assert(m.rules[1][2].cut && m.rules[2][1].cut && !m.rules[0][1].cut);
    ck_assert(m.rules[1][0].duplicate > 0 && m.rules[2][0].duplicate > 0);
    ck_assert(m.rules[0][1].duplicate == 0);
    ck_assert_int_eq(line("seed 18446744073709551615"), 0);
    ck_assert_uint_eq(m.seed, UINT64_MAX);
}
END_TEST

START_TEST(refused_lines)
{
    static const char *const bad[] = {
        "tokyo",
        "tokyo -> berlin loss=1%",
        "tokyo -> paris",
        "tokyo => paris loss=1%",
        "tokyo, -> paris loss=1%",
        "default",
        "seed",
        "seed -1",
        "seed 1 2",
        "seed x",
        "latency",
        "latency none",
        "loss=1%",
        "tokyo ->",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(line(bad[i]) < 0, "taken: %s", bad[i]);
        ck_assert_str_ne(why, "");
    }
    char many[2048] = "default";
    for (int i = 0; i < 200; i++) {
        strcat(many, " cut=no");
    }
    ck_assert_int_lt(line(many), 0);
}
END_TEST

START_TEST(latency_is_half_a_round_trip)
{
    write_file("rtt", "0,10,20,30\n12,0,40,50\n22, 42,0,60\n32;52\t62 0\n");
    ck_assert_int_eq(line("latency rtt"), 0);
    ck_assert_uint_eq(m.rules[0][1].delay_ns, 5 * NS_PER_MS);
    ck_assert_uint_eq(m.rules[1][0].delay_ns, 6 * NS_PER_MS);
    ck_assert_uint_eq(m.rules[2][1].delay_ns, 21 * NS_PER_MS);
    ck_assert_int_eq(line("latency rtt tokyo=3 client=0"), 0);
    ck_assert_uint_eq(m.rules[0][1].delay_ns, 26 * NS_PER_MS);
    ck_assert_uint_eq(m.rules[0][2].delay_ns, 16 * NS_PER_MS);
    ck_assert_uint_eq(m.rules[2][0].delay_ns, 15 * NS_PER_MS);
    ck_assert_int_lt(line("latency rtt tokyo=4"), 0);
    ck_assert_int_lt(line("latency rtt berlin=1"), 0);
    ck_assert_int_lt(line("latency rtt tokyo="), 0);
    ck_assert_int_lt(line("latency rtt tokyo"), 0);
    write_file("rtt", "0 1 2\n1 0\n2 3 0\n"); /* a short row */
    ck_assert_int_lt(line("latency rtt"), 0);
    write_file("rtt", "0 1 2\n1 0 x\n2 3 0\n");
    ck_assert_int_lt(line("latency rtt"), 0);
    write_file("rtt", "0 1 nan\n1 0 1\n2 -3 0\n");
    ck_assert_int_lt(line("latency rtt"), 0);
    write_file("rtt", "");
    ck_assert_int_lt(line("latency rtt"), 0);
}
END_TEST

START_TEST(files_are_all_or_nothing)
{
    write_file("rtt", "0 10 20\n10 0 40\n20 40 0\n");
    write_file("rules", "# links\nseed 9\nlatency rtt\ntokyo <-> paris loss=1%\n");
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(m.seed, 9);
    ck_assert_uint_eq(m.rules[0][1].delay_ns, 5 * NS_PER_MS);
    write_file("rules", "default cut=yes\ndefault loss=200%\n");
    ck_assert_int_lt(load(), 0);
    ck_assert_ptr_nonnull(strstr(why, "rules:2: loss=200%"));
    ck_assert(!m.rules[0][1].cut);
    write_file("rules", "default cut=yes\n");
    ck_assert_int_eq(load(), 0);
    ck_assert(m.rules[0][1].cut);
    ck_assert_uint_eq(m.rules[0][1].delay_ns, 0); /* a file starts from perfect links */
    ck_assert_int_lt(impair_matrix_load(&m, folder, why, sizeof(why)), 0);
    ck_assert_int_lt(impair_matrix_load(&m, "/none", why, sizeof(why)), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("impair_matrix");
    TCase *tc = tcase_create("matrix");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, names);
    tcase_add_test(tc, words);
    tcase_add_test(tc, refused_words);
    tcase_add_test(tc, lines_reach_their_pairs);
    tcase_add_test(tc, refused_lines);
    tcase_add_test(tc, latency_is_half_a_round_trip);
    tcase_add_test(tc, files_are_all_or_nothing);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
