// SPDX-License-Identifier: Apache-2.0
/* mem.h - memory with one of four lifetimes: process, object, request (an Arena), shared
 * (ref/unref).
 *
 * Small allocations cannot fail: mem_new() ends the process, since there is nothing useful left to
 * do. Sizes that a user picks go through mem_try(), which fails with an Err. */
#ifndef BATON_BASE_MEM_H
#define BATON_BASE_MEM_H

struct Err;

void *mem_new(size_t size);                     /* zeroed; aborts when there is none */
void *mem_grow(void *old, size_t size);         /* realloc; aborts; the new part is not zeroed */
char *mem_dup_str(const char *text);            /* NULL gives NULL */
char *mem_dup_bytes(const char *bytes, size_t length); /* adds a 0 */

/* count * size bytes aligned to 64, zeroed by the kernel, in huge pages where it has them.
 * `what` names the purpose in the message.  Give back with mem_give(). */
void *mem_try(size_t count, size_t size, const char *what, struct Err *err) MUST_CHECK;
void mem_give(void *big, size_t count, size_t size); /* NULL is fine */

void mem_free_at(void *pointer_to_pointer);
#define auto_free __attribute__((cleanup(mem_free_at)))

/* Ensures room for `need` elements in a growing array, doubling.  array, capacity: lvalues. */
#define mem_reserve(array, capacity, need)                                                        \
    do {                                                                                          \
        size_t need_ = (need);                                                                    \
        if (need_ > (capacity)) {                                                                 \
            size_t room_ = (capacity) ? (capacity) * 2 : 8;                                       \
            (capacity) = room_ < need_ ? need_ : room_;                                           \
            (array) = mem_grow((array), (capacity) * sizeof *(array));                            \
        }                                                                                         \
    } while (0)

/* Arena - memory that is dropped whole, at the end of a request or of a parse. */
typedef struct Arena {
    struct ArenaPage *pages;
    size_t used; /* bytes given out, for limits */
} Arena;

void *arena_new(Arena *arena, size_t size); /* zeroed, aligned to 16; {0} is an empty arena */
char *arena_dup(Arena *arena, const char *bytes, size_t length); /* adds a 0 */
void arena_done(Arena *arena);              /* may be used again afterwards */

size_t mem_available(
    void); /* bytes this process may still take: the least of the machine's and the cgroup's */
size_t mem_resident(void);  /* bytes of this process now in memory */

#endif
