/* SPDX-License-Identifier: Apache-2.0 */
/* settings.c - see settings.h. */
#include "kernels/upstream/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/upstream/relay.h"
#include "schemas/base/log.h"
#include "schemas/base/text.h"

#define MODEL_MAX     63u /* bytes of a name on the wire */
#define CONTEXT_FIRST 32768u
#define SLOTS_FIRST   8u
#define FIRST_S_FIRST 60u
#define SILENCE_FIRST 20u
#define NUMBER_MAX    (1u << 30)
#define SECONDS_MAX   86400u

static const char usage[] =
    "weft-upstream - serves models of OpenAI-compatible HTTP servers to the Weft node here\n"
    "\n"
    "usage: weft-upstream --port SOCKET --endpoint URL --model NAME [OPTION]...\n"
    "       weft-upstream --port SOCKET --registry URL --model NAME... | --all-models [OPTION]...\n"
    "\n"
    "The servers are vLLM, llama.cpp, a cloud; the node is the one on this machine.\n"
    "\n"
    "  --port SOCKET          the node's port socket\n"
    "  --endpoint URL         the server, as http://127.0.0.1:8000 or https://host/v1; again for\n"
    "                         more: the first that is well is asked\n"
    "  --registry URL         a weft-gateway, as http://127.0.0.1:8080: services that register "
    "there\n"
    "                         with this model are asked, too, if they promise what the node does\n"
    "  --registry-key-file FILE   the API key that the gateway asks for\n"
    "  --model NAME           what clients call the model; with --registry alone up to 8 times\n"
    "  --all-models           with --registry alone: all models that services register there,\n"
    "                         as many as the node takes (8), as they come and go\n"
    "  --upstream-model NAME  what the server calls it; default: the same\n"
    "  --key-file FILE        the server's API key, a file that only its owner may read\n"
    "  --ca FILE              authorities (PEM) to trust in place of the system's\n"
    "  --resume HOW           how the server goes on with a cut chat: none, prefill (llama.cpp) "
    "or\n"
    "                         vllm (vLLM, SGLang); default: none\n"
    "  --tokenizer FILE       a GGUF file whose vocabulary answers are counted and resumed with,\n"
    "                         at best the model's own\n"
    "  --slots N              requests at the same time, of each model; default: 8\n"
    "  --context N            tokens of prompt and answer together; default: 32768\n"
    "  --first-s N            seconds to wait for the first piece of an answer; default: 60\n"
    "  --silence-s N          seconds to wait for each further piece; default: 20\n"
    "  --config FILE          in place of --endpoint and --model, or besides: several endpoints "
    "with\n"
    "                         keys, names and prices of their own (YAML)\n"
    "  -h, --help             this text\n"
    "  -V, --version          version\n"
    "\n"
    "INFERENCE_ALLOWED_PROVIDERS in the environment limits the servers that may be spoken to:\n"
    "`local` means loopback, private and link-local addresses and nothing else, other words are\n"
    "names of endpoints; several with commas. It beats every option and file.\n"
    "\n"
    "exit: 0 stopped, 1 error, 2 wrong usage\n"
    "\n"
    "examples:\n"
    "  weft-upstream --port /run/weft/port.sock --endpoint http://127.0.0.1:8000 --model "
    "llama-3.1-8b\n"
    "  weft-upstream --port /run/weft/port.sock --endpoint https://api.openai.com/v1 \\\n"
    "                --model gpt-4o-mini --key-file /etc/weft/openai.key --slots 64\n"
    "  weft-upstream --port /run/weft/port.sock --registry http://127.0.0.1:8080 --model qwen3-8b\n"
    "  weft-upstream --port /run/weft/port.sock --registry http://127.0.0.1:8080 --all-models\n"
    "  INFERENCE_ALLOWED_PROVIDERS=local weft-upstream --port /run/weft/port.sock \\\n"
    "                --endpoint http://10.0.0.5:8000 --model qwen3-8b --resume vllm \\\n"
    "                --tokenizer qwen3.gguf\n";

static int wrong(char *why, size_t why_size, const char *what, const char *text)
{
    (void)snprintf(why, why_size, what, text);
    return -EINVAL;
}

/* ---- keys ---- */

