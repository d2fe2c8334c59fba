// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define IOV_AT_ONCE 64
#define ROUNDS 16             /* of reading or writing, then other streams have their turn */
#define COPY_LEAST (16 * KIB) /* small writes to a slow reader share a segment */
#define FINISH_MS 5000

static void stream_close_item(Item *item) { stream_close((Stream *)item); }

/* ---- memory ---- */

static void segment_free(Segment *segment) {
    if (segment->fd >= 0) close(segment->fd);
    free(segment);
}

static void segments_free(Segment *segment) {
    while (segment) {
        Segment *next = segment->next;
        segment_free(segment);
        segment = next;
    }
}

static void queue_drop(Stream *stream) {
    segments_free(stream->first);
    stream->first = NULL;
    stream->last = &stream->first;
    stream->unsent = 0;
}

static void stream_release(Stream *stream) {
    if (--stream->holds > 0) return;
    free(stream->failure);
    free(stream->peer);
    free(stream);
}

static void on_poll_closed(uv_handle_t *handle) { stream_release(handle->data); }

static void run_stream(Later *later);

Stream *stream_new(Loop *loop, bool is_unix, const char *peer) {
    Stream *stream = mem_new(sizeof *stream);
    loop_own(loop, &stream->item, stream_close_item);
    stream->later.run = run_stream;
    stream->loop = loop;
    stream->fd = -1;
    stream->holds = 1;
    stream->is_unix = is_unix;
    stream->last = &stream->first;
    stream->peer = mem_dup_str(peer);
    return stream;
}

bool stream_adopt(Stream *stream, int fd) {
    int failed = uv_poll_init(&stream->loop->uv, &stream->poll, fd);
    if (failed) {
        close(fd);
        errno = -failed;
        return false;
    }
    stream->fd = fd;
    stream->connected = true;
    stream->poll.data = stream;
    stream->holds++;
    return true;
}

Stream *stream_accepted(Loop *loop, int fd, bool is_unix, const char *peer) {
    Stream *stream = stream_new(loop, is_unix, peer);
    if (stream_adopt(stream, fd)) return stream;
    stream_close(stream);
    return NULL;
}

void stream_soon(Stream *stream) {
    if (stream->later.queued) return;
    stream->holds++;
    loop_later(stream->loop, &stream->later);
}

/* ---- telling ---- */

static void tell_gone(Stream *stream, int error) {
    if (stream->closed) return;
    if (stream->finishing && (error || !stream->first)) {
        stream_close(stream);
        return;
    }
    if (stream->told) return;
    stream->told = true;
    stream->reading = false;
    if (error) queue_drop(stream);
    stream_wait(stream);
    if (stream->finishing) return;
    Err why = {0};
    char text[64];
    if (error)
        err_set(&why, ERR_UNAVAILABLE, "lost the connection to %s: %s", stream->peer,
                error_text(error, text));
    if (stream->calls.gone) stream->calls.gone(stream->user, &why);
}

static void run_sent(Stream *stream) {
    while (stream->sent && !stream->closed) {
        Segment *segment = stream->sent;
        stream->sent = segment->next;
        void (*done)(void *) = segment->done;
        void *user = segment->done_user;
        segment_free(segment);
        if (done) done(user);
    }
}

/* ---- reading ---- */

static void keep_fds(Stream *stream, struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (stream->fd_count < STREAM_FDS) stream->fds[stream->fd_count++] = fd;
            else close(fd); /* nobody asked for that many */
        }
    }
}

