// SPDX-License-Identifier: Apache-2.0
/* file.h - descriptors that close themselves, files mapped for reading. */
#ifndef BATON_BASE_FILE_H
#define BATON_BASE_FILE_H

struct Err;

void file_close_at(const int *fd); /* -1 is fine */
#define auto_close __attribute__((cleanup(file_close_at)))

typedef struct FileMap { /* read-only; unmap with file_unmap() */
    const uint8_t *bytes;
    size_t size;
} FileMap;

bool file_map(const char *path, FileMap *out, struct Err *err) MUST_CHECK;
void file_unmap(FileMap *map);
void file_forget(const FileMap *map, const uint8_t *from,
                 size_t length); /* drops whole pages from memory; they can be read again */
char *file_read(const char *path, size_t limit, size_t *length,
                struct Err *err) MUST_CHECK; /* 0-terminated, yours to free() */

#endif
