/* SPDX-License-Identifier: Apache-2.0 */
/* Options, the file and the environment: what is taken, what is refused, and that keys stay where
 * they belong. */
#include <check.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/upstream/settings.h"
#include "tests/unit/suite.h"

#define ARGS_MAX 24

static char folder[] = "/tmp/weft-test-settings-XXXXXX";
static char key_path[64], file_path[64];
static struct settings settings;

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(key_path, sizeof(key_path), "%s/key", folder);
    snprintf(file_path, sizeof(file_path), "%s/upstream.yaml", folder);
}

static void teardown(void)
{
    unlink(key_path);
    unlink(file_path);
    rmdir(folder);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
    ck_assert_int_eq(chmod(path, mode), 0);
}

/* The options behind `--port p`. */
static int read_options(const char *first, ...)
{
    static char words[ARGS_MAX][128]; /* settings point there */
    char *args[ARGS_MAX] = {words[0], words[1], words[2]};
    int count = 3;
    va_list list;
    strcpy(words[0], "weft-upstream");
    strcpy(words[1], "--port");
    strcpy(words[2], "p");
    va_start(list, first);
    for (const char *arg = first; arg; arg = va_arg(list, const char *)) {
        ck_assert_int_lt(count, ARGS_MAX - 1);
        args[count] = words[count];
        snprintf(words[count++], sizeof(words[0]), "%s", arg);
    }
    va_end(list);
    optind = 0; /* glibc: from the beginning */
    return settings_read(&settings, count, args);
}

START_TEST(several_models)
{
    unsetenv(WHERE_VARIABLE);
    ck_assert_int_eq(
        read_options("--registry", "http://127.0.0.1", "--model", "a", "--model", "b", NULL), 0);
    ck_assert_uint_eq(settings.model_count, 2);
    ck_assert_str_eq(settings.models[1], "b");
    ck_assert(!settings.all_models);
    settings_deinit(&settings);
    ck_assert_int_eq(read_options("--registry", "http://127.0.0.1", "--all-models", NULL), 0);
    ck_assert(settings.all_models && settings.model_count == 0);
    settings_deinit(&settings);
    ck_assert_int_lt(
        read_options("--registry", "http://127.0.0.1", "--all-models", "--model", "a", NULL), 0);
    ck_assert_int_lt(
        read_options("--registry", "http://127.0.0.1", "--all-models", "--tokenizer", "t", NULL),
        0);
    ck_assert_int_lt(read_options("--endpoint", "http://127.0.0.1", "--all-models", NULL), 0);
    ck_assert_int_lt(read_options("--registry", "http://127.0.0.1", NULL), 0);
    write_file(file_path, "registry: http://127.0.0.1\nmodels: [x, y]\n", 0600);
    ck_assert_int_eq(read_options("--config", file_path, NULL), 0);
    ck_assert_uint_eq(settings.model_count, 2);
    ck_assert_str_eq(settings.models[1], "y");
    settings_deinit(&settings);
    ck_assert_int_eq(read_options("--config", file_path, "--model", "z", NULL), 0);
    ck_assert_uint_eq(settings.model_count, 1); /* options overrule */
    settings_deinit(&settings);
    write_file(file_path, "registry: http://127.0.0.1\nall_models: true\n", 0600);
    ck_assert_int_eq(read_options("--config", file_path, NULL), 0);
    ck_assert(settings.all_models);
    settings_deinit(&settings);
    write_file(file_path, "registry: http://127.0.0.1\nmodel: m\nmodels: [x, y]\n", 0600);
    ck_assert_int_lt(read_options("--config", file_path, NULL), 0);
}
END_TEST

