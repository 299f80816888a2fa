/* SPDX-License-Identifier: Apache-2.0 */
/* test_loop.c - controlplane/loop on real descriptors: readiness, unwatching in callbacks, closing,
 * timers, datagrams, stopping from elsewhere, and no work while idle. */
#include "controlplane/loop/loop.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/loop/udp.h"
#include "schemas/base/addr.h"
#include "schemas/base/clock.h"
#include "tests/unit/loop_suite.h"

static struct loop *loop;

static void loop_setup(void)
{
    ck_assert_int_eq(loop_create(&loop), 0);
}

static void loop_teardown(void)
{
    loop_destroy(loop);
    loop_destroy(NULL);
}

/* Ends a run that would otherwise wait for ever. */
static void stop_at(uint64_t now_ns, void *user)
{
    (void)now_ns;
    (void)user;
    loop_stop(loop);
}

static void run_for(uint64_t time_ns)
{
    int timer = loop_timer_add(loop, stop_at, NULL);
    ck_assert_int_ge(timer, 0);
    loop_timer_arm(loop, timer, clock_now_ns() + time_ns, 0);
    ck_assert_int_eq(loop_run(loop), 0);
    loop_timer_remove(loop, timer);
}

struct counted {
    unsigned calls;
    unsigned stop_after;
    bool read;
    bool unwatch;
    bool close;
    int other; /* to be unwatched and closed too, -1 = none */
};

static void count(int fd, void *user)
{
    struct counted *counted = user;
    char byte;
    counted->calls++;
    if (counted->read) {
        ck_assert_int_eq(read(fd, &byte, 1), 1);
    }
    if (counted->unwatch) {
        loop_unwatch(loop, fd);
    }
    if (counted->close) {
        close(fd);
    }
    if (counted->other >= 0) {
        loop_unwatch(loop, counted->other);
        close(counted->other);
        counted->other = -1;
    }
    if (counted->calls == counted->stop_after) {
        loop_stop(loop);
    }
}

