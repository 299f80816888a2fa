/* SPDX-License-Identifier: Apache-2.0 */
/* tls.c - see tls.h. */
#include "dataplane/gateway/tls.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <stdint.h>
#include <stdlib.h>

#include "schemas/base/log.h"

#define CHAIN_MAX 16u

struct identity {
    struct identity *before; /* what it has replaced */
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned count;
    gnutls_privkey_t key;
};

static struct identity *current;

static void identity_free(struct identity *id)
{
    for (unsigned i = 0; i < id->count; i++) {
        gnutls_pcert_deinit(&id->chain[i]);
    }
    if (id->key != NULL) {
        gnutls_privkey_deinit(id->key);
    }
    free(id);
}

static int chain_read(struct identity *id, const char *path)
{
    gnutls_x509_crt_t list[CHAIN_MAX];
    gnutls_datum_t pem;
    unsigned count = CHAIN_MAX;
    int rc = gnutls_load_file(path, &pem);
    if (rc < 0) {
        return rc;
    }
    rc = gnutls_x509_crt_list_import(list, &count, &pem, GNUTLS_X509_FMT_PEM,
                                     GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED |
                                         GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    gnutls_free(pem.data);
    if (rc < 0) {
        return rc;
    }
    count = (unsigned)rc;
    rc = gnutls_pcert_import_x509_list(id->chain, list, &count, 0);
    id->count = rc == 0 ? count : 0;
    for (unsigned i = 0; i < count; i++) {
        gnutls_x509_crt_deinit(list[i]);
    }
    return rc;
}

static int key_read(struct identity *id, const char *path)
{
    gnutls_datum_t pem;
    int rc = gnutls_load_file(path, &pem);
    if (rc < 0) {
        return rc;
    }
    rc = gnutls_privkey_init(&id->key);
    if (rc == 0) {
        rc = gnutls_privkey_import_x509_raw(id->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    }
    gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    return rc;
}

/* Is it the key of the chain's first certificate? */
static int pair_check(const struct identity *id)
{
    uint8_t sums[2][64];
    size_t sizes[2] = {sizeof(sums[0]), sizeof(sums[1])};
    gnutls_pubkey_t of_key;
    int rc = gnutls_pubkey_init(&of_key);
    if (rc < 0) {
        return rc;
    }
    rc = gnutls_pubkey_import_privkey(of_key, id->key, 0, 0);
    if (rc == 0) {
        rc = gnutls_pubkey_get_key_id(of_key, GNUTLS_KEYID_USE_SHA256, sums[0], &sizes[0]);
    }
    if (rc == 0) {
        rc = gnutls_pubkey_get_key_id(id->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, sums[1],
                                      &sizes[1]);
    }
    gnutls_pubkey_deinit(of_key);
    if (rc == 0 && (sizes[0] != sizes[1] || gnutls_memcmp(sums[0], sums[1], sizes[0]) != 0)) {
        rc = GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
    }
    return rc;
}

int tls_load(const char *cert_path, const char *key_path)
{
    struct identity *id = calloc(1, sizeof(*id));
    if (id == NULL) {
        return -ENOMEM;
    }
    const char *path = cert_path;
    int rc = chain_read(id, cert_path);
    if (rc == 0) {
        path = key_path;
        rc = key_read(id, key_path);
    }
    if (rc == 0) {
        rc = pair_check(id);
    }
    if (rc != 0) {
        LOG_ERROR("certificate not taken path=%s error=\"%s\"", path, gnutls_strerror(rc));
        identity_free(id);
        return -EINVAL;
    }
    id->before = current;
    current = id;
    return 0;
}

void tls_unload(void)
{
    while (current != NULL) {
        struct identity *before = current->before;
        identity_free(current);
        current = before;
    }
}

static int retrieve(gnutls_session_t session, const gnutls_datum_t *authorities,
                    int authority_count, const gnutls_pk_algorithm_t *algorithms,
                    int algorithm_count, gnutls_pcert_st **chain, unsigned *count,
                    gnutls_privkey_t *key)
{
    (void)session, (void)authorities, (void)authority_count;
    (void)algorithms, (void)algorithm_count;
    *chain = current->chain;
    *count = current->count;
    *key = current->key;
    return 0;
}

void *tls_callback(void)
{
    union {
        gnutls_certificate_retrieve_function2 *function;
        void *pointer;
    } callback = {.function = retrieve};
    return callback.pointer;
}
