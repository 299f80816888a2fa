/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c.h - CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected; RFC 3720 appendix B.4 has test
 * vectors): finds what UDP's sum lets through, such as bytes changed by a box that then repaired
 * it. Against accidents, not against people. By the processor's own instruction where it has one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The sum of what came before (0 at first) and `size` more bytes. Any thread. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);