/* A key is one line without control characters: it becomes part of a header. */
static int check_key(char *key, const char *from, char *why, size_t why_size)
{
    size_t len = strcspn(key, "\r\n");
    key[len] = 0;
    for (const char *c = key; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return wrong(why, why_size, "the key of %s has blanks or control characters in it",
                         from);
    return len ? 0 : wrong(why, why_size, "the key of %s is empty", from);
}

static int read_key_file(const char *path, char *key, char *why, size_t why_size)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return wrong(why, why_size, "cannot read the key file %s", path);
    const bool open_to_others = fstat(fd, &st) || (st.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    const ssize_t len = open_to_others ? 0 : read(fd, key, ENDPOINT_KEY_MAX - 1);
    close(fd);
    if (open_to_others)
        return wrong(why, why_size, "others than its owner may read the key file %s: chmod 600 it",
                     path);
    if (len < 0 || len == ENDPOINT_KEY_MAX - 1)
        return wrong(why, why_size, "%s is no key file", path);
    key[len] = 0;
    return check_key(key, path, why, why_size);
}

static int read_key(const struct settings_endpoint *written, char *key, char *why, size_t why_size)
{
    key[0] = 0;
    if (written->key_file)
        return read_key_file(written->key_file, key, why, why_size);
    if (!written->key_env)
        return 0;
    const char *value = getenv(written->key_env);
    if (!value || strlen(value) >= ENDPOINT_KEY_MAX)
        return wrong(why, why_size, "no key in the variable %s of the environment",
                     written->key_env);
    memcpy(key, value, strlen(value) + 1);
    return check_key(key, written->key_env, why, why_size);
}

/* ---- endpoints ---- */

static int read_resume(const char *text, enum body_resume *out, char *why, size_t why_size)
{
    static const char *const names[] = {[BODY_RESUME_NONE] = "none",
                                        [BODY_RESUME_PREFILL] = "prefill",
                                        [BODY_RESUME_VLLM] = "vllm"};
    *out = BODY_RESUME_NONE;
    if (!text)
        return 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum body_resume)i;
            return 0;
        }
    return wrong(why, why_size, "resume is none, prefill or vllm, not '%s'", text);
}

static int copy(char *out, size_t size, const char *text, const char *what, char *why,
                size_t why_size)
{
    if (text && strlen(text) >= size)
        return wrong(why, why_size, "%s is too long", what);
    (void)snprintf(out, size, "%s", text ? text : "");
    return 0;
}

int settings_add(struct settings *settings, const struct settings_endpoint *written,
                 const char *allowed, char *why, size_t why_size)
{
    char what[128];
    if (settings->endpoint_count == ENDPOINT_ENDPOINTS_MAX)
        return wrong(why, why_size, "too many endpoints%s", "");
    struct endpoint_config *config = &settings->endpoints[settings->endpoint_count];
    const char *model = written->model ? written->model : settings->model;
    *config = (struct endpoint_config){
        .slots = written->slots, .price_in = written->price_in, .price_out = written->price_out};
    if (where_parse(&config->where, written->url, what, sizeof(what))) {
        (void)snprintf(why, why_size, "endpoint %.200s: %s", written->url, what);
        return -EINVAL;
    }
    if (!where_allowed(allowed, &config->where, written->name)) {
        LOG_WARN("endpoint %s is not used: " WHERE_VARIABLE "=%s forbids it", config->where.host,
                 allowed);
        return 0;
    }
    int rc = read_resume(written->resume, &config->resume, why, why_size);
    if (rc == 0)
        rc = copy(config->name, sizeof(config->name), written->name, "name", why, why_size);
    if (rc == 0)
        rc = copy(config->model, sizeof(config->model), model, "the model's name", why, why_size);
    if (rc == 0)
        rc = copy(config->ca_path, sizeof(config->ca_path), written->ca, "ca", why, why_size);
    if (rc == 0)
        rc = read_key(written, config->key, why, why_size);
    if (rc == 0 && config->key[0] && !config->where.tls && !config->where.local)
        rc = wrong(why, why_size, "%s would get its key in clear: use https", config->where.base);
    settings->endpoint_count += rc == 0;
    return rc;
}

void settings_deinit(struct settings *settings)
{
    explicit_bzero(settings->endpoints, sizeof(settings->endpoints));
    explicit_bzero(settings->registry_key, sizeof(settings->registry_key));
    settings_file_free(settings);
}

/* ---- options ---- */

/* As given; endpoints are checked when all is known. */
struct options {
    struct settings_endpoint endpoint; /* what holds for all of them */
    const char *urls[ENDPOINT_ENDPOINTS_MAX];
    size_t url_count;
    const char *config;
};

