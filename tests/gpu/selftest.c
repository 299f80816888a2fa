/* SPDX-License-Identifier: Apache-2.0 */
/* weft-gpu-selftest: all cases of cases.h on a GPU, then benches; a table for a person, JSON for a
 * program. Exit 0 if all is well, 1 if a case failed, 77 without a GPU. Needs no library beyond the
 * CUDA runtime; scripts/gpu-check builds and runs it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.h"
#include "tests/gpu/bench.h"
#include "tests/gpu/cases.h"

#define EXIT_SKIPPED 77
#define ROUNDS_MORE  10u /* a GPU has time for more than the emulator */

static const char usage[] =
    "Usage: weft-gpu-selftest [--device N] [--json FILE] [--no-bench] [--small] [--seed N]\n"
    "Runs every GPU operation against its reference, then measures; with --small so little that\n"
    "figures mean nothing. Exit 77 without a GPU.\n";

struct options {
    uint32_t device;
    uint64_t seed;
    const char *json;
    bool bench;
    bool is_small;
};

/* Returns 0 to go on, else the status to exit with. */
static int parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const bool has_value = i + 1 < argc;
        if (strcmp(argv[i], "--no-bench") == 0) {
            o->bench = false;
        } else if (strcmp(argv[i], "--small") == 0) {
            o->is_small = true;
        } else if (strcmp(argv[i], "--device") == 0 && has_value) {
            o->device = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && has_value) {
            o->seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--json") == 0 && has_value) {
            o->json = argv[++i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    return 0;
}

static void json_case(FILE *json, bool is_first, const char *name, const char *failure)
{
    if (!json)
        return;
    fprintf(json, "%s\n    {\"name\": \"%s\", \"ok\": %s}", is_first ? "" : ",", name,
            failure[0] ? "false" : "true");
}

static uint32_t run_cases(struct device *device, const struct options *o, FILE *json)
{
    uint32_t failed = 0;
    printf("%-24s %s\n", "operation", "result");
    for (uint32_t i = 0; i < gpu_case_count; i++) {
        const struct gpu_case *c = &gpu_cases[i];
        const char *failure = "";
        const uint32_t rounds = o->is_small ? 1 : c->rounds * ROUNDS_MORE;
        for (uint32_t r = 0; !failure[0] && r < rounds; r++)
            failure = gpu_case_run(c, device, o->seed + i * 1000003u + r);
        failed += failure[0] != 0;
        printf("%-24s %s%s\n", c->name, failure[0] ? "FAILED: " : "ok", failure);
        json_case(json, i == 0, c->name, failure);
    }
    return failed;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1, .bench = true};
    struct device device;
    FILE *json = NULL;
    int status = parse(&o, argc, argv);
    if (status)
        return status;
    if (device_open(&device, o.device)) {
        printf("skipped: there is no CUDA device %u (%s)\n", o.device, device_trouble());
        return EXIT_SKIPPED;
    }
    if (o.json && !(json = fopen(o.json, "we"))) {
        perror(o.json);
        device_close(&device);
        return 2;
    }
    printf("%s, sm_%u, %u processors, seed %llu\n\n", device.name, device.capability,
           device.processors, (unsigned long long)o.seed);
    if (json)
        fprintf(json, "{\n  \"device\": \"%s\", \"capability\": %u, \"seed\": %llu,\n", device.name,
                device.capability, (unsigned long long)o.seed);
    if (json)
        fputs("  \"cases\": [", json);
    const uint32_t failed = run_cases(&device, &o, json);
    if (json)
        fputs("\n  ],\n", json);
    printf("\n");
    if (o.bench && !failed) /* what is wrong is not worth measuring */
        report_benches(&device, o.is_small, json);
    if (json) {
        fprintf(json, "  \"failed\": %u\n}\n", failed);
        (void)fclose(json);
    }
    printf("%u passed, %u failed, 0 skipped\n", gpu_case_count - failed, failed);
    device_close(&device);
    return failed ? 1 : 0;
}
