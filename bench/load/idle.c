/* Connections that are opened, brought to a state, and held. */
#include "load.h"

#include <string.h>

static int opened_count, held, wanted_user;
static double ready_at;

struct place {
    int step;
    struct user *user;
};
static struct place places[100000];

static void opened(struct wire *wire)
{
    (void)wire;
}

static void closed(struct wire *wire, const char *why)
{
    (void)wire;
    fail("idle: %s", why);
    held++;
}

static void heard(struct wire *wire, char *line, size_t octets)
{
    struct place *place = wire->owner;
    if (octets > 3 && line[3] == '-' && options.smtp)
        return;
    if (line[0] == '-' || line[0] == '4' || line[0] == '5')
        fail("idle: %s", line);
    place->step++;
    if (options.held == GREETED || (options.smtp && place->step == 2) || place->step == 3)
        held++;
    else if (options.smtp)
        wire_say(wire, "EHLO bench.invalid\r\n");
    else if (place->step == 1)
        wire_say(wire, "USER %s\r\n", place->user->login);
    else
        wire_say(wire, "PASS %s\r\n", place->user->secret);
}

static const struct talk idle = {.opened = opened, .line = heard, .closed = closed};

/* Not all at once: a listening queue is short, and this is no test of that. */
static double open_more(double at)
{
    while (opened_count < options.connections && opened_count - held < 20) {
        struct place *place = &places[opened_count++];
        place->user = &options.users[wanted_user++ % options.users_count];
        if (!wire_connect(&options.to, options.tls, &idle, place))
            held++;
    }
    ready_at = at;
    return at + 0.1;
}

static bool all_held(void)
{
    return held >= options.connections;
}

void run_idle(void)
{
    if (options.connections > 100000)
        options.connections = 100000;
    wires_run(all_held, open_more);
    result_number("held", held - failures);
}
