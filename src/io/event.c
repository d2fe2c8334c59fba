// SPDX-License-Identifier: Apache-2.0
/* Timers, signals, descriptors and folders to wait for: each a libuv handle that knows its Loop. */
#include "internal.h"

#include <stdlib.h>

static void free_data(uv_handle_t *handle) { free(handle->data); }

struct Timer {
    Item item;
    uv_timer_t uv;
    uint64_t every_ms;
    void (*fire)(void *user);
    void *user;
};

static void on_timer(uv_timer_t *uv) {
    Timer *timer = uv->data;
    timer->fire(timer->user);
}

static void timer_close_item(Item *item) { timer_close((Timer *)item); }

Timer *timer_start(Loop *loop, uint64_t after_ms, uint64_t every_ms, void (*fire)(void *user),
                   void *user) {
    Timer *timer = mem_new(sizeof *timer);
    loop_own(loop, &timer->item, timer_close_item);
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    timer->every_ms = every_ms;
    timer->fire = fire;
    timer->user = user;
    timer_again(timer, after_ms);
    return timer;
}

void timer_again(Timer *timer, uint64_t after_ms) {
    if (after_ms == TIMER_NEVER) {
        uv_timer_stop(&timer->uv);
        return;
    }
    if (after_ms > 0) uv_update_time(timer->uv.loop); /* from now, not from this round's begin */
    uv_timer_start(&timer->uv, on_timer, after_ms, timer->every_ms);
}

void timer_close(Timer *timer) {
    if (!timer) return;
    item_leave(&timer->item);
    uv_close((uv_handle_t *)&timer->uv, free_data);
}

struct Signal {
    Item item;
    uv_signal_t uv;
    void (*caught)(void *user);
    void *user;
};

static void on_signal(uv_signal_t *uv, int number) {
    (void)number;
    Signal *signal = uv->data;
    signal->caught(signal->user);
}

static void signal_close_item(Item *item) { signal_close((Signal *)item); }

Signal *signal_watch(Loop *loop, int number, void (*caught)(void *user), void *user) {
    Signal *signal = mem_new(sizeof *signal);
    loop_own(loop, &signal->item, signal_close_item);
    uv_signal_init(&loop->uv, &signal->uv);
    signal->uv.data = signal;
    signal->caught = caught;
    signal->user = user;
    int failed = uv_signal_start(&signal->uv, on_signal, number);
    assert(!failed); /* only a number that is no signal's, or SIGKILL and SIGSTOP */
    (void)failed;
    return signal;
}

void signal_close(Signal *signal) {
    if (!signal) return;
    item_leave(&signal->item);
    uv_close((uv_handle_t *)&signal->uv, free_data);
}

struct Poll {
    Item item;
    uv_poll_t uv;
    void (*readable)(void *user);
    void *user;
};

/* An error is something to read, too: read() will tell it.  libuv stops the handle then. */
static void on_readable(uv_poll_t *uv, int status, int events) {
    (void)events;
    Poll *poll = uv->data;
    if (status < 0) uv_poll_start(&poll->uv, UV_READABLE, on_readable);
    poll->readable(poll->user);
}

static void poll_close_item(Item *item) { poll_close((Poll *)item); }

Poll *poll_open(Loop *loop, int fd, void (*readable)(void *user), void *user) {
    Poll *poll = mem_new(sizeof *poll);
    if (uv_poll_init(&loop->uv, &poll->uv, fd) != 0) {
        free(poll);
        return NULL;
    }
    loop_own(loop, &poll->item, poll_close_item);
    poll->uv.data = poll;
    poll->readable = readable;
    poll->user = user;
    uv_poll_start(&poll->uv, UV_READABLE, on_readable);
    return poll;
}

void poll_close(Poll *poll) {
    if (!poll) return;
    item_leave(&poll->item);
    uv_close((uv_handle_t *)&poll->uv, free_data);
}

struct Watch {
    Item item;
    Later later; /* many entries changed in one round are one call */
    uv_fs_event_t uv;
    bool closed, gone; /* gone: libuv has let go of the handle */
    void (*changed)(void *user);
    void *user;
};

static void run_watch(Later *later) {
    Watch *watch = CONTAINER_OF(later, Watch, later);
    if (watch->gone) free(watch);
    else if (!watch->closed) watch->changed(watch->user);
}

static void on_fs_event(uv_fs_event_t *uv, const char *name, int events, int status) {
    (void)name, (void)events, (void)status;
    Watch *watch = uv->data;
    loop_later(uv->loop->data, &watch->later);
}

static void watch_close_item(Item *item) { watch_close((Watch *)item); }

static void on_watch_closed(uv_handle_t *handle) {
    Watch *watch = handle->data;
    watch->gone = true;
    if (!watch->later.queued) free(watch);
}

Watch *watch_open(Loop *loop, const char *folder, void (*changed)(void *user), void *user,
                  Err *err) {
    Watch *watch = mem_new(sizeof *watch);
    loop_own(loop, &watch->item, watch_close_item);
    uv_fs_event_init(&loop->uv, &watch->uv);
    watch->uv.data = watch;
    watch->later.run = run_watch;
    watch->changed = changed;
    watch->user = user;
    int failed = uv_fs_event_start(&watch->uv, on_fs_event, folder, 0);
    if (!failed) return watch;
    char text[64];
    err_set(err, failed == UV_ENOENT ? ERR_NOT_FOUND : ERR_IO, "could not watch '%s': %s", folder,
            error_text(failed, text));
    if (failed == UV_ENOSPC || failed == UV_EMFILE)
        err_hint(err, "Raise fs.inotify.max_user_watches and fs.inotify.max_user_instances.");
    watch_close(watch);
    return NULL;
}

void watch_close(Watch *watch) {
    if (!watch) return;
    item_leave(&watch->item);
    watch->closed = true;
    uv_close((uv_handle_t *)&watch->uv, on_watch_closed);
}
