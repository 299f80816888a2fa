/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slice.h - how long Linux lets a thread compute at a time. Threads that hand over (packets,
 * tokens) work for some microseconds and sleep: with a short slice they run as soon as they are
 * woken, also where a thread that computes has the processor, and get no larger share of it. From
 * Linux 6.12 on; without effect before, and for real-time threads.
 *
 * Threads and processes that are made inherit it: those that compute take the usual one again.
 */
#pragma once

#define SLICE_SHORT_NS 100000u /* the shortest there is */

void slice_short(void);
void slice_usual(void);
