/* Workers, and what can only be said at the end of a seed. */
#include "sim/judge_inside.h"

#include <stdlib.h>

/* ---- workers ---- */

static Leased *lease_row(Judge *j, uint64_t token, const char *id)
{
    uint32_t row = judge_row(j, judge_seen(j, id));
    uint32_t *at = map64_at(&j->lease_at, token ? token : UINT64_MAX);
    if (!*at) {
        Leased *l = array_add(&j->leases, sizeof *l);
        l->token = token;
        l->task = row;
        *at = (uint32_t)j->leases.len;
    }
    Leased *l = LEASED(j, *at);
    if (l->task != row)
        judge_bad(j, 5, "token %llu is of %s and of %s", ULL(token), SEEN(j, l->task)->id, id);
    return l;
}

void judge_lease_given(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                       uint32_t attempt, uint64_t input)
{
    Leased *l = lease_row(j, token, id);
    if (l->given &&
        (l->worker != worker || l->attempt != attempt || (l->input && input && l->input != input)))
        judge_bad(j, 5, "lease %llu of %s went to workers %u and %u, attempts %u and %u",
                  ULL(token), id, l->worker, worker, l->attempt, attempt);
    if (!l->given) l->given_at = now;
    l->given = true;
    l->worker = worker;
    l->attempt = attempt;
    if (input) l->input = input;
}

void judge_result_sent(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                       bool ok, uint64_t output, int64_t device_ns)
{
    (void)now, (void)worker;
    Leased *l = lease_row(j, token, id);
    Seen *n = judge_seen(j, id);
    if (!l->sent) { /* again only what was said */
        n->sent_ns += device_ns;
        l->device_ns = device_ns;
        l->ok = ok;
        l->output = ok ? output : 0;
    }
    l->sent = true;
    l->sends++;
}

void judge_error_final(Judge *j, const char *id, uint64_t token)
{
    lease_row(j, token, id)->final = true;
}

void judge_result_answered(Judge *j, int64_t now, uint32_t worker, const char *id, uint64_t token,
                           JudgeAnswer answer)
{
    (void)now, (void)worker;
    j->answers++;
    Leased *l = lease_row(j, token, id);
    Seen *n = judge_seen(j, id);
    /* Sent again, it may be fenced because the task has left memory with that very result. */
    if (answer == JUDGE_FENCED && l->sends == 1) l->fenced = true;
    if (answer == JUDGE_DUPLICATE) l->duplicate = true;
    if (answer != JUDGE_ACCEPTED) return;
    if (l->fenced)
        judge_bad(j, 6, "the report under token %llu of %s was fenced, then accepted", ULL(token),
                  id);
    if (!l->given)
        judge_bad(j, 4, "a report on %s under token %llu, never given, was accepted", id,
                  ULL(token));
    if (!l->accepted) n->charged_ns += l->device_ns;
    l->accepted = true;
    if (l->ok && n->accepted_token && n->accepted_token != token)
        judge_bad(j, 3, "results of %s were accepted under the tokens %llu and %llu", id,
                  ULL(n->accepted_token), ULL(token));
    if (l->ok || l->final) n->accepted_token = token;
    if (l->final) n->final_error = true;
}

/* ---- the end ---- */

