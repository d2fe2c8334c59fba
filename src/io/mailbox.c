// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

typedef struct Queue { /* [head, count) of `at` wait */
    void **at;
    size_t head, count, capacity;
} Queue;

static void queue_put(Queue *queue, void *message) {
    if (queue->head > 0 && queue->count == queue->capacity) {
        queue->count -= queue->head;
        memmove(queue->at, queue->at + queue->head, queue->count * sizeof *queue->at);
        queue->head = 0;
    }
    mem_reserve(queue->at, queue->capacity, queue->count + 1);
    queue->at[queue->count++] = message;
}

static void *queue_take(Queue *queue) {
    if (queue->head == queue->count) return NULL;
    void *message = queue->at[queue->head++];
    if (queue->head == queue->count) queue->head = queue->count = 0;
    return message;
}

static void queue_done(Queue *queue, void (*drop)(void *message)) {
    for (void *message; (message = queue_take(queue));)
        if (drop) drop(message);
    free(queue->at);
    *queue = (Queue){0};
}

struct Mailbox {
    Item item;
    pthread_mutex_t mu;
    pthread_cond_t filled; /* without a loop */
    Queue inbox;           /* under mu */
    Queue batch;           /* what the loop has taken out of inbox and not handed on yet */
    Loop *loop;            /* NULL: none */
    uv_async_t uv;
    void (*receive)(void *message, void *user);
    void *user;
};

static Mailbox *mailbox_make(Loop *loop) {
    Mailbox *mailbox = mem_new(sizeof *mailbox);
    pthread_mutex_init(&mailbox->mu, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&mailbox->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    mailbox->loop = loop;
    return mailbox;
}

static void mailbox_drop(Mailbox *mailbox) {
    pthread_cond_destroy(&mailbox->filled);
    pthread_mutex_destroy(&mailbox->mu);
    free(mailbox);
}

static void on_filled(uv_async_t *uv) {
    Mailbox *mailbox = uv->data;
    pthread_mutex_lock(&mailbox->mu);
    Queue empty = mailbox->batch;
    mailbox->batch = mailbox->inbox;
    mailbox->inbox = empty;
    pthread_mutex_unlock(&mailbox->mu);
    for (void *message; (message = queue_take(&mailbox->batch));) /* closing empties it */
        mailbox->receive(message, mailbox->user);
}

static void mailbox_close_item(Item *item) { mailbox_close((Mailbox *)item, NULL); }

Mailbox *mailbox_on(Loop *loop, void (*receive)(void *message, void *user), void *user) {
    Mailbox *mailbox = mailbox_make(loop);
    loop_own(loop, &mailbox->item, mailbox_close_item);
    uv_async_init(&loop->uv, &mailbox->uv, on_filled); /* the loop has its descriptor already */
    mailbox->uv.data = mailbox;
    mailbox->receive = receive;
    mailbox->user = user;
    return mailbox;
}

Mailbox *mailbox_new(void) { return mailbox_make(NULL); }

void mailbox_send(Mailbox *mailbox, void *message) {
    assert(message);
    pthread_mutex_lock(&mailbox->mu);
    bool first = mailbox->inbox.count == 0;
    queue_put(&mailbox->inbox, message);
    if (first && !mailbox->loop) pthread_cond_signal(&mailbox->filled);
    /* Under the lock: once the message is taken its receiver may close the mailbox. */
    if (first && mailbox->loop) uv_async_send(&mailbox->uv);
    pthread_mutex_unlock(&mailbox->mu);
}

static struct timespec deadline_after(int64_t wait_us) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(wait_us / 1000000);
    at.tv_nsec += (long)(wait_us % 1000000) * 1000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_nsec -= 1000000000;
        at.tv_sec++;
    }
    return at;
}

void *mailbox_take(Mailbox *mailbox, int64_t wait_us) {
    assert(!mailbox->loop);
    struct timespec deadline = {0};
    if (wait_us > 0) deadline = deadline_after(wait_us);
    pthread_mutex_lock(&mailbox->mu);
    void *message;
    int late = wait_us == 0 ? ETIMEDOUT : 0;
    while (!(message = queue_take(&mailbox->inbox)) && !late)
        late = wait_us < 0 ? pthread_cond_wait(&mailbox->filled, &mailbox->mu)
                           : pthread_cond_timedwait(&mailbox->filled, &mailbox->mu, &deadline);
    pthread_mutex_unlock(&mailbox->mu);
    return message;
}

static void on_closed(uv_handle_t *handle) { mailbox_drop(handle->data); }

void mailbox_close(Mailbox *mailbox, void (*drop)(void *message)) {
    if (!mailbox) return;
    queue_done(&mailbox->batch, drop); /* older than what is in the inbox */
    queue_done(&mailbox->inbox, drop);
    if (!mailbox->loop) {
        mailbox_drop(mailbox);
        return;
    }
    item_leave(&mailbox->item);
    uv_close((uv_handle_t *)&mailbox->uv, on_closed);
}
