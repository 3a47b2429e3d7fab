/* load smtp|pop3|idle ...: what it takes is told by bench/load.py, which alone calls it. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct options options = {.connections = 1, .sessions = 1, .messages = 1, .per_connection = 1, .recipients = 1,
                          .repeat = 1, .octets = 2048, .timeout = 120, .domain = "example.test"};

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK); /* nowhere else, whatever is asked */
    return to;
}

static void read_users(const char *path, int first, int count)
{
    FILE *file = fopen(path, "r");
    char line[512];
    int number = 0;
    if (!file) {
        perror(path);
        exit(66);
    }
    options.users = calloc((size_t)count, sizeof *options.users);
    while (fgets(line, sizeof line, file) && options.users_count < count) {
        char *secret = strchr(line, ':');
        if (!secret || number++ < first)
            continue;
        *secret++ = 0;
        secret[strcspn(secret, "\r\n")] = 0;
        struct user *user = &options.users[options.users_count++];
        user->login = strdup(line);
        user->secret = strdup(secret);
        if (asprintf(&user->address, "%s@%s", line, options.domain) < 0)
            exit(71);
    }
    fclose(file);
    if (!options.users_count) {
        fprintf(stderr, "%s: no users\n", path);
        exit(65);
    }
}

static int chosen(const char *word, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (!strcmp(word, words[i]))
            return i;
    fprintf(stderr, "unknown: %s\n", word);
    exit(64);
}

int main(int count, char **arguments)
{
    static const char *const scenarios[] = {"poll", "drain", "retr", "list", "wipe", NULL};
    static const char *const states[] = {"greeted", "ready", NULL};
    static const struct option known[] = {
        {"port", 1, 0, 'a'},       {"users", 1, 0, 'u'},     {"domain", 1, 0, 'd'},   {"user-count", 1, 0, 'U'},
        {"first-user", 1, 0, 'O'}, {"connections", 1, 0, 'c'}, {"sessions", 1, 0, 'n'}, {"messages", 1, 0, 'm'},
        {"per-connection", 1, 0, 'k'}, {"recipients", 1, 0, 'r'}, {"octets", 1, 0, 's'}, {"rate", 1, 0, 'R'},
        {"scenario", 1, 0, 'x'},   {"repeat", 1, 0, 'j'},    {"pipelined", 0, 0, 'p'}, {"tls", 0, 0, 't'},
        {"wait", 1, 0, 'w'},       {"expected", 1, 0, 'E'},  {"timeout", 1, 0, 'T'},   {"state", 1, 0, 'S'},
        {"smtp", 0, 0, 'M'},       {0, 0, 0, 0}};
    const char *users = NULL;
    int user_count = 1 << 20, letter;
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    while ((letter = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (letter) {
        case 'a': options.to = loopback(optarg); break;
        case 'u': users = optarg; break;
        case 'd': options.domain = optarg; break;
        case 'U': user_count = atoi(optarg); break;
        case 'O': options.first_user = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'n': options.sessions = atoi(optarg); break;
        case 'm': options.messages = atoi(optarg); break;
        case 'k': options.per_connection = atoi(optarg); break;
        case 'r': options.recipients = atoi(optarg); break;
        case 's': options.octets = strtoul(optarg, NULL, 10); break;
        case 'R': options.rate = atof(optarg); break;
        case 'x': options.scenario = (enum scenario)chosen(optarg, scenarios); break;
        case 'j': options.repeat = atoi(optarg); break;
        case 'p': options.pipelined = true; break;
        case 't': options.tls = true; break;
        case 'w': options.wait = true; options.pop3 = loopback(optarg); break;
        case 'E': options.expected = atoi(optarg); break;
        case 'T': options.timeout = atof(optarg); break;
        case 'S': options.held = (enum held)chosen(optarg, states); break;
        case 'M': options.smtp = true; break;
        default: return 64;
        }
    }
    if (optind >= count || !users)
        return 64;
    read_users(users, options.first_user, user_count);
    wires_begin(options.timeout);
    result_begin();
    if (!strcmp(arguments[optind], "smtp"))
        run_smtp();
    else if (!strcmp(arguments[optind], "pop3"))
        run_pop3();
    else if (!strcmp(arguments[optind], "idle"))
        run_idle();
    else
        return 64;
    result_end();
    if (!strcmp(arguments[optind], "idle"))
        while (getchar() != EOF) /* they are held until whoever started us closes our input */
            ;
    return failures ? 1 : 0;
}
