/* SMTP: connections that send messages, as fast as they are taken or at a given rate. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum step { GREETING, EHLO, IDLE, MAIL, RCPT, DATA, CONTENT, QUIT };

struct sender {
    enum step step;
    int sent, rcpts_left, message;
    bool promised; /* dialled for a message that has not begun */
    double began;
    struct sender *next_idle;
};

static char *pool;
static size_t body_octets;
static int begun, given_up, promised, connected, accepted;
static double started, last_accepted;
static struct samples transactions;
static struct wire *idle_first, *idle_last;

/* No two bodies alike, and none that could be packed: whoever stores less for equal content gains nothing.
 * They are windows on one pool of lines in the base64 alphabet. */
enum { LINE_OCTETS = 78, POOL_LINES = 2048, HEADER_OCTETS = 200 };

static void make_bodies(size_t octets)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t lines = octets > HEADER_OCTETS ? (octets - HEADER_OCTETS) / LINE_OCTETS + 1 : 1;
    uint64_t random = 0x9e3779b97f4a7c15;
    body_octets = lines * LINE_OCTETS;
    pool = malloc(body_octets + POOL_LINES * LINE_OCTETS);
    for (size_t i = 0; i < body_octets + POOL_LINES * LINE_OCTETS; i++) {
        random = random * 6364136223846793005 + 1442695040888963407;
        pool[i] = i % LINE_OCTETS == LINE_OCTETS - 2 ? '\r'
                  : i % LINE_OCTETS == LINE_OCTETS - 1 ? '\n'
                                                       : letters[random >> 58];
    }
}

static void say_recipients(struct wire *wire, struct sender *sender)
{
    for (int i = 0; i < options.recipients; i++) {
        int user = (sender->message * options.recipients + i) % options.users_count;
        wire_say(wire, "RCPT TO:<%s>\r\n", options.users[user].address);
    }
}

static void say_next_recipient(struct wire *wire, struct sender *sender)
{
    int i = options.recipients - sender->rcpts_left;
    int user = (sender->message * options.recipients + i) % options.users_count;
    wire_say(wire, "RCPT TO:<%s>\r\n", options.users[user].address);
}

static void begin_message(struct wire *wire, double at)
{
    struct sender *sender = wire->owner;
    promised -= sender->promised;
    sender->promised = false;
    sender->began = at;
    sender->message = begun++;
    sender->rcpts_left = options.recipients;
    sender->step = MAIL;
    wire_say(wire, "MAIL FROM:<sender@bench.invalid>\r\n");
    if (options.pipelined) {
        say_recipients(wire, sender);
        wire_say(wire, "DATA\r\n");
    }
}

static void next_message(struct wire *wire)
{
    struct sender *sender = wire->owner;
    if (begun + given_up >= options.messages || sender->sent >= options.per_connection) {
        sender->step = QUIT;
        wire_say(wire, "QUIT\r\n");
        return;
    }
    if (options.rate <= 0) {
        begin_message(wire, now());
        return;
    }
    sender->step = IDLE; /* until its moment has come, see `on_time` */
    wire->next = NULL;
    if (idle_last)
        idle_last->next = wire;
    else
        idle_first = wire;
    idle_last = wire;
}

/* An open loop: the clock says when a message begins, and its time counts from then, late or not. */
static double on_time(double at)
{
    while (options.rate > 0 && idle_first && begun < options.messages) {
        double moment = started + begun / options.rate;
        if (moment > at)
            return moment;
        struct wire *wire = idle_first;
        if (!(idle_first = wire->next))
            idle_last = NULL;
        begin_message(wire, moment);
        wire_flush(wire);
    }
    while (options.rate > 0 && idle_first) {
        struct wire *wire = idle_first;
        if (!(idle_first = wire->next))
            idle_last = NULL;
        next_message(wire);
        wire_flush(wire);
    }
    return at + 1;
}

static void dial(void);