START_TEST(reads_level_triggered)
{
    struct counted counted = {.stop_after = 3, .read = true, .other = -1};
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(loop_watch(loop, ends[0], POLLIN, count, &counted), 0);
    ck_assert_int_eq(loop_watch(loop, ends[0], POLLIN, count, &counted), -EEXIST);
    /* Three bytes with one wake-up, read one at a time: three calls. */
    ck_assert_int_eq(write(ends[1], "abc", 3), 3);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(counted.calls, 3);
    run_for(20 * NS_PER_MS);
    ck_assert_uint_eq(counted.calls, 3);
    /* And again after it was idle. */
    counted.stop_after = 4;
    ck_assert_int_eq(write(ends[1], "d", 1), 1);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(counted.calls, 4);
    loop_unwatch(loop, ends[0]);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(hang_up_is_seen)
{
    struct counted counted = {.stop_after = 1, .unwatch = true, .close = true, .other = -1};
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(loop_watch(loop, ends[0], POLLIN, count, &counted), 0);
    close(ends[1]);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(counted.calls, 1);
}
END_TEST

START_TEST(bad_descriptors)
{
    struct counted counted = {.other = -1};
    ck_assert_int_eq(loop_watch(loop, -1, POLLIN, count, &counted), -EBADF);
    ck_assert_int_eq(loop_watch(loop, 9999, POLLIN, count, &counted), -EBADF);
    loop_unwatch(loop, 9999);
}
END_TEST

/* A descriptor closed while still watched, against the rules: the loop must not spin on it. */
START_TEST(closed_without_unwatch)
{
    struct counted counted = {.read = false, .close = true, .other = -1};
    int fd = eventfd(1, 0);
    ck_assert_int_eq(loop_watch(loop, fd, POLLIN, count, &counted), 0);
    run_for(30 * NS_PER_MS);
    ck_assert_uint_eq(counted.calls, 1);
}
END_TEST

/* Two ready in one batch; whichever comes first drops the other: that one must not be called. */
START_TEST(unwatch_other_in_callback)
{
    struct counted counted[2] = {{.unwatch = true, .close = true},
                                 {.unwatch = true, .close = true}};
    int fds[2] = {eventfd(1, 0), eventfd(1, 0)};
    for (unsigned i = 0; i < 2; i++) {
        counted[i].other = fds[1 - i];
        ck_assert_int_eq(loop_watch(loop, fds[i], POLLIN, count, &counted[i]), 0);
    }
    run_for(30 * NS_PER_MS);
    ck_assert_uint_eq(counted[0].calls + counted[1].calls, 1);
}
END_TEST

/* The number of a closed descriptor comes back at once: its new watch is another one. */
START_TEST(number_used_again)
{
    struct counted old = {.other = -1};
    struct counted fresh = {.stop_after = 1, .unwatch = true, .other = -1};
    for (unsigned i = 0; i < 1000; i++) {
        int fd = eventfd(0, 0);
        ck_assert_int_eq(loop_watch(loop, fd, POLLIN, count, &old), 0);
        loop_unwatch(loop, fd);
        close(fd);
        int again = eventfd(1, 0);
        ck_assert_int_eq(again, fd);
        fresh.calls = 0;
        ck_assert_int_eq(loop_watch(loop, again, POLLIN, count, &fresh), 0);
        ck_assert_int_eq(loop_run(loop), 0);
        ck_assert_uint_eq(fresh.calls, 1);
        close(again);
    }
    ck_assert_uint_eq(old.calls, 0);
}
END_TEST

/* After unwatch and close nothing holds the file: the peer sees the end at once. */
START_TEST(unwatch_lets_go_of_the_file)
{
    struct counted near_end = {.other = -1};
    struct counted far_end = {.stop_after = 1, .unwatch = true, .other = -1};
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    ck_assert_int_eq(loop_watch(loop, ends[0], POLLIN, count, &near_end), 0);
    ck_assert_int_eq(loop_watch(loop, ends[1], POLLIN, count, &far_end), 0);
    run_for(5 * NS_PER_MS); /* both polls are in flight */
    loop_unwatch(loop, ends[0]);
    close(ends[0]);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(far_end.calls, 1);
    close(ends[1]);
}
END_TEST

static struct in6_addr loopback(bool ip6)
{
    return ip6 ? in6addr_loopback : addr_of_v4(htonl(INADDR_LOOPBACK));
}

/* Also before the loop goes on: the port is free for the next socket. */
START_TEST(port_is_free_after_unwatch)
{
    struct counted counted = {.other = -1};
    struct in6_addr local = loopback(false);
    uint16_t port = 0;
    int fd;
    ck_assert_int_eq(udp_open(&fd, &local, &port), 0);
    ck_assert_int_eq(loop_watch(loop, fd, POLLIN, count, &counted), 0);
    run_for(5 * NS_PER_MS); /* the poll is in flight */
    loop_unwatch(loop, fd);
    close(fd);
    ck_assert_int_eq(udp_open(&fd, &local, &port), 0);
    close(fd);
}
END_TEST

START_TEST(watch_limit)
{
    struct counted counted = {.other = -1};
    int fds[LOOP_WATCHES_MAX];
    unsigned watched = 0;
    for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++) {
        fds[i] = eventfd(0, 0);
        ck_assert_int_ge(fds[i], 0);
        int rc = loop_watch(loop, fds[i], POLLIN, count, &counted);
        ck_assert(rc == 0 || rc == -ENOSPC);
        watched += rc == 0 ? 1 : 0;
    }
    ck_assert_uint_eq(watched, LOOP_WATCHES_MAX - 1); /* one is the loop's own */
    /* All of them ready at once, all of them called. */
    uint64_t one = 1;
    for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++) {
        ck_assert_int_eq(write(fds[i], &one, sizeof(one)), sizeof(one));
    }
    counted.unwatch = true;
    run_for(50 * NS_PER_MS);
    ck_assert_uint_eq(counted.calls, watched);
    for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++) {
        close(fds[i]);
    }
}
END_TEST

struct ticks {
    unsigned calls;
    unsigned stop_after;
    uint64_t last_ns;
};

static void tick(uint64_t now_ns, void *user)
{
    struct ticks *ticks = user;
    ck_assert_uint_gt(now_ns, ticks->last_ns);
    ticks->last_ns = now_ns;
    if (++ticks->calls == ticks->stop_after) {
        loop_stop(loop);
    }
}

