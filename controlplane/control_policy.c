/* SPDX-License-Identifier: Apache-2.0 */
/* control_policy.c - the mesh's signed policy in the daemon: read from a file, told to members by
 * letter, shown in the status. See control_impl.h and gossip/decree.h. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "controlplane/control_impl.h"
#include "schemas/base/log.h"

/* The whole of a file of at most POLICY_BYTES_MAX, to be freed; NULL with errno. */
static uint8_t *file_read(const char *path, size_t *size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return NULL;
    }
    uint8_t *data = malloc(POLICY_BYTES_MAX + 1u);
    *size = data != NULL ? fread(data, 1, POLICY_BYTES_MAX + 1u, file) : 0;
    fclose(file);
    return data;
}

static void taken(const struct control *control, const char *from)
{
    const struct policy *policy = control->decree.policy;
    LOG_INFO("policy in force version=%llu nodes=%u from=%s%s", (unsigned long long)policy->version,
             policy->node_count, from,
             policy_is_expired(policy, (uint64_t)time(NULL)) ? " expired=yes" : "");
}

void control_policy_load(struct control *control)
{
    const char *path = control->config->policy;
    struct policy_error error;
    size_t size = 0;
    if (path[0] == '\0' || !control->decree.required) {
        return;
    }
    uint8_t *data = file_read(path, &size);
    if (data == NULL) {
        LOG_ERROR("policy cannot be read path=%s error=\"%s\"", path, strerror(errno));
    } else if (decree_take(&control->decree, data, size, &error) == 0) {
        taken(control, path);
    } else if (error.fault != POLICY_FAULT_OLD) { /* read again, as it is */
        LOG_ERROR("policy not taken path=%s line=%u why=\"%s\"", path, error.line,
                  policy_fault_text(error.fault));
    }
    free(data);
}

int control_policy_create(struct control *control)
{
    const struct config *config = control->config;
    int rc = decree_init(&control->decree, config->policy_key, getenv(POLICY_PROVIDERS_ENV));
    if (rc < 0) {
        LOG_ERROR("policy_key is no key hint=\"64 hex digits, as `weft policy sign` shows them\"");
        return rc;
    }
    if (config->policy[0] != '\0' && !control->decree.required) {
        LOG_WARN(
            "policy is not read hint=\"give policy_key, too: the key that it is signed with\"");
    }
    control_policy_load(control);
    gossip_set_decree(control->gossip, &control->decree);
    return 0;
}

void control_policy_receive(struct control *control, const struct letter *letter, uint64_t now_ns)
{
    uint8_t answer[LETTER_MAX];
    uint32_t before = control->decree.changes;
    size_t size = decree_input(&control->decree, letter, now_ns, answer);
    if (size != 0) {
        letter_to(control, letter->slot, LETTER_POLICY, answer, size);
    }
    if (control->decree.changes != before) {
        const struct swim_member *from = swim_at(gossip_swim(control->gossip), letter->slot);
        taken(control, from != NULL ? from->record.name : "?");
    }
}

void control_policy_tick(struct control *control, uint64_t now_ns)
{
    const struct members *members = control->members;
    uint32_t count = members_count(members);
    uint8_t told[LETTER_MAX];
    if (now_ns < control->decree.tell_ns) {
        return;
    }
    size_t size = decree_tell(&control->decree, now_ns, told);
    uint32_t index = randombytes_uniform(count);
    const struct member *to = members_at(members, index);
    if (size != 0 && index != members_self(members) && to->alive) {
        letter_to(control, to->owner, LETTER_POLICY, told, size);
    }
}

json_t *control_policy_status(const struct control *control)
{
    const struct decree *decree = &control->decree;
    const struct policy *policy = decree->policy;
    char own[2 * SWIM_KEY_BYTES + 1];
    sodium_bin2hex(own, sizeof(own), control->letters.identity.public_key, SWIM_KEY_BYTES);
    json_t *json = json_pack("{s:b, s:s, s:I}", "required", (int)decree->required, "own_key", own,
                             "refused", (json_int_t)decree->refused);
    json_object_set_new(json, "version",
                        policy != NULL ? json_integer((json_int_t)policy->version) : json_null());
    if (policy != NULL) {
        json_object_set_new(json, "nodes", json_integer((json_int_t)policy->node_count));
        json_object_set_new(json, "issued", json_integer((json_int_t)policy->issued_s));
        json_object_set_new(json, "expired",
                            json_boolean(policy_is_expired(policy, (uint64_t)time(NULL))));
    }
    return json;
}
