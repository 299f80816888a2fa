/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kernel.c - what kernel.c makes of rtnetlink messages. `tests/fuzz/nic/corpus` has what a
 * Linux 6.18 said to the commands named there, one after the other; kernel_watch is held against
 * the kernel of this machine in a namespace of its own, where one may be made.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/nic/kernel.h"
#include "dataplane/nic/kernel_message.h"
#include "dataplane/nic/kernel_watch.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

#define RECORDED_MAX 16384u
#define WAIT_MS      5000
#define INTERFACES   "60"
#define LISTS        400

static struct in6_addr own[2];

static _Alignas(8) uint8_t bytes[RECORDED_MAX];

static size_t read_recorded(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), WEFT_SOURCE_DIR "/tests/fuzz/nic/corpus/%s", name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    ck_assert(size > 0 && size < sizeof(bytes));
    fclose(file);
    return size;
}

struct heard {
    unsigned calls;
    struct in6_addr address;
    uint8_t last;
    bool news;
};

static bool hear(uint32_t interface, const struct in6_addr *address, const uint8_t mac[6],
                 void *user)
{
    struct heard *h = user;
    ck_assert_uint_ne(interface, 0);
    h->calls++;
    h->address = *address;
    h->last = mac[5];
    return h->news;
}

/* ---- recorded ---- */

#define LINK      KERNEL_NEWS_LINK
#define ADDRESSES KERNEL_NEWS_ADDRESSES
#define PATHS     KERNEL_NEWS_PATHS

static const struct step {
    const char *name;
    uint32_t news;
    bool there, up, v4, v6;
    uint32_t mtu;
} steps[] = {
    {"00_tap_made", LINK, true, false, false, false, 1500},
    {"01_address_added", ADDRESSES, true, false, true, false, 1500},
    {"02_second_added", 0, true, false, true, false, 1500},
    {"03_address6_added", ADDRESSES, true, false, true, true, 1500},
    {"04_set_up", LINK | PATHS, true, true, true, true, 1500},
    {"05_mtu", LINK, true, true, true, true, 1400},
    {"06_mac", LINK, true, true, true, true, 1400},
    {"07_neighbour", PATHS, true, true, true, true, 1400},
    {"08_neighbour6", PATHS, true, true, true, true, 1400},
    {"09_route", PATHS, true, true, true, true, 1400},
    {"10_elsewhere", 0, true, true, true, true, 1400},
    {"11_address_removed", PATHS, true, true, true, true, 1400},
    {"12_elsewhere_removed", ADDRESSES, true, true, false, true, 1400},
    {"13_address_added_again", ADDRESSES | PATHS, true, true, true, true, 1400},
    {"14_set_down", LINK | ADDRESSES | PATHS, true, false, true, false, 1400}, /* IPv6's go */
    {"15_address6_removed", ADDRESSES, true, false, false, false, 1400},
    {"16_renamed", LINK, false, false, false, false, 0},
    {"17_named_again", LINK, true, false, false, false, 1400},
    {"18_tap_removed", LINK, false, false, false, false, 0},
    {"19_tentative", LINK | PATHS, true, true, false, false, 1500},
    {"20_settled", ADDRESSES, true, true, false, true, 1500},
};

START_TEST(recorded_messages_are_understood)
{
    struct kernel kernel;
    struct heard heard = {.news = true};
    kernel_init(&kernel, "weft0", own, 2);
    kernel.neighbour = hear;
    kernel.user = &heard;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        const struct step *step = &steps[i];
        uint32_t news = kernel_take(&kernel, bytes, read_recorded(step->name));
        ck_assert_msg(news == step->news, "%s: news %u, not %u", step->name, news, step->news);
        ck_assert_msg(kernel.link.there == step->there && kernel.link.up == step->up &&
                          kernel.link.mtu == step->mtu,
                      "%s: there %d, up %d, mtu %u", step->name, kernel.link.there, kernel.link.up,
                      kernel.link.mtu);
        ck_assert_msg(kernel_has(&kernel, false) == step->v4 &&
                          kernel_has(&kernel, true) == step->v6,
                      "%s: IPv4 %d, IPv6 %d", step->name, kernel_has(&kernel, false),
                      kernel_has(&kernel, true));
        if (i == 6) {
            ck_assert_uint_eq(kernel.link.mac[5], 0x77);
        }
        if (i == 7 || i == 8) {
            struct in6_addr address;
            ck_assert(addr_parse(i == 7 ? "10.77.0.1" : "fd77::1", &address));
            ck_assert(addr_equal(&heard.address, &address));
            ck_assert_uint_eq(heard.last, i == 7 ? 1 : 6);
        }
    }
}
END_TEST

