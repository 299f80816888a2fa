/* SPDX-License-Identifier: Apache-2.0 */
/* schemas/base/log.h: an event is one line, whatever the texts in it are. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "schemas/base/log.h"
#include "tests/unit/suite.h"

static char said[8192];

/* What one event of that text writes to stderr. */
static size_t say(const char *text)
{
    int ends[2];
    const int kept = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_ge(dup2(ends[1], STDERR_FILENO), 0);
    LOG_ERROR("name=%s", text);
    ck_assert_int_ge(dup2(kept, STDERR_FILENO), 0);
    close(ends[1]);
    close(kept);
    const ssize_t got = read(ends[0], said, sizeof(said) - 1);
    close(ends[0]);
    ck_assert_int_gt(got, 0);
    said[got] = '\0';
    return (size_t)got;
}

START_TEST(texts_make_no_lines)
{
    size_t len = say("a\nb\r\x1b[2Jc\x7f\t\xc3\xbc");
    ck_assert_ptr_eq(strchr(said, '\n'), said + len - 1);
    ck_assert_ptr_nonnull(strstr(said, " error name=a?b??[2Jc??\xc3\xbc\n"));
}
END_TEST

START_TEST(long_texts_are_cut)
{
    char text[6000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    size_t len = say(text);
    ck_assert_uint_lt(len, sizeof(text));
    ck_assert_ptr_eq(strchr(said, '\n'), said + len - 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("schemas/log");
    TCase *t = tcase_create("log");
    tcase_add_test(t, texts_make_no_lines);
    tcase_add_test(t, long_texts_are_cut);
    suite_add_tcase(s, t);
    return suite_main(s);
}
