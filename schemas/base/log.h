/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line per event on stderr: time, level, who, then a text with key=value pairs.
 * Not for the packet path. Any thread; a line is written with one write(2). A control character in
 * the text becomes a question mark: an event is one line whatever a peer is called.
 *
 *     LOG_INFO("worker attached model=%s pid=%u", name, pid);
 */
#pragma once

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `who` goes into every line and must stay valid. Default: level info, no name. */
void log_init(enum log_level level, const char *who);

/* Reads "error", "warn", "info" or "debug". Returns 0 or -EINVAL. */
int log_level_parse(const char *text, enum log_level *level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define LOG_ERROR(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define LOG_WARN(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define LOG_INFO(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOG_DEBUG(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
