/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_policy.c - `weft policy`: signs a policy with the operator's key, and shows what one grants
 * or which one a node obeys. The file is that of controlplane/maps/policy.h. */
#include <errno.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/keys/keys.h"
#include "controlplane/maps/policy.h"

const char cmd_policy_usage[] =
    "sign --key FILE POLICY\n"
    "       weft policy show [--socket ADMIN.sock] [--json]\n"
    "\n"
    "sign: writes POLICY to stdout with the operator's signature as its last line. The secret key\n"
    "is in FILE, made at the first use; the public one, for the configuration's policy_key, goes\n"
    "to stderr. show: which policy a node obeys, and what that makes of each member.\n"
    "\n"
    "A policy is a text; a node that it does not list gets no request:\n"
    "    weft-policy 1\n"
    "    version 42                # rises with each issue\n"
    "    issued 1790000000         # seconds since 1970; `expires` likewise\n"
    "    providers local,acme      # nodes of others get no request\n"
    "    node 7 provider=local jurisdiction=DE tags=eu,gdpr key=0123...\n"
    "key is the node's own (`own_key` of its status), so that no other can have its id.\n"
    "\n"
    "examples:\n"
    "  weft policy sign --key operator.key policy.txt >policy.signed\n"
    "  weft policy show\n"
    "\n"
    "exit: 0 done, 1 not done, 2 wrong usage\n";

static int error_of(const char *what, const char *why)
{
    fprintf(stderr, "weft policy: %s: %s\n", what, why);
    return CLI_ERROR;
}

/* ---- sign ---- */

/* Whatever it holds, up to the limit and one more. Returns NULL with errno. */
static char *text_read(const char *path, size_t *size)
{
    FILE *file = fopen(path, "re");
    char *text = file != NULL ? malloc(POLICY_BYTES_MAX + 1u) : NULL;
    *size = text != NULL ? fread(text, 1, POLICY_BYTES_MAX + 1u, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

/* Signed, and read again as a node does: what no node would take is not written. */
static int text_sign(char *text, size_t size, const uint8_t seed[KEYS_BYTES], const char *path)
{
    struct policy_key key;
    struct policy_error error;
    uint8_t secret[64];
    char line[POLICY_SIGNATURE_LINE_MAX];
    char hex[2 * POLICY_KEY_BYTES + 1];
    crypto_sign_seed_keypair(key.bytes, secret, seed);
    size_t more = policy_sign(text, size, secret, line);
    sodium_memzero(secret, sizeof(secret));
    memcpy(text + size, line, more);
    struct policy *policy = policy_read(text, size + more, &key, 1, NULL, &error);
    if (policy == NULL) {
        fprintf(stderr, "weft policy: %s:%u: %s\n", path, error.line,
                policy_fault_text(error.fault));
        return CLI_ERROR;
    }
    policy_destroy(policy);
    sodium_bin2hex(hex, sizeof(hex), key.bytes, sizeof(key.bytes));
    fprintf(stderr, "policy_key: %s\n", hex);
    return fwrite(text, 1, size + more, stdout) == size + more && fflush(stdout) == 0
               ? CLI_OK
               : error_of("stdout", strerror(errno));
}

static int policy_sign_run(const char *key_path, const char *path)
{
    uint8_t seed[KEYS_BYTES];
    char why[KEYS_WHY_MAX] = "";
    size_t size;
    if (sodium_init() < 0 || keys_identity_load(seed, key_path, why) < 0) {
        return error_of(key_path, why);
    }
    char *text = text_read(path, &size);
    int rc = CLI_ERROR;
    if (text == NULL) {
        rc = error_of(path, strerror(errno));
    } else if (size == 0 || size + POLICY_SIGNATURE_LINE_MAX > POLICY_BYTES_MAX ||
               text[size - 1] != '\n') {
        rc = error_of(path, "it is empty, too long, or its last line has no end");
    } else {
        rc = text_sign(text, size, seed, path);
    }
    sodium_memzero(seed, sizeof(seed));
    free(text);
    return rc;
}

/* ---- show ---- */

static void member_show(const json_t *member)
{
    char tags[256] = "";
    size_t used = 0;
    const json_t *list = json_object_get(member, "tags");
    for (size_t i = 0; i < json_array_size(list) && used < sizeof(tags); i++) {
        used += (size_t)snprintf(tags + used, sizeof(tags) - used, "%s%s", i > 0 ? "," : "",
                                 json_string_value(json_array_get(list, i)));
    }
    printf("%-20s %5lld  %-3s %-32s%s\n", node_text(member, "name", "?"),
           (long long)json_integer_value(json_object_get(member, "id")),
           node_text(member, "jurisdiction", "-"), used > 0 ? tags : "-",
           json_is_true(json_object_get(member, "barred")) ? " gets no request" : "");
}

static int policy_show(const struct node_request *request)
{
    json_t *status = NULL;
    int rc = node_status(&status, request, "policy");
    if (rc != 0) {
        return rc;
    }
    json_t *policy = json_object_get(status, "policy");
    const json_t *version = json_object_get(policy, "version");
    const json_t *members = json_object_get(status, "members");
    if (request->json) {
        json_t *shown = json_pack("{s:O?, s:O}", "policy", policy, "members", members);
        node_json_print(shown);
        json_decref(shown);
    } else if (policy == NULL || !json_is_true(json_object_get(policy, "required"))) {
        puts(policy == NULL ? "a static mesh: its file is the policy"
                            : "none: members are believed on their tags (no policy_key)");
    } else if (!json_is_integer(version)) {
        puts("none yet: nobody has a tag");
    } else {
        printf("version %lld%s\n", (long long)json_integer_value(version),
               json_is_true(json_object_get(policy, "expired")) ? ", expired" : "");
        for (size_t i = 0; i < json_array_size(members); i++) {
            member_show(json_array_get(members, i));
        }
    }
    json_decref(status);
    return CLI_OK;
}

int cmd_policy(int argc, char **argv)
{
    struct node_request request;
    if (argc >= 2 && strcmp(argv[1], "show") == 0) {
        int rc = node_request_read(&request, "policy", argc - 1, argv + 1);
        return rc != 0 ? rc : policy_show(&request);
    }
    if (argc == 5 && strcmp(argv[1], "sign") == 0 && strcmp(argv[2], "--key") == 0) {
        return policy_sign_run(argv[3], argv[4]);
    }
    return cli_usage_error("policy", "needs: sign --key FILE POLICY, or show [--socket PATH]");
}
