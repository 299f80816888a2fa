/* SPDX-License-Identifier: Apache-2.0 */
/* driver.c - see driver.h. DPDK's own errors say little more than "cannot": reasons are found here,
 * before it is asked. */
#include "dataplane/nic/driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/nic/sockets.h"
#include "schemas/base/log.h"

/* Of the interface: IPv4, UDP and the largest datagram. */
#define MTU_MIN ((uint32_t)(ROUTE_FRAME_MAX - sizeof(struct route_ether)))
/* AF_XDP fills its ring for received frames at once, and holds sent ones until it looks again. */
#define XDP_RING_BUFFERS 2048u

static const struct {
    const char *name;
    const char *port;
    const char *steering;
    int family; /* of its sockets */
    uint32_t buffers;
} kinds[] = {
    [NIC_AF_PACKET] = {"af_packet", "net_af_packet0",
                       "software: the kernel has a copy of each frame", AF_PACKET, 0},
    [NIC_AF_XDP] = {"af_xdp", XDP_PORT, "filter in the kernel", AF_XDP, 2 * XDP_RING_BUFFERS},
};

const char *driver_name(enum nic_driver kind)
{
    return kinds[kind].name;
}

const char *driver_port(const struct driver *driver)
{
    return kinds[driver->kind].port;
}

const char *driver_steering(enum nic_driver kind)
{
    return kinds[kind].steering;
}

uint32_t driver_buffers(enum nic_driver kind)
{
    return kinds[kind].buffers;
}

/* Can the driver's sockets be made at all? */
static int check_socket(const struct nic_options *options)
{
    const char *name = kinds[options->driver].name;
    int fd = socket(kinds[options->driver].family, SOCK_RAW | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    } else if (error == EPERM || error == EACCES) {
        LOG_ERROR("driver %s needs CAP_NET_RAW (or root): %s", name, strerror(error));
    } else {
        LOG_ERROR("this kernel has no sockets for driver %s: %s", name, strerror(error));
    }
    return -error;
}

/* The largest datagram has to fit, unfragmented: Weft never sends fragments. */
static int check_mtu(struct driver *driver, const struct nic_options *options)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", options->interface);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 || ioctl(fd, SIOCGIFMTU, &request) != 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (rc != 0) {
        LOG_ERROR("cannot read the MTU of %s: %s", options->interface, strerror(-rc));
        return rc;
    }
    driver->mtu = (uint32_t)request.ifr_mtu;
    if (driver->mtu < MTU_MIN) {
        LOG_ERROR("the MTU of %s is %u, Weft's largest datagram needs %u (ip link set %s mtu %u)",
                  options->interface, driver->mtu, MTU_MIN, options->interface, MTU_MIN);
        return -EMSGSIZE;
    }
    return 0;
}

/* Each channel of the interface needs a queue: what comes to another one would be lost. */
static int check_channels(const struct nic_options *options)
{
    uint32_t channels = xdp_queues(options->interface);
    if (channels == options->lcores) {
        return 0;
    }
    LOG_ERROR("driver af_xdp needs one lcore for each channel of the interface: %s has %u, "
              "nic.lcores is %u (ethtool -L %s combined N changes the one, the configuration the "
              "other; a veth counts as one)",
              options->interface, channels, options->lcores, options->interface);
    return -EINVAL;
}

static int prepare_xdp(struct driver *driver, const struct nic_options *options)
{
    int rc = check_channels(options);
    if (rc != 0) {
        return rc;
    }
    rc = xdp_prepare(&driver->xdp, options->runtime_dir, options->interface, options->data_port);
    if (rc == -EPERM || rc == -EACCES) {
        LOG_ERROR("driver af_xdp needs CAP_NET_ADMIN and CAP_BPF (or root), and leave to write to "
                  "%s: %s",
                  options->runtime_dir, strerror(-rc));
    } else if (rc != 0 && rc != -EBUSY) {
        LOG_ERROR("cannot prepare %s for driver af_xdp: %s", options->interface, strerror(-rc));
    }
    return rc != 0
               ? rc
               : xdp_device(&driver->xdp, options->lcores, driver->device, sizeof(driver->device));
}

int driver_prepare(struct driver *driver, const struct nic_options *options)
{
    memset(driver, 0, sizeof(*driver));
    driver->kind = options->driver;
    if (if_nametoindex(options->interface) == 0) {
        LOG_ERROR("there is no interface %s in this network namespace (ip link shows those that "
                  "are)",
                  options->interface);
        return -ENODEV;
    }
    int rc = check_socket(options);
    rc = rc != 0 ? rc : check_mtu(driver, options);
    if (rc != 0) {
        return rc;
    }
    driver->partial_sums = true;
    if (options->driver == NIC_AF_XDP) {
        rc = prepare_xdp(driver, options);
        if (rc != 0) {
            driver_stopped(driver);
        }
        return rc;
    }
    snprintf(driver->device, sizeof(driver->device), "%s,iface=%s,qpairs=%u", driver_port(driver),
             options->interface, options->lcores);
    return 0;
}

void driver_started(struct driver *driver)
{
    if (driver->kind == NIC_AF_XDP) {
        xdp_started(&driver->xdp);
    }
}

void driver_stopped(struct driver *driver)
{
    if (driver->kind == NIC_AF_XDP) {
        xdp_stopped(&driver->xdp);
    }
}

uint32_t driver_sockets(const struct driver *driver, int *fds, uint32_t max)
{
    return sockets_find(kinds[driver->kind].family, fds, max);
}
