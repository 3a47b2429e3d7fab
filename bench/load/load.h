/* The load generator: many conversations with a mail server at once, on one thread.
 *
 * It must not be what bounds a measurement, so it is C, asks epoll once for many connections, sends
 * message bodies from one place in memory, and looks at each octet of a reply at most once. */
#ifndef LOAD_H
#define LOAD_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* -- options ---------------------------------------------------------------------------------- */

enum scenario { POLL, DRAIN, RETR, LIST, WIPE };
enum held { GREETED, READY };

struct user {
    char *login, *secret, *address;
    bool busy, complete;
};

struct options {
    struct sockaddr_in to, pop3; /* pop3: where delivered mail is waited for */
    bool tls, pipelined, delete, smtp, wait;
    enum scenario scenario;
    enum held held;
    const char *domain;
    struct user *users;
    int users_count, first_user;
    int connections, sessions, messages, per_connection, recipients, repeat, expected;
    size_t octets;
    double rate, timeout;
};

extern struct options options;

/* -- one connection --------------------------------------------------------------------------- */

struct wire;

struct talk { /* what a conversation does with its connection */
    void (*opened)(struct wire *);
    void (*line)(struct wire *, char *line, size_t octets); /* without CRLF, NUL-terminated */
    void (*skipped)(struct wire *);                         /* what `wire_skip` asked for has passed */
    void (*closed)(struct wire *, const char *why);
};

struct wire {
    int fd;
    SSL *ssl;
    const struct talk *talk;
    void *owner;
    bool open, wants_to_write, over;
    char *in;
    size_t in_from, in_to;
    size_t skip; /* octets of a message that are still to be dropped */
    char *out;
    size_t out_from, out_to, out_size;
    const char *block, *tail; /* sent behind `out`; not ours to free */
    size_t block_octets, tail_octets;
    uint64_t received;
    struct wire *next;
};

void wires_begin(double timeout_seconds);
struct wire *wire_connect(const struct sockaddr_in *to, bool tls, const struct talk *talk, void *owner);
void wire_say(struct wire *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wire_send_block(struct wire *, const char *block, size_t octets, const char *tail);
void wire_flush(struct wire *);
void wire_skip(struct wire *, size_t octets);
void wire_close(struct wire *);
void wires_run(bool (*done)(void), double (*tick)(double now)); /* tick: when it wants to be called again */
double now(void);

/* -- samples and results ---------------------------------------------------------------------- */

struct samples {
    double *values;
    size_t count, size;
};

void samples_add(struct samples *, double milliseconds);
void samples_print(const char *name, struct samples *);
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void result_begin(void);
void result_number(const char *name, double value);
void result_end(void);
extern int failures;

/* -- scenarios -------------------------------------------------------------------------------- */

void run_smtp(void);
void run_pop3(void);
void run_wait(void);
void run_idle(void);

#endif
