/* SPDX-License-Identifier: Apache-2.0 */
/* ask.c - asks a mesh, waits, and prints the answer as it comes.
 * Build: cc ask.c -o ask $(pkg-config --cflags --libs weft)
 * Use:   ./ask 10.77.0.1 smollm2-135m-instruct "What does a loom do?" */
#include <stdio.h>
#include <string.h>
#include <weft/client.h>

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    (void)req;
    fwrite(text, 1, len, user);
    fflush(user);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s NODE MODEL QUESTION\n", argv[0]);
        return 2;
    }
    weft_client_t *client;
    weft_client_opts_t opts = {.node = argv[1]};
    int rc = weft_client_create(&client, &opts);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], weft_status_text(rc));
        return 1;
    }
    weft_message_t message = {.role = "user", .text = argv[3], .len = strlen(argv[3])};
    weft_query_t query = {.model = argv[2], .messages = &message, .message_count = 1};
    weft_result_t result;
    rc = weft_ask(client, &query, on_text, stdout, &result);
    if (rc == 0) {
        printf("\n[%s: %u tokens, first after %llu us]\n", result.node, result.new_tokens,
               (unsigned long long)result.first_token_us);
    } else {
        fprintf(stderr, "\n%s\n", weft_status_text(rc));
    }
    weft_client_destroy(client);
    return rc != 0;
}
