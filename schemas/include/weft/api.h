/* SPDX-License-Identifier: Apache-2.0 */
/* weft/api.h - marks what libweft exports; every other name of it stays inside. Included by all the
 * other headers. The shared library's versioned list is dataplane/client/weft.map. */
#pragma once

/* Define WEFT_STATIC before the first include when libweft.a becomes part of a shared library of
 * yours and that library is not to export Weft's functions in its turn. */
#if defined(WEFT_STATIC)
#define WEFT_API __attribute__((visibility("hidden")))
#else
#define WEFT_API __attribute__((visibility("default")))
#endif
