/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket_file.h - the file of a Unix socket that its process has left behind, for those who are to
 * listen under its name (the admin socket, the worker port). Control threads only: it blocks for no
 * one, but makes system calls.
 */
#pragma once

#include <sys/un.h>

/* Takes the file at `address` away if nobody listens on it any more. `type` is that of the socket,
 * SOCK_STREAM or SOCK_SEQPACKET. Returns 0 (nothing is there now), -EADDRINUSE (somebody listens),
 * -EEXIST (it is no socket, and stays) or another -errno. */
int socket_file_clear(const struct sockaddr_un *address, int type);
