/* SPDX-License-Identifier: Apache-2.0 */
/* components_io.h - /v1/components/run: asks the mesh for one stage after the other; components.h
 * says what they are. 501 unless --experimental-components is given. */
#pragma once

struct exchange;
struct components;

/* What routes.c has for it. */
void components_run(struct exchange *x);
/* With its exchange. NULL is fine. */
void components_free(struct components *c);
