/* SPDX-License-Identifier: Apache-2.0 */
/* fake_cublaslt.h - what the stand-in for cuBLASLt tells the test that has loaded it, by dlsym().
 */
#pragma once

#define FAKE_VERSION      130199u
#define FAKE_COLUMNS_MOST 10u
#define FAKE_SLOW_MS      100u /* longer than gemm.cu takes on the emulator */
