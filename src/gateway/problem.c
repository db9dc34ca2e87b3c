/* Refusals, as RFC 9457 has them. Every one names the field, the value and the remedy where there
 * is one. */
#include "gateway/internal.h"

#include <stdio.h>

static const char *title_of(Code c)
{
    switch (c) {
    case CODE_INVALID_REQUEST:
        return "The request is not valid";
    case CODE_UNKNOWN_FIELD:
        return "The request has an unknown field";
    case CODE_UNKNOWN_MODEL:
        return "No such model";
    case CODE_NOT_FOUND:
        return "Not found";
    case CODE_GONE:
        return "It was here and is gone";
    case CODE_METHOD_NOT_ALLOWED:
        return "The method is not allowed here";
    case CODE_UNAUTHORIZED:
        return "A valid key is needed";
    case CODE_FORBIDDEN:
        return "Not allowed";
    case CODE_IDEMPOTENCY_MISMATCH:
        return "The idempotency key was used for another request";
    case CODE_ALREADY_TERMINAL:
        return "The task has ended already";
    case CODE_CONFLICT:
        return "The state of things does not allow it";
    case CODE_TOO_LARGE:
        return "Too large";
    case CODE_RATE_LIMITED:
        return "Too many requests";
    case CODE_QUOTA_EXCEEDED:
        return "A quota is used up";
    case CODE_QUEUE_FULL:
        return "The queue is full";
    case CODE_DEADLINE_UNREACHABLE:
        return "The deadline cannot be met";
    case CODE_NO_LEADER:
        return "No leader can accept work now";
    case CODE_LOG_STALLED:
        return "The log is too slow to accept work now";
    case CODE_DISK_FULL:
        return "The disk is full";
    default:
        return "Something went wrong here";
    }
}

Problem problem_of(int status, Code code, const char *field, const char *fmt, ...)
{
    Problem p = {.status = status, .code = code};
    snprintf(p.field, sizeof p.field, "%s", field ? field : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p.detail, sizeof p.detail, fmt, ap);
    va_end(ap);
    return p;
}

Problem problem_of_fault(const JsonFault *f)
{
    int status = f->syntax ? 400 : f->too_large ? 413 : 422;
    Code code = f->unknown     ? CODE_UNKNOWN_FIELD
                : f->too_large ? CODE_TOO_LARGE
                               : CODE_INVALID_REQUEST;
    return problem_of(status, code, f->field, "%s", f->detail);
}

Problem problem_of_decision(const Decision *d)
{
    int status = code_status(d->code);
    if (d->code == CODE_INVALID_REQUEST && d->field[0]) status = 422;
    Problem p = problem_of(status, d->code, d->field, "%s",
                           d->detail[0] ? d->detail : title_of(d->code));
    p.retry_after_ms = d->retry_after_ms;
    return p;
}

void problem_json(Buf *b, const Problem *p, Str instance)
{
    buf_puts(b, "{\"type\":\"urn:headrace:error:");
    buf_puts(b, code_name(p->code));
    buf_puts(b, "\",\"title\":");
    json_put_str(b, str_from(title_of(p->code)));
    buf_puts(b, ",\"status\":");
    json_put_u64(b, (uint64_t)p->status);
    buf_puts(b, ",\"detail\":");
    json_put_str(b, str_from(p->detail));
    if (instance.n) {
        buf_puts(b, ",\"instance\":");
        json_put_str(b, instance);
    }
    buf_puts(b, ",\"code\":");
    json_put_str(b, str_from(code_name(p->code)));
    if (p->field[0]) {
        buf_puts(b, ",\"field\":");
        json_put_str(b, str_from(p->field));
    }
    buf_putc(b, '}');
}

/* It says what is, or is not: a reader must not hear of what a crash can still undo. */
static bool tells_state(Code code)
{
    return code == CODE_NOT_FOUND || code == CODE_GONE || code == CODE_IDEMPOTENCY_MISMATCH ||
           code == CODE_ALREADY_TERMINAL || code == CODE_CONFLICT;
}

void problem_reply(Exchange *x, const Problem *p)
{
    Gateway *g = x->g;
    if (tells_state(p->code) && !x->held) exchange_hold(x, g->p.last_seq(g->p.ctx));
    if (p->retry_after_ms || p->status == 429 || p->status == 503)
        exchange_header(x, "Retry-After", "%u", MAX(1u, (p->retry_after_ms + 999) / 1000));
    if (p->status == 401) exchange_header(x, "WWW-Authenticate", "Bearer realm=\"headrace\"");
    Str instance = x->req ? x->req->path : str_from(x->path ? x->path : "");
    instance.n = MIN(instance.n, (size_t)INSTANCE_MAX);
    buf_clear(&g->body);
    problem_json(&g->body, p, instance);
    exchange_reply(x, p->status, "application/problem+json", buf_str(&g->body));
}

void problem_say(Exchange *x, int status, Code code, const char *field, const char *fmt, ...)
{
    Problem p = {.status = status, .code = code};
    snprintf(p.field, sizeof p.field, "%s", field ? field : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p.detail, sizeof p.detail, fmt, ap);
    va_end(ap);
    problem_reply(x, &p);
}
