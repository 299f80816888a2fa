/* SPDX-License-Identifier: Apache-2.0 */
/*
 * where.h - where a server is, and whether this machine may speak to it at all.
 *
 * INFERENCE_ALLOWED_PROVIDERS in the environment is a list of names with commas: `local` allows
 * servers at loopback, private and link-local addresses, another word the endpoint of that name.
 * Unset or empty: all. The rule is applied to the configuration at the start, and again to every
 * address that is dialled (http.h), so that neither a name server nor a redirect gets around it.
 * Where only local servers are allowed a host must be an address or `localhost`: to ask a name
 * server is to send packets.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WHERE_URL_MAX  512u
#define WHERE_HOST_MAX 256u
#define WHERE_VARIABLE "INFERENCE_ALLOWED_PROVIDERS"

struct where {
    char base[WHERE_URL_MAX];  /* scheme://host[:port]/path, no slash at the end */
    char host[WHERE_HOST_MAX]; /* as the URL has it, without brackets */
    bool tls;
    bool local; /* a local address, or localhost */
};

/* Takes an endpoint's URL apart with libcurl's own parser. A URL without a path gets /v1. `why`
 * gets a sentence on failure. Returns 0 or -EINVAL. */
int where_parse(struct where *where, const char *url, char *why, size_t why_size);

/* Loopback, private (RFC 1918, RFC 4193), link-local, or shared (RFC 6598) address. */
bool where_address_is_local(const struct in6_addr *address);

/* Does the list let an endpoint of this name (may be NULL) at this place be used? */
bool where_allowed(const char *list, const struct where *where, const char *name);