START_TEST(neighbours_are_news_to_who_asks)
{
    struct kernel kernel;
    struct heard heard = {.news = false};
    kernel_init(&kernel, "weft0", own, 2);
    size_t size = read_recorded("07_neighbour");
    ck_assert_uint_eq(kernel_take(&kernel, bytes, size), 0);
    kernel.neighbour = hear;
    kernel.user = &heard;
    ck_assert_uint_eq(kernel_take(&kernel, bytes, size), 0);
    ck_assert_uint_eq(heard.calls, 1);
}
END_TEST

/* Every beginning of what was recorded, and lengths that are lies. */
START_TEST(what_is_cut_is_passed_over)
{
    struct kernel kernel;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        size_t size = read_recorded(steps[i].name);
        for (size_t cut = 0; cut < size && cut < 600; cut++) {
            uint32_t *copy = malloc(cut + 4); /* to its end, for the sanitizer */
            memcpy(copy, bytes, cut);
            kernel_init(&kernel, "weft0", own, 2);
            (void)kernel_take(&kernel, copy, cut);
            free(copy);
        }
    }
    static const uint32_t lies[] = {0, 1, 15, 0x7fffffff, 0x80000000u, 0xfffffff0u, 0xffffffffu};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        size_t size = read_recorded("01_address_added");
        memcpy(bytes, &lies[i], sizeof(lies[i]));
        kernel_init(&kernel, "weft0", own, 2);
        ck_assert_uint_eq(kernel_take(&kernel, bytes, size), 0);
    }
}
END_TEST

/* RTM_NEWADDR or RTM_DELADDR as the kernel lays it out. */
static size_t put_address(uint16_t type, uint32_t interface, const char *text, uint32_t flags)
{
    struct {
        struct nlmsghdr head;
        struct ifaddrmsg info;
        struct rtattr address_attr;
        uint8_t address[16];
        struct rtattr flags_attr;
        uint32_t flags;
    } m = {
        .head = {.nlmsg_len = sizeof(m), .nlmsg_type = type},
        .info = {.ifa_family = AF_INET6, .ifa_prefixlen = 64, .ifa_index = interface},
        .address_attr = {.rta_len = 20, .rta_type = IFA_ADDRESS},
        .flags_attr = {.rta_len = 8, .rta_type = IFA_FLAGS},
        .flags = flags,
    };
    ck_assert_int_eq(inet_pton(AF_INET6, text, m.address), 1);
    memcpy(bytes, &m, sizeof(m));
    return sizeof(m);
}

START_TEST(an_address_must_be_ready)
{
    static const struct {
        uint32_t flags;
        bool has;
    } cases[] = {
        {IFA_F_PERMANENT, true},
        {IFA_F_PERMANENT | IFA_F_TENTATIVE, false},
        {IFA_F_TENTATIVE | IFA_F_OPTIMISTIC, true},
        {IFA_F_PERMANENT | IFA_F_TENTATIVE | IFA_F_DADFAILED, false},
        {IFA_F_DEPRECATED, true},
    };
    struct kernel kernel;
    kernel_init(&kernel, "weft0", own, 2);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)kernel_take(&kernel, bytes, put_address(RTM_NEWADDR, 7, "fd77::2", cases[i].flags));
        ck_assert(kernel_has(&kernel, true) == cases[i].has);
        ck_assert(!kernel_has(&kernel, false));
    }
    (void)kernel_take(&kernel, bytes, put_address(RTM_NEWADDR, 7, "fd77::3", 0));
    ck_assert_uint_eq(kernel_take(&kernel, bytes, put_address(RTM_DELADDR, 7, "fd77::2", 0)),
                      ADDRESSES);
}
END_TEST

