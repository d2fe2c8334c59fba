// SPDX-License-Identifier: Apache-2.0
/* io.h - event loops, timers, streams, child processes, and mailboxes between threads.
 *
 * A Loop belongs to the thread that runs it; everything made on it is used from that thread alone.
 * Only loop_stop() and mailbox_send() may be called from elsewhere.  Callbacks never block and
 * never compute for long.  Closing is immediate for the caller: after x_close() returns no callback
 * of x runs any more, and the memory is given back by the loop later.  All x_close() accept NULL.
 * libuv is used here and nowhere else. */
#ifndef BATON_IO_H
#define BATON_IO_H

#include "base/base.h"

typedef struct Loop Loop;
Loop *loop_new(void);
void loop_run(Loop *loop);  /* until loop_stop(); closes nothing */
void loop_stop(Loop *loop); /* any thread */
void loop_free(Loop *loop); /* closes what is still open, then gives back everything */

typedef struct Timer Timer;
Timer *timer_start(Loop *loop, uint64_t after_ms, uint64_t every_ms, void (*fire)(void *user),
                   void *user);
void timer_close(Timer *timer); /* every_ms == 0: fires once, and must still be closed */

/* Mailbox - messages from any thread to one.  Ownership goes with the message; order is kept per
 * sender. */
typedef struct Mailbox Mailbox;
Mailbox *mailbox_on(Loop *loop, void (*receive)(void *message, void *user),
                    void *user); /* called on the loop */
Mailbox *mailbox_new(void);      /* for a thread without a loop: mailbox_take() */
void mailbox_send(Mailbox *mailbox, void *message);
void *mailbox_take(Mailbox *mailbox,
                   int64_t wait_us); /* NULL when none came in time; 0 polls, -1 waits */
void mailbox_close(Mailbox *mailbox,
                   void (*drop)(void *message)); /* drop: for what nobody took; may be NULL */

/* Stream - a TCP or Unix connection.  `gone` is called once, at the peer's end or a failure; close
 * it then. */
typedef struct Stream Stream;
typedef struct StreamCalls {
    void (*connected)(void *user,
                      const Err *failure);     /* stream_connect_*() only; failure NULL: open */
    void *(*room)(void *user, size_t *length); /* where the next bytes go; must give >= 1 byte */
    void (*got)(void *user, size_t length);    /* that many bytes now lie in room's memory */
    void (*gone)(void *user, const Err *why);  /* why->code == ERR_NONE: an orderly end */
    void (*drained)(void *user);               /* all that was written has left; may be NULL */
} StreamCalls;
Stream *stream_connect_tcp(Loop *loop, const char *host, int port, uint64_t timeout_ms,
                           const StreamCalls *calls, void *user);
Stream *stream_connect_unix(Loop *loop, const char *path, uint64_t timeout_ms,
                            const StreamCalls *calls, void *user); /* "@name": abstract */
void stream_read(Stream *stream, bool on); /* back-pressure: off until asked for */
void stream_write(Stream *stream, const void *bytes, size_t length); /* copies */
void stream_write_view(Stream *stream, const void *bytes, size_t length, void (*done)(void *user),
                       void *done_user);    /* bytes stay until done */
size_t stream_unsent(const Stream *stream); /* bytes not yet taken by the kernel */
const char *stream_peer(const Stream *stream);                 /* "127.0.0.1:8000", for messages */
bool stream_send_fd(Stream *stream, int fd, Err *err); /* Unix only: one byte that carries fd */
int stream_fd(const Stream *stream);                           /* borrowed */
void stream_set_calls(Stream *stream, const StreamCalls *calls, void *user);
void stream_close(Stream *stream);                             /* unsent bytes are dropped */
void stream_close_when_sent(Stream *stream);                   /* no more callbacks; at most 5 s */

typedef struct Listener Listener;
Listener *listen_tcp(Loop *loop, const char *host, int port,
                     void (*accept)(Stream *stream, void *user), void *user,
                     Err *err) MUST_CHECK; /* port 0: any */
Listener *listen_unix(Loop *loop, const char *path, void (*accept)(Stream *stream, void *user),
                      void *user, Err *err) MUST_CHECK;
int listener_port(const Listener *listener);
void listener_close(Listener *listener);

/* Poll - readiness of a descriptor that is not a Stream. */
typedef struct Poll Poll;
Poll *poll_open(Loop *loop, int fd, void (*readable)(void *user), void *user);
void poll_close(Poll *poll); /* the descriptor stays open */

typedef struct Child Child;
typedef struct ChildConf {
    const char *const *argv;       /* argv[0] is the program's path; NULL-terminated */
    const char *const *env_add;    /* "NAME=value" over our own environment; may be NULL */
    const char *log_path;          /* stdout and stderr go there, appended; NULL: inherited */
    void (*exited)(void *user, int64_t status, int signal);
    void *user;
} ChildConf;
Child *child_spawn(Loop *loop, const ChildConf *conf, Err *err) MUST_CHECK;
int child_pid(const Child *child);
void child_kill(Child *child, int signal);
void child_close(Child *child); /* forgets it; does not end it */

typedef struct Signal Signal;
Signal *signal_watch(Loop *loop, int signal, void (*caught)(void *user), void *user);
void signal_close(Signal *signal);

typedef struct Watch Watch; /* a folder whose entries change */
Watch *watch_open(Loop *loop, const char *folder, void (*changed)(void *user), void *user,
                  Err *err) MUST_CHECK;
void watch_close(Watch *watch);

#endif
