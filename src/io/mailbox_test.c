// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include "io.h"
#include <cmocka.h>

#define SENDERS 4
#define EACH 20000

typedef struct Message {
    int sender, number;
} Message;

typedef struct Test {
    Loop *loop;
    Mailbox *mailbox;
    int next[SENDERS]; /* the number expected of each sender */
    int total;
    bool in_order;
} Test;

typedef struct Sender {
    pthread_t thread;
    Mailbox *mailbox;
    int number;
} Sender;

static Message *message_new(int sender, int number) {
    Message *message = mem_new(sizeof *message);
    *message = (Message){sender, number};
    return message;
}

static void *send_all(void *user) {
    Sender *sender = user;
    for (int i = 0; i < EACH; i++) mailbox_send(sender->mailbox, message_new(sender->number, i));
    return NULL;
}

static void start_senders(Sender *senders, Mailbox *mailbox) {
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (Sender){.mailbox = mailbox, .number = i};
        pthread_create(&senders[i].thread, NULL, send_all, &senders[i]);
    }
}

static void join_senders(Sender *senders) {
    for (int i = 0; i < SENDERS; i++) pthread_join(senders[i].thread, NULL);
}

static void count(Test *t, Message *message) {
    if (message->number != t->next[message->sender]++) t->in_order = false;
    t->total++;
    free(message);
}

static void receive(void *message, void *user) {
    Test *t = user;
    count(t, message);
    if (t->total == SENDERS * EACH) loop_stop(t->loop);
}

static void messages_of_many_threads_reach_the_loop_in_order(void **state) {
    (void)state;
    Test t = {.loop = loop_new(), .in_order = true};
    Sender senders[SENDERS];
    t.mailbox = mailbox_on(t.loop, receive, &t);
    start_senders(senders, t.mailbox);
    loop_run(t.loop);
    join_senders(senders);
    assert_int_equal(t.total, SENDERS * EACH);
    assert_true(t.in_order);
    mailbox_close(t.mailbox, free);
    loop_free(t.loop);
}

static void a_thread_without_a_loop_takes_them_in_order(void **state) {
    (void)state;
    Test t = {.in_order = true};
    Sender senders[SENDERS];
    t.mailbox = mailbox_new();
    start_senders(senders, t.mailbox);
    while (t.total < SENDERS * EACH) {
        Message *message = mailbox_take(t.mailbox, t.total % 2 ? -1 : 10000000);
        assert_non_null(message);
        count(&t, message);
    }
    join_senders(senders);
    assert_true(t.in_order);
    assert_null(mailbox_take(t.mailbox, 0));
    mailbox_close(t.mailbox, free);
}

static void taking_waits_as_long_as_it_was_told(void **state) {
    (void)state;
    Mailbox *mailbox = mailbox_new();
    int64_t began = clock_mono_us();
    assert_null(mailbox_take(mailbox, 0));
    assert_null(mailbox_take(mailbox, 20000));
    assert_in_range(clock_mono_us() - began, 20000, 2000000);
    mailbox_close(mailbox, NULL);
}

static int dropped;
static void drop(void *message) {
    dropped++;
    free(message);
}

static void what_nobody_took_is_dropped_once(void **state) {
    (void)state;
    Loop *loop = loop_new();
    Mailbox *mailboxes[] = {mailbox_new(), mailbox_on(loop, NULL, NULL)};
    for (int m = 0; m < 2; m++) {
        dropped = 0;
        for (int i = 0; i < 100; i++) mailbox_send(mailboxes[m], message_new(0, i));
        if (m == 0) free(mailbox_take(mailboxes[m], 0));
        mailbox_close(mailboxes[m], drop);
        assert_int_equal(dropped, m == 0 ? 99 : 100);
    }
    mailbox_close(NULL, drop);
    loop_free(loop);
}

static void close_in_third(void *message, void *user) {
    Test *t = user;
    free(message);
    if (++t->total < 3) return;
    mailbox_close(t->mailbox, drop);
    loop_stop(t->loop);
}

static void a_mailbox_closed_while_it_receives_receives_no_more(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    t.mailbox = mailbox_on(t.loop, close_in_third, &t);
    for (int i = 0; i < 10; i++) mailbox_send(t.mailbox, message_new(0, i));
    dropped = 0;
    loop_run(t.loop);
    assert_int_equal(t.total, 3);
    assert_int_equal(dropped, 7);
    loop_free(t.loop);
}

static void bounce(void *message, void *user) {
    Test *t = user;
    if (++t->total < 1000) {
        mailbox_send(t->mailbox, message);
    } else {
        free(message);
        loop_stop(t->loop);
    }
}

static void a_receiver_may_send_to_itself(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    t.mailbox = mailbox_on(t.loop, bounce, &t);
    mailbox_send(t.mailbox, message_new(0, 0));
    loop_run(t.loop);
    assert_int_equal(t.total, 1000);
    mailbox_close(t.mailbox, NULL);
    loop_free(t.loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_many_threads_reach_the_loop_in_order),
        cmocka_unit_test(a_thread_without_a_loop_takes_them_in_order),
        cmocka_unit_test(taking_waits_as_long_as_it_was_told),
        cmocka_unit_test(what_nobody_took_is_dropped_once),
        cmocka_unit_test(a_mailbox_closed_while_it_receives_receives_no_more),
        cmocka_unit_test(a_receiver_may_send_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
