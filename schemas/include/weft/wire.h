/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft/wire.h - the wire format as C: structs, enums and limits made from schemas/wire.def, which
 * is where the meaning of each field is written. Used by routers, workers and the SDK alike.
 *
 * The structs lie directly over received bytes: they are packed (a UDP payload has no alignment)
 * and every offset is asserted. Check lengths before you look.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/api.h>

#include "wire.def"

#ifdef __cplusplus
#define WEFT_ASSERT(cond, text) static_assert(cond, text)
extern "C" {
#else
#define WEFT_ASSERT(cond, text) _Static_assert(cond, text)
#endif

WEFT_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

/* ---- limits ---- */
#define WEFT_VERSION         1u
#define WEFT_VER_FMT         ((uint8_t)(WEFT_VERSION << 4))
#define WEFT_PORT_DEFAULT    7400u
#define WEFT_DATAGRAM_MAX    1472u       /* largest UDP payload: Ethernet MTU over IPv4 */
#define WEFT_DATAGRAM_SAFE   1200u       /* what every path carries; first size used */
#define WEFT_MESSAGE_MAX     (16u << 20) /* request or reply, bytes */
#define WEFT_UNSCHEDULED_MAX 16u         /* request datagrams sent before a GRANT */
#define WEFT_HOPS_MAX        4u
#define WEFT_NODE_NONE       0xffffu
#define WEFT_BUDGET_NONE     0xffffffffu
#define WEFT_QUEUE_DRAINING  0xffffffffu /* with no room: takes nothing new any more */
#define WEFT_TIER_MAX        7u
#define WEFT_AVOID_MAX       4u /* nodes a request can ask not to be sent to */
#define WEFT_VRAM_UNIT_MIB   64u
#define WEFT_NAME_MAX        32u /* node names, zero included */
#define WEFT_MODEL_NAME_MAX  64u /* model names, zero included */
#define WEFT_BACKEND_MAX     16u

/* Does a load with that say that it takes nothing new any more? */
#define WEFT_DRAINS(room, queue_us) ((room) == 0 && (queue_us) == WEFT_QUEUE_DRAINING)

#define WEFT_PROMPT_LEAST    44u /* bytes of the shortest prompt header */
#define WEFT_DONE_LEAST      76u /* bytes of the shortest DONE */
#define WEFT_STOPS_MAX       16u
#define WEFT_STOP_BYTES_MAX  256u   /* of a stop string */
#define WEFT_LOGPROBS_MAX    21u    /* of a token: its own and 20 of the best */
#define WEFT_EMBEDDING_MAX   16383u /* floats: one frame */
#define WEFT_TOOL_NAME_MAX   65u    /* zero included */
#define WEFT_FORMAT_MAX      32768u /* bytes of a format's text */
#define WEFT_CALL_ID_MAX     128u   /* bytes of the id of a tool's call */
#define WEFT_TRACE_STATE_MAX 512u   /* bytes of a W3C tracestate */

/* ---- structs ---- */
#define WEFT_PACKED                                            __attribute__((packed))
#define WEFT_DECLARE_FIELD_(off, type, name, mut, text)        type name;
#define WEFT_DECLARE_ARRAY_(off, type, name, count, mut, text) type name[count];

struct WEFT_PACKED weft_hdr {
    WEFT_COMMON_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_req_hdr {
    WEFT_REQ_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_rsp_hdr {
    WEFT_RSP_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_first_hop {
    WEFT_FIRST_HOP_FIELDS(WEFT_DECLARE_FIELD_, WEFT_DECLARE_ARRAY_)
};
struct WEFT_PACKED weft_return {
    WEFT_RETURN_FIELDS(WEFT_DECLARE_FIELD_, WEFT_DECLARE_ARRAY_)
};
struct WEFT_PACKED weft_ack {
    WEFT_ACK_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_range {
    WEFT_RANGE_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_grant {
    WEFT_GRANT_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_reject {
    WEFT_REJECT_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_prompt {
    WEFT_PROMPT_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_part {
    WEFT_PART_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_frame {
    WEFT_FRAME_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_logprob_entry {
    WEFT_LOGPROB_FIELDS(WEFT_DECLARE_FIELD_)
};
struct WEFT_PACKED weft_done {
    WEFT_DONE_FIELDS(WEFT_DECLARE_FIELD_, WEFT_DECLARE_ARRAY_)
};

/* Towards the worker: header and block, then payload. */
struct WEFT_PACKED weft_req {
    struct weft_req_hdr h;
    union {
        struct weft_first_hop first; /* without WEFT_F_RELAYED */
        struct weft_return ret;      /* with it */
    };
};

/* Towards the client: header and the echoed return block, then payload. */
struct WEFT_PACKED weft_rsp {
    struct weft_rsp_hdr h;
    struct weft_return ret;
};

/* ---- offsets and sizes ---- */
#define WEFT_CHECK_OFFSET_(st, off, name)                                                          \
    WEFT_ASSERT(offsetof(struct st, name) == (off), #st "." #name " is misplaced");
#define WEFT_CHECK_REQ_(off, type, name, mut, text)    WEFT_CHECK_OFFSET_(weft_req_hdr, off, name)
#define WEFT_CHECK_RSP_(off, type, name, mut, text)    WEFT_CHECK_OFFSET_(weft_rsp_hdr, off, name)
#define WEFT_CHECK_RETURN_(off, type, name, mut, text) WEFT_CHECK_OFFSET_(weft_return, off, name)
#define WEFT_CHECK_RETURN_A_(off, type, name, count, mut, text)                                    \
    WEFT_CHECK_OFFSET_(weft_return, off, name)
#define WEFT_CHECK_FIRST_(off, type, name, mut, text) WEFT_CHECK_OFFSET_(weft_first_hop, off, name)
#define WEFT_CHECK_FIRST_A_(off, type, name, count, mut, text)                                     \
    WEFT_CHECK_OFFSET_(weft_first_hop, off, name)
#define WEFT_CHECK_PROMPT_(off, type, name, mut, text) WEFT_CHECK_OFFSET_(weft_prompt, off, name)
#define WEFT_CHECK_REJECT_(off, type, name, mut, text) WEFT_CHECK_OFFSET_(weft_reject, off, name)
#define WEFT_CHECK_DONE_(off, type, name, mut, text)   WEFT_CHECK_OFFSET_(weft_done, off, name)
#define WEFT_CHECK_DONE_A_(off, type, name, count, mut, text)                                      \
    WEFT_CHECK_OFFSET_(weft_done, off, name)
WEFT_REQ_FIELDS(WEFT_CHECK_REQ_)
WEFT_RSP_FIELDS(WEFT_CHECK_RSP_)
WEFT_RETURN_FIELDS(WEFT_CHECK_RETURN_, WEFT_CHECK_RETURN_A_)
WEFT_FIRST_HOP_FIELDS(WEFT_CHECK_FIRST_, WEFT_CHECK_FIRST_A_)
WEFT_PROMPT_FIELDS(WEFT_CHECK_PROMPT_)
WEFT_REJECT_FIELDS(WEFT_CHECK_REJECT_)
WEFT_DONE_FIELDS(WEFT_CHECK_DONE_, WEFT_CHECK_DONE_A_)
WEFT_ASSERT(sizeof(struct weft_hdr) == 32, "common header is 32 bytes");
WEFT_ASSERT(sizeof(struct weft_req_hdr) == 64, "request header is 64 bytes");
WEFT_ASSERT(sizeof(struct weft_rsp_hdr) == 48, "reply header is 48 bytes");
WEFT_ASSERT(sizeof(struct weft_first_hop) == 32, "first-hop block is 32 bytes");
WEFT_ASSERT(sizeof(struct weft_return) == 32, "return block is 32 bytes");
WEFT_ASSERT(sizeof(((struct weft_first_hop *)0)->avoid) == WEFT_AVOID_MAX * sizeof(uint16_t),
            "nodes to avoid");
WEFT_ASSERT(sizeof(struct weft_req) == 96 && sizeof(struct weft_rsp) == 80, "header sizes");
WEFT_ASSERT(sizeof(struct weft_prompt) == 104 && sizeof(struct weft_frame) == 8, "body sizes");
WEFT_ASSERT(sizeof(struct weft_reject) == 16 && sizeof(struct weft_done) == 80, "body sizes");
WEFT_ASSERT(sizeof(struct weft_logprob_entry) == 12, "body sizes");
WEFT_ASSERT(offsetof(struct weft_prompt, repetition) == WEFT_PROMPT_LEAST, "body sizes");
WEFT_ASSERT(offsetof(struct weft_done, cached_tokens) == WEFT_DONE_LEAST, "body sizes");
/* What an unproven address gets back is never longer than what it sent. */
WEFT_ASSERT(sizeof(struct weft_rsp) + sizeof(struct weft_reject) <= sizeof(struct weft_req),
            "no amplification");

#define WEFT_REQ_WORDS ((uint8_t)(sizeof(struct weft_req) / 4))
#define WEFT_RSP_WORDS ((uint8_t)(sizeof(struct weft_rsp) / 4))
/* Payload bytes of a datagram of the safe size, each way. */
#define WEFT_REQ_PAYLOAD_SAFE (WEFT_DATAGRAM_SAFE - (uint32_t)sizeof(struct weft_req))
#define WEFT_RSP_PAYLOAD_SAFE (WEFT_DATAGRAM_SAFE - (uint32_t)sizeof(struct weft_rsp))

/* ---- enums ---- */
#define WEFT_ENUM_TYPE_(name, value, text)             WEFT_T_##name = (value),
#define WEFT_ENUM_FLAG_(name, bit, text)               WEFT_F_##name = 1 << (bit),
#define WEFT_ENUM_WANT_(name, bit, text)               WEFT_WANT_##name = 1 << (bit),
#define WEFT_ENUM_CONSTRAINT_(name, value, unit, text) WEFT_C_##name = (value),
#define WEFT_ENUM_PROMPT_(name, value, text)           WEFT_PROMPT_##name = (value),
#define WEFT_ENUM_PROMPT_F_(name, bit, text)           WEFT_PROMPT_F_##name = 1 << (bit),
#define WEFT_ENUM_FRAME_F_(name, bit, text)            WEFT_FRAME_F_##name = 1 << (bit),
#define WEFT_ENUM_FORMAT_(name, value, text)           WEFT_FORMAT_##name = (value),
#define WEFT_ENUM_ROLE_(name, value, text)             WEFT_ROLE_##name = (value),
#define WEFT_ENUM_FRAME_(name, value, text)            WEFT_FRAME_##name = (value),
#define WEFT_ENUM_FINISH_(name, value, text)           WEFT_FINISH_##name = (value),
enum weft_type { WEFT_TYPES(WEFT_ENUM_TYPE_) };
enum weft_flag { WEFT_FLAGS(WEFT_ENUM_FLAG_) };
enum weft_want { WEFT_WANTS(WEFT_ENUM_WANT_) };
enum weft_constraint { WEFT_CONSTRAINTS(WEFT_ENUM_CONSTRAINT_) };
enum weft_prompt_kind { WEFT_PROMPT_KINDS(WEFT_ENUM_PROMPT_) };
enum weft_prompt_flag { WEFT_PROMPT_FLAGS(WEFT_ENUM_PROMPT_F_) };
enum weft_frame_flag { WEFT_FRAME_FLAGS(WEFT_ENUM_FRAME_F_) };
enum weft_format { WEFT_FORMATS(WEFT_ENUM_FORMAT_) };
enum weft_role { WEFT_ROLES(WEFT_ENUM_ROLE_) };
enum weft_frame_kind { WEFT_FRAME_KINDS(WEFT_ENUM_FRAME_) };
enum weft_finish { WEFT_FINISHES(WEFT_ENUM_FINISH_) };

#define WEFT_TYPE_DOWN 0x80u /* bit of a type that travels towards the client */

/* Names for people; "?" for values that have none. Static strings, any thread. */
WEFT_API const char *weft_type_name(unsigned type);
WEFT_API const char *weft_constraint_text(unsigned constraint);
WEFT_API const char *weft_constraint_unit(unsigned constraint);
WEFT_API const char *weft_finish_name(unsigned finish);
WEFT_API const char *weft_role_name(unsigned role);

/* The id a model's name has on the wire: FNV-1a over its bytes; 0 is never returned. A mesh refuses
 * two names with the same id when it learns of them. */
WEFT_API uint32_t weft_model_id(const char *name);

/*
 * Longitude and latitude in degrees to cells: x covers the whole ring, y half of it, so that the
 * wrap is never a short cut between the poles. Out-of-range degrees wrap (x) or clamp (y).
 */
WEFT_API uint16_t weft_cell_x(double longitude_deg);
WEFT_API uint16_t weft_cell_y(double latitude_deg);
WEFT_API double weft_cell_longitude(uint16_t x);
WEFT_API double weft_cell_latitude(uint16_t y);

/* Bit of a policy tag (schemas/tags.def) as a mask, 0 if there is no such tag. */
WEFT_API uint32_t weft_tag_mask(const char *name);

/* A jurisdiction, two capital letters, as bits of req_tags and of a node's tags; 0 if it is none.
 * And back: of any tags; false if there is none in them, then `name` is "". */
#define WEFT_TAGS_JURISDICTION 0x00fff000u
WEFT_API uint32_t weft_jurisdiction_mask(const char *name);
WEFT_API bool weft_jurisdiction_name(uint32_t tags, char name[3]);

#ifdef __cplusplus
}
#endif
