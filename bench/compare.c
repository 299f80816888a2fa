/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.c - weft-bench compare: two programs in turn, A B B A A B ..., and the ratio of what they
 * say of themselves, pair by pair. Neighbours on the machine disturb both of a pair alike; the
 * ratio's median and its interval are what is left. Each command prints one JSON object;
 * scripts/bench-compare has the ones for Weft's peers.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/load/stats.h"

#define FIGURES_MAX  16u
#define ROUNDS_MAX   200u
#define ROUNDS_LEAST 6u /* with fewer pairs the interval is narrower than what is known */
#define OUTPUT_MAX   (16u << 20)
#define PATH_BYTES   160u
#define TIME_TEXT    32u

struct figure {
    char name[PATH_BYTES];
    char path[2][PATH_BYTES];
    bool less; /* is better */
    double value[2][ROUNDS_MAX];
};

struct side {
    const char *name;
    const char *command;
};

struct compare {
    struct side sides[2]; /* both have the same command with --both */
    bool both;
    struct figure figures[FIGURES_MAX];
    uint32_t figure_count;
    uint32_t rounds, done;
    const char *title;
    const char *note;
    bool json;
};

/* What a figure comes to. */
struct outcome {
    double median[2];
    double ratio; /* A over B, median of the pairs */
    struct stats_interval interval;
    const char *words;
};

/* ---- one run ---- */

static char *read_all(FILE *f)
{
    size_t len = 0, room = 1u << 16;
    char *text = malloc(room);
    while (text != NULL) {
        size_t got = fread(text + len, 1, room - len - 1, f);
        len += got;
        if (got == 0 || room > OUTPUT_MAX) {
            break;
        }
        if (room - len - 1 == 0) {
            char *grown = realloc(text, room *= 2);
            if (grown == NULL) {
                free(text);
            }
            text = grown;
        }
    }
    if (text != NULL) {
        text[len] = '\0';
    }
    return text;
}

/* The object that a command prints; NULL (and says why) if it does not. */
static json_t *run_command(const struct side *side)
{
    json_error_t error = {.text = "no memory"};
    FILE *f = popen(side->command, "re");
    char *text = f != NULL ? read_all(f) : NULL;
    int status = f != NULL ? pclose(f) : -1;
    json_t *out = text != NULL ? json_loads(text, JSON_DISABLE_EOF_CHECK, &error) : NULL;
    if (!json_is_object(out)) {
        fprintf(stderr, "weft-bench compare: %s printed no JSON object (status %d: %s)\n",
                side->name, WIFEXITED(status) ? WEXITSTATUS(status) : -1, error.text);
        json_decref(out);
        out = NULL;
    }
    free(text);
    return out;
}

/* The number at "a.b.0.c"; NAN if there is none. */
static double number_at(const json_t *value, const char *path)
{
    char copy[PATH_BYTES];
    char *rest = copy;
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *word; (word = strsep(&rest, "/")) != NULL;) {
        value = json_is_array(value) ? json_array_get(value, strtoul(word, NULL, 10))
                                     : json_object_get(value, word);
    }
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static int take_figures(struct compare *c, uint32_t side, const json_t *out)
{
    for (uint32_t i = 0; i < c->figure_count; i++) {
        struct figure *f = &c->figures[i];
        double value = number_at(out, f->path[side]);
        if (!isfinite(value)) {
            fprintf(stderr, "weft-bench compare: %s has no number at %s\n", c->sides[side].name,
                    f->path[side]);
            return -EINVAL;
        }
        f->value[side][c->done] = value;
    }
    return 0;
}

static int run_pair(struct compare *c)
{
    for (uint32_t turn = 0; turn < 2; turn++) {
        uint32_t side = (turn + c->done) % 2;
        if (c->both && turn == 1) {
            break;
        }
        json_t *out = run_command(&c->sides[side]);
        int rc = out == NULL ? -EIO : take_figures(c, side, out);
        rc = rc == 0 && c->both ? take_figures(c, 1 - side, out) : rc;
        json_decref(out);
        if (rc != 0) {
            return rc;
        }
    }
    c->done++;
    fprintf(stderr, "compare: %u of %u pairs\n", c->done, c->rounds);
    return 0;
}

/* ---- outcome ---- */

