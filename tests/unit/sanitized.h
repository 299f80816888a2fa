/* SPDX-License-Identifier: Apache-2.0 */
/* sanitized.h - SANITIZED is 1 where a sanitizer watches: ten times slower, fewer seeds will do. */
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