enum option_id {
    PORT = 1,
    ENDPOINT,
    MODEL,
    UPSTREAM_MODEL,
    KEY_FILE,
    CA,
    RESUME,
    TOKENIZER,
    CONFIG,
    REGISTRY,
    REGISTRY_KEY_FILE,
    SLOTS,
    CONTEXT,
    FIRST,
    SILENCE,
    ALL_MODELS
};

static int parse_number(const char *option, const char *text, uint32_t most, uint32_t *out)
{
    char *end;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || text[0] == '-' || value == 0 || value > most) {
        fprintf(stderr, "weft-upstream: --%s needs a number from 1 to %u, not '%s'\n", option, most,
                text);
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

static int take_option(struct settings *settings, struct options *options, int option,
                       const char *name)
{
    const char **const texts[] = {
        [PORT] = &settings->port,
        [UPSTREAM_MODEL] = &options->endpoint.model,
        [KEY_FILE] = &options->endpoint.key_file,
        [CA] = &options->endpoint.ca,
        [RESUME] = &options->endpoint.resume,
        [TOKENIZER] = &settings->tokenizer,
        [CONFIG] = &options->config,
        [REGISTRY] = &settings->registry_url,
        [REGISTRY_KEY_FILE] = &settings->registry_key_file,
    };
    switch (option) {
    case MODEL:
        if (settings->model_count == SERVED_MAX) {
            fprintf(stderr, "weft-upstream: at most %u models\n", SERVED_MAX);
            return -EINVAL;
        }
        settings->models[settings->model_count++] = optarg;
        return 0;
    case ALL_MODELS:
        settings->all_models = true;
        return 0;
    case SLOTS:
        return parse_number(name, optarg, RELAY_SLOTS_MAX, &settings->slots);
    case CONTEXT:
        return parse_number(name, optarg, NUMBER_MAX, &settings->context);
    case FIRST:
        return parse_number(name, optarg, SECONDS_MAX, &settings->first_s);
    case SILENCE:
        return parse_number(name, optarg, SECONDS_MAX, &settings->silence_s);
    case ENDPOINT:
        if (options->url_count == ENDPOINT_ENDPOINTS_MAX) {
            fprintf(stderr, "weft-upstream: at most %u endpoints\n", ENDPOINT_ENDPOINTS_MAX);
            return -EINVAL;
        }
        options->urls[options->url_count++] = optarg;
        return 0;
    default:
        break;
    }
    if (option < PORT || option > REGISTRY_KEY_FILE)
        return -EINVAL; /* getopt has told */
    *texts[option] = optarg;
    return 0;
}

static int parse_options(struct settings *settings, struct options *options, int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, PORT},
        {"endpoint", required_argument, NULL, ENDPOINT},
        {"model", required_argument, NULL, MODEL},
        {"upstream-model", required_argument, NULL, UPSTREAM_MODEL},
        {"key-file", required_argument, NULL, KEY_FILE},
        {"ca", required_argument, NULL, CA},
        {"resume", required_argument, NULL, RESUME},
        {"tokenizer", required_argument, NULL, TOKENIZER},
        {"config", required_argument, NULL, CONFIG},
        {"registry", required_argument, NULL, REGISTRY},
        {"registry-key-file", required_argument, NULL, REGISTRY_KEY_FILE},
        {"slots", required_argument, NULL, SLOTS},
        {"context", required_argument, NULL, CONTEXT},
        {"first-s", required_argument, NULL, FIRST},
        {"silence-s", required_argument, NULL, SILENCE},
        {"all-models", no_argument, NULL, ALL_MODELS},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    int option;
    int index = 0;
    while ((option = getopt_long(argc, argv, "hV", known, &index)) != -1) {
        if (option == 'h' || option == 'V') {
            fputs(option == 'h' ? usage : "weft-upstream " WEFT_RELEASE "\n", stdout);
            return 1;
        }
        if (take_option(settings, options, option, known[index].name)) {
            fputs("see weft-upstream --help\n", stderr);
            return -EINVAL;
        }
    }
    const bool asks_somebody = options->url_count || options->config || settings->registry_url;
    if (!settings->port || !asks_somebody || optind < argc) {
        fprintf(stderr, "weft-upstream: --port and --endpoint (or --config, or --registry) are "
                        "needed; see weft-upstream --help\n");
        return -EINVAL;
    }
    return 0;
}

/* ---- the whole ---- */

static void set_defaults(struct settings *settings)
{
    settings->context = settings->context ? settings->context : CONTEXT_FIRST;
    settings->slots = settings->slots ? settings->slots : SLOTS_FIRST;
    settings->first_s = settings->first_s ? settings->first_s : FIRST_S_FIRST;
    settings->silence_s = settings->silence_s ? settings->silence_s : SILENCE_FIRST;
}

