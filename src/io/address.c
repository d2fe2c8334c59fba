// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>

bool address_numeric(const char *host, int port, Address *out) {
    *out = (Address){0};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&out->at, &v4, out->length = sizeof v4);
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&out->at, &v6, out->length = sizeof v6);
        return true;
    }
    return false;
}

bool address_unix(const char *path, Address *out, Err *err) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t length = strlen(path), room = sizeof un.sun_path - 1;
    *out = (Address){0};
    if (length == 0 || length > room) {
        err_set(err, ERR_INVALID, "'%s' cannot name a Unix socket: it has %zu bytes, 1 to %zu do",
                path, length, room);
        return err_hint(err, "Choose a shorter path, or an abstract name that begins with @.");
    }
    memcpy(un.sun_path, path, length);
    out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    if (path[0] == '@') { /* abstract: a leading 0, and the length ends the name */
        un.sun_path[0] = 0;
        out->length--;
    }
    memcpy(&out->at, &un, sizeof un);
    return true;
}

void address_text(const Address *address, char out[64]) {
    char host[INET6_ADDRSTRLEN] = "?";
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    if (address->at.ss_family == AF_INET) {
        memcpy(&v4, &address->at, sizeof v4);
        inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
        snprintf(out, 64, "%s:%u", host, ntohs(v4.sin_port));
    } else if (address->at.ss_family == AF_INET6) {
        memcpy(&v6, &address->at, sizeof v6);
        inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
        snprintf(out, 64, "[%s]:%u", host, ntohs(v6.sin6_port));
    } else {
        snprintf(out, 64, "unix");
    }
}

int socket_open(int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || family == AF_UNIX) return fd;
    int yes = 1, idle_s = 60, between_s = 15, probes = 4;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof between_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    return fd;
}