static struct outcome judge(const struct compare *c, const struct figure *f)
{
    const double half = 0.5;
    struct outcome o = {.words = "no difference shown"};
    double ratios[ROUNDS_MAX], sorted[ROUNDS_MAX];
    for (uint32_t i = 0; i < c->done; i++) {
        ratios[i] = f->value[0][i] / f->value[1][i];
    }
    if (stats_bootstrap(ratios, c->done, &half, 1, 1, &o.interval) != 0) {
        return o;
    }
    qsort(ratios, c->done, sizeof(double), stats_compare);
    o.ratio = stats_quantile(ratios, c->done, half);
    for (uint32_t side = 0; side < 2; side++) {
        memcpy(sorted, f->value[side], c->done * sizeof(double));
        qsort(sorted, c->done, sizeof(double), stats_compare);
        o.median[side] = stats_quantile(sorted, c->done, half);
    }
    if (c->done < ROUNDS_LEAST) {
        o.words = "too few pairs to say";
    } else if (o.interval.low > 1 || o.interval.high < 1) {
        bool a_wins = (o.interval.low > 1) != f->less;
        o.words = a_wins ? "A is better" : "B is better";
    }
    return o;
}

static void report_text(const struct compare *c)
{
    machine_print();
    printf("%s; A = %s, B = %s, %u pairs in turn\n", c->title, c->sides[0].name, c->sides[1].name,
           c->done);
    for (uint32_t i = 0; i < c->figure_count; i++) {
        const struct figure *f = &c->figures[i];
        const struct outcome o = judge(c, f);
        printf("%-32s A %12.4g   B %12.4g   A / B %.3f (%.3f to %.3f)   %s is better: %s\n",
               f->name, o.median[0], o.median[1], o.ratio, o.interval.low, o.interval.high,
               f->less ? "less" : "more", o.words);
    }
}

static json_t *values_json(const double *values, uint32_t count)
{
    json_t *out = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(out, json_real(values[i]));
    }
    return out;
}

static void report_json(const struct compare *c)
{
    json_t *figures = json_array();
    char date[TIME_TEXT] = "";
    const time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm) != NULL) {
        (void)strftime(date, sizeof(date), "%Y-%m-%d", &tm);
    }
    for (uint32_t i = 0; i < c->figure_count; i++) {
        const struct figure *f = &c->figures[i];
        const struct outcome o = judge(c, f);
        json_array_append_new(figures,
                              json_pack("{s:s, s:s, s:f, s:f, s:f, s:[f, f], s:s, s:o, s:o}",
                                        "name", f->name, "better", f->less ? "less" : "more", "a",
                                        o.median[0], "b", o.median[1], "ratio", o.ratio,
                                        "interval95", o.interval.low, o.interval.high, "outcome",
                                        o.words, "all_a", values_json(f->value[0], c->done),
                                        "all_b", values_json(f->value[1], c->done)));
    }
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:o, s:i, s:{s:s, s:s}, s:{s:s, s:s}, s:o}",
                            "bench", "compare", "title", c->title, "note", c->note, "date", date,
                            "machine", machine_json(), "pairs", (int)c->done, "a", "name",
                            c->sides[0].name, "command", c->sides[0].command, "b", "name",
                            c->sides[1].name, "command", c->sides[1].command, "figures", figures);
    json_dumpf(out, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(7));
    putchar('\n');
    json_decref(out);
}

/* ---- arguments ---- */

static void usage(FILE *out)
{
    fputs("weft-bench compare - two programs in turn, and the ratio of their figures\n\n"
          "usage: weft-bench compare --a NAME=COMMAND --b NAME=COMMAND --figure NAME=PATH ...\n"
          "       weft-bench compare --both A,B=COMMAND --figure NAME=PATH,PATH ...\n\n"
          "  --a, --b NAME=COMMAND  given to /bin/sh; prints one JSON object\n"
          "  --both A,B=COMMAND     one command that measures both, in turn, by itself\n"
          "  --figure NAME=PATH     a number in it, as keys and places with slashes:\n"
          "                         `threads/0/decode`. `PATH,PATH`: A's, and B's. Repeatable\n"
          "  --less NAME=PATH       the same, less is better\n"
          "  --rounds N             pairs; default 9\n"
          "  --title TEXT           of the table\n"
          "  --note TEXT            kept with it: versions, what else ran\n"
          "  --json                 for machines, and for scripts/bench-results\n\n"
          "The ratio is the median over the pairs, with a 95 % interval. An interval that holds 1\n"
          "shows no difference, nor do fewer than six pairs.\n"
          "Exit status: 0 if all was measured, whoever is better.\n\n"
          "example:\n"
          "  weft-bench compare --a 'exact=weft-bench exec --exact --threads 1 --json' \\\n"
          "    --b 'fast=weft-bench exec --threads 1 --json' \\\n"
          "    --figure 'tokens a second=threads/0/decode_tokens_per_second/median'\n",
          out);
}