static bool all_local(const struct settings *settings)
{
    for (size_t i = 0; i < settings->endpoint_count; i++)
        if (!settings->endpoints[i].where.local)
            return false;
    return true;
}

/* The gateway whose registry is followed. */
static int add_registry(struct settings *settings, const char *allowed, char *why, size_t why_size)
{
    char what[128];
    if (!settings->registry_url)
        return 0;
    if (where_parse(&settings->registry, settings->registry_url, what, sizeof(what))) {
        (void)snprintf(why, why_size, "registry %.200s: %s", settings->registry_url, what);
        return -EINVAL;
    }
    if (!where_allowed(allowed, &settings->registry, NULL))
        return wrong(why, why_size, WHERE_VARIABLE " forbids the registry %s",
                     settings->registry.host);
    const int rc =
        settings->registry_key_file
            ? read_key_file(settings->registry_key_file, settings->registry_key, why, why_size)
            : 0;
    if (rc == 0 && settings->registry_key[0] && !settings->registry.tls &&
        !settings->registry.local)
        return wrong(why, why_size, "%s would get its key in clear: use https",
                     settings->registry.base);
    return rc;
}

/* How many models there may be, and what they are called. */
static int check_models(struct settings *settings, const struct options *options, char *why,
                        size_t why_size)
{
    const bool several = settings->all_models || settings->model_count > 1;
    const bool of_one = settings->endpoint_count || options->url_count || settings->tokenizer ||
                        options->endpoint.model;
    if (settings->all_models && settings->model_count)
        return wrong(why, why_size, "--all-models and --model exclude each other%s", "");
    if (several && (!settings->registry_url || of_one))
        return wrong(why, why_size,
                     "several models come from a --registry; endpoints, --upstream-model and "
                     "--tokenizer%s are of one",
                     "");
    if (!settings->all_models && !settings->model_count)
        return wrong(why, why_size, "the model needs a name%s: --model", "");
    for (size_t i = 0; i < settings->model_count; i++)
        if (!settings->models[i][0] || strlen(settings->models[i]) > MODEL_MAX ||
            !text_is_word(settings->models[i], strlen(settings->models[i])))
            return wrong(why, why_size,
                         "the model needs a name of 1 to 63 printable characters, no space%s: "
                         "--model",
                         "");
    return 0;
}

static int add_all(struct settings *settings, struct options *options, char *why, size_t why_size)
{
    const char *allowed = getenv(WHERE_VARIABLE);
    settings->model = settings->models[0]; /* the file's endpoints may want it */
    allowed = allowed && allowed[strspn(allowed, " \t,")] ? allowed : NULL;
    int rc = 0;
    if (options->config)
        rc = settings_file_read(settings, options->config, allowed, why, why_size);
    rc = rc == 0 ? check_models(settings, options, why, why_size) : rc;
    for (size_t i = 0; rc == 0 && i < options->url_count; i++) {
        options->endpoint.url = options->urls[i];
        rc = settings_add(settings, &options->endpoint, allowed, why, why_size);
    }
    if (rc == 0 && (settings->slots > RELAY_SLOTS_MAX || settings->context > NUMBER_MAX ||
                    settings->first_s > SECONDS_MAX || settings->silence_s > SECONDS_MAX))
        rc = wrong(why, why_size, "%s has a number that is too large", options->config);
    if (rc == 0)
        rc = add_registry(settings, allowed, why, why_size);
    if (rc == 0 && settings->endpoint_count == 0 && !settings->registry_url)
        rc = wrong(why, why_size,
                   allowed ? WHERE_VARIABLE "=%s forbids every endpoint: nothing to serve with"
                           : "there is no endpoint%s",
                   allowed ? allowed : "");
    /* What may be dialled is bound to local addresses wherever nothing else was allowed. */
    settings->local_only = allowed && all_local(settings);
    settings->allowed = allowed;
    settings->ca = options->endpoint.ca;
    return rc;
}

int settings_read(struct settings *settings, int argc, char **argv)
{
    char why[SETTINGS_WHY_MAX];
    struct options options = {.url_count = 0};
    *settings = (struct settings){.port = NULL};
    int rc = parse_options(settings, &options, argc, argv);
    if (rc)
        return rc;
    rc = add_all(settings, &options, why, sizeof(why));
    if (rc) {
        fprintf(stderr, "weft-upstream: %s\n", why);
        settings_deinit(settings);
        return -EINVAL;
    }
    set_defaults(settings);
    return 0;
}
