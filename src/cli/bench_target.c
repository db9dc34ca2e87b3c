/* The server's address, looked up once, and the header fields that every request has. */
#include "cli/bench.h"

#include <netdb.h>
#include <netinet/in.h>
#include <string.h>

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *in6 = (const void *)a;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static int look_up(const char *url, const char *host, const char *port, Target *t)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int err = getaddrinfo(host, port, &hints, &found);
    if (err) return fail(CLI_NO_SERVER, "%s: %s", url, gai_strerror(err));
    memcpy(&t->address, found->ai_addr, found->ai_addrlen);
    t->address_len = found->ai_addrlen;
    t->loopback = is_loopback(found->ai_addr);
    freeaddrinfo(found);
    return CLI_OK;
}

int target_of(const Client *c, Target *ret)
{
    Target t = {0};
    char host[256];
    const char *at = c->url + 7, *end, *port = "80";
    if (strncmp(c->url, "http://", 7) != 0) {
        fail(CLI_USAGE, "bench speaks plain HTTP only, not %s", c->url);
        hint("measure the server behind its proxy: --server http://HOST:PORT");
        return CLI_USAGE;
    }
    bool bracket = *at == '[';
    const char *first = at + bracket;
    end = first + strcspn(first, bracket ? "]" : ":/");
    const char *behind = end + (bracket && *end == ']');
    if (end == first || (size_t)(end - first) >= sizeof host || strchr(behind, '/'))
        return fail(CLI_USAGE, "'%s' should be http://HOST:PORT", c->url);
    memcpy(host, first, (size_t)(end - first));
    host[end - first] = 0;
    if (*behind == ':') port = behind + 1;
    int status = look_up(c->url, host, port, &t);
    if (status != CLI_OK) return status;
    buf_printf(&t.fields, "Host: %s\r\n", at);
    if (c->authorization) buf_printf(&t.fields, "%s\r\n", c->authorization);
    *ret = t;
    return CLI_OK;
}

void target_done(Target *t)
{
    buf_done(&t->fields);
    *t = (Target){0};
}
