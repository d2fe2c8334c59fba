// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void file_close_at(const int *fd) {
    if (*fd >= 0) close(*fd);
}

static int file_open(const char *path, struct stat *info, Err *err) {
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, info) < 0 || fault_hit("file.open")) {
        err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
                "could not open '%s': %s", path, strerror(errno));
        return -1;
    }
    if (!S_ISREG(info->st_mode)) {
        err_set(err, ERR_INVALID, "'%s' is not a regular file", path);
        return -1;
    }
    int kept = fd;
    fd = -1;
    return kept;
}

bool file_map(const char *path, FileMap *out, Err *err) {
    struct stat info;
    auto_close int fd = file_open(path, &info, err);
    if (fd < 0) return false;
    if (info.st_size == 0) return err_set(err, ERR_DAMAGED, "'%s' is empty", path);
    void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return err_set(err, ERR_IO, "could not map '%s': %s", path, strerror(errno));
    *out = (FileMap){bytes, (size_t)info.st_size};
    return true;
}

void file_unmap(FileMap *map) {
    if (map->bytes) munmap((void *)map->bytes, map->size);
    *map = (FileMap){0};
}

void file_forget(const FileMap *map, const uint8_t *from, size_t length) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
              begin = ((uintptr_t)from + page - 1) & ~(page - 1),
              end = ((uintptr_t)from + length) & ~(page - 1);
    (void)map; /* only its bounds are of interest */
    assert(from >= map->bytes && from + length <= map->bytes + map->size);
    if (end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

char *file_read(const char *path, size_t limit, size_t *length, Err *err) {
    struct stat info;
    auto_close int fd = file_open(path, &info, err);
    if (fd < 0) return NULL;
    if ((size_t)info.st_size > limit) {
        err_set(err, ERR_TOO_LARGE, "'%s' has %lld bytes, the limit is %zu", path,
                (long long)info.st_size, limit);
        return NULL;
    }
    Buf bytes = {.limit = limit};
    char chunk[16384];
    for (ssize_t n; (n = read(fd, chunk, sizeof chunk)) != 0;) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || (buf_append(&bytes, chunk, (size_t)n), bytes.overflow)) {
            err_set(err, ERR_IO, "could not read '%s': %s", path,
                    n < 0 ? strerror(errno) : "it grew meanwhile");
            buf_done(&bytes);
            return NULL;
        }
    }
    *length = bytes.length;
    return buf_take(&bytes);
}
