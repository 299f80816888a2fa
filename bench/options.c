/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - see options.h. */
#include "bench/options.h"

#include <stdio.h>

int bench_options(int argc, char **argv, const char *name, const struct option *options,
                  bench_take_fn take, void *user)
{
    int option;
    int index = 0;
    while ((option = getopt_long(argc, argv, "h", options, &index)) != -1) {
        int taken = option == '?' ? -1 : take(user, option, optarg);
        if (taken < 0 && option != '?') { /* else getopt has said it */
            fprintf(stderr, "weft-bench %s: --%s cannot be %s\n", name, options[index].name,
                    optarg);
        }
        if (taken != 0) {
            return taken;
        }
    }
    return 0;
}
