#include "sim/witness.h"

#include "sim/judge.h"
#include "sim/model.h"

struct Witness {
    World *w;
    Model *model;
    Judge *judge;
};

Witness *witness_new(World *w, const CoreLimits *limits, int64_t end_ns_max)
{
    Witness *x = mem_new(sizeof *x);
    x->w = w;
    x->model = model_new(limits);
    model_judge_lease_ends(x->model, true);
    x->judge = judge_new(&(JudgeBounds){.evicts = !limits->history,
                                        .key_ttl_ns = limits->idem_ttl_ns,
                                        .end_ns_max = end_ns_max,
                                        .slack_ns = 2 * NS_PER_MS});
    return x;
}

void witness_free(Witness *x)
{
    if (!x) return;
    model_free(x->model);
    judge_free(x->judge);
    mem_free(x);
}

Model *witness_model(const Witness *x)
{
    return x->model;
}

Judge *witness_judge(const Witness *x)
{
    return x->judge;
}

void witness_look(Witness *x)
{
    int broken = judge_broken(x->judge);
    if (broken) world_broken(x->w, broken, "%.*s", STR_ARG(judge_why(x->judge)));
}

static void tell(Witness *x, int broken, Buf *why, const char *when)
{
    if (broken) world_broken(x->w, broken, "%s: %.*s", when, STR_ARG(buf_str(why)));
    buf_done(why);
}

void witness_frame(Witness *x, Str bytes)
{
    Buf why = {0};
    if (x->w->broken) return;
    tell(x, model_frame(x->model, bytes, &why), &why, "the frame");
}

void witness_durable(Witness *x, uint64_t seq)
{
    if (!x->w->broken) model_durable(x->model, seq);
}

void witness_restart(Witness *x, const LogPoint *at)
{
    Buf why = {0};
    if (x->w->broken) return;
    tell(x, model_restart(x->model, at, &why), &why, "after the restart");
}

void witness_claimed(Witness *x, uint64_t epoch)
{
    judge_claimed(x->judge, epoch, x->w->now_ns);
    witness_look(x);
}

void witness_compare(Witness *x, Core *core)
{
    Buf why = {0};
    if (x->w->broken) return;
    tell(x, model_compare(x->model, core, &why), &why, "model and core differ");
}

void witness_renewed(Witness *x, uint64_t token, int64_t now_ns)
{
    if (!x->w->broken) model_renewed(x->model, token, now_ns);
}

void witness_holder_gone(Witness *x, Str worker)
{
    if (!x->w->broken) model_holder_gone(x->model, worker);
}

void witness_unlink(Witness *x, const char *id)
{
    if (!x->w->broken && model_needs_file(x->model, str_from(id)))
        world_broken(x->w, 15, "the content of %s goes before the record of its end is durable",
                     id);
}

void witness_receipt(Witness *x, uint64_t seq, uint64_t durable)
{
    if (seq > durable)
        world_broken(x->w, 10,
                     "an answer said that the record %llu is taken while the disk had them up to "
                     "%llu",
                     (unsigned long long)seq, (unsigned long long)durable);
}

void witness_lease(Witness *x, uint32_t worker, const char *id, uint64_t token, uint32_t attempt,
                   Str input, uint64_t durable)
{
    bool file = input.n < 100 && str_starts(input, STR("{\"$file\":\"")); /* and nothing else */
    witness_receipt(x, token, durable);
    judge_lease_given(x->judge, x->w->now_ns, worker, id, token, attempt,
                      file ? 0 : judge_text(input));
    witness_look(x);
}

uint64_t witness_text(Str json)
{
    return judge_text(json);
}

void witness_result(Witness *x, uint32_t worker, const char *id, uint64_t token, bool ok,
                    uint64_t output, int64_t device_ns)
{
    world_say(x->w, "worker-%u: %s under %llu of %s", worker, ok ? "result" : "error or release",
              (unsigned long long)token, id);
    judge_result_sent(x->judge, x->w->now_ns, worker, id, token, ok, output, device_ns);
    witness_look(x);
}

void witness_final(Witness *x, const char *id, uint64_t token)
{
    judge_error_final(x->judge, id, token);
}

void witness_answer(Witness *x, uint32_t worker, const char *id, uint64_t token, int answer)
{
    static const JudgeAnswer words[] = {JUDGE_ACCEPTED, JUDGE_DUPLICATE, JUDGE_FENCED, JUDGE_OTHER};
    world_say(x->w, "worker-%u: answer %d under %llu of %s", worker, answer,
              (unsigned long long)token, id);
    judge_result_answered(x->judge, x->w->now_ns, worker, id, token, words[answer]);
    witness_look(x);
}
