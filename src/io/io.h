// SPDX-License-Identifier: Apache-2.0
/* io.h - event loops, timers, streams, child processes, and mailboxes between threads.
 *
 * A Loop belongs to the thread that runs it; everything made on it is used from that thread alone
 * (debug builds assert it).  Only loop_stop() and mailbox_send() may be called from elsewhere.
 *
 *   1. Callbacks come from loop_run() alone, never from inside a call of this header: what fails at
 *      once is told a moment later.  Callbacks never block and never compute for long.
 *   2. Closing is immediate for the caller: after x_close() returns no callback of x runs any more,
 *      also when it was called from inside one; the memory is given back by the loop later.  All
 *      x_close() accept NULL.
 *   3. Descriptors made here are not inherited by child processes.
 *
 * Fault points: io.accept, io.connect, io.read, io.write fail as the kernel would; io.short moves
 * one byte where many would go.
 * libuv is used here and nowhere else. */
#ifndef BATON_IO_H
#define BATON_IO_H

#include "base/base.h"

typedef struct Loop Loop;
Loop *loop_new(void);
void loop_run(Loop *loop);  /* until loop_stop(); closes nothing, and may be run again */
void loop_stop(Loop *loop); /* any thread; before loop_run(): it returns at once */
void loop_free(Loop *loop); /* closes what is still open, then gives back everything */

#define TIMER_NEVER UINT64_MAX
typedef struct Timer Timer;
Timer *timer_start(Loop *loop, uint64_t after_ms, uint64_t every_ms, void (*fire)(void *user),
                   void *user); /* after TIMER_NEVER: not before timer_again() */
void timer_again(Timer *timer,
                 uint64_t after_ms); /* instead of what was set before; TIMER_NEVER: not at all */
void timer_close(Timer *timer); /* every_ms == 0: fires once, and must still be closed */

/* Mailbox - messages from any thread to one.  Ownership goes with the message; order is kept per
 * sender.  Whoever may still send must be stopped before mailbox_close(). */
typedef struct Mailbox Mailbox;
Mailbox *mailbox_on(Loop *loop, void (*receive)(void *message, void *user),
                    void *user); /* called on the loop */
Mailbox *mailbox_new(void);      /* for a thread without a loop: mailbox_take() */
void mailbox_send(Mailbox *mailbox, void *message); /* never NULL */
void *mailbox_take(Mailbox *mailbox,
                   int64_t wait_us); /* NULL when none came in time; 0 polls, -1 waits */
void mailbox_close(Mailbox *mailbox,
                   void (*drop)(void *message)); /* drop: for what nobody took; may be NULL */

/* Stream - a TCP or Unix connection.
 *
 *     connecting --connected(NULL)--> open --gone(why)--> only stream_close() makes sense
 *          \--connected(failure)--> only stream_close() makes sense
 *
 * `gone` is called once, at the peer's end or a failure; close it then.  The peer's end is noticed
 * while reading is on, a failure also while something is unsent, a dead machine after two minutes.
 * Writing is allowed while connecting: bytes leave in order as soon as there is a connection. */
typedef struct Stream Stream;
typedef struct StreamCalls { /* copied; those that cannot happen may be NULL */
    void (*connected)(void *user,
                      const Err *failure);     /* stream_connect_*() only; failure NULL: open */
    void *(*room)(void *user, size_t *length); /* where the next bytes go; must give >= 1 byte */
    void (*got)(void *user, size_t length);    /* that many bytes now lie in room's memory */
    void (*gone)(void *user, const Err *why);  /* why->code == ERR_NONE: an orderly end */
    void (*drained)(void *user); /* stream_unsent() was above 0 and is 0 now; may be NULL */
} StreamCalls;
Stream *stream_connect_tcp(Loop *loop, const char *host, int port, uint64_t timeout_ms,
                           const StreamCalls *calls, void *user); /* timeout 0: none */
Stream *stream_connect_unix(Loop *loop, const char *path, uint64_t timeout_ms,
                            const StreamCalls *calls, void *user); /* "@name": abstract */
