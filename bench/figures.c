/* SPDX-License-Identifier: Apache-2.0 */
/* figures.c - see figures.h. */
#include "bench/figures.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define CPU_NAME_BYTES 96
#define LINE_BYTES     4096

int series_init(struct series *s, uint32_t capacity)
{
    *s = (struct series){.values = calloc(capacity, sizeof(double)), .capacity = capacity};
    return s->values != NULL ? 0 : -ENOMEM;
}

void series_deinit(struct series *s)
{
    free(s->values);
    *s = (struct series){.values = NULL};
}

void series_add(struct series *s, double value)
{
    if (s->seen < s->capacity) {
        s->values[s->seen] = value;
    } else {
        struct rng rng = {.state = s->lot++};
        uint64_t at = rng_next(&rng) % (s->seen + 1);
        if (at < s->capacity) {
            s->values[at] = value;
        }
    }
    s->seen++;
}

static int compare_double(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

double series_quantile(struct series *s, double q)
{
    size_t count = s->seen < s->capacity ? (size_t)s->seen : s->capacity;
    if (count == 0) {
        return 0;
    }
    qsort(s->values, count, sizeof(double), compare_double);
    size_t at = (size_t)(q * (double)count);
    return s->values[at < count ? at : count - 1];
}

json_t *series_json(struct series *s)
{
    return json_pack("{s:f, s:f, s:I}", "median", series_quantile(s, 0.5), "p99",
                     series_quantile(s, 0.99), "samples", (json_int_t)s->seen);
}

struct machine {
    char cpu[CPU_NAME_BYTES];
    bool is_virtual;
    long cores;
    double load; /* average of the last minute: what else runs */
    struct utsname system;
};

/* "key   : value" of /proc/cpuinfo. */
static const char *value_of(const char *line)
{
    const char *colon = strchr(line, ':');
    return colon == NULL ? "" : colon + 1 + strspn(colon + 1, " ");
}

static struct machine machine_read(void)
{
    struct machine m = {.cpu = "unknown", .cores = sysconf(_SC_NPROCESSORS_ONLN)};
    char line[LINE_BYTES];
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL && line[0] != '\n') {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "model name", 10) == 0) {
            snprintf(m.cpu, sizeof(m.cpu), "%.*s", CPU_NAME_BYTES - 1, value_of(line));
        }
        if (strncmp(line, "flags", 5) == 0) {
            m.is_virtual = strstr(line, " hypervisor") != NULL;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    uname(&m.system);
    if (getloadavg(&m.load, 1) != 1) {
        m.load = 0;
    }
    return m;
}

json_t *machine_json(void)
{
    struct machine m = machine_read();
    return json_pack("{s:s, s:i, s:b, s:s, s:s, s:f}", "cpu", m.cpu, "cores", (int)m.cores,
                     "virtual", (int)m.is_virtual, "kernel", m.system.release, "compiler",
                     __VERSION__, "load_average", m.load);
}

void machine_print(void)
{
    struct machine m = machine_read();
    printf("machine: %s, %ld cores%s, Linux %s, compiler %s, load average %.1f\n", m.cpu, m.cores,
           m.is_virtual ? ", virtual" : "", m.system.release, __VERSION__, m.load);
}

double figures_number(const char *text, double min, double max)
{
    char *end;
    double value = strtod(text, &end);
    return *text != '\0' && *end == '\0' && value >= min && value <= max ? value : -1;
}

uint64_t figures_now_ns(void)
{
    return clock_now_ns();
}