/* On any interface: the kernel answers for its addresses everywhere. */
START_TEST(an_address_may_be_anywhere)
{
    struct kernel kernel;
    kernel_init(&kernel, "weft0", own, 2);
    for (uint32_t i = 1; i <= KERNEL_PLACES_MAX + 3; i++) {
        uint32_t news =
            kernel_take(&kernel, bytes, put_address(RTM_NEWADDR, i, "fd77::2", IFA_F_PERMANENT));
        ck_assert_uint_eq(news, i == 1 ? ADDRESSES : 0);
        (void)kernel_take(&kernel, bytes, put_address(RTM_NEWADDR, 1, "fd77::2", 0));
    }
    ck_assert_uint_eq(kernel.own[1].place_count, KERNEL_PLACES_MAX);
    for (uint32_t i = 1; i <= KERNEL_PLACES_MAX; i++) {
        ck_assert(kernel_has(&kernel, true));
        uint32_t news = kernel_take(&kernel, bytes, put_address(RTM_DELADDR, i, "fd77::2", 0));
        ck_assert_uint_eq(news, i == KERNEL_PLACES_MAX ? ADDRESSES : 0);
    }
    kernel_forget(&kernel);
    ck_assert(!kernel_has(&kernel, true));
}
END_TEST

static size_t put_part(size_t at, uint32_t sequence, uint16_t type, uint16_t flags, int32_t error)
{
    struct {
        struct nlmsghdr head;
        int32_t error;
    } m = {
        .head = {.nlmsg_len = sizeof(m),
                 .nlmsg_type = type,
                 .nlmsg_flags = flags,
                 .nlmsg_seq = sequence},
        .error = error,
    };
    memcpy(bytes + at, &m, sizeof(m));
    return at + sizeof(m);
}

static void count_one(const struct nlmsghdr *message, void *user)
{
    ck_assert_uint_eq(message->nlmsg_type, RTM_NEWLINK);
    ++*(uint32_t *)user;
}

START_TEST(answers_have_an_end)
{
    const uint16_t torn = NLM_F_MULTI | NLM_F_DUMP_INTR;
    uint32_t count = 0;
    struct kernel_answer answer = {.sequence = 7, .fn = count_one, .user = &count};
    size_t size = put_part(0, 6, NLMSG_DONE, NLM_F_MULTI, 0); /* of an earlier question */
    size = put_part(size, 6, NLMSG_ERROR, 0, -EPERM);
    size = put_part(size, 7, RTM_NEWLINK, NLM_F_MULTI, 0);
    size = put_part(size, 7, NLMSG_NOOP, NLM_F_MULTI, 0);
    ck_assert_int_eq(kernel_message_answer(&answer, bytes, size), 1);
    ck_assert(count == 1 && !answer.torn);
    size = put_part(0, 7, RTM_NEWLINK, torn, 0);
    ck_assert_int_eq(kernel_message_answer(&answer, bytes, size), 1); /* torn, and not over */
    ck_assert(count == 2 && answer.torn);
    size = put_part(0, 7, RTM_NEWLINK, NLM_F_MULTI, 0);
    size = put_part(size, 7, NLMSG_DONE, torn, 0);
    size = put_part(size, 7, RTM_NEWADDR, NLM_F_MULTI, 0);
    ck_assert_int_eq(kernel_message_answer(&answer, bytes, size), 0);
    ck_assert_uint_eq(count, 3);
    ck_assert_int_eq(kernel_message_answer(&answer, bytes, put_part(0, 7, RTM_NEWLINK, 0, 0)), 0);
    ck_assert_uint_eq(count, 4);
    size = put_part(0, 7, NLMSG_ERROR, 0, -ENETUNREACH);
    ck_assert_int_eq(kernel_message_answer(&answer, bytes, size), -ENETUNREACH);
    ck_assert_int_eq(kernel_message_answer(&answer, bytes, size - 1), 1); /* cut: nothing there */
}
END_TEST

/* ---- this machine's kernel ---- */

static struct kernel_watch *watch;

/* Reads until the kernel has said all that `wanted` names. */
static void expect_news(uint32_t wanted)
{
    uint32_t news = 0;
    struct pollfd fd = {.fd = kernel_watch_fd(watch), .events = POLLIN};
    while ((news & wanted) != wanted) {
        ck_assert_msg(poll(&fd, 1, WAIT_MS) == 1, "news %u, waiting for %u", news, wanted);
        news |= kernel_watch_read(watch);
    }
}

static void sh(const char *command)
{
    ck_assert_msg(system(command) == 0, "%s", command);
}

