/* Connections without blocking: connect, TLS, write what is to be sent, cut what comes into lines. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { IN_OCTETS = 256 * 1024, SMALL_IN = 2048, EVENTS = 256 };

static int poller = -1;
static double deadline;
static SSL_CTX *context;
static struct wire *graveyard; /* closed within a callback; freed when that has returned */

/* Nobody here knows whose certificate it is; to look for its issuer costs time that the servers lack. */
static int believe(X509_STORE_CTX *chain, void *unused)
{
    (void)chain, (void)unused;
    return 1;
}

double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

void wires_begin(double timeout_seconds)
{
    if (poller < 0 && (poller = epoll_create1(EPOLL_CLOEXEC)) < 0) {
        perror("epoll_create1");
        exit(70);
    }
    deadline = now() + timeout_seconds;
}

static void watch(struct wire *wire, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (wire->wants_to_write ? EPOLLOUT : 0), .data.ptr = wire};
    epoll_ctl(poller, operation, wire->fd, &event);
}

static void want_to_write(struct wire *wire, bool wanted)
{
    if (wire->wants_to_write != wanted) {
        wire->wants_to_write = wanted;
        watch(wire, EPOLL_CTL_MOD);
    }
}

struct wire *wire_connect(const struct sockaddr_in *to, bool tls, const struct talk *talk, void *owner)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (fd < 0) {
        fail("socket: %s", strerror(errno));
        return NULL;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) < 0 && errno != EINPROGRESS) {
        fail("connect: %s", strerror(errno));
        close(fd);
        return NULL;
    }
    struct wire *wire = calloc(1, sizeof *wire);
    wire->fd = fd;
    wire->talk = talk;
    wire->owner = owner;
    wire->in = malloc(IN_OCTETS + 1);
    if (tls) {
        if (!context) {
            context = SSL_CTX_new(TLS_client_method());
            SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* every handshake is a whole one */
            SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256"); /* the same work for every server */
            SSL_CTX_set_cert_verify_callback(context, believe, NULL);
            SSL_CTX_set_read_ahead(context, 1);
            SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        }
        wire->ssl = SSL_new(context);
        SSL_set_fd(wire->ssl, fd);
        SSL_set_connect_state(wire->ssl);
    }
    wire->wants_to_write = true; /* tells when the connection is made */
    watch(wire, EPOLL_CTL_ADD);
    return wire;
}

void wire_close(struct wire *wire)
{
    if (wire->over)
        return;
    wire->over = true;
    if (wire->ssl) {
        SSL_shutdown(wire->ssl);
        SSL_free(wire->ssl);
    }
    close(wire->fd);
    wire->next = graveyard;
    graveyard = wire;
}

static void bury(void)
{
    while (graveyard) {
        struct wire *wire = graveyard;
        graveyard = wire->next;
        free(wire->in);
        free(wire->out);
        free(wire);
    }
}

static void lost(struct wire *wire, const char *why)
{
    if (!wire->over) {
        wire->talk->closed(wire, why);
        wire_close(wire);
    }
}

/* -- out ------------------------------------------------------------------------------------ */

void wire_say(struct wire *wire, const char *format, ...)
{
    va_list arguments;
    for (;;) {
        size_t room = wire->out_size - wire->out_to;
        va_start(arguments, format);
        size_t octets = vsnprintf(wire->out ? wire->out + wire->out_to : NULL, room, format, arguments);
        va_end(arguments);
        if (octets < room) {
            wire->out_to += octets;
            return;
        }
        wire->out_size = 2 * wire->out_size + octets + 256;
        wire->out = realloc(wire->out, wire->out_size);
    }
}

void wire_send_block(struct wire *wire, const char *block, size_t octets, const char *tail)
{
    wire->block = block;
    wire->block_octets = octets;
    wire->tail = tail;
    wire->tail_octets = strlen(tail);
}

/* What is to be sent, in its order; how many pieces. */
static int pieces(struct wire *wire, struct iovec *found)
{
    struct iovec all[] = {{wire->out + wire->out_from, wire->out_to - wire->out_from},
                          {(void *)wire->block, wire->block_octets},
                          {(void *)wire->tail, wire->tail_octets}};
    int count = 0;
    for (int i = 0; i < 3; i++)
        if (all[i].iov_len)
            found[count++] = all[i];
    return count;
}

static void gone(struct wire *wire, size_t octets)
{
    size_t small = wire->out_to - wire->out_from < octets ? wire->out_to - wire->out_from : octets;
    if ((wire->out_from += small) == wire->out_to)
        wire->out_from = wire->out_to = 0;
    octets -= small;
    size_t big = wire->block_octets < octets ? wire->block_octets : octets;
    wire->block += big, wire->block_octets -= big;
    wire->tail += octets - big, wire->tail_octets -= octets - big;
}

