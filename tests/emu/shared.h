/* SPDX-License-Identifier: Apache-2.0 */
/* shared.h - the shared memory of the block that runs, for emu.c. Arrays lie in one arena with gaps
 * that the address sanitizer guards; every block begins with bytes of 0xff. */
#pragma once

#include <stddef.h>

void shared_begin(size_t dynamic_bytes);
void shared_end(void);
