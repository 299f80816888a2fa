/* SPDX-License-Identifier: Apache-2.0 */
/* peers_io.c - see peers_io.h. */
#include "dataplane/gateway/peers_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/gateway/gateway.h"
#include "schemas/base/addr.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define EXPIRE_NS     NS_PER_S
#define JSON_TYPE     "application/json"
#define QUESTION_ROOM 256

static uint64_t unix_s(void)
{
    return (uint64_t)time(NULL);
}

/* ---- files ---- */

static int path_of(const struct gateway *g, const char *name, char path[PATH_MAX])
{
    int len = snprintf(path, PATH_MAX, "%s/%s", g->options.state, name);
    return len > 0 && len < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int whole_write(int fd, const struct buf *text)
{
    for (size_t at = text->at; at < text->end;) {
        ssize_t done = write(fd, text->data + at, text->end - at);
        if (done <= 0) {
            return done < 0 ? -errno : -EIO;
        }
        at += (size_t)done;
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

/* The file is the old one or the new one, never a part. */
static int file_put(const struct gateway *g, const char *name, const struct buf *text)
{
    char path[PATH_MAX];
    char fresh[PATH_MAX + 8];
    int rc = path_of(g, name, path);
    if (rc != 0) {
        return rc;
    }
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    rc = whole_write(fd, text);
    close(fd);
    return rc != 0 ? rc : rename(fresh, path) == 0 ? 0 : -errno;
}

typedef void (*save_fn)(const struct peers *p, struct buf *out);

static void save(struct gateway *g, const char *name, save_fn write)
{
    struct buf text = {.data = NULL};
    if (g->options.state == NULL) {
        return;
    }
    write(&g->peers.peers, &text);
    int rc = text.failed ? -ENOMEM : file_put(g, name, &text);
    if (rc != 0) {
        LOG_ERROR("%s/%s is not written: %s", g->options.state, name, strerror(-rc));
    }
    buf_deinit(&text);
}

typedef bool (*load_fn)(struct peers *p, const json_t *file, struct api_error *error);

static int load(struct gateway *g, const char *name, load_fn read)
{
    char path[PATH_MAX];
    json_error_t where;
    struct api_error error = {.http_status = 0};
    int rc = path_of(g, name, path);
    if (rc != 0 || access(path, F_OK) != 0) {
        return rc;
    }
    json_t *file = json_load_file(path, 0, &where);
    if (file == NULL) {
        fprintf(stderr, "weft-gateway: %s:%d: %s\n", path, where.line, where.text);
        rc = -EINVAL;
    } else if (!read(&g->peers.peers, file, &error)) {
        fprintf(stderr, "weft-gateway: %s: %s\n", path, error.message);
        rc = -EINVAL;
    }
    json_decref(file);
    return rc;
}

int peers_io_open(struct gateway *g)
{
    question_init(&g->peers.join);
    if (g->options.state == NULL) {
        return 0;
    }
    if (mkdir(g->options.state, 0700) != 0 && errno != EEXIST) {
        int rc = -errno;
        fprintf(stderr, "weft-gateway: %s: %s\n", g->options.state, strerror(errno));
        return rc;
    }
    int rc = load(g, PEERS_NODES_FILE, peers_load_nodes);
    return rc == 0 ? load(g, PEERS_SERVICES_FILE, peers_load_services) : rc;
}

void peers_io_close(struct gateway *g)
{
    question_deinit(&g->peers.join);
    gateway_peers_deinit(&g->peers.peers);
}

/* ---- telling the node ---- */

static void join_ask(struct gateway *g, uint64_t now_ns)
{
    struct peers_io *io = &g->peers;
    char line[QUESTION_ROOM];
    struct peer_node *node = peers_due(&io->peers, now_ns);
    if (node == NULL) {
        return;
    }
    snprintf(line, sizeof(line), "{\"cmd\":\"join\",\"address\":\"%s\"}\n", node->node);
    strcpy(io->asking, node->id);
    node->tell_ns = UINT64_MAX; /* until it has answered */
    if (!question_ask(&io->join, g->options.admin, line, now_ns) ||
        gateway_loop_watch(g, WATCH_JOIN, io->join.fd) != 0) {
        question_deinit(&io->join);
        peers_told(&io->peers, io->asking, NULL, now_ns);
    }
}

static void join_take(struct gateway *g, uint64_t now_ns)
{
    json_t *answer = NULL;
    if (question_step(&g->peers.join, now_ns, &answer) != QUESTION_WAITS) {
        peers_told(&g->peers.peers, g->peers.asking, answer, now_ns);
        json_decref(answer);
    }
}

void peers_io_turn(struct gateway *g, uint64_t now_ns)
{
    struct peers_io *io = &g->peers;
    if (io->join.fd >= 0) {
        join_take(g, now_ns);
    } else if (g->options.admin != NULL && !g->stopping) {
        join_ask(g, now_ns);
    }
    if (io->peers.service_count > 0 && now_ns >= io->expire_ns) {
        io->expire_ns = now_ns + EXPIRE_NS;
        if (peers_expire(&io->peers, unix_s())) {
            save(g, PEERS_SERVICES_FILE, peers_save_services);
        }
    }
}

uint64_t peers_io_due_ns(const struct gateway *g)
{
    const struct peers_io *io = &g->peers;
    uint64_t due_ns = io->join.fd >= 0           ? question_due_ns(&io->join)
                      : g->options.admin != NULL ? peers_due_ns(&io->peers)
                                                 : UINT64_MAX;
    for (uint32_t i = 0; i < io->peers.service_count; i++) {
        if (io->peers.services[i].ttl_s != 0) {
            return io->expire_ns < due_ns ? io->expire_ns : due_ns;
        }
    }
    return due_ns;
}

/* ---- who may ---- */

/* Did this come from a program on this machine, with nobody in between? */
static bool from_here(const struct exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct sockaddr_storage from;
    struct in6_addr address;
    if (info == NULL || info->client_addr == NULL || server_header(x, "x-forwarded-for") != NULL ||
        server_header(x, "forwarded") != NULL) {
        return false;
    }
    memset(&from, 0, sizeof(from));
    memcpy(&from, info->client_addr,
           info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                    : sizeof(struct sockaddr_in));
    (void)addr_of_socket(&from, &address);
    return IN6_IS_ADDR_LOOPBACK(&address) ||
           (addr_is_v4(&address) && ntohl(addr_v4(&address)) >> 24 == IN_LOOPBACKNET);
}

static bool may_register(struct exchange *x)
{
    const char *why = "";
    if (x->gateway->keys.count > 0) {
        why = (x->scopes & KEYS_REGISTER) != 0 ? "" : "This key has not the scope 'register'.";
    } else if (!from_here(x)) {
        why = "From another machine this needs an API key with the scope 'register' (--keys).";
    } else if (server_header(x, "origin") != NULL) {
        why = "A page may not do this without an API key.";
    }
    if (why[0] != '\0') {
        error_set(&x->error, MHD_HTTP_FORBIDDEN, "invalid_request_error", "not_allowed", false,
                  why);
        exchange_refuse(x, &x->error);
    }
    return why[0] == '\0';
}

/* The body, a new reference; NULL: refused. */
static json_t *body_take(struct exchange *x)
{
    const char *type = server_header(x, MHD_HTTP_HEADER_CONTENT_TYPE);
    json_t *body = json_loadb(buf_len(&x->body) != 0 ? x->body.data : "", buf_len(&x->body),
                              JSON_REJECT_DUPLICATES, NULL);
    if (type == NULL || strncasecmp(type, JSON_TYPE, strlen(JSON_TYPE)) != 0) {
        error_set(&x->error, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "invalid_request_error",
                  "invalid_value", false, "The body must be application/json.");
    } else if (!json_is_object(body)) {
        error_bad(&x->error, NULL, "The body is no JSON object.");
    } else {
        return body;
    }
    json_decref(body);
    exchange_refuse(x, &x->error);
    return NULL;
}

/* ---- what is asked ---- */

void peers_answer(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (exchange_census(x)) {
        peers_write_nodes(&g->peers.peers, g->census.status, &x->answer);
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    }
}

void services_list(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (exchange_census(x)) {
        peers_write_services(&g->peers.peers, g->census.status, unix_s(), &x->answer);
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    }
}

void peers_register(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (!may_register(x)) {
        return;
    }
    if (g->options.admin == NULL) {
        error_set(&x->error, MHD_HTTP_NOT_IMPLEMENTED, "server_error", "no_admin_socket", false,
                  "The gateway knows no admin socket to tell (--admin).");
        exchange_refuse(x, &x->error);
        return;
    }
    json_t *body = body_take(x);
    if (body == NULL) {
        return;
    }
    const struct peer_node *node =
        peers_add_node(&g->peers.peers, body, x->key, unix_s(), &x->error);
    json_decref(body);
    if (node == NULL) {
        exchange_refuse(x, &x->error);
        return;
    }
    LOG_INFO("node registered address=%s by=%s", node->node, x->key != NULL ? x->key : "-");
    peers_write_node(node, &x->answer);
    exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    save(g, PEERS_NODES_FILE, peers_save_nodes);
}

void services_register(struct exchange *x)
{
    struct gateway *g = x->gateway;
    json_t *body = may_register(x) ? body_take(x) : NULL;
    if (body == NULL) {
        return;
    }
    const struct peer_service *service =
        peers_add_service(&g->peers.peers, body, x->key, unix_s(), &x->error);
    json_decref(body);
    if (service == NULL) {
        exchange_refuse(x, &x->error);
        return;
    }
    LOG_INFO("service registered url=%s model=%s by=%s", service->url, service->models[0],
             x->key != NULL ? x->key : "-");
    peers_write_service(service, unix_s(), &x->answer);
    exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    save(g, PEERS_SERVICES_FILE, peers_save_services);
}

static void removed(struct exchange *x, bool was_there)
{
    if (!was_there) {
        error_set(&x->error, MHD_HTTP_NOT_FOUND, "invalid_request_error", "not_registered", false,
                  "Nothing registered has that id.");
        exchange_refuse(x, &x->error);
        return;
    }
    buf_add_text(&x->answer, "{\"deleted\":true,\"id\":");
    buf_add_quoted(&x->answer, x->tail);
    buf_add_text(&x->answer, "}");
    exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
}

void peers_remove(struct exchange *x)
{
    if (may_register(x)) {
        removed(x, peers_drop_node(&x->gateway->peers.peers, x->tail));
        save(x->gateway, PEERS_NODES_FILE, peers_save_nodes);
    }
}

void services_remove(struct exchange *x)
{
    if (may_register(x)) {
        removed(x, peers_drop_service(&x->gateway->peers.peers, x->tail));
        save(x->gateway, PEERS_SERVICES_FILE, peers_save_services);
    }
}
