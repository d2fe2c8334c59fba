// SPDX-License-Identifier: Apache-2.0
/* limits.h - every bound on what comes from outside, in one place, with the flag that changes it.
 */
#ifndef BATON_BASE_LIMITS_H
#define BATON_BASE_LIMITS_H

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* http */
#define LIMIT_HTTP_HEADER (64 * KIB)   /* request line and headers of one message */
#define LIMIT_HTTP_HEADERS 128         /* header fields of one message */
#define LIMIT_HTTP_BODY (32 * MIB) /* one request body, as vLLM's VLLM_HTTP_MAX_REQUEST_BODY_SIZE  \
                                    */
#define LIMIT_HTTP_REPLY (256 * MIB)   /* one buffered upstream reply */
#define LIMIT_HTTP_CONNECTIONS 4096    /* open connections of one server */
#define LIMIT_HTTP_IDLE_LINKS 256      /* connections that a client keeps to one address */
#define LIMIT_HTTP_UNSENT (8 * MIB)    /* bytes that a slow reader of a stream may leave waiting */
#define LIMIT_HTTP_IDLE_MS 65000       /* keep-alive without a request */
#define LIMIT_HTTP_READ_MS 30000       /* from a request's first byte to its last */

/* text */
#define LIMIT_JSON_DEPTH 64            /* nested arrays and objects */
#define LIMIT_YAML (1 * MIB)           /* one manifest file */
#define LIMIT_YAML_NODES 200000        /* its values, with all that aliases repeat */
#define LIMIT_TEMPLATE (256 * KIB)     /* a chat template's text */
#define LIMIT_TEMPLATE_OUTPUT (16 * MIB) /* what it may render */
#define LIMIT_TEMPLATE_STEPS 20000000  /* nodes evaluated in one rendering */
#define LIMIT_TEMPLATE_DEPTH 100       /* nested macros, blocks and expressions */
#define LIMIT_TEMPLATE_MEMORY (256 * MIB) /* values it may make in one rendering */

/* model */
#define LIMIT_GGUF_KEYS 65536          /* metadata keys of one file */
#define LIMIT_GGUF_TENSORS 65536
#define LIMIT_GGUF_NAME (1 * KIB)      /* a key, or a tensor's name */
#define LIMIT_GGUF_STRING (16 * MIB)   /* one metadata string */
#define LIMIT_VOCAB ((size_t)1 << 22)  /* tokens of a vocabulary */
#define LIMIT_TEXT (32 * MIB)          /* one text to tokenise: takes up to 40 bytes a byte */

/* engine */
#define LIMIT_STOP_STRINGS 4           /* as VLLM_MAX_STOP_STRINGS */
#define LIMIT_STOP_BYTES 1024          /* of one stop string */
#define LIMIT_PROMPTS 1024             /* as VLLM_MAX_COMPLETION_PROMPTS */
#define LIMIT_CHOICES 128              /* n of one request */
#define LIMIT_LOGPROBS 20              /* as --max-logprobs */
#define LIMIT_LOGIT_BIAS 300           /* entries of logit_bias */
#define LIMIT_TOKENIZE (4 * MIB)       /* one text for /tokenize: 0.1 to 0.7 s */
#define LIMIT_TRUNCATED 16             /* contexts that truncate_prompt_tokens cuts down */
#define LIMIT_QUEUED 1024              /* waiting requests: --max-num-queued-reqs */

/* kv */
#define LIMIT_KV_MESSAGE (4 * MIB)     /* one control message between engines */
#define LIMIT_KV_PEERS 256             /* connections of one agent, in and out */
#define LIMIT_KV_BLOCK (256 * MIB)     /* bytes of one block */
#define LIMIT_KV_NAME 255              /* bytes of an engine id or a request id */
#define LIMIT_KV_HELLO_MS 5000         /* from accepting a peer to its hello */
#define LIMIT_KV_IDLE_MS 30000         /* a connection without a pull; twice that for its peer */
#define LIMIT_KV_DRAIN_MS 2000         /* for a write of blocks whose lease has ended */
#define LIMIT_KV_RENEWALS 20           /* lease periods that a reader can keep one offer at most */
#define LIMIT_KV_ENDED 1024            /* ended offers remembered, to say why they are gone */
#define LIMIT_KV_READS 1024            /* pulls of one connection whose blocks are being sent */
#define LIMIT_KV_PROMPT ((size_t)1 << 20) /* tokens of one offer */

/* route */
#define LIMIT_OBJECTS 4096             /* manifests in one folder, objects of one kind */
#define LIMIT_PREFIXES 50000           /* prompt beginnings remembered of one pod */
#define LIMIT_ROUTE_EVENT (4 * MIB)    /* one event of a stream that is passed on */
#define LIMIT_SERIES 8192              /* time series of the router's metrics */
#define LIMIT_REQUEST_ID 128           /* bytes of an X-Request-Id that is taken over */

#endif