START_TEST(timers)
{
    struct ticks every = {.stop_after = 10};
    struct ticks once = {.stop_after = 0};
    struct ticks never = {.stop_after = 0};
    uint64_t start_ns = clock_now_ns();
    int periodic = loop_timer_add(loop, tick, &every);
    int single = loop_timer_add(loop, tick, &once);
    int disarmed = loop_timer_add(loop, tick, &never);
    loop_timer_arm(loop, periodic, start_ns + 2 * NS_PER_MS, 2 * NS_PER_MS);
    loop_timer_arm(loop, single, start_ns + NS_PER_MS, 0);
    loop_timer_arm(loop, disarmed, start_ns + NS_PER_MS, 0);
    loop_timer_disarm(loop, disarmed);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(every.calls, 10);
    ck_assert_uint_eq(once.calls, 1);
    ck_assert_uint_eq(never.calls, 0);
    ck_assert_uint_ge(every.last_ns, start_ns + 20 * NS_PER_MS); /* never early */
}
END_TEST

START_TEST(timer_limit)
{
    struct ticks ticks = {.stop_after = 0};
    for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++) {
        ck_assert_int_ge(loop_timer_add(loop, tick, &ticks), 0);
    }
    ck_assert_int_eq(loop_timer_add(loop, tick, &ticks), -ENOSPC);
    loop_timer_remove(loop, 3);
    loop_timer_remove(loop, -ENOSPC);
    ck_assert_int_eq(loop_timer_add(loop, tick, &ticks), 3);
}
END_TEST

static void *stop_soon(void *user)
{
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    (void)user;
    nanosleep(&pause, NULL);
    loop_stop(loop);
    return NULL;
}

START_TEST(stop_from_a_thread)
{
    pthread_t thread;
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_create(&thread, NULL, stop_soon, NULL), 0);
        ck_assert_int_eq(loop_run(loop), 0);
        pthread_join(thread, NULL);
    }
    loop_stop(loop); /* before the run: ends it at once */
    ck_assert_int_eq(loop_run(loop), 0);
}
END_TEST

static void stop_by_signal(int number)
{
    (void)number;
    loop_stop(loop);
}

START_TEST(stop_from_a_signal)
{
    struct sigaction action = {.sa_handler = stop_by_signal};
    struct timespec first = {.tv_nsec = 20 * 1000 * 1000};
    struct itimerspec when = {.it_value = first};
    timer_t timer;
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, NULL, &timer), 0);
    ck_assert_int_eq(timer_settime(timer, 0, &when, NULL), 0);
    ck_assert_int_eq(loop_run(loop), 0);
    timer_delete(timer);
}
END_TEST

/* A loop with watches and far timers but nothing to do takes no CPU time: sleeping, not spinning.
 * The bound is a fifth of what spinning would take. */
START_TEST(idle_costs_nothing)
{
    struct counted counted = {.other = -1};
    struct timespec before;
    struct timespec after;
    int fd = eventfd(0, 0);
    ck_assert_int_eq(loop_watch(loop, fd, POLLIN, count, &counted), 0);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    run_for(300 * NS_PER_MS);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    int64_t used_ns =
        (int64_t)(after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    ck_assert_int_lt(used_ns, 60 * 1000 * 1000);
    loop_unwatch(loop, fd);
    close(fd);
}
END_TEST

struct accepting {
    unsigned calls;
    unsigned accepted;
};

/* A listening socket that somebody has connected to. */
static int listen_to_one(int *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX}; /* the kernel finds a name */
    socklen_t len = sizeof(sa_family_t);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    *client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, len), 0);
    len = sizeof(address);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(connect(*client, (struct sockaddr *)&address, len), 0);
    return listener;
}

static void accept_one(int fd, void *user)
{
    struct accepting *a = user;
    int got = loop_accept(loop, fd);
    a->calls++;
    ck_assert(got >= 0 || got == -EMFILE);
    if (got >= 0) {
        a->accepted++;
        close(got);
        loop_stop(loop);
    }
}

/* Who connects while no descriptor is left is asked for now and then, not all the time, and comes
 * in when there is one. Others are served meanwhile. */