START_TEST(the_kernel_is_heard)
{
    if (unshare(CLONE_NEWNET) != 0 || system("ip tuntap add weft0 mode tap 2>/dev/null") != 0) {
        return; /* not here */
    }
    sh("ip addr add 10.77.0.2/24 dev weft0");
    ck_assert_int_eq(kernel_watch_create(&watch, "weft0", own, 2, NULL, NULL), 0);
    const struct kernel *state = kernel_watch_state(watch);
    ck_assert(state->link.there && !state->link.up && state->link.mtu == 1500);
    ck_assert(kernel_has(state, false) && !kernel_has(state, true));
    sh("ip link set weft0 up");
    expect_news(LINK);
    ck_assert(state->link.up && !state->link.carrier);
    sh("ip addr del 10.77.0.2/24 dev weft0");
    expect_news(ADDRESSES);
    ck_assert(!kernel_has(state, false));
    sh("ip addr add fd77::2/64 dev weft0 nodad && ip addr add 10.77.0.2/24 dev weft0");
    expect_news(ADDRESSES | PATHS);
    while (!kernel_has(state, true) || !kernel_has(state, false)) {
        expect_news(ADDRESSES);
    }
    sh("ip link set weft0 mtu 1280");
    expect_news(LINK);
    ck_assert_uint_eq(state->link.mtu, 1280);
    uint32_t index = state->index;
    sh("ip link del weft0");
    while (state->link.there || kernel_has(state, false)) {
        expect_news(LINK);
    }
    sh("ip tuntap add weft0 mode tap");
    expect_news(LINK);
    ck_assert(state->link.there && state->index != index);
    kernel_watch_destroy(watch);
}
END_TEST

/* More than the socket holds: the kernel says so, and all is asked for anew. */
START_TEST(lost_messages_are_made_good)
{
    if (unshare(CLONE_NEWNET) != 0 || system("ip tuntap add weft0 mode tap 2>/dev/null") != 0) {
        return;
    }
    int least = 1;
    ck_assert_int_eq(kernel_watch_create(&watch, "weft0", own, 2, NULL, NULL), 0);
    ck_assert_int_eq(
        setsockopt(kernel_watch_fd(watch), SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)), 0);
    sh("for i in 1 2 3 4 5 6 7 8 9; do ip link set weft0 mtu 130$i; done; "
       "ip addr add 10.77.0.2/24 dev weft0; ip link set weft0 up");
    const struct kernel *state = kernel_watch_state(watch);
    struct pollfd fd = {.fd = kernel_watch_fd(watch), .events = POLLIN};
    while (!state->link.up || state->link.mtu != 1309 || !kernel_has(state, false)) {
        ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
        (void)kernel_watch_read(watch);
    }
    kernel_watch_destroy(watch);
    kernel_watch_destroy(NULL);
}
END_TEST

/* Interfaces come and go while the kernel lists more of them than one message holds: it marks such
 * a list, which is to be read to its end all the same. */
START_TEST(lists_that_change_are_read_to_their_end)
{
    if (unshare(CLONE_NEWNET) != 0 || system("ip tuntap add weft0 mode tap 2>/dev/null") != 0) {
        return;
    }
    sh("ip addr add 10.77.0.2/24 dev weft0");
    sh("i=0; while [ $i -lt " INTERFACES " ]; do echo \"tuntap add before$i mode tap\"; "
       "i=$((i + 1)); done | ip -batch -");
    pid_t changes = fork();
    if (changes == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) { /* an interface that goes with its descriptor */
            struct ifreq other = {.ifr_name = "other", .ifr_flags = IFF_TAP | IFF_NO_PI};
            int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
            (void)!ioctl(fd, TUNSETIFF, &other);
            close(fd);
        }
    }
    for (int i = 0; i < LISTS; i++) {
        ck_assert_int_eq(kernel_watch_create(&watch, "weft0", own, 2, NULL, NULL), 0);
        ck_assert(kernel_watch_state(watch)->link.there);
        ck_assert(kernel_has(kernel_watch_state(watch), false));
        kernel_watch_destroy(watch);
    }
    kill(changes, SIGKILL);
    waitpid(changes, NULL, 0);
}
END_TEST

int main(void)
{
    if (!addr_parse("10.77.0.2", &own[0]) || !addr_parse("fd77::2", &own[1])) {
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("kernel");
    TCase *tc = tcase_create("messages");
    tcase_add_test(tc, recorded_messages_are_understood);
    tcase_add_test(tc, neighbours_are_news_to_who_asks);
    tcase_add_test(tc, what_is_cut_is_passed_over);
    tcase_add_test(tc, an_address_must_be_ready);
    tcase_add_test(tc, an_address_may_be_anywhere);
    tcase_add_test(tc, answers_have_an_end);
    tcase_add_test(tc, the_kernel_is_heard);
    tcase_add_test(tc, lost_messages_are_made_good);
    tcase_add_test(tc, lists_that_change_are_read_to_their_end);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