/* Cuts NAME=REST; NULL if there is no name or no rest. */
static char *cut(char *value)
{
    char *rest = strchr(value, '=');
    if (rest == NULL || rest == value || rest[1] == '\0') {
        return NULL;
    }
    *rest = '\0';
    return rest + 1;
}

static int take_side(struct compare *c, char *value, int option)
{
    char *command = cut(value);
    if (command == NULL) {
        return -1;
    }
    if (option == 'a' || option == 'b') {
        c->sides[option - 'a'] = (struct side){value, command};
        return 0;
    }
    char *second = strchr(value, ',');
    if (second == NULL) {
        return -1;
    }
    *second++ = '\0';
    c->both = true;
    c->sides[0] = (struct side){value, command};
    c->sides[1] = (struct side){second, command};
    return 0;
}

static int take_figure(struct compare *c, char *value, bool less)
{
    char *path = cut(value);
    if (path == NULL || c->figure_count == FIGURES_MAX) {
        return -1;
    }
    struct figure *f = &c->figures[c->figure_count++];
    char *second = strchr(path, ',');
    if (second != NULL) {
        *second++ = '\0';
    }
    f->less = less;
    snprintf(f->name, sizeof(f->name), "%s", value);
    snprintf(f->path[0], sizeof(f->path[0]), "%s", path);
    snprintf(f->path[1], sizeof(f->path[1]), "%s", second != NULL ? second : path);
    return 0;
}

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(struct compare *c, int option, char *value)
{
    double rounds;
    switch (option) {
    case 'a':
    case 'b':
    case 'B':
        return take_side(c, value, option);
    case 'f':
    case 'l':
        return take_figure(c, value, option == 'l');
    case 'r':
        rounds = figures_number(value, 1, ROUNDS_MAX);
        c->rounds = rounds < 1 ? 0 : (uint32_t)rounds;
        return rounds < 1 ? -1 : 0;
    case 't':
        c->title = value;
        return 0;
    case 'n':
        c->note = value;
        return 0;
    case 'j':
        c->json = true;
        return 0;
    default:
        return option == 'h' ? 1 : -1;
    }
}

static int run(struct compare *c)
{
    int rc = 0;
    while (rc == 0 && c->done < c->rounds) {
        rc = run_pair(c);
    }
    if (rc == 0 && c->json) {
        report_json(c);
    } else if (rc == 0) {
        report_text(c);
    }
    return rc;
}

int bench_compare(int argc, char **argv)
{
    static const struct option options[] = {
        {"a", required_argument, NULL, 'a'},
        {"b", required_argument, NULL, 'b'},
        {"both", required_argument, NULL, 'B'},
        {"figure", required_argument, NULL, 'f'},
        {"less", required_argument, NULL, 'l'},
        {"rounds", required_argument, NULL, 'r'},
        {"title", required_argument, NULL, 't'},
        {"note", required_argument, NULL, 'n'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct compare *c = calloc(1, sizeof(*c));
    int option, taken = 0, status = 2;
    if (c == NULL) {
        return EXIT_FAILURE;
    }
    c->rounds = 9;
    c->title = "compare";
    c->note = "";
    while (taken == 0 && (option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        taken = take_option(c, option, optarg);
    }
    if (taken == 1) {
        usage(stdout);
        status = EXIT_SUCCESS;
    } else if (taken < 0 || optind < argc || c->sides[0].command == NULL ||
               c->sides[1].command == NULL || c->figure_count == 0) {
        fprintf(stderr, "weft-bench compare: %s\n",
                taken < 0 ? "an option has a value that cannot be used"
                          : "two commands and a figure are needed");
    } else {
        status = run(c) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    free(c);
    return status;
}
