/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - commands of weft-bench (bench.c). Each parses its own arguments and returns the exit
 * status. */
#pragma once

#define BENCH_USAGE 2 /* wrong usage, which has been told: bench.c says where to read more */

int bench_route(int argc, char **argv);
int bench_load(int argc, char **argv);
int bench_streams(int argc, char **argv);
int bench_compare(int argc, char **argv);
int bench_soak(int argc, char **argv);
int bench_toy(int argc, char **argv);
int bench_exec(int argc, char **argv);
int bench_grammar(int argc, char **argv);
int bench_mesh_sim(int argc, char **argv);
int bench_policies(int argc, char **argv);
int bench_prefixes(int argc, char **argv);
int bench_coordinates(int argc, char **argv);
#ifdef WEFT_BENCH_DATAPLANE
int bench_dataplane(int argc, char **argv);
#endif
