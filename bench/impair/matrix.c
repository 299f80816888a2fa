/* SPDX-License-Identifier: Apache-2.0 */
/* matrix.c - see matrix.h. A line is split into words at blanks; '#' begins a comment. */
#include "bench/impair/matrix.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX    (IMPAIR_PORTS_MAX + 8u)
#define LINE_MAX_    4096u
#define ROWS_MAX     100000u
#define ROW_MAX      (4u << 20) /* bytes of a line of a latency file */
#define RTT_MS_MAX   3.6e6
#define NS_PER_RTTMS 500000.0 /* half of a round trip of 1 ms */

static int reject(char *why, size_t why_size, const char *text, const char *word)
{
    snprintf(why, why_size, "%s%s%s", word, word[0] != '\0' ? ": " : "", text);
    return -EINVAL;
}

int impair_matrix_port(struct impair_matrix *m, const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length >= IMPAIR_NAME_MAX) {
        return -EINVAL;
    }
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("_.-", name[i]) == NULL) {
            return -EINVAL;
        }
    }
    if (impair_matrix_find(m, name) >= 0) {
        return -EEXIST;
    }
    if (m->ports == IMPAIR_PORTS_MAX) {
        return -ENOSPC;
    }
    memcpy(m->names[m->ports++], name, length + 1);
    return 0;
}

int impair_matrix_find(const struct impair_matrix *m, const char *name)
{
    for (uint32_t i = 0; i < m->ports; i++) {
        if (strcmp(m->names[i], name) == 0) {
            return (int)i;
        }
    }
    return -ENOENT;
}

/* "*" or names with commas, as a set. */
static int read_set(const struct impair_matrix *m, char *text, uint64_t *set, char *why,
                    size_t why_size)
{
    *set = 0;
    if (strcmp(text, "*") == 0) {
        *set = UINT64_MAX;
        return 0;
    }
    for (char *name; (name = strsep(&text, ",")) != NULL;) {
        int port = impair_matrix_find(m, name);
        if (port < 0) {
            return reject(why, why_size, "no port of this name", name);
        }
        *set |= UINT64_C(1) << port;
    }
    return 0;
}

/* The words on every pair of from -> to; both ways if asked. */
static int apply(struct impair_matrix *m, uint64_t from, uint64_t to, bool both, char **words,
                 char *why, size_t why_size)
{
    const char *text;
    struct impair_rule scratch = {0};
    if (words[0] == NULL) {
        return reject(why, why_size, "nothing said about these links", "");
    }
    for (char **word = words; *word != NULL; word++) {
        if (impair_rule_word(&scratch, *word, &text) != 0) {
            return reject(why, why_size, text, *word);
        }
    }
    for (uint32_t i = 0; i < m->ports * m->ports; i++) {
        uint32_t a = i / m->ports, b = i % m->ports;
        bool there = (from >> a & 1u) != 0 && (to >> b & 1u) != 0;
        bool back = both && (from >> b & 1u) != 0 && (to >> a & 1u) != 0;
        for (char **word = words; (there || back) && *word != NULL; word++) {
            (void)impair_rule_word(&m->rules[a][b], *word, &text); /* seen to be right above */
        }
    }
    return 0;
}

/* ---- latency files: a square of round trips in ms ------------------------------------------- */
/* Column `wanted[i]` of one row into rtt[i]. Returns 0 or -EINVAL. */
static int read_row(char *line, const uint32_t *wanted, uint32_t ports, double *rtt)
{
    uint32_t column = 0, found = 0;
    for (char *text; (text = strsep(&line, ",;\t\n\r ")) != NULL;) {
        if (text[0] == '\0') {
            continue;
        }
        for (uint32_t i = 0; i < ports; i++) {
            if (wanted[i] != column) {
                continue;
            }
            char *end;
            rtt[i] = strtod(text, &end);
            found++;
            if (*end != '\0' || !(rtt[i] >= 0 && rtt[i] <= RTT_MS_MAX)) {
                return -EINVAL;
            }
        }
        column++;
    }
    return found == ports ? 0 : -EINVAL;
}

static int read_square(struct impair_matrix *m, FILE *file, const uint32_t *wanted, char *why,
                       size_t why_size)
{
    char *line = NULL;
    size_t room = 0;
    uint32_t rows = 0;
    int rc = 0;
    uint64_t seen = 0, all = m->ports == 64 ? UINT64_MAX : (UINT64_C(1) << m->ports) - 1;
    for (uint32_t row = 0; rc == 0 && seen != all && getline(&line, &room, file) > 0; row++) {
        double rtt[IMPAIR_PORTS_MAX];
        if (row == ROWS_MAX || room > ROW_MAX) {
            break;
        }
        for (uint32_t i = 0; i < m->ports; i++) {
            if (wanted[i] != row) {
                continue;
            }
            char *copy = strdup(line);
            rc = copy == NULL ? -ENOMEM : read_row(copy, wanted, m->ports, rtt);
            free(copy);
            for (uint32_t k = 0; rc == 0 && k < m->ports; k++) {
                m->rules[i][k].delay_ns = (uint64_t)(rtt[k] * NS_PER_RTTMS);
            }
            seen |= UINT64_C(1) << i;
        }
        rows = row + 1;
    }
    free(line);
    if (rc != 0 || seen != all) {
        char where[32];
        snprintf(where, sizeof(where), "row %u", rows);
        return reject(why, why_size, "no round trips in ms for all ports", where);
    }
    return 0;
}