START_TEST(options)
{
    unsetenv(WHERE_VARIABLE);
    ck_assert_int_eq(read_options("--endpoint", "http://127.0.0.1:8000", "--model", "m", NULL), 0);
    ck_assert_uint_eq(settings.endpoint_count, 1);
    ck_assert_str_eq(settings.endpoints[0].model, "m");
    ck_assert_uint_eq(settings.slots, 8);
    ck_assert(!settings.local_only);
    settings_deinit(&settings);
    ck_assert_int_eq(read_options("--endpoint", "http://127.0.0.1:1", "--endpoint",
                                  "https://example.com", "--model", "m", "--upstream-model", "M",
                                  "--resume", "vllm", "--slots", "3", NULL),
                     0);
    ck_assert_uint_eq(settings.endpoint_count, 2);
    ck_assert_str_eq(settings.endpoints[1].model, "M");
    ck_assert_int_eq(settings.endpoints[1].resume, BODY_RESUME_VLLM);
    settings_deinit(&settings);
    ck_assert_int_lt(read_options("--endpoint", "http://127.0.0.1:1", NULL), 0); /* no model */
    ck_assert_int_lt(read_options("--model", "m", NULL), 0);
    ck_assert_int_lt(
        read_options("--endpoint", "http://127.0.0.1:1", "--model", "m", "--model", "n", NULL),
        0); /* which one would it be? */
    ck_assert_int_lt(
        read_options("--endpoint", "http://127.0.0.1", "--model", "m", "--slots", "0", NULL), 0);
    ck_assert_int_lt(
        read_options("--endpoint", "http://127.0.0.1", "--model", "m", "--resume", "x", NULL), 0);
    ck_assert_int_lt(read_options("--endpoint", "ftp://127.0.0.1", "--model", "m", NULL), 0);
    char name[70];
    memset(name, 'n', sizeof(name));
    name[64] = 0;
    ck_assert_int_lt(read_options("--endpoint", "http://127.0.0.1", "--model", name, NULL), 0);
}
END_TEST

START_TEST(keys)
{
    unsetenv(WHERE_VARIABLE);
    const char *url = "http://127.0.0.1:1";
    write_file(key_path, "sk-123\n", 0600);
    ck_assert_int_eq(read_options("--endpoint", url, "--model", "m", "--key-file", key_path, NULL),
                     0);
    ck_assert_str_eq(settings.endpoints[0].key, "sk-123");
    settings_deinit(&settings);
    ck_assert_uint_eq(strlen(settings.endpoints[0].key), 0);
    /* In clear to somebody else's machine. */
    ck_assert_int_lt(read_options("--endpoint", "http://example.com", "--model", "m", "--key-file",
                                  key_path, NULL),
                     0);
    ck_assert_int_eq(read_options("--endpoint", "https://example.com", "--model", "m", "--key-file",
                                  key_path, NULL),
                     0);
    settings_deinit(&settings);
    ck_assert_int_eq(chmod(key_path, 0644), 0);
    ck_assert_int_lt(read_options("--endpoint", url, "--model", "m", "--key-file", key_path, NULL),
                     0);
    /* A header must stay one header. */
    write_file(key_path, "sk 1\n", 0600);
    ck_assert_int_lt(read_options("--endpoint", url, "--model", "m", "--key-file", key_path, NULL),
                     0);
    write_file(key_path, "\n", 0600);
    ck_assert_int_lt(read_options("--endpoint", url, "--model", "m", "--key-file", key_path, NULL),
                     0);
    ck_assert_int_lt(
        read_options("--endpoint", url, "--model", "m", "--key-file", "/nowhere", NULL), 0);
}
END_TEST

START_TEST(local_beats_all)
{
    setenv(WHERE_VARIABLE, "local", 1);
    ck_assert_int_lt(read_options("--endpoint", "https://example.com", "--model", "m", NULL), 0);
    ck_assert_int_lt(read_options("--endpoint", "http://8.8.8.8", "--model", "m", NULL), 0);
    ck_assert_int_eq(read_options("--endpoint", "http://8.8.8.8", "--endpoint",
                                  "http://10.1.2.3:80", "--model", "m", NULL),
                     0);
    ck_assert_uint_eq(settings.endpoint_count, 1);
    ck_assert_str_eq(settings.endpoints[0].where.host, "10.1.2.3");
    ck_assert(settings.local_only);
    settings_deinit(&settings);
    unsetenv(WHERE_VARIABLE);
}
END_TEST

