/* SPDX-License-Identifier: Apache-2.0 */
/* URLs as people write them and as somebody who wants round the rule would; the allow list. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/where.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

static struct where parsed(const char *url)
{
    struct where where;
    char why[128] = "";
    ck_assert_msg(where_parse(&where, url, why, sizeof(why)) == 0, "%s: %s", url, why);
    return where;
}

START_TEST(urls)
{
    static const struct {
        const char *url, *base, *host;
        bool tls, local;
    } cases[] = {
        {"http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "127.0.0.1", false, true},
        {"http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1", "127.0.0.1", false, true},
        {"http://127.0.0.1:8000//", "http://127.0.0.1:8000/v1", "127.0.0.1", false, true},
        {"http://localhost:1/v1/", "http://localhost:1/v1", "localhost", false, true},
        {"https://api.openai.com/v1", "https://api.openai.com/v1", "api.openai.com", true, false},
        {"https://host/a/b", "https://host/a/b", "host", true, false},
        {"http://[::1]:8000", "http://[::1]:8000/v1", "::1", false, true},
        {"http://[2001:db8::1]", "http://[2001:db8::1]/v1", "2001:db8::1", false, false},
        {"http://[fd00::5]", "http://[fd00::5]/v1", "fd00::5", false, true},
        /* Other spellings of an address are that address. */
        {"http://2130706433:8000", "http://127.0.0.1:8000/v1", "127.0.0.1", false, true},
        {"http://0x08080808", "http://8.8.8.8/v1", "8.8.8.8", false, false},
        /* Names that only look local. */
        {"http://127.0.0.1.example.com", "http://127.0.0.1.example.com/v1", "127.0.0.1.example.com",
         false, false},
        {"http://localhost.example.com", "http://localhost.example.com/v1", "localhost.example.com",
         false, false},
        {"http://[::ffff:8.8.8.8]", NULL, NULL, false, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct where where = parsed(cases[i].url);
        if (cases[i].base)
            ck_assert_str_eq(where.base, cases[i].base);
        if (cases[i].host)
            ck_assert_str_eq(where.host, cases[i].host);
        ck_assert_int_eq(where.tls, cases[i].tls);
        ck_assert_msg(where.local == cases[i].local, "%s", cases[i].url);
    }
}
END_TEST

/* What is taken can be taken again, also where libcurl's way to write it is longer. */
START_TEST(long_urls)
{
    for (size_t len = WHERE_URL_MAX - 16; len < WHERE_URL_MAX + 2; len++) {
        char url[WHERE_URL_MAX + 8] = "https:/host/"; /* with one slash more in the end */
        char why[128];
        struct where where;
        memset(url + strlen(url), 'o', len - strlen(url));
        const int rc = where_parse(&where, url, why, sizeof(why));
        ck_assert_int_eq(rc, len + 1 < WHERE_URL_MAX ? 0 : -EINVAL);
        if (rc == 0)
            ck_assert_str_eq(parsed(where.base).base, where.base);
    }
}
END_TEST

START_TEST(no_urls)
{
    static const char *const cases[] = {
        "",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@127.0.0.1",
        "http://key@127.0.0.1",
        "http://127.0.0.1/v1?key=1",
        "http://127.0.0.1/v1#x",
        "http://127.0.0.1:99999",
        "http://a b",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct where where;
        char why[128] = "";
        ck_assert_msg(where_parse(&where, cases[i], why, sizeof(why)) != 0, "%s", cases[i]);
        ck_assert_msg(why[0] && !strstr(why, "secret"), "%s: %s", cases[i], why);
    }
    char long_url[2 * WHERE_URL_MAX];
    struct where where;
    char why[128];
    memset(long_url, 'a', sizeof(long_url));
    memcpy(long_url, "http://", 7);
    long_url[sizeof(long_url) - 1] = 0;
    for (size_t len = WHERE_URL_MAX - 40; len < sizeof(long_url); len++) {
        char *url = strndup(long_url, len);
        (void)where_parse(&where, url, why, sizeof(why)); /* the sanitizers look */
        free(url);
    }
}
END_TEST

START_TEST(addresses)
{
    static const struct {
        const char *text;
        bool local;
    } cases[] = {
        {"127.0.0.1", true},
        {"127.255.255.255", true},
        {"10.0.0.1", true},
        {"172.16.0.1", true},
        {"172.31.255.255", true},
        {"172.32.0.1", false},
        {"172.15.255.255", false},
        {"192.168.1.1", true},
        {"192.169.0.1", false},
        {"169.254.1.1", true},
        {"100.64.0.1", true},
        {"100.127.255.255", true},
        {"100.128.0.1", false},
        {"100.63.255.255", false},
        {"8.8.8.8", false},
        {"203.0.113.9", false},
        {"0.0.0.0", false},
        {"255.255.255.255", false},
        {"11.0.0.1", false},
        {"::1", true},
        {"::", false},
        {"fe80::1", true},
        {"febf::1", true},
        {"fec0::1", false},
        {"fc00::1", true},
        {"fdff::1", true},
        {"fe00::1", false},
        {"2001:db8::1", false},
        {"2606:4700::1111", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct in6_addr address;
        ck_assert(addr_parse(cases[i].text, &address));
        ck_assert_msg(where_address_is_local(&address) == cases[i].local, "%s", cases[i].text);
    }
    struct in6_addr mapped; /* as a socket would tell it */
    ck_assert_int_eq(inet_pton(AF_INET6, "::ffff:8.8.8.8", &mapped), 1);
    ck_assert(!where_address_is_local(&mapped));
}
END_TEST

START_TEST(allow_lists)
{
    const struct where here = parsed("http://127.0.0.1"), cloud = parsed("https://api.example.com");
    ck_assert(where_allowed(NULL, &cloud, NULL));
    ck_assert(where_allowed("", &cloud, "x"));
    ck_assert(where_allowed(" , ", &cloud, "x"));
    ck_assert(where_allowed("local", &here, NULL));
    ck_assert(!where_allowed("local", &cloud, NULL));
    ck_assert(!where_allowed("local", &cloud, "cloud"));
    ck_assert(where_allowed("LOCAL", &here, NULL));
    ck_assert(where_allowed("local, cloud", &cloud, "cloud"));
    ck_assert(!where_allowed("cloud", &here, NULL));
    ck_assert(!where_allowed("cloudy", &cloud, "cloud"));
    ck_assert(!where_allowed("clo", &cloud, "cloud"));
    ck_assert(!where_allowed("localhost", &here, NULL));
    ck_assert(!where_allowed("local", &cloud, "local")); /* a name cannot pretend */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_where");
    TCase *tests = tcase_create("where");
    tcase_add_test(tests, urls);
    tcase_add_test(tests, long_urls);
    tcase_add_test(tests, no_urls);
    tcase_add_test(tests, addresses);
    tcase_add_test(tests, allow_lists);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
