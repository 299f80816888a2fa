/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - the event loop of the control thread, on io_uring. udp.h beside it moves datagrams;
 * controlplane/control.c is the main user. Only this folder includes liburing.
 *
 * Descriptors are watched with one-shot polls that are armed again after their callback: one entry
 * in a submission that is made anyway, and in return watches are level-triggered (a callback need
 * not read everything) and a watch that is not wanted any more has nothing in flight during its own
 * callback. Timers are deadlines kept here; the nearest one bounds the wait. An idle loop sleeps.
 *
 * Threads: everything from the one thread that runs the loop, except loop_stop(). Callbacks may
 * watch, unwatch (themselves too), close descriptors they have unwatched, and arm timers.
 */
#pragma once

#include <poll.h>
#include <stdint.h>

#include "schemas/base/clock.h"

#define LOOP_WATCHES_MAX 256u
#define LOOP_TIMERS_MAX  16u
#define LOOP_REST_NS     (100 * NS_PER_MS) /* without a descriptor for who connects */

struct loop;

typedef void (*loop_fd_fn)(int fd, void *user);
typedef void (*loop_timer_fn)(uint64_t now_ns, void *user);

/* Heap. Returns 0, -ENOMEM, or io_uring's -errno: -EPERM or -ENOSYS where it is not permitted
 * (logged with what to do). */
int loop_create(struct loop **loop);

/* Drops all watches; their descriptors stay open. NULL is fine. */
void loop_destroy(struct loop *loop);

/* Calls `fn` while `fd` is ready for `events` (POLLIN, POLLOUT), or has failed or been hung up.
 * The descriptor stays the caller's. Returns 0, -EEXIST if it is watched already, -ENOSPC beyond
 * LOOP_WATCHES_MAX, or -EBADF. */
int loop_watch(struct loop *loop, int fd, unsigned events, loop_fd_fn fn, void *user);

/* After it returns `fn` is not called any more and `fd` may be closed. Not watched: nothing. */
void loop_unwatch(struct loop *loop, int fd);

/* Accepts from a listening socket that is watched. Returns a descriptor that does not block and is
 * closed on exec, or -errno. With no descriptor or memory left who connects stays in the backlog
 * and the socket readable: its watch rests for LOOP_REST_NS then, logged when that begins. */
int loop_accept(struct loop *loop, int listen_fd);

/* Makes a timer, not armed yet. Returns its number, or -ENOSPC beyond LOOP_TIMERS_MAX. */
int loop_timer_add(struct loop *loop, loop_timer_fn fn, void *user);

/* Forgets a timer; a negative number: nothing. */
void loop_timer_remove(struct loop *loop, int timer);

/* Fires at `at_ns` of clock_now_ns(), then every `period_ns`; period 0: once. Periods missed while
 * a callback ran long are skipped. Replaces what was armed. */
void loop_timer_arm(struct loop *loop, int timer, uint64_t at_ns, uint64_t period_ns);
void loop_timer_disarm(struct loop *loop, int timer);

/* Runs callbacks until loop_stop(). Returns 0, or -errno if waiting failed. A stop asked for
 * before the call ends it at once; the loop can be run again afterwards. */
int loop_run(struct loop *loop);

/* Any thread, and signal handlers. */
void loop_stop(struct loop *loop);
