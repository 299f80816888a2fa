/* SPDX-License-Identifier: Apache-2.0 */
/* weft/status.h - what functions return and requests end with, from schemas/status.def:
 * 0, a negative errno, or one of these codes below -1000. */
#pragma once

#include <weft/api.h>

#include "status.def"

#ifdef __cplusplus
extern "C" {
#endif

#define WEFT_ENUM_STATUS_(name, code, text) WEFT_E_##name = (code),
enum weft_status { WEFT_OK = 0, WEFT_STATUSES(WEFT_ENUM_STATUS_) };

/* A sentence for people, for 0, any status and any negative errno. Never NULL; static or
 * thread-local storage, good until the thread's next call. */
WEFT_API const char *weft_status_text(int status);

/* A short stable name for machines: "ok", "mesh_full", ... or "errno". Storage as above. */
WEFT_API const char *weft_status_name(int status);

#ifdef __cplusplus
}
#endif
