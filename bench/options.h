/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - how a bench reads its command line, where each option is a value for a field. */
#pragma once

#include <getopt.h>

/* Sets what an option stands for. Returns 0, 1 for help, -1 if the value cannot be used. */
typedef int (*bench_take_fn)(void *user, int option, const char *value);

/* Reads the options of `weft-bench NAME`. Returns 0 (`optind` is at what follows), 1 for help, -1
 * for one that cannot be used; that has been said. */
int bench_options(int argc, char **argv, const char *name, const struct option *options,
                  bench_take_fn take, void *user);
