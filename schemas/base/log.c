/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h. */
#include "schemas/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static _Atomic int log_threshold = LOG_LEVEL_INFO;
static const char *_Atomic log_who = "";

void log_init(enum log_level level, const char *who)
{
    atomic_store(&log_threshold, (int)level);
    atomic_store(&log_who, who);
}

int log_level_parse(const char *text, enum log_level *level)
{
    for (int i = 0; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void log_write(enum log_level level, const char *format, ...)
{
    if ((int)level > atomic_load_explicit(&log_threshold, memory_order_relaxed)) {
        return;
    }
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    char line[LINE_MAX_BYTES];
    size_t used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    const char *who = atomic_load_explicit(&log_who, memory_order_relaxed);
    used +=
        (size_t)snprintf(line + used, sizeof(line) - used, ".%03ldZ %-5s %s%s",
                         now.tv_nsec / 1000000, level_names[level], who, who[0] != '\0' ? " " : "");
    va_list args;
    va_start(args, format);
    const size_t text = used;
    int wanted = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    if (wanted > 0) {
        size_t room = sizeof(line) - used - 2;
        used += (size_t)wanted < room ? (size_t)wanted : room;
    }
    /* Names and reasons come from outside: none of them begins a line or speaks to a terminal. */
    for (size_t i = text; i < used; i++) {
        line[i] = (unsigned char)line[i] < ' ' || line[i] == 0x7f ? '?' : line[i];
    }
    line[used++] = '\n';
    /* Nowhere to report that the log itself cannot be written. */
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written;
}