/* Octets that went out, header and body in one packet where they fit; 0: the kernel holds enough;
 * -1: the connection is broken. */
static ssize_t written(struct wire *wire, struct iovec *what, int count)
{
    if (!wire->ssl) {
        ssize_t sent = sendmsg(wire->fd, &(struct msghdr){.msg_iov = what, .msg_iovlen = count}, MSG_NOSIGNAL);
        return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
    }
    int sent = SSL_write(wire->ssl, what->iov_base, what->iov_len > 1 << 30 ? 1 << 30 : (int)what->iov_len);
    if (sent > 0)
        return sent;
    int error = SSL_get_error(wire->ssl, sent);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

void wire_flush(struct wire *wire)
{
    struct iovec what[3];
    int count;
    while (!wire->over && wire->open && (count = pieces(wire, what))) {
        ssize_t sent = written(wire, what, count);
        if (sent < 0) {
            lost(wire, "broken while sending");
            return;
        }
        if (!sent) {
            want_to_write(wire, true);
            return;
        }
        gone(wire, sent);
    }
    if (!wire->over && wire->open)
        want_to_write(wire, false);
}

/* -- in ------------------------------------------------------------------------------------- */

void wire_skip(struct wire *wire, size_t octets)
{
    wire->skip = octets;
}

static void digest(struct wire *wire)
{
    while (!wire->over) {
        size_t there = wire->in_to - wire->in_from;
        if (wire->skip) {
            size_t drop = wire->skip < there ? wire->skip : there;
            wire->in_from += drop;
            if ((wire->skip -= drop))
                break;
            wire->talk->skipped(wire);
            continue;
        }
        char *line = wire->in + wire->in_from, *end = memchr(line, '\n', there);
        if (!end) {
            if (there >= SMALL_IN)
                lost(wire, "a line without an end");
            break;
        }
        wire->in_from += end + 1 - line;
        if (end > line && end[-1] == '\r')
            end--;
        *end = 0;
        wire->talk->line(wire, line, end - line);
    }
    if (wire->over)
        return;
    memmove(wire->in, wire->in + wire->in_from, wire->in_to - wire->in_from);
    wire->in_to -= wire->in_from;
    wire->in_from = 0;
}

static ssize_t taken(struct wire *wire)
{
    size_t room = IN_OCTETS - wire->in_to;
    if (!wire->ssl) {
        ssize_t came = recv(wire->fd, wire->in + wire->in_to, room, 0);
        return came < 0 && (errno == EAGAIN || errno == EINTR) ? -1 : came < 0 ? 0 : came;
    }
    int came = SSL_read(wire->ssl, wire->in + wire->in_to, (int)room);
    if (came > 0)
        return came;
    int error = SSL_get_error(wire->ssl, came);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

static void readable(struct wire *wire)
{
    do {
        ssize_t came = taken(wire);
        if (came < 0)
            return;
        if (!came) {
            lost(wire, "the server closed the connection");
            return;
        }
        wire->received += came;
        wire->in_to += came;
        digest(wire);
        wire_flush(wire);
    } while (!wire->over && wire->ssl);
}

static void connected(struct wire *wire)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(wire->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        lost(wire, strerror(error));
        return;
    }
    if (wire->ssl) {
        int made = SSL_do_handshake(wire->ssl);
        if (made != 1) {
            int why = SSL_get_error(wire->ssl, made);
            if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
                want_to_write(wire, why == SSL_ERROR_WANT_WRITE);
            else
                lost(wire, "the TLS handshake failed");
            return;
        }
    }
    wire->open = true;
    wire->talk->opened(wire);
    wire_flush(wire);
    if (wire->ssl && SSL_has_pending(wire->ssl)) /* read ahead: the socket will not tell of it */
        readable(wire);
}

void wires_run(bool (*done)(void), double (*tick)(double now))
{
    struct epoll_event events[EVENTS];
    while (!done()) {
        double at = now(), wake = tick ? tick(at) : at + 1;
        bury();
        if (done())
            break;
        if (at > deadline) {
            fail("not done in time");
            return;
        }
        double left = wake < deadline ? wake - at : deadline - at;
        struct timespec patience = {0};
        if (left > 0) {
            patience.tv_sec = (time_t)left;
            patience.tv_nsec = (long)((left - (double)patience.tv_sec) * 1e9);
        }
        int count = epoll_pwait2(poller, events, EVENTS, &patience, NULL);
        for (int i = 0; i < count; i++) {
            struct wire *wire = events[i].data.ptr;
            if (wire->over)
                continue;
            if (!wire->open) {
                connected(wire);
                if (!wire->open || wire->over)
                    continue;
            } else if (events[i].events & EPOLLOUT) {
                wire_flush(wire);
            }
            if (!wire->over && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                readable(wire);
        }
        bury();
    }
}
