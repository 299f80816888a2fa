/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.h - everything between a job of weft/worker.h and the engine: opening a model with its
 * tokenizer, backend and engine; a job's parts to a prompt; an end to an account. worker.c adds the
 * thread (runner.h), the port, the loop and the signals.
 *
 * Threads: one thread; host_request() and what follows it leave the engine alone and may be called
 * while another thread steps it. Errors: 0, negative errno, weft/status.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <weft/worker.h>

#include "kernels/engine/engine.h"
#include "kernels/exec.h"
#include "kernels/model/chat.h"
#include "kernels/model/model.h"

/* One part in so many of the queue is only for those who have less than their share of it. */
#define HOST_RESERVE_PART 4u

/* Where a model runs. */
enum host_backend {
    HOST_AUTO = 0, /* on a CUDA device if there is one and it takes the model, else the processor */
    HOST_CPU,
    HOST_CUDA,
};

/* How a CUDA device reads prompts. */
enum host_gemm {
    HOST_GEMM_EXACT = 0, /* in float32, as it decodes */
    HOST_GEMM_OWN,       /* on the tensor cores: the same bits however a prompt is cut */
    HOST_GEMM_AUTO,      /* there, by cuBLASLt for the shapes where that is measured to be faster */
    HOST_GEMM_CUBLASLT,  /* there, all products by cuBLASLt */
};

struct host_options {
    const char *model_path;
    enum host_backend backend;
    enum host_gemm gemm;
    uint32_t threads;    /* 0 = half the processors; of each rank: its share of them */
    uint32_t shards;     /* processes that compute each layer together; 0 = 1 */
    uint32_t stages;     /* groups of them that have some of the layers each; 0 = 1 */
    uint32_t slots;      /* 0 = as many as fit the memory, 4 at most */
    uint32_t queue;      /* 0 = the engine's default */
    uint32_t context;    /* 0 = the model's, 4,096 at most */
    uint32_t memory_mib; /* of the KV cache; 0 = half of what is free, there where it will be */
    const struct engine_speeds *speeds; /* known from before; NULL: they are measured */
};

struct host {
    struct model *model;
    tokenizer_t *tokenizer; /* NULL if the file has none known here: jobs must bring token ids */
    struct chat chat;       /* begin is TOKENIZER_NONE without a known template */
    struct grammar_vocab *vocab; /* NULL: answers cannot be held to a format */
    exec_t *exec;
    engine_t *engine;
    struct exec_info info;
    uint64_t measuring_ns;                   /* of host_open(), that measuring speeds has taken */
    uint32_t *prompt;                        /* scratch of one prompt: a context long */
    struct gguf_str stops[STOP_STRINGS_MAX]; /* scratch of one request */
};

/* The name a model file suggests: "dir/SmolLM2-135M-Instruct.Q4_1.gguf" gives
 * "smollm2-135m-instruct". Bytes that no name may have (text.h) become '-'. Cut to `size`, zero
 * included. */
void host_model_name(const char *path, char *name, size_t size);

/* Opens and measures. `why` gets a sentence when it fails. host_close() in either case. */
int host_open(struct host *host, const struct host_options *options, char *why, size_t why_size);

void host_close(struct host *host);

/* A sum over the weights (the beginning of each) and the way they are computed with: hosts with
 * equal ones give the same bits. Never 0. */
uint32_t host_arithmetic(const struct host *host);

/* Memory that the model takes while it is open, KV cache full, mapped weights counted. */
size_t host_memory_bytes(const struct host *host);

/* Makes a request of a job, to be submitted before the next one is made: it points into the host
 * and the job; out->grammar, if the job has a format, is the caller's to destroy. Returns 0, or a
 * status: WEFT_E_BAD_REQUEST for a prompt this model cannot read, WEFT_E_TOO_LONG for one that does
 * not fit, WEFT_E_NO_CAPABLE_NODE for a format that its tokens cannot hold to, WEFT_E_WORKER_FAILED
 * without memory. */
int host_request(struct host *host, uint64_t id, const weft_job_view_t *view,
                 struct engine_request *out);

/* Whose job it is: the session, else the client's connection. */
uint64_t host_tenant(const weft_job_view_t *view);

/* What engine_submit() returned, as a status for the client. */
int host_status(int rc);

/* The account of a DONE event; its tail points into the event. */
weft_job_report_t host_report(const struct engine_event *event);

/* The log probabilities of a TOKEN event with their texts; `out` has ENGINE_LOGPROBS_MAX. */
size_t host_logprobs(const struct host *host, const struct engine_event *event,
                     weft_logprob_t *out);

/* The engine's load in the port's words. */
weft_load_t host_load(const struct engine_load *load);
