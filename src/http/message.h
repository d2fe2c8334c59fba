// SPDX-License-Identifier: Apache-2.0
/* message.h - reads requests or replies out of bytes, however they are cut into pieces.
 *
 *     message_room() <- bytes, message_got(), then message_next() until PART_MORE:
 *     PART_HEAD -> PART_BODY ... (not if collected) -> PART_END -> message_start() -> PART_HEAD ...
 *
 * http-parser reads the head; what frames the body is ours, since that is where a lenient reader
 * lets two messages pass for one (RFC 9112, 11.2).  Refused therefore: both Content-Length and
 * Transfer-Encoding, any of them twice, codings but chunked, line ends but CR LF, folded lines.
 *
 * Memory: `head` holds the head and, while there is room, what follows it; a larger collected body
 * moves to `body`, where it is also received, so that it is copied at most once.
 *
 *     head   [request line, fields][body ...][not read yet][free]
 *            0           head_length^        parsed^  length^   ^head_capacity
 *     body   [body ...][not read yet][free]        once spilled; the head then only keeps its head
 *
 * Views (method, target, headers) are valid from PART_HEAD to message_start(); message_body() from
 * PART_END on, while no bytes are added. */
#ifndef BATON_HTTP_MESSAGE_H
#define BATON_HTTP_MESSAGE_H

#include <http_parser.h>

#include "internal.h"

typedef enum Part { PART_MORE, PART_HEAD, PART_BODY, PART_END, PART_BAD } Part;

typedef enum Stage { STAGE_HEAD, STAGE_BODY, STAGE_END, STAGE_BAD } Stage;
typedef enum Framing { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_CLOSE } Framing;
typedef enum Chunk { /* what the next byte of a chunked body belongs to */
    CHUNK_SIZE_FIRST,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_FIRST,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF
} Chunk;

typedef struct Message {
    /* set by message_init() and by the owner before a message begins */
    bool is_request, collect;
    bool no_body; /* the reply to HEAD */
    size_t max_body; /* of a collected body */

    /* from PART_HEAD on */
    Str method, target;
    int status;
    HttpHeader *headers;
    size_t header_count;
    bool http_10, keep_alive;
    bool expects_continue, expects_unknown;
    Framing framing;

    Str piece;           /* PART_BODY: valid until bytes are added */
    int bad_status;      /* PART_BAD: what to answer */
    const char *problem; /* and why: "cannot have both ..." */

    /* private */
    http_parser parser;
    Stage stage;
    Chunk chunk;
    bool has_method, in_value, head_read;
    uint64_t left;     /* of the body, or of its chunk */
    size_t line;       /* bytes of chunk extensions or trailers so far */
    size_t header_capacity;
    char *head, *body;
    size_t head_capacity, body_capacity, head_length, body_length;
    size_t parsed, length; /* of the buffer that is being read into */
    bool spilled;
} Message;

void message_init(Message *message, bool is_request);
void message_done(Message *message);
void message_start(Message *message); /* the next one; bytes that were not read stay */
char *message_room(Message *message, size_t *length); /* length 0: full, a whole message waits */
void message_got(Message *message, size_t length);
Part message_next(Message *message);
Part message_eof(Message *message); /* no bytes will come: PART_MORE between messages, END or BAD */
bool message_begun(const Message *message);
size_t message_unread(const Message *message);
Str message_body(const Message *message); /* collected */
/* Keeps message_room() above 0 while nothing is read, so that the connection's end is noticed;
 * invalidates the body's view. */
void message_keep_room(Message *message);
static inline HttpHeaders message_headers(const Message *message) {
    return (HttpHeaders){message->headers, message->header_count};
}

#endif
