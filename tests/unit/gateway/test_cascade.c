/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of dataplane/gateway/cascade.h: which of two answers is taken, and when. */
#include <check.h>

#include "dataplane/gateway/cascade.h"
#include "tests/unit/suite.h"

static struct cascade open_one(bool whole)
{
    return (struct cascade){.whole = whole, .taken = CASCADE_OPEN};
}

START_TEST(test_better_in_time)
{
    struct cascade c = open_one(false);
    ck_assert_int_eq(cascade_settle(&c), CASCADE_OPEN);
    c.answers[CASCADE_DRAFT].begun = c.answers[CASCADE_DRAFT].done = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_OPEN);
    c.answers[CASCADE_BETTER].begun = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_BETTER);
    c.answers[CASCADE_BETTER].failed = true; /* behind its beginning: it is told as it is */
    ck_assert_int_eq(cascade_settle(&c), CASCADE_BETTER);
}
END_TEST

START_TEST(test_whole_answers)
{
    struct cascade c = open_one(true);
    c.answers[CASCADE_BETTER].begun = c.answers[CASCADE_DRAFT].begun = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_OPEN);
    c.answers[CASCADE_DRAFT].done = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_OPEN);
    struct cascade late = c;
    c.answers[CASCADE_BETTER].done = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_BETTER);
    late.answers[CASCADE_BETTER].failed = late.answers[CASCADE_BETTER].done = true;
    ck_assert_int_eq(cascade_settle(&late), CASCADE_DRAFT);
}
END_TEST

START_TEST(test_failures)
{
    struct cascade c = open_one(false);
    c.answers[CASCADE_BETTER].failed = c.answers[CASCADE_BETTER].done = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_DRAFT); /* which may still begin */
    c = open_one(true);
    c.answers[CASCADE_DRAFT].failed = c.answers[CASCADE_DRAFT].done = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_BETTER);
    c = open_one(false); /* its error is the answer */
    c.answers[CASCADE_DRAFT].failed = c.answers[CASCADE_BETTER].failed = true;
    ck_assert_int_eq(cascade_settle(&c), CASCADE_BETTER);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway/cascade");
    TCase *tc = tcase_create("cascade");
    tcase_add_test(tc, test_better_in_time);
    tcase_add_test(tc, test_whole_answers);
    tcase_add_test(tc, test_failures);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