static void end_of_leases(Judge *j)
{
    for (uint32_t row = 1; row <= j->leases.len; row++) {
        const Leased *l = LEASED(j, row);
        const Seen *n = SEEN(j, l->task);
        const Submit *s = judge_submit_of(j, n);
        if (!n->first.id[0] && l->given && j->drained_at && !n->gone_at)
            judge_bad(j, 2, "%s was leased, but no client ever saw it", n->id);
        if (l->given && s && s->s.input && l->input && l->input != s->s.input && !n->delete_maybe)
            judge_bad(j, 15, "lease %llu of %s came with the input %llx, submitted was %llx",
                      ULL(l->token), n->id, ULL(l->input), ULL(s->s.input));
        if (l->accepted && l->ok && n->ended && n->end.status != TASK_SUCCEEDED)
            judge_bad(j, 4, "a result of %s was accepted, yet it is %s", n->id,
                      task_state_name(n->end.status));
        if (l->accepted && l->ok && n->ended && n->end.status == TASK_SUCCEEDED && !n->end.brief &&
            !n->end.data_removed && n->end.output != l->output)
            judge_bad(j, 3, "a result of %s was accepted, but its output is another", n->id);
        if (l->accepted && l->final && n->ended && n->end.status != TASK_FAILED)
            judge_bad(j, 8, "a final failure of %s was accepted, yet it is %s", n->id,
                      task_state_name(n->end.status));
    }
}

/* 4, 6, 18: whose output is it, and what may it cost? */
static void end_of_success(Judge *j, const Seen *n)
{
    bool sent = false, fenced = false;
    if (n->end.brief || n->end.data_removed) return;
    uint32_t row = judge_row(j, n);
    for (uint32_t i = 1; i <= j->leases.len && !sent; i++) {
        const Leased *l = LEASED(j, i);
        if (l->task != row || !l->ok || l->output != n->end.output) continue;
        sent = !l->fenced;
        fenced |= l->fenced;
    }
    if (!sent && j->leases.len)
        judge_bad(j, fenced ? 6 : 4, "%s has the output %llx, %s", n->id, ULL(n->end.output),
                  fenced ? "which was fenced" : "which no worker sent for it");
}

static void end_of_charge(Judge *j, const Seen *n)
{
    const Far *last = n->far.len ? ROW(n->far, Far, n->far.len - 1) : NULL;
    if (!last || !j->leases.len || !n->first.id[0]) return;
    if (last->device_ms * NS_PER_MS > n->sent_ns + j->bounds.slack_ns)
        judge_bad(j, 18, "%s was charged %lld ms; its workers said %lld us in all", n->id,
                  LL(last->device_ms), LL(n->sent_ns / NS_PER_US));
    if (n->last_look >= j->drained_at && n->ended && n->charged_ns > 0 && !n->gone_at &&
        (last->device_ms + 1) * NS_PER_MS + j->bounds.slack_ns < n->charged_ns)
        judge_bad(j, 18, "%s was charged %lld ms; reports of %lld us were accepted", n->id,
                  LL(last->device_ms), LL(n->charged_ns / NS_PER_US));
}

/* 2, 16, 7: it comes from one submit, which was not refused. */
static void end_of_origin(Judge *j, Seen *n)
{
    if (!n->first.id[0]) return;
    Submit *s = judge_submit_of(j, n);
    if (n->first.retry_of[0]) {
        const Seen *old = judge_seen_find(j, n->first.retry_of);
        if (!old->retries && !old->retries_maybe)
            judge_bad(j, 2, "%s is a retry of %s, which nobody asked for", n->id, old->id);
        return;
    }
    if (!s) {
        judge_bad(j, 2, "%s is there (nonce %llu), but nobody submitted it", n->id,
                  ULL(n->first.nonce));
        return;
    }
    if (!s->answered_ok && !s->maybe)
        judge_bad(j, 16, "%s is there, but its submit %llu was refused", n->id, ULL(s->s.nonce));
    if (n->first_seen < s->first_start)
        judge_bad(j, 2, "%s was seen before its submit began", n->id);
    int64_t other = s->task ? SEEN(j, s->task)->first.created_ns : 0; /* rows are in no order */
    if (s->tasks++ && llabs(other - n->first.created_ns) < j->bounds.key_ttl_ns)
        judge_bad(j, s->s.key ? 7 : 16, "one submit (%llu) made %s and %s", ULL(s->s.nonce),
                  SEEN(j, s->task)->id, n->id);
    if (!s->task) s->task = judge_row(j, n);
    if (n->started_ns && n->started_ns + j->bounds.slack_ns < n->first.created_ns + s->s.delay_ns)
        judge_bad(j, 9, "%s started before its delay was over", n->id);
    if (s->s.max_attempts && n->first.max_attempts != s->s.max_attempts)
        judge_bad(j, 16, "%s has %u attempts, not %u", n->id, n->first.max_attempts,
                  s->s.max_attempts);
    int64_t deadline = s->s.deadline_ns ? n->first.created_ns + s->s.deadline_ns : 0;
    if (llabs(deadline - n->first.deadline_ns) > j->bounds.slack_ns)
        judge_bad(j, 16, "%s has the deadline %lld, not %lld", n->id, LL(n->first.deadline_ns),
                  LL(deadline));
}

