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

/* AF_XDP fills its ring for received frames at once, and holds sent ones until it looks again. */
#define XDP_RING_BUFFERS 2048u

static const struct {
    const char *name;
    const char *port;
    const char *steering;
    int family;
    uint32_t buffers;
} kinds[] = {
    [NIC_AF_PACKET] = {"af_packet", "net_af_packet0",
                       "software: the kernel has a copy of each frame", AF_PACKET, 0},
    [NIC_AF_XDP] = {"af_xdp", XDP_PORT, "filter in the kernel", AF_XDP, 2 * XDP_RING_BUFFERS},
    [NIC_DPDK] = {"dpdk", "", "", 0, 2 * XDP_RING_BUFFERS}, /* more than the rings of most NICs */
    [NIC_NONE] = {"none", "net_null0", "there is no network", 0, 0},
};

const char *driver_name(enum nic_driver kind)
{
    return kinds[kind].name;
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
static int check_socket(const struct driver *driver, const struct nic_options *options)
{
    const char *name = kinds[options->driver].name;
    int fd = socket(driver->family, SOCK_RAW | SOCK_CLOEXEC, 0);
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
    if (driver->mtu < DRIVER_MTU_MIN) {
        LOG_ERROR("the MTU of %s is %u, Weft's largest datagram needs %u (ip link set %s mtu %u)",
                  options->interface, driver->mtu, DRIVER_MTU_MIN, options->interface,
                  DRIVER_MTU_MIN);
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

/* "0000:03:00.0" or "03:00.0"; names of virtual devices begin with a letter. */
static bool is_pci(const char *device)
{
    return device[0] >= '0' && device[0] <= '9';
}

/* DPDK's own drivers for kernel interfaces can be named, too: their sockets wake as usual. */
static int prepare_dpdk(struct driver *driver, const struct nic_options *options)
{
    size_t name = strcspn(options->device, ",");
    if (name >= sizeof(driver->port) || strlen(options->device) >= sizeof(driver->device)) {
        LOG_ERROR("nic.device is too long: %s", options->device);
        return -ENAMETOOLONG;
    }
    driver->pci = is_pci(options->device);
    driver->whole = true;
    driver->family = strncmp(options->device, "net_af_xdp", 10) == 0      ? AF_XDP
                     : strncmp(options->device, "net_af_packet", 13) == 0 ? AF_PACKET
                                                                          : 0;
    driver->partial_sums = driver->family != 0;
    memcpy(driver->port, options->device, name);
    strcpy(driver->device, options->device);
    return 0;
}

static int prepare_kernel(struct driver *driver, const struct nic_options *options)
{
    if (if_nametoindex(options->interface) == 0) {
        LOG_ERROR("there is no interface %s in this network namespace (ip link shows those that "
                  "are)",
                  options->interface);
        return -ENODEV;
    }
    snprintf(driver->port, sizeof(driver->port), "%s", kinds[options->driver].port);
    driver->family = kinds[options->driver].family;
    driver->partial_sums = true;
    int rc = check_socket(driver, options);
    rc = rc != 0 ? rc : check_mtu(driver, options);
    if (rc != 0 || options->driver == NIC_AF_XDP) {
        return rc != 0 ? rc : prepare_xdp(driver, options);
    }
    snprintf(driver->device, sizeof(driver->device), "%s,iface=%s,qpairs=%u", driver->port,
             options->interface, options->lcores);
    return 0;
}

/* Nothing comes, and what is sent is gone; no privilege is needed. */
static int prepare_none(struct driver *driver)
{
    snprintf(driver->port, sizeof(driver->port), "%s", kinds[NIC_NONE].port);
    snprintf(driver->device, sizeof(driver->device), "%s,no-rx=1", kinds[NIC_NONE].port);
    driver->mtu = DRIVER_MTU_MIN;
    return 0;
}

int driver_prepare(struct driver *driver, const struct nic_options *options)
{
    memset(driver, 0, sizeof(*driver));
    driver->kind = options->driver;
    int rc = options->driver == NIC_DPDK   ? prepare_dpdk(driver, options)
             : options->driver == NIC_NONE ? prepare_none(driver)
                                           : prepare_kernel(driver, options);
    if (rc != 0) {
        driver_stopped(driver);
    }
    return rc;
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
    return driver->family != 0 ? sockets_find(driver->family, fds, max) : 0;
}