START_TEST(from_a_file)
{
    unsetenv(WHERE_VARIABLE);
    setenv("WEFT_TEST_KEY", "sk-env", 1);
    write_file(file_path,
               "model: qwen\n"
               "slots: 32\n"
               "cloud_endpoints:\n"
               "  - url: http://127.0.0.1:8000\n"
               "    resume: prefill\n"
               "  - url: https://api.example.com/v1\n"
               "    name: cloud\n"
               "    model: qwen-max\n"
               "    key_env: WEFT_TEST_KEY\n"
               "    slots: 4\n"
               "    price_in: 0.15\n"
               "    price_out: 0.6\n",
               0600);
    ck_assert_int_eq(read_options("--config", file_path, "--slots", "16", NULL), 0);
    ck_assert_str_eq(settings.model, "qwen");
    ck_assert_uint_eq(settings.slots, 16); /* options go before the file */
    ck_assert_uint_eq(settings.endpoint_count, 2);
    ck_assert_str_eq(settings.endpoints[0].model, "qwen");
    ck_assert_int_eq(settings.endpoints[0].resume, BODY_RESUME_PREFILL);
    ck_assert_str_eq(settings.endpoints[1].model, "qwen-max");
    ck_assert_str_eq(settings.endpoints[1].key, "sk-env");
    ck_assert_uint_eq(settings.endpoints[1].slots, 4);
    ck_assert_double_eq(settings.endpoints[1].price_out, 0.6);
    settings_deinit(&settings);
    setenv(WHERE_VARIABLE, "local", 1);
    ck_assert_int_eq(read_options("--config", file_path, NULL), 0);
    ck_assert_uint_eq(settings.endpoint_count, 1);
    settings_deinit(&settings);
    setenv(WHERE_VARIABLE, "cloud", 1);
    ck_assert_int_eq(read_options("--config", file_path, NULL), 0);
    ck_assert_uint_eq(settings.endpoint_count, 1);
    ck_assert_str_eq(settings.endpoints[0].name, "cloud");
    ck_assert(!settings.local_only);
    settings_deinit(&settings);
    unsetenv(WHERE_VARIABLE);
}
END_TEST

START_TEST(files_that_are_wrong)
{
    static const char *const texts[] = {
        "",
        "model: m\n",
        "model: m\ncloud_endpoints: []\n",
        "model: m\ncloud_endpoints:\n  - name: x\n",
        "model: m\nunknown: 1\ncloud_endpoints:\n  - url: http://127.0.0.1\n",
        "model: m\ncloud_endpoints:\n  - url: http://127.0.0.1\n    key_env: WEFT_NO_SUCH\n",
        "model: m\nslots: 99999\ncloud_endpoints:\n  - url: http://127.0.0.1\n",
        "cloud_endpoints:\n  - url: http://127.0.0.1\n",
        "model: [\n",
    };
    unsetenv(WHERE_VARIABLE);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_file(file_path, texts[i], 0600);
        ck_assert_msg(read_options("--config", file_path, NULL) < 0, "%s", texts[i]);
    }
    ck_assert_int_lt(read_options("--config", "/nowhere", NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_settings");
    TCase *tests = tcase_create("settings");
    tcase_add_unchecked_fixture(tests, setup, teardown);
    tcase_add_test(tests, several_models);
    tcase_add_test(tests, options);
    tcase_add_test(tests, keys);
    tcase_add_test(tests, local_beats_all);
    tcase_add_test(tests, from_a_file);
    tcase_add_test(tests, files_that_are_wrong);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