static void end_of_task(Judge *j, Seen *n)
{
    const Submit *s = judge_submit_of(j, n);
    if (n->ended && n->told && n->told != n->end.status)
        judge_bad(j, 3, "%s: %s in its events, %s when read", n->id, task_state_name(n->told),
                  task_state_name(n->end.status));
    if (n->ended && n->end.status == TASK_CANCELED && !n->cancel_maybe)
        judge_bad(j, 9, "%s is canceled, but no cancel got through", n->id);
    if (n->ended && n->end.status != TASK_CANCELED && n->cancel_ok)
        judge_bad(j, 9, "the cancel of %s was acknowledged, yet it is %s", n->id,
                  task_state_name(n->end.status));
    if (n->removed_seen && !n->delete_maybe)
        judge_bad(j, 15, "the data of %s are deleted, but nobody deleted them", n->id);
    if (n->ended && n->end.status == TASK_SUCCEEDED) end_of_success(j, n);
    if (n->ended && s && s->s.expect && !n->first.retry_of[0]) {
        uint32_t may = s->s.expect | (n->cancel_maybe ? 1U << TASK_CANCELED : 0) |
                       (n->first.deadline_ns ? 1U << TASK_EXPIRED : 0);
        if (!(may & 1U << n->end.status))
            judge_bad(j, 21, "%s is %s, error '%s'", n->id, task_state_name(n->end.status),
                      fail_name(n->end.fail));
    }
    if (n->gone_at && !j->bounds.evicts && s && n->first.id[0]) {
        int64_t end = n->ended && n->end.finished_ns ? n->end.finished_ns : n->first.created_ns;
        if (s->s.retention_ns && j->latest_ns + NS_PER_S < end + s->s.retention_ns)
            judge_bad(j, 1, "%s is gone %lld s before its retention is over", n->id,
                      LL((end + s->s.retention_ns - j->latest_ns) / NS_PER_S));
    }
    if (n->accepted_at && j->drained_at && n->last_look < j->drained_at)
        judge_bad(j, 1, "%s was accepted and never seen again", n->id);
    end_of_charge(j, n);
}

/* 14: a stream leaves nothing out between where it began and where it ended. */
static void end_of_streams(Judge *j)
{
    for (size_t i = 0; i < j->streams.len; i++) {
        const Stream *s = ROW(j->streams, Stream, i);
        uint64_t known = 0, all = 0;
        for (size_t k = 0; k < j->told.len; k++) {
            const Told *t = ROW(j->told, Told, k);
            if (t->task != s->task) continue;
            all++;
            known += t->seq > s->after && t->seq <= s->last;
        }
        if (known > s->count && all < TASK_EVENTS_MAX)
            judge_bad(j, 14, "%s: a stream from %llu to %llu gave %llu events, there were %llu",
                      SEEN(j, s->task)->id, ULL(s->after), ULL(s->last), ULL(s->count), ULL(known));
    }
}

void judge_finish(Judge *j)
{
    end_of_leases(j);
    for (size_t i = 0; i < j->seen.len; i++) {
        end_of_origin(j, ROW(j->seen, Seen, i));
        end_of_task(j, ROW(j->seen, Seen, i));
    }
    end_of_streams(j);
}