START_TEST(accepting_rests_without_descriptors)
{
    struct accepting accepting = {.calls = 0};
    struct counted counted = {.read = true, .other = -1};
    int ends[2];
    int client;
    int listener = listen_to_one(&client);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(loop_watch(loop, listener, POLLIN, accept_one, &accepting), 0);
    ck_assert_int_eq(loop_watch(loop, ends[0], POLLIN, count, &counted), 0);
    struct rlimit limit = fds_gone();
    ck_assert_int_eq(write(ends[1], "abc", 3), 3);
    uint64_t begin_ns = clock_now_ns();
    run_for(3 * LOOP_REST_NS);
    uint64_t rests = (clock_now_ns() - begin_ns) / LOOP_REST_NS;
    ck_assert_uint_ge(accepting.calls, 1);
    ck_assert_uint_le(accepting.calls, rests + 1);
    ck_assert_uint_eq(accepting.accepted, 0);
    ck_assert_uint_eq(counted.calls, 3);
    fds_back(&limit);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(accepting.accepted, 1);
    loop_unwatch(loop, listener);
    loop_unwatch(loop, ends[0]);
    int fds[] = {listener, client, ends[0], ends[1]};
    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        close(fds[i]);
    }
}
END_TEST

/* A watch that rests may be let go of, and its place be taken. */
START_TEST(unwatched_at_rest)
{
    struct accepting accepting = {.calls = 0};
    int client;
    int listener = listen_to_one(&client);
    ck_assert_int_eq(loop_watch(loop, listener, POLLIN, accept_one, &accepting), 0);
    struct rlimit limit = fds_gone();
    run_for(LOOP_REST_NS / 4);
    fds_back(&limit);
    ck_assert_uint_ge(accepting.calls, 1);
    loop_unwatch(loop, listener);
    ck_assert_int_eq(loop_watch(loop, listener, POLLIN, accept_one, &accepting), 0);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(accepting.accepted, 1);
    run_for(2 * LOOP_REST_NS);
    loop_unwatch(loop, listener);
    close(listener);
    close(client);
}
END_TEST

#define FLOOD 100u

struct flood {
    struct udp_datagram batch[UDP_BATCH];
    unsigned count;
    struct in6_addr from;
    uint16_t from_port;
};

static void flood_receive(int fd, void *user)
{
    struct flood *flood = user;
    int got = udp_receive(fd, flood->batch, UDP_BATCH);
    ck_assert_int_ge(got, 0);
    for (int i = 0; i < got; i++) {
        ck_assert_uint_eq(flood->batch[i].port, flood->from_port);
        ck_assert(addr_equal(&flood->batch[i].address, &flood->from));
        ck_assert_uint_eq(flood->batch[i].len, 10 + flood->count);
        ck_assert_uint_eq(flood->batch[i].data[0], flood->count);
        flood->count++;
    }
    if (flood->count == FLOOD) {
        loop_stop(loop);
    }
}

START_TEST(datagrams)
{
    static struct flood flood;
    static struct udp_datagram out[UDP_BATCH];
    struct in6_addr local = loopback(_i != 0);
    uint16_t ports[2] = {0, 0};
    int fds[2];
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(udp_open(&fds[i], &local, &ports[i]), 0);
    }
    int taken;
    ck_assert_int_eq(udp_open(&taken, &local, &ports[0]), -EADDRINUSE);
    ck_assert_int_eq(udp_receive(fds[1], flood.batch, UDP_BATCH), 0);
    flood.count = 0;
    flood.from = local;
    flood.from_port = ports[0];
    for (unsigned sent = 0; sent < FLOOD;) {
        unsigned count = 0;
        for (; count < UDP_BATCH && sent < FLOOD; count++, sent++) {
            out[count] = (struct udp_datagram){
                .address = local, .port = ports[1], .len = (uint16_t)(10 + sent)};
            out[count].data[0] = (uint8_t)sent;
        }
        ck_assert_int_eq(udp_send(fds[0], out, count), (int)count);
    }
    ck_assert_int_eq(loop_watch(loop, fds[1], POLLIN, flood_receive, &flood), 0);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(flood.count, FLOOD);
    loop_unwatch(loop, fds[1]);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

/* ---- a start that must wait ---- */

#define LATE_US   100000
#define LATE_HOST 0x0a090807u

