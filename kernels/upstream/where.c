/* SPDX-License-Identifier: Apache-2.0 */
/* where.c - see where.h. */
#include "kernels/upstream/where.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "schemas/base/addr.h"

#define LIST_SPACE " \t,"

bool where_address_is_local(const struct in6_addr *address)
{
    if (addr_is_v4(address)) {
        const uint32_t a = ntohl(addr_v4(address));
        return a >> 24 == 127 || a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8 ||
               a >> 16 == 0xa9fe || a >> 22 == 0x64400000u >> 22;
    }
    return IN6_IS_ADDR_LOOPBACK(address) || addr_is_link_local(address) ||
           (address->s6_addr[0] & 0xfe) == 0xfc;
}

static bool host_is_local(const char *host)
{
    struct in6_addr address;
    char bare[WHERE_HOST_MAX];
    if (strcasecmp(host, "localhost") == 0)
        return true;
    (void)snprintf(bare, sizeof(bare), "%s", host);
    char *zone = strchr(bare, '%');
    if (zone)
        *zone = 0;
    return addr_parse(bare, &address) && where_address_is_local(&address);
}

/* One part of the URL into `out`; false if there is none or it does not fit. */
static bool part(CURLU *url, CURLUPart what, char *out, size_t size)
{
    char *text = NULL;
    if (curl_url_get(url, what, &text, 0) != CURLUE_OK)
        return false;
    const bool fits = strlen(text) < size;
    if (fits)
        memcpy(out, text, strlen(text) + 1);
    curl_free(text);
    return fits;
}

static bool has(CURLU *url, CURLUPart what)
{
    char *text = NULL;
    const bool there = curl_url_get(url, what, &text, 0) == CURLUE_OK;
    curl_free(text);
    return there;
}

static const char *take_apart(CURLU *url, const char *text, struct where *where)
{
    char scheme[16];
    char path[WHERE_URL_MAX];
    if (strlen(text) >= WHERE_URL_MAX || curl_url_set(url, CURLUPART_URL, text, 0))
        return "not a URL such as http://127.0.0.1:8000";
    if (!part(url, CURLUPART_SCHEME, scheme, sizeof(scheme)) ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        return "only http:// and https:// are spoken";
    if (has(url, CURLUPART_USER) || has(url, CURLUPART_PASSWORD))
        return "no names or passwords in the URL; keys come from a file";
    if (has(url, CURLUPART_QUERY) || has(url, CURLUPART_FRAGMENT))
        return "no ? or # in the URL";
    if (!part(url, CURLUPART_HOST, where->host, sizeof(where->host)) || !where->host[0])
        return "no host in the URL";
    if (!part(url, CURLUPART_PATH, path, sizeof(path)))
        return "too long";
    if (path[strspn(path, "/")] == 0 && curl_url_set(url, CURLUPART_PATH, "/v1", 0))
        return "too long";
    where->tls = scheme[4] == 's';
    return part(url, CURLUPART_URL, where->base, sizeof(where->base)) ? NULL : "too long";
}

int where_parse(struct where *where, const char *url, char *why, size_t why_size)
{
    *where = (struct where){.tls = false};
    CURLU *parsed = curl_url();
    const char *wrong = parsed ? take_apart(parsed, url, where) : "out of memory";
    curl_url_cleanup(parsed);
    if (wrong) {
        (void)snprintf(why, why_size, "%s", wrong);
        return -EINVAL;
    }
    size_t len = strlen(where->base);
    while (len && where->base[len - 1] == '/')
        where->base[--len] = 0;
    len = strlen(where->host);
    if (len > 2 && where->host[0] == '[') { /* IPv6 comes with its brackets */
        memmove(where->host, where->host + 1, len - 2);
        where->host[len - 2] = 0;
    }
    where->local = host_is_local(where->host);
    return 0;
}

bool where_allowed(const char *list, const struct where *where, const char *name)
{
    bool any = false;
    const char *at = list ? list + strspn(list, LIST_SPACE) : "";
    while (*at) {
        const size_t len = strcspn(at, LIST_SPACE);
        any = true;
        if (len == 5 && strncasecmp(at, "local", len) == 0) {
            if (where->local)
                return true;
        } else if (name && strlen(name) == len && strncasecmp(at, name, len) == 0) {
            return true;
        }
        at += len;
        at += strspn(at, LIST_SPACE);
    }
    return !any;
}