/* latency FILE [NAME=ROW ...]: ports that are not named take the row of their place. */
static int latency(struct impair_matrix *m, char **words, const char *folder, char *why,
                   size_t why_size)
{
    uint32_t wanted[IMPAIR_PORTS_MAX];
    char path[PATH_MAX];
    if (words[0] == NULL) {
        return reject(why, why_size, "needs a file", "latency");
    }
    for (uint32_t i = 0; i < m->ports; i++) {
        wanted[i] = i;
    }
    for (char **word = words + 1; *word != NULL; word++) {
        char *end = NULL, *value = strchr(*word, '=');
        unsigned long row = 0;
        if (value != NULL) {
            *value++ = '\0';
            row = strtoul(value, &end, 10);
        }
        int port = impair_matrix_find(m, *word);
        if (port < 0 || end == NULL || end == value || *end != '\0' || row >= ROWS_MAX) {
            return reject(why, why_size, "a port and its row from 0 look like tokyo=3", *word);
        }
        wanted[port] = (uint32_t)row;
    }
    int n = snprintf(path, sizeof(path), "%s%s%s", words[0][0] == '/' ? "" : folder,
                     words[0][0] == '/' ? "" : "/", words[0]);
    FILE *file = n < (int)sizeof(path) ? fopen(path, "re") : NULL;
    if (file == NULL) {
        int rc = -errno;
        snprintf(why, why_size, "%s: %s", path, strerror(errno));
        return rc != 0 ? rc : -EINVAL;
    }
    int rc = read_square(m, file, wanted, why, why_size);
    fclose(file);
    return rc;
}

/* ---- lines ---------------------------------------------------------------------------------- */
static int seed(struct impair_matrix *m, char **words, char *why, size_t why_size)
{
    char *end = NULL;
    if (words[0] != NULL && isdigit((unsigned char)words[0][0]) && words[1] == NULL) {
        m->seed = strtoull(words[0], &end, 10);
    }
    return end != NULL && *end == '\0' ? 0 : reject(why, why_size, "takes one number", "seed");
}

int impair_matrix_line(struct impair_matrix *m, char *line, const char *folder, char *why,
                       size_t why_size)
{
    char *words[WORDS_MAX + 1] = {NULL};
    uint32_t count = 0;
    line[strcspn(line, "#")] = '\0';
    for (char *word; (word = strsep(&line, " \t\r\n")) != NULL;) {
        if (word[0] == '\0') {
            continue;
        }
        if (count == WORDS_MAX) {
            return reject(why, why_size, "too many words", word);
        }
        words[count++] = word;
    }
    if (count == 0) {
        return 0;
    }
    if (strcmp(words[0], "default") == 0) {
        return apply(m, UINT64_MAX, UINT64_MAX, false, words + 1, why, why_size);
    }
    if (strcmp(words[0], "seed") == 0) {
        return seed(m, words + 1, why, why_size);
    }
    if (strcmp(words[0], "latency") == 0) {
        return latency(m, words + 1, folder, why, why_size);
    }
    uint64_t from, to;
    bool one = count > 2 && strcmp(words[1], "->") == 0;
    bool both = count > 2 && strcmp(words[1], "<->") == 0;
    if (!one && !both) {
        return reject(why, why_size,
                      "a line is FROM -> TO, FROM <-> TO or default and words such as loss=1%, or "
                      "latency, or seed",
                      words[0]);
    }
    int rc = read_set(m, words[0], &from, why, why_size);
    rc = rc == 0 ? read_set(m, words[2], &to, why, why_size) : rc;
    return rc == 0 ? apply(m, from, to, both, words + 3, why, why_size) : rc;
}

int impair_matrix_load(struct impair_matrix *m, const char *path, char *why, size_t why_size)
{
    char line[LINE_MAX_], text[PATH_MAX + 128], folder[PATH_MAX];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        int rc = -errno;
        snprintf(why, why_size, "%s: %s", path, strerror(-rc));
        return rc;
    }
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof(folder), "%.*s", slash != NULL ? (int)(slash - path) : 1,
             slash != NULL ? path : ".");
    struct impair_matrix *fresh = malloc(sizeof(*fresh));
    int rc = fresh != NULL ? 0 : -ENOMEM;
    if (fresh != NULL) {
        *fresh = *m;
        memset(fresh->rules, 0, sizeof(fresh->rules));
    }
    snprintf(text, sizeof(text), "%s", "out of memory");
    for (uint32_t n = 1; rc == 0 && fgets(line, sizeof(line), file) != NULL; n++) {
        rc = strlen(line) < sizeof(line) - 1
                 ? impair_matrix_line(fresh, line, folder, text, sizeof(text))
                 : reject(text, sizeof(text), "line too long", "");
        if (rc != 0) {
            snprintf(why, why_size, "%s:%u: %s", path, n, text);
        }
    }
    if (rc == 0 && ferror(file)) {
        rc = -EIO;
        snprintf(why, why_size, "%s: cannot be read", path);
    }
    if (rc == 0) {
        *m = *fresh;
    } else if (fresh == NULL) {
        snprintf(why, why_size, "%s", text);
    }
    free(fresh);
    fclose(file);
    return rc;
}