void stream_read(Stream *stream, bool on); /* back-pressure: off until asked for */
void stream_write(Stream *stream, const void *bytes, size_t length); /* copies */
/* One system call for all parts; only what the kernel does not take at once is copied. */
void stream_write_parts(Stream *stream, const Str *parts, size_t count);
/* The same without a copy: the bytes stay where they are until `done` (may be NULL), which is
 * called once for all parts.  `gone` for a failure and stream_close() end the loan without it. */
void stream_write_views(Stream *stream, const Str *parts, size_t count, void (*done)(void *user),
                        void *done_user);
void stream_write_view(Stream *stream, const void *bytes, size_t length, void (*done)(void *user),
                       void *done_user);    /* of one part */
size_t stream_unsent(const Stream *stream); /* bytes not yet taken by the kernel */
const char *stream_peer(const Stream *stream);                 /* "127.0.0.1:8000", for messages */
bool stream_send_fd(Stream *stream, int fd,
                    Err *err); /* Unix only: one byte, 0, that carries a duplicate of fd */
int stream_take_fd(Stream *stream); /* the next descriptor that came with the bytes read so far,
                                       yours to close; -1: none */
int stream_fd(const Stream *stream);                           /* borrowed */
void stream_set_calls(Stream *stream, const StreamCalls *calls, void *user);
void stream_close(Stream *stream); /* unsent bytes are dropped */
/* Sends the rest, ends our side and waits for the peer to end its own, so that the last bytes are
 * not lost to a reset: at most 5 s.  No more callbacks; views are copied. */
void stream_close_when_sent(Stream *stream);

/* Listener - accept() gets streams that are open, with reading off; stream_set_calls() first. */
typedef struct Listener Listener;
Listener *listen_tcp(Loop *loop, const char *host, int port,
                     void (*accept)(Stream *stream, void *user), void *user,
                     Err *err) MUST_CHECK; /* host NULL: all IPv4 addresses; port 0: any */
Listener *listen_unix(Loop *loop, const char *path, void (*accept)(Stream *stream, void *user),
                      void *user, Err *err) MUST_CHECK;
/* The address is taken for good, connections are refused until listener_start(). */
Listener *reserve_tcp(Loop *loop, const char *host, int port,
                      void (*accept)(Stream *stream, void *user), void *user,
                      Err *err) MUST_CHECK;
void listener_start(Listener *listener);
int listener_port(const Listener *listener);
void listener_close(Listener *listener); /* also removes a Unix socket's file */

/* Poll - readiness of a descriptor that is not a Stream.  NULL if it cannot be waited for. */
typedef struct Poll Poll;
Poll *poll_open(Loop *loop, int fd, void (*readable)(void *user), void *user);
void poll_close(Poll *poll); /* the descriptor stays open */

/* Child - a process that ends when we end, even by SIGKILL: child_spawn() tells it our process id
 * in BATON_PARENT, and its main() calls child_follow_parent() first.  The kernel watches the
 * spawning thread: spawn from one that lives as long as the process. */
typedef struct Child Child;
typedef struct ChildConf {
    const char *const *argv;       /* argv[0] is the program's path; NULL-terminated */
    const char *const *env_add;    /* "NAME=value" over our own environment; may be NULL */
    const char *log_path;          /* stdout and stderr go there, appended; NULL: inherited */
    void (*exited)(void *user, int64_t status, int signal); /* may be NULL */
    void *user;
} ChildConf;
Child *child_spawn(Loop *loop, const ChildConf *conf, Err *err) MUST_CHECK;
int child_pid(const Child *child);
void child_kill(Child *child, int signal); /* nothing, once it has exited */
void child_close(Child *child);            /* forgets it; does not end it */
void child_follow_parent(void); /* in the child: SIGTERM when the parent dies or is dead already */

typedef struct Signal Signal;
Signal *signal_watch(Loop *loop, int signal, void (*caught)(void *user), void *user);
void signal_close(Signal *signal);

typedef struct Watch Watch; /* a folder whose entries change; many changes may be one call */
Watch *watch_open(Loop *loop, const char *folder, void (*changed)(void *user), void *user,
                  Err *err) MUST_CHECK;
void watch_close(Watch *watch);

#endif
