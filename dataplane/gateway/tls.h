/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.h - the certificate that the HTTP library shows (GnuTLS), read again while the gateway runs.
 * One in a process: the library's callback for it has no user pointer.
 */
#pragma once

#include <stdbool.h>

/* Reads a chain of certificates and its key, both PEM. Those that are in use stay until the end: a
 * handshake may be under way with them. Returns 0, or -EINVAL (files that cannot be, or do not
 * belong together; the old ones stay in use) having logged why. */
int tls_load(const char *cert_path, const char *key_path);
void tls_unload(void);

/* For MHD_OPTION_HTTPS_CERT_CALLBACK; a gnutls_certificate_retrieve_function2. */
void *tls_callback(void);
