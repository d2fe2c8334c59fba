// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

void loop_own(Loop *loop, Item *item, void (*close)(Item *item)) {
    loop_check(loop);
    item->close = close;
    item->next = &loop->items;
    item->prev = loop->items.prev;
    item->prev->next = item->next->prev = item;
}

void item_leave(Item *item) {
    item->prev->next = item->next;
    item->next->prev = item->prev;
}

/* What is asked for while these run waits for the next round: a chain of calls cannot keep the
 * sockets from being served. */
static void run_later(Loop *loop) {
    Later *later = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    while (later) {
        Later *next = later->next;
        later->queued = false;
        later->run(later);
        later = next;
    }
    if (!loop->first) uv_idle_stop(&loop->idle);
}

static void on_idle(uv_idle_t *idle) { run_later(idle->data); }

void loop_later(Loop *loop, Later *later) {
    if (later->queued) return;
    if (!loop->first) uv_idle_start(&loop->idle, on_idle);
    later->queued = true;
    later->next = NULL;
    *loop->last = later;
    loop->last = &later->next;
}

static void on_wake(uv_async_t *wake) {
    Loop *loop = wake->data;
    if (atomic_exchange(&loop->stop, false)) uv_stop(&loop->uv);
}

Loop *loop_new(void) {
    Loop *loop = mem_new(sizeof *loop);
    int failed = uv_loop_init(&loop->uv);
    if (!failed) failed = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (failed) { /* no descriptor left for the very first thing a program opens */
        char text[64];
        fprintf(stderr, "baton: could not open an event loop: %s\n", error_text(failed, text));
        abort();
    }
    uv_idle_init(&loop->uv, &loop->idle);
    loop->uv.data = loop->wake.data = loop->idle.data = loop;
    loop->items.next = loop->items.prev = &loop->items;
    loop->last = &loop->first;
    return loop;
}

void loop_run(Loop *loop) {
    loop->thread = pthread_self();
    atomic_store(&loop->running, true);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    atomic_store(&loop->running, false);
}

void loop_stop(Loop *loop) {
    atomic_store(&loop->stop, true);
    uv_async_send(&loop->wake);
}

void loop_free(Loop *loop) {
    if (!loop) return;
    loop_check(loop);
    while (loop->items.next != &loop->items) loop->items.next->close(loop->items.next);
    while (loop->first) run_later(loop);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int busy = uv_loop_close(&loop->uv);
    assert(busy == 0);
    (void)busy;
    free(loop);
}

const char *error_text(int error, char out[64]) {
    return uv_strerror_r(error > 0 ? -error : error, out, 64);
}