static void hung_up(struct wire *wire, const char *why)
{
    struct sender *sender = wire->owner;
    if (sender->step != QUIT) {
        fail("smtp: %s at step %d", why, sender->step);
        given_up++;
    }
    promised -= sender->promised;
    free(sender);
    connected--;
    dial();
}

static void over(struct wire *wire)
{
    hung_up(wire, "over");
    wire_close(wire);
}

static bool expected(struct wire *wire, const char *line, char digit)
{
    if (line[0] == digit)
        return true;
    fail("smtp: %s", line);
    given_up++;
    ((struct sender *)wire->owner)->step = QUIT;
    over(wire);
    return false;
}

static void content(struct wire *wire, struct sender *sender)
{
    wire_say(wire, "From: <sender@bench.invalid>\r\nSubject: message %d\r\nMessage-ID: <%d.%.0f@bench.invalid>\r\n"
                   "Date: Mon, 01 Jan 2024 00:00:00 +0000\r\n\r\n", sender->message, sender->message, started * 1e6);
    wire_send_block(wire, pool + sender->message * 37 % POOL_LINES * LINE_OCTETS, body_octets, ".\r\n");
}

static void heard(struct wire *wire, char *line, size_t octets)
{
    struct sender *sender = wire->owner;
    if (octets > 3 && line[3] == '-')
        return;
    switch (sender->step) {
    case GREETING:
        if (!expected(wire, line, '2'))
            return;
        wire_say(wire, "EHLO bench.invalid\r\n");
        sender->step = EHLO;
        return;
    case EHLO:
        if (expected(wire, line, '2'))
            next_message(wire);
        return;
    case MAIL:
        if (!expected(wire, line, '2'))
            return;
        sender->step = RCPT;
        if (!options.pipelined)
            say_next_recipient(wire, sender);
        return;
    case RCPT:
        if (!expected(wire, line, '2'))
            return;
        if (--sender->rcpts_left) {
            if (!options.pipelined)
                say_next_recipient(wire, sender);
            return;
        }
        if (!options.pipelined)
            wire_say(wire, "DATA\r\n");
        sender->step = DATA;
        return;
    case DATA:
        if (!expected(wire, line, '3'))
            return;
        content(wire, sender);
        sender->step = CONTENT;
        return;
    case CONTENT:
        if (!expected(wire, line, '2'))
            return;
        last_accepted = now();
        samples_add(&transactions, (last_accepted - sender->began) * 1e3);
        accepted++;
        sender->sent++;
        next_message(wire);
        return;
    case QUIT:
        over(wire);
        return;
    case IDLE:
        fail("smtp: unasked: %s", line);
    }
}

static void greeted(struct wire *wire)
{
    (void)wire; /* the server speaks first */
}

static const struct talk smtp = {.opened = greeted, .line = heard, .closed = hung_up};

static void dial(void)
{
    while (connected < options.connections && begun + given_up + promised < options.messages && failures < 100) {
        struct sender *sender = calloc(1, sizeof *sender);
        if (!wire_connect(&options.to, false, &smtp, sender)) {
            free(sender);
            given_up++;
            return;
        }
        sender->promised = true;
        promised++;
        connected++;
    }
}

static bool all_sent(void)
{
    return !connected;
}

void run_smtp(void)
{
    make_bodies(options.octets);
    started = last_accepted = now();
    dial();
    wires_run(all_sent, on_time);
    double seconds = last_accepted - started;
    result_number("accepted", accepted);
    result_number("accepted_per_second", accepted / seconds);
    result_number("megabytes_per_second", (double)accepted * (double)options.octets / seconds / 1e6);
    samples_print("transaction", &transactions);
    result_number("late_messages", options.messages - accepted);
    if (options.wait) {
        if (!options.expected) /* maildrops were empty, and each gets as many */
            options.expected = (int)((uint64_t)accepted * (uint64_t)options.recipients / (uint64_t)options.users_count);
        run_wait();
        double visible = now() - started;
        result_number("visible_seconds", visible);
        if (!failures)
            result_number("visible_per_second", (double)accepted * options.recipients / visible);
    }
}
