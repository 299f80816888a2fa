/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count.c - weft-count: a fixed, seeded run of the packet path's pure stages for
 * scripts/bench-gate, which counts its instructions under callgrind. Time on a shared machine says
 * little; the number of instructions of the same input is the same every time.
 *
 * Only counted_burst() is counted. Valgrind knows no AVX-512, so the vector scan is told to be
 * plain C or AVX2.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/scene.h"

#define BURSTS 64u
#define WARM   16u /* bursts that are not counted: pins and caches of the first time */
#define SEED   1u
#define NOW_NS (10 * SEAL_LIFE_NS)

static const struct {
    const char *name;
    enum scene_kind kind;
    uint32_t candidates;
    bool ip6;
} cases[] = {
    {"new-64", SCENE_NEW, 64, false},         {"new-1024", SCENE_NEW, 1024, false},
    {"here-1024", SCENE_HERE, 1024, false},   {"pinned", SCENE_PINNED, 64, false},
    {"cookie", SCENE_COOKIE, 64, false},      {"reply", SCENE_REPLY, 64, false},
    {"session-64", SCENE_SESSION, 64, false}, {"pinned-ip6", SCENE_PINNED, 64, true},
    {"cookie-ip6", SCENE_COOKIE, 64, true},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static const struct {
    const char *name;
    enum scan_isa isa;
} isas[] = {{"scalar", SCAN_SCALAR}, {"avx2", SCAN_AVX2}};
#define ISAS (sizeof(isas) / sizeof(isas[0]))

/* scripts/bench-gate names this function to callgrind. */
__attribute__((noinline)) void counted_burst(struct scene *scene, struct route_packet *packets);
__attribute__((noinline)) void counted_burst(struct scene *scene, struct route_packet *packets)
{
    scene_run(scene, packets, SCENE_BURST, NOW_NS);
}

static void prepare(struct scene *scene, struct route_frame *frames, struct route_packet *packets)
{
    for (uint32_t i = 0; i < SCENE_BURST; i++) {
        uint8_t *data = (uint8_t *)&frames[i] + ROUTE_START_IPV4;
        scene_fill_whole(scene, data);
        packets[i] = (struct route_packet){.frame = NULL};
        packet_attach(&packets[i], data, scene->frame_len);
    }
}

static int run(size_t which)
{
    static struct route_frame frames[SCENE_BURST];
    struct route_packet packets[SCENE_BURST];
    struct scene *scene;
    uint32_t sent = 0;
    scene_use_ip6(cases[which].ip6);
    int rc = scene_create(&scene, cases[which].kind, cases[which].candidates, 64, SEED, NOW_NS);
    for (uint32_t i = 0; rc == 0 && i < WARM; i++) {
        prepare(scene, frames, packets);
        scene_run(scene, packets, SCENE_BURST, NOW_NS);
    }
    for (uint32_t i = 0; rc == 0 && i < BURSTS; i++) {
        prepare(scene, frames, packets);
        counted_burst(scene, packets);
        for (uint32_t p = 0; p < SCENE_BURST; p++) {
            sent += packets[p].action == ROUTE_SEND;
        }
    }
    scene_destroy(scene);
    if (rc == 0 && sent != BURSTS * SCENE_BURST) {
        fprintf(stderr, "weft-count: only %u of %u packets were sent on\n", sent,
                BURSTS * SCENE_BURST);
        return EXIT_FAILURE;
    }
    printf("%u\n", BURSTS * SCENE_BURST);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(FILE *out, int status)
{
    fputs(
        "usage: weft-count CASE ISA\n\n"
        "Runs a fixed number of packets through the stages and prints it; for scripts/bench-gate.\n"
        "\ncases:",
        out);
    for (size_t i = 0; i < CASES; i++) {
        fprintf(out, " %s", cases[i].name);
    }
    fputs("\nisas: scalar avx2 (exit status 77: this CPU has it not)\n\nexample:\n"
          "  weft-count new-64 avx2\n",
          out);
    return status;
}

int main(int argc, char **argv)
{
    size_t which = 0, isa = 0;
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < CASES * ISAS; i++) {
            printf("%s %s\n", cases[i / ISAS].name, isas[i % ISAS].name);
        }
        return EXIT_SUCCESS;
    }
    if (argc != 3) {
        bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
        return usage(help ? stdout : stderr, help ? EXIT_SUCCESS : 2);
    }
    while (which < CASES && strcmp(cases[which].name, argv[1]) != 0) {
        which++;
    }
    while (isa < ISAS && strcmp(isas[isa].name, argv[2]) != 0) {
        isa++;
    }
    if (which == CASES || isa == ISAS) {
        return usage(stderr, 2);
    }
    return scan_isa_use(isas[isa].isa) == -ENOTSUP ? 77 : run(which);
}
