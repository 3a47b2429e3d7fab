/* POP3: sessions that poll, list, fetch or drain maildrops, and a wait for delivered mail. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum step { GREETING, USER, PASS, STAT, UIDL, FETCH, CONTENT_END, DELE, QUIT };

struct session {
    enum step step;
    struct user *user;
    int there, at, round; /* messages in the maildrop; the one under way, in which walk through all of them */
    double began, asked;
};

static int begun, done, connected, next_user;
static uint64_t fetched, fetched_octets, found;
static double started;
static struct samples sessions, logins, stats, uidls;
static bool waiting;
static int wait_left, polls;
static double ask_again;
static const double LOOK_SECONDS = 0.05; /* between two looks at a maildrop that is not complete */

static void dial(void);

static void hung_up(struct wire *wire, const char *why)
{
    struct session *session = wire->owner;
    if (why)
        fail("pop3: %s at step %d", why, session->step);
    session->user->busy = false;
    connected--;
    free(session);
}

static void refused(struct wire *wire, const char *line)
{
    fail("pop3: %s", line);
    hung_up(wire, NULL);
    wire_close(wire);
    dial();
}

static void say_quit(struct wire *wire, struct session *session)
{
    wire_say(wire, "QUIT\r\n");
    session->step = QUIT;
}

/* How often the maildrop is walked through, from its first message to its last one. */
static int rounds(void)
{
    return options.scenario == WIPE ? 1 : options.repeat;
}

static void say_everything(struct wire *wire, struct session *session)
{
    bool wipe = options.scenario == WIPE;
    for (int round = 1; round <= rounds(); round++)
        for (int i = 1; i <= session->there; i++) {
            if (!wipe)
                wire_say(wire, "RETR %d\r\n", i);
            if (options.delete && round == rounds())
                wire_say(wire, "DELE %d\r\n", i);
        }
    wire_say(wire, "QUIT\r\n");
}

/* Say the next command where one waits for each reply, and expect the next reply in either case. */
static void go_on(struct wire *wire, struct session *session)
{
    bool wipe = options.scenario == WIPE;
    if (session->step == CONTENT_END && options.delete && session->round == rounds()) {
        session->step = DELE;
    } else { /* behind STAT, DELE, or a message that stays */
        session->step = wipe ? DELE : FETCH;
        if (++session->at > session->there && session->there && session->round < rounds()) {
            session->at = 1;
            session->round++;
        }
    }
    if (session->at > session->there) {
        session->step = QUIT;
        if (!options.pipelined)
            wire_say(wire, "QUIT\r\n");
    } else if (!options.pipelined) {
        wire_say(wire, session->step == DELE ? "DELE %d\r\n" : "RETR %d\r\n", session->at);
    }
}

static void behind_stat(struct wire *wire, struct session *session)
{
    double at = now();
    samples_add(&stats, (at - session->asked) * 1e3);
    if (waiting) {
        polls++;
        if (session->there >= options.expected && !session->user->complete) {
            session->user->complete = true;
            wait_left--;
        } else {
            ask_again = at + LOOK_SECONDS;
        }
        say_quit(wire, session);
    } else if (options.scenario == POLL) {
        say_quit(wire, session);
    } else if (options.scenario == LIST) {
        session->asked = at;
        wire_say(wire, "UIDL\r\n");
        session->step = UIDL;
    } else {
        if (options.pipelined)
            say_everything(wire, session);
        go_on(wire, session);
    }
}

static void heard(struct wire *wire, char *line, size_t octets)
{
    struct session *session = wire->owner;
    if (session->step == UIDL && octets == 1 && line[0] == '.') {
        samples_add(&uidls, (now() - session->asked) * 1e3);
        say_quit(wire, session);
        return;
    }
    if (session->step == UIDL && line[0] != '+' && line[0] != '-')
        return;
    if (session->step == CONTENT_END) {
        if (octets != 1 || line[0] != '.') {
            refused(wire, "a message is longer than it was said to be");
            return;
        }
        go_on(wire, session);
        return;
    }
    if (line[0] != '+') {
        refused(wire, line);
        return;
    }
    switch (session->step) {
    case GREETING:
        session->asked = now();
        wire_say(wire, "USER %s\r\n", session->user->login);
        session->step = USER;
        return;
    case USER:
        wire_say(wire, "PASS %s\r\n", session->user->secret);
        session->step = PASS;
        return;
    case PASS:
        samples_add(&logins, (now() - session->asked) * 1e3);
        session->asked = now();
        wire_say(wire, "STAT\r\n");
        session->step = STAT;
        return;
    case STAT:
        session->there = atoi(line + 4);
        session->round = 1;
        found += (uint64_t)session->there;
        behind_stat(wire, session);
        return;
    case FETCH: {
        size_t size = strtoul(line + 4, NULL, 10); /* both servers say so: "+OK 2048 octets" */
        fetched++;
        fetched_octets += size;
        session->step = CONTENT_END;
        wire_skip(wire, size);
        return;
    }
    case DELE:
        go_on(wire, session);
        return;
    case QUIT:
        samples_add(&sessions, (now() - session->began) * 1e3);
        done++;
        hung_up(wire, NULL);
        wire_close(wire);
        dial();
        return;
    default:
        return;
    }
}

static void skipped(struct wire *wire)
{
    (void)wire; /* the line with the dot comes next */
}

static void opened(struct wire *wire)
{
    (void)wire;
}

static void closed(struct wire *wire, const char *why)
{
    hung_up(wire, why);
    dial();
}

static const struct talk pop3 = {.opened = opened, .line = heard, .skipped = skipped, .closed = closed};

static struct user *free_user(void)
{
    /* Who waits looks at one maildrop until that is complete, then at the next: few looks, which cost little. */
    for (int i = 0; i < options.users_count; i++) {
        struct user *user = &options.users[(waiting ? i : next_user++) % options.users_count];
        if (!user->busy && !(waiting && user->complete))
            return user;
    }
    return NULL;
}

static void dial(void)
{
    struct user *user;
    while (connected < options.connections && failures < 100 &&
           (waiting ? wait_left > 0 && now() >= ask_again : begun < options.sessions) && (user = free_user())) {
        struct session *session = calloc(1, sizeof *session);
        session->user = user;
        session->began = now();
        if (!wire_connect(waiting ? &options.pop3 : &options.to, options.tls && !waiting, &pop3, session)) {
            free(session);
            return;
        }
        user->busy = true;
        begun++;
        connected++;
    }
}

static bool all_done(void)
{
    return !connected && (waiting ? wait_left <= 0 : begun >= options.sessions);
}

static double look_again(double at)
{
    if (!connected && wait_left > 0)
        dial();
    return at + 0.01;
}

void run_wait(void)
{
    waiting = true;
    wait_left = options.users_count;
    options.connections = 1;
    begun = 0;
    ask_again = 0;
    wires_run(all_done, look_again);
    result_number("polls", polls);
}

void run_pop3(void)
{
    started = now();
    if (options.scenario == WIPE || options.scenario == DRAIN)
        options.delete = true;
    dial();
    wires_run(all_done, NULL);
    double seconds = now() - started;
    result_number("sessions", done);
    result_number("sessions_per_second", done / seconds);
    result_number("found", (double)found);
    if (fetched) {
        result_number("messages", (double)fetched);
        result_number("messages_per_second", (double)fetched / seconds);
        result_number("megabytes_per_second", (double)fetched_octets / seconds / 1e6);
    }
    samples_print("session", &sessions);
    samples_print("login", &logins);
    samples_print("stat", &stats);
    samples_print("uidl", &uidls);
}