static void *late_close(void *user)
{
    usleep(LATE_US);
    close(*(int *)user);
    return NULL;
}

static void interface_set(const char *name, unsigned long what, uint32_t host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
    struct ifreq request = {.ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (what == SIOCSIFADDR) {
        memcpy(&request.ifr_addr, &address, sizeof(address));
    }
    strcpy(request.ifr_name, name);
    ck_assert_int_eq(ioctl(fd, what, &request), 0);
    close(fd);
}

static void *late_address(void *user)
{
    (void)user;
    usleep(LATE_US);
    interface_set("lo:late", SIOCSIFADDR, LATE_HOST);
    return NULL;
}

START_TEST(a_port_that_comes_free_late)
{
    struct in6_addr local = loopback(_i != 0);
    uint16_t port = 0;
    int held, fd;
    pthread_t thread;
    ck_assert_int_eq(udp_open(&held, &local, &port), 0);
    ck_assert_int_eq(udp_open(&fd, &local, &port), -EADDRINUSE);
    ck_assert_int_eq(pthread_create(&thread, NULL, late_close, &held), 0);
    ck_assert_int_eq(udp_open_patiently(&fd, &local, &port), 0);
    pthread_join(thread, NULL);
    close(fd);
}
END_TEST

/* In a network of its own, whose one interface has yet to get that address. */
START_TEST(an_address_that_comes_late)
{
    struct in6_addr local = addr_of_v4(htonl(LATE_HOST));
    uint16_t port = 0;
    int fd;
    pthread_t thread;
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        printf("an_address_that_comes_late needs a network namespace\n");
        return;
    }
    interface_set("lo", SIOCSIFFLAGS, 0);
    ck_assert_int_eq(udp_open(&fd, &local, &port), -EADDRNOTAVAIL);
    ck_assert_int_eq(pthread_create(&thread, NULL, late_address, NULL), 0);
    ck_assert_int_eq(udp_open_patiently(&fd, &local, &port), 0);
    pthread_join(thread, NULL);
    close(fd);
}
END_TEST

/* One refused destination must not take the others with it. */
START_TEST(send_passes_over_refusals)
{
    static struct udp_datagram out[3];
    struct in6_addr local = loopback(false);
    struct in6_addr broadcast = addr_of_v4(htonl(INADDR_BROADCAST)); /* not allowed: EACCES */
    uint16_t port = 0;
    int fd;
    ck_assert_int_eq(udp_open(&fd, &local, &port), 0);
    for (unsigned i = 0; i < 3; i++) {
        out[i] =
            (struct udp_datagram){.address = i == 0 ? broadcast : local, .port = port, .len = 4};
    }
    ck_assert_int_eq(udp_send(fd, out, 3), 2);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop");
    TCase *tcase = tcase_create("loop");
    tcase_add_checked_fixture(tcase, loop_setup, loop_teardown);
    tcase_add_test(tcase, reads_level_triggered);
    tcase_add_test(tcase, hang_up_is_seen);
    tcase_add_test(tcase, bad_descriptors);
    tcase_add_test(tcase, closed_without_unwatch);
    tcase_add_test(tcase, unwatch_other_in_callback);
    tcase_add_test(tcase, number_used_again);
    tcase_add_test(tcase, unwatch_lets_go_of_the_file);
    tcase_add_test(tcase, port_is_free_after_unwatch);
    tcase_add_test(tcase, watch_limit);
    tcase_add_test(tcase, timers);
    tcase_add_test(tcase, timer_limit);
    tcase_add_test(tcase, stop_from_a_thread);
    tcase_add_test(tcase, stop_from_a_signal);
    tcase_add_test(tcase, idle_costs_nothing);
    tcase_add_test(tcase, accepting_rests_without_descriptors);
    tcase_add_test(tcase, unwatched_at_rest);
    tcase_add_loop_test(tcase, datagrams, 0, 2);
    tcase_add_test(tcase, send_passes_over_refusals);
    tcase_add_loop_test(tcase, a_port_that_comes_free_late, 0, 2);
    tcase_add_test(tcase, an_address_that_comes_late);
    suite_add_tcase(suite, tcase);
    return loop_suite_main(suite);
}
