/* SPDX-License-Identifier: Apache-2.0 */
/* xdp.c - see xdp.h. The filter's object file is embedded, and written out with the port in it. */
#include "dataplane/nic/xdp.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "schemas/base/log.h"

#define FILTER_NAME "weft_filter" /* of the function in xdp_filter.bpf.c */
#define MARKER      "WeftPort"
#define MARKER_LEN  8u

/* XDP_FILTER_OBJECT is the path of the compiled filter, given by the build. */
__asm__(".section .rodata\n"
        ".balign 16\n"
        ".global weft_xdp_filter\n"
        ".global weft_xdp_filter_end\n"
        "weft_xdp_filter:\n"
        ".incbin \"" XDP_FILTER_OBJECT "\"\n"
        "weft_xdp_filter_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const uint8_t weft_xdp_filter[];
extern const uint8_t weft_xdp_filter_end[];

/* ---- the file ---- */

static int write_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size != 0) {
        ssize_t written = write(fd, bytes, size);
        if (written <= 0) {
            return written < 0 ? -errno : -EIO;
        }
        bytes += written;
        size -= (size_t)written;
    }
    return 0;
}

/* A copy of the object with the port behind its marker; heap. */
static uint8_t *filter_for(uint16_t port, size_t *size)
{
    *size = (size_t)(weft_xdp_filter_end - weft_xdp_filter);
    uint8_t *copy = malloc(*size);
    if (copy == NULL) {
        return NULL;
    }
    memcpy(copy, weft_xdp_filter, *size);
    uint8_t *at = memmem(copy, *size, MARKER, MARKER_LEN);
    if (at == NULL || (size_t)(at - copy) + MARKER_LEN + 2 > *size) {
        free(copy);
        return NULL;
    }
    at[MARKER_LEN] = (uint8_t)(port >> 8);
    at[MARKER_LEN + 1] = (uint8_t)port;
    return copy;
}

static int write_filter(struct xdp *xdp, const char *folder, uint16_t port)
{
    size_t size;
    uint8_t *filter = filter_for(port, &size);
    if (filter == NULL) {
        return -ENOMEM;
    }
    int length = snprintf(xdp->object, sizeof(xdp->object), "%s/weft-xdp-XXXXXX", folder);
    int fd = length < (int)sizeof(xdp->object) ? mkostemp(xdp->object, O_CLOEXEC) : -1;
    int rc = fd < 0 ? -errno : write_all(fd, filter, size);
    if (fd >= 0 && close(fd) != 0 && rc == 0) {
        rc = -errno;
    }
    if (fd < 0) {
        xdp->object[0] = '\0';
    }
    free(filter);
    return rc;
}

/* ---- what is attached ---- */

struct attached {
    uint32_t id; /* 0 = nothing */
    uint32_t flags;
    char name[BPF_OBJ_NAME_LEN];
};

static int query(uint32_t ifindex, struct attached *attached)
{
    LIBBPF_OPTS(bpf_xdp_query_opts, opts);
    memset(attached, 0, sizeof(*attached));
    int rc = bpf_xdp_query((int)ifindex, 0, &opts);
    if (rc != 0 || opts.attach_mode == XDP_ATTACHED_NONE) {
        return rc;
    }
    attached->id = opts.prog_id != 0       ? opts.prog_id
                   : opts.drv_prog_id != 0 ? opts.drv_prog_id
                   : opts.skb_prog_id != 0 ? opts.skb_prog_id
                                           : opts.hw_prog_id;
    attached->flags = opts.attach_mode == XDP_ATTACHED_SKB   ? XDP_FLAGS_SKB_MODE
                      : opts.attach_mode == XDP_ATTACHED_DRV ? XDP_FLAGS_DRV_MODE
                      : opts.attach_mode == XDP_ATTACHED_HW  ? XDP_FLAGS_HW_MODE
                                                             : 0;
    int fd = bpf_prog_get_fd_by_id(attached->id);
    if (fd < 0) {
        return fd;
    }
    struct bpf_prog_info info = {.id = 0};
    uint32_t size = sizeof(info);
    rc = bpf_obj_get_info_by_fd(fd, &info, &size);
    close(fd);
    memcpy(attached->name, info.name, sizeof(attached->name));
    return rc;
}

static bool is_ours(const struct attached *attached)
{
    return strncmp(attached->name, FILTER_NAME, sizeof(attached->name)) == 0;
}

static int take_away(const char *interface, uint32_t ifindex)
{
    struct attached attached;
    int rc = query(ifindex, &attached);
    if (rc != 0 || attached.id == 0) {
        return rc;
    }
    if (!is_ours(&attached)) {
        LOG_ERROR("interface %s has an XDP program already: id=%u name=%s (ip link set %s xdp off "
                  "takes it away)",
                  interface, attached.id, attached.name, interface);
        return -EBUSY;
    }
    return bpf_xdp_detach((int)ifindex, attached.flags, NULL);
}

/* ---- */

/* May this process load filters? Only maps of this kind ask for both privileges. */
static int try_map(void)
{
    int fd = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "weft_try", sizeof(int), sizeof(int), 1, NULL);
    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return 0;
}

int xdp_prepare(struct xdp *xdp, const char *folder, const char *interface, uint16_t port)
{
    memset(xdp, 0, sizeof(*xdp));
    uint32_t ifindex = if_nametoindex(interface);
    if (ifindex == 0 || strlen(interface) >= sizeof(xdp->interface)) {
        return -ENODEV;
    }
    memcpy(xdp->interface, interface, strlen(interface));
    int rc = try_map();
    rc = rc != 0 ? rc : take_away(interface, ifindex);
    return rc != 0 ? rc : write_filter(xdp, folder, port);
}

uint32_t xdp_queues(const char *interface)
{
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    request.ifr_data = (char *)&channels;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return 1;
    }
    int rc = ioctl(fd, SIOCETHTOOL, &request);
    close(fd);
    uint32_t queues = rc != 0 || channels.combined_count == 0 ? 1 : channels.combined_count;
    return queues < XDP_QUEUES_MAX ? queues : XDP_QUEUES_MAX;
}

int xdp_device(const struct xdp *xdp, uint32_t queues, char *out, size_t size)
{
    /* Preferred busy polling is off: it would keep a sleeping lcore's interrupts away. */
    int length = snprintf(out, size, XDP_PORT ",iface=%s,queue_count=%u,xdp_prog=%s,busy_budget=0",
                          xdp->interface, queues, xdp->object);
    return length < 0 || (size_t)length >= size ? -ENAMETOOLONG : 0;
}

void xdp_started(struct xdp *xdp)
{
    if (xdp->object[0] != '\0') {
        unlink(xdp->object);
        xdp->object[0] = '\0';
    }
}

void xdp_stopped(struct xdp *xdp)
{
    struct attached attached;
    uint32_t ifindex = xdp->interface[0] != '\0' ? if_nametoindex(xdp->interface) : 0;
    xdp_started(xdp);
    if (ifindex != 0 && query(ifindex, &attached) == 0 && attached.id != 0 && is_ours(&attached)) {
        bpf_xdp_detach((int)ifindex, attached.flags, NULL);
    }
}