static ssize_t receive(Stream *stream, void *to, size_t room) {
    if (fault_hit("io.read")) {
        errno = ECONNRESET;
        return -1;
    }
    if (fault_hit("io.short")) room = 1;
    if (!stream->is_unix) return recv(stream->fd, to, room, 0);
    union { /* aligned as a header must be */
        char bytes[CMSG_SPACE(STREAM_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {to, room};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(stream->fd, &message, MSG_CMSG_CLOEXEC);
    if (n >= 0 && message.msg_controllen > 0) keep_fds(stream, &message);
    return n;
}

/* One read.  False when there is nothing more to read now; tells the end. */
static bool read_once(Stream *stream, bool *filled) {
    char waste[4096];
    size_t room = sizeof waste;
    void *to = waste;
    if (!stream->finishing) {
        room = 0;
        to = stream->calls.room(stream->user, &room);
        if (stream->closed || !stream->reading) return false;
        assert(to && room > 0);
    }
    ssize_t n = receive(stream, to, room);
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) {
        stream->ended = n == 0;
        tell_gone(stream, n < 0 ? errno : stream->write_error);
        return false;
    }
    if (!stream->finishing) stream->calls.got(stream->user, (size_t)n);
    *filled = (size_t)n == room;
    return stream->reading && !stream->closed;
}

/* A read that leaves room has most often taken all: the kernel will say if there is more. */
static void read_some(Stream *stream) {
    bool filled = true;
    for (int round = 0; round < ROUNDS && filled && stream->reading && !stream->closed; round++)
        if (!read_once(stream, &filled)) return;
}

static void read_all(Stream *stream) {
    bool filled;
    while (stream->reading && !stream->closed && read_once(stream, &filled)) {}
}

/* ---- writing ---- */

/* What the peer said before it stopped listening (a refusal, say) is read first. */
static void write_failed(Stream *stream, int error) {
    if (!stream->write_error) stream->write_error = error;
    queue_drop(stream);
    stream_soon(stream);
}

static ssize_t send_parts(Stream *stream, struct iovec *parts, size_t count, int fd) {
    if (fault_hit("io.write")) {
        errno = EPIPE;
        return -1;
    }
    if (fault_hit("io.short")) {
        count = 1;
        parts[0].iov_len = 1;
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do n = sendmsg(stream->fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Takes n bytes that have left off the queue; whole views wait in `sent` for their done(). */
static void queue_sent(Stream *stream, size_t n, Segment ***sent) {
    stream->unsent -= n;
    while (stream->first && (n > 0 || stream->first->left == 0)) {
        Segment *segment = stream->first;
        size_t part = n < segment->left ? n : segment->left;
        segment->at += part;
        segment->left -= part;
        n -= part;
        if (segment->left > 0) return;
        stream->first = segment->next;
        if (!stream->first) stream->last = &stream->first;
        segment->next = NULL;
        if (segment->done) {
            **sent = segment;
            *sent = &segment->next;
        } else {
            segment_free(segment);
        }
    }
}

static Segment **sent_end(Stream *stream) {
    Segment **end = &stream->sent;
    while (*end) end = &(*end)->next;
    return end;
}

/* Writes what waits until the kernel takes no more. */
static void flush(Stream *stream) {
    Segment **sent = sent_end(stream);
    for (int round = 0; round < ROUNDS && stream->first; round++) {
        struct iovec parts[IOV_AT_ONCE];
        size_t count = 0, bytes = 0;
        int fd = stream->first->fd;
        for (Segment *s = stream->first; s && count < IOV_AT_ONCE; s = s->next) {
            if (s != stream->first && (s->fd >= 0 || fd >= 0)) break;
            parts[count++] = (struct iovec){(void *)s->at, s->left};
            bytes += s->left;
        }
        ssize_t n = send_parts(stream, parts, count, fd);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) {
            write_failed(stream, errno);
            return;
        }
        queue_sent(stream, (size_t)n, &sent);
        if ((size_t)n < bytes) return;
    }
}

static bool may_write(const Stream *stream) {
    loop_check(stream->loop);
    return !stream->closed && !stream->write_error && !(stream->told && !stream->ended);
}

/* Sends at once what the kernel takes, unless something waits already. */
static size_t send_now(Stream *stream, const Str *parts, size_t count) {
    if (stream->first || !stream->connected) return 0;
    struct iovec vectors[IOV_AT_ONCE];
    size_t used = 0;
    for (size_t i = 0; i < count && used < IOV_AT_ONCE; i++)
        if (parts[i].length)
            vectors[used++] = (struct iovec){(void *)parts[i].at, parts[i].length};
    if (!used) return 0;
    ssize_t n = send_parts(stream, vectors, used, -1);
    if (n >= 0) return (size_t)n;
    if (errno != EAGAIN) write_failed(stream, errno);
    return 0;
}

static void queue_segment(Stream *stream, Segment *segment) {
    *stream->last = segment;
    stream->last = &segment->next;
    stream->unsent += segment->left;
}

static Segment *last_segment(Stream *stream) {
    return stream->first ? CONTAINER_OF(stream->last, Segment, next) : NULL;
}

static void queue_copy(Stream *stream, const char *bytes, size_t length) {
    Segment *last = last_segment(stream);
    if (last && last->spare >= length) {
        memcpy(last->copy + (last->at - last->copy) + last->left, bytes, length);
        last->left += length;
        last->spare -= length;
        stream->unsent += length;
        return;
    }
    size_t size = length > COPY_LEAST ? length : COPY_LEAST;
    Segment *segment = mem_grow(NULL, sizeof *segment + size); /* not zeroed: it may be large */
    *segment = (Segment){
        .at = segment->copy, .left = length, .spare = size - length, .own = true, .fd = -1};
    memcpy(segment->copy, bytes, length);
    queue_segment(stream, segment);
}

void stream_write_parts(Stream *stream, const Str *parts, size_t count) {
    if (!may_write(stream)) return;
    size_t taken = send_now(stream, parts, count);
    for (size_t i = 0; i < count && !stream->write_error; i++) {
        size_t skip = taken < parts[i].length ? taken : parts[i].length;
        taken -= skip;
        if (parts[i].length > skip)
            queue_copy(stream, parts[i].at + skip, parts[i].length - skip);
    }
    stream_wait(stream);
}

void stream_write(Stream *stream, const void *bytes, size_t length) {
    stream_write_parts(stream, &(Str){bytes, length}, 1);
}

void stream_write_views(Stream *stream, const Str *parts, size_t count, void (*done)(void *user),
                        void *done_user) {
    if (!may_write(stream)) return; /* gone tells it, and ends the loan */
    size_t taken = send_now(stream, parts, count);
    if (stream->write_error) return;
    bool waits = stream->first != NULL; /* then even an empty view must keep its place */
    for (size_t i = 0; i < count; i++) {
        size_t skip = taken < parts[i].length ? taken : parts[i].length;
        taken -= skip;
        bool is_last = i + 1 == count;
        if (parts[i].length == skip && !(is_last && done)) continue;
        Segment *segment = mem_new(sizeof *segment);
        *segment = (Segment){.at = parts[i].at ? parts[i].at + skip : NULL,
                             .left = parts[i].length - skip, .fd = -1,
                             .done = is_last ? done : NULL, .done_user = done_user};
        if (segment->left == 0 && !waits && !stream->first && stream->connected) {
            *sent_end(stream) = segment; /* all has left */
            stream_soon(stream);
        } else {
            queue_segment(stream, segment);
        }
    }
    stream_wait(stream);
}

void stream_write_view(Stream *stream, const void *bytes, size_t length, void (*done)(void *user),
                       void *done_user) {
    stream_write_views(stream, &(Str){bytes, length}, 1, done, done_user);
}

bool stream_send_fd(Stream *stream, int fd, Err *err) {
    if (!stream->is_unix)
        return err_set(err, ERR_UNSUPPORTED, "cannot send a descriptor to %s: no Unix socket",
                       stream->peer);
    if (!may_write(stream)) return err_set(err, ERR_UNAVAILABLE, "%s has gone", stream->peer);
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    char text[64];
    if (own < 0)
        return err_set(err, ERR_IO, "could not send a descriptor to %s: %s", stream->peer,
                       error_text(errno, text));
    Segment *segment = mem_new(sizeof *segment + 1); /* copy[0] is the 0 */
    *segment = (Segment){.at = segment->copy, .left = 1, .own = true, .fd = own};
    bool waits = stream->first != NULL;
    queue_segment(stream, segment);
    if (!waits && stream->connected) flush(stream);
    stream_wait(stream);
    return true;
}

int stream_take_fd(Stream *stream) {
    if (stream->fd_count == 0) return -1;
    int fd = stream->fds[0];
    memmove(stream->fds, stream->fds + 1, (size_t)--stream->fd_count * sizeof fd);
    return fd;
}

/* ---- events ---- */

/* All has left while finishing: our side ends, and what the peer still says is read until it ends
 * its own, since closing with bytes unread would reset the connection under the last reply. */
static void finish(Stream *stream) {
    if (stream->told || shutdown(stream->fd, SHUT_WR) != 0) stream_close(stream);
}

static void after_flush(Stream *stream) {
    run_sent(stream);
    if (stream->closed || stream->first || stream->write_error) return;
    if (stream->finishing) finish(stream);
    else if (stream->calls.drained) stream->calls.drained(stream->user);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
    Stream *stream = poll->data;
    if (status < 0) { /* an error is pending, and libuv has stopped waiting */
        stream->events = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if ((events & UV_WRITABLE) && stream->first) {
        flush(stream);
        if (!stream->first) after_flush(stream);
        else run_sent(stream);
    }
    if ((events & UV_READABLE) && !stream->closed) read_some(stream);
    if (!stream->closed) stream_wait(stream);
}

void stream_wait(Stream *stream) {
    if (stream->closed || !stream->connected) return;
    int events = 0;
    if (stream->first) events |= UV_WRITABLE;
    if (stream->reading) events |= UV_READABLE;
    if (events == stream->events) return;
    stream->events = events;
    if (events) uv_poll_start(&stream->poll, events, on_ready);
    else uv_poll_stop(&stream->poll);
}

static void run_stream(Later *later) {
    Stream *stream = CONTAINER_OF(later, Stream, later);
    if (!stream->closed && stream->connect_over) connect_tell(stream);
    if (!stream->closed) run_sent(stream);
    if (!stream->closed && stream->write_error) {
        read_all(stream);
        tell_gone(stream, stream->write_error);
    }
    stream_release(stream);
}

/* ---- the rest of io.h ---- */

void stream_read(Stream *stream, bool on) {
    loop_check(stream->loop);
    stream->reading = on && !stream->told;
    stream_wait(stream);
}

size_t stream_unsent(const Stream *stream) { return stream->unsent; }
const char *stream_peer(const Stream *stream) { return stream->peer; }
int stream_fd(const Stream *stream) { return stream->fd; }

void stream_set_calls(Stream *stream, const StreamCalls *calls, void *user) {
    stream->calls = *calls;
    stream->user = user;
}

void stream_close(Stream *stream) {
    if (!stream || stream->closed) return;
    loop_check(stream->loop);
    stream->closed = true;
    item_leave(&stream->item);
    connect_forget(stream->connect);
    timer_close(stream->timer);
    queue_drop(stream);
    segments_free(stream->sent);
    stream->sent = NULL;
    while (stream->fd_count > 0) close(stream->fds[--stream->fd_count]);
    if (stream->connected) {
        uv_close((uv_handle_t *)&stream->poll, on_poll_closed);
        close(stream->fd);
    }
    stream_release(stream);
}

static void on_finish_late(void *user) { stream_close(user); }

/* The loan of views ends with this call. */
static void copy_views(Stream *stream) {
    Segment *old = stream->first;
    stream->first = NULL;
    stream->last = &stream->first;
    stream->unsent = 0;
    while (old) {
        Segment *next = old->next;
        old->next = NULL;
        if (old->own) {
            queue_segment(stream, old);
        } else {
            if (old->left) queue_copy(stream, old->at, old->left);
            segment_free(old);
        }
        old = next;
    }
}

void stream_close_when_sent(Stream *stream) {
    if (!stream) return;
    loop_check(stream->loop);
    if (!stream->connected || stream->write_error || (stream->told && !stream->ended)) {
        stream_close(stream);
        return;
    }
    stream->finishing = true;
    copy_views(stream);
    segments_free(stream->sent);
    stream->sent = NULL;
    timer_close(stream->timer);
    stream->timer = timer_start(stream->loop, FINISH_MS, 0, on_finish_late, stream);
    stream->reading = !stream->told;
    stream_wait(stream);
    if (!stream->first) finish(stream);
}
