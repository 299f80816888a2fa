/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses among the tables of kernels.h. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/kernels.h"

/* Is `word` one of the comma-separated words of `list`? */
static bool has_word(const char *list, const char *word)
{
    const size_t len = strlen(word);
    while (list) {
        if (strncmp(list, word, len) == 0 && (list[len] == 0 || list[len] == ','))
            return true;
        list = strchr(list, ',');
        list = list ? list + 1 : NULL;
    }
    return false;
}

const struct cpu_kernels *cpu_kernels_select(int force_portable, int exact)
{
    const char *wish = getenv("WEFT_CPU");
    const bool is_exact = exact || has_word(wish, "exact");
    const bool is_portable = force_portable || has_word(wish, "portable");
    const struct cpu_kernels *avx2 = is_exact ? cpu_kernels_avx2() : cpu_fast_avx2();
    const struct cpu_kernels *avx512 = is_exact ? NULL : cpu_fast_avx512();
    if (avx512 && !is_portable && !has_word(wish, "avx2"))
        return avx512;
    if (avx2 && !is_portable)
        return avx2;
    return is_exact ? &cpu_kernels_portable : &cpu_fast_portable;
}
