/* The JSON of tasks, files and events: as docs and openapi.json describe them. Every reader gets
 * the same bytes. */
#include "gateway/internal.h"

#define PUT(b, lit) buf_put((b), (lit), sizeof(lit) - 1)

static uint64_t ms_between(int64_t from_ns, int64_t to_ns)
{
    return from_ns && to_ns > from_ns ? (uint64_t)((to_ns - from_ns) / NS_PER_MS) : 0;
}

static void put_error(const Task *t, Buf *b)
{
    if (t->run->fail == FAIL_NONE || !task_state_terminal(t->state) || t->state == TASK_SUCCEEDED) {
        PUT(b, "null");
        return;
    }
    PUT(b, "{\"code\":\"");
    buf_puts(b, fail_name((FailCode)t->run->fail));
    PUT(b, "\",\"message\":");
    json_put_str(b, t->extra ? buf_str(&t->extra->error) : (Str){"", 0});
    PUT(b, ",\"retryable\":");
    buf_puts(b, t->run->fail_retryable ? "true}" : "false}");
}

static void put_queue(Gateway *g, const Task *t, Buf *b)
{
    QueueEstimate e = g->p.estimate(g->p.ctx, t);
    Buf reason = {0};
    if (g->p.queue_reason) g->p.queue_reason(g->p.ctx, t, &reason);
    if (e.ahead == SIZE_MAX && !e.estimated_start_ns && !reason.len) return;
    PUT(b, ",\"queue\":{\"ahead\":");
    if (e.ahead == SIZE_MAX)
        PUT(b, "null");
    else
        json_put_u64(b, e.ahead);
    PUT(b, ",\"estimated_start_at\":");
    json_put_time(b, e.estimated_start_ns);
    buf_put_str(b, buf_str(&reason));
    buf_putc(b, '}');
    buf_done(&reason);
}

static void put_payload(const Core *c, const Payload *p, Buf *b)
{
    if (payload_is_there(p))
        buf_put_str(b, core_payload(c, p));
    else
        PUT(b, "null");
}

void render_task(Gateway *g, const Task *t, bool with_input, bool with_queue, Buf *b)
{
    Core *c = core_of(g);
    TaskIdText id;
    core_task_id(c, t, &id);
    Str sid = {id.z, TASK_ID_LEN};
    buf_reserve(b, 1024 + t->run->output.len + (with_input ? t->input.len : 0));
    PUT(b, "{\"id\":\"");
    buf_put_str(b, sid);
    PUT(b, "\",\"model\":");
    json_put_str(b, core_sym(c, t->model));
    PUT(b, ",\"version\":");
    json_put_str(b, core_sym(c, t->version));
    PUT(b, ",\"priority\":\"");
    buf_puts(b, task_class_name((TaskClass)t->class));
    PUT(b, "\",\"tenant\":");
    json_put_str(b, core_sym(c, t->tenant));
    PUT(b, ",\"status\":\"");
    buf_puts(b, task_state_name((TaskState)t->state));
    buf_putc(b, '"');
    if (with_input) {
        PUT(b, ",\"input\":");
        put_payload(c, &t->input, b);
    }
    PUT(b, ",\"output\":");
    if (t->state == TASK_SUCCEEDED)
        put_payload(c, &t->run->output, b);
    else
        PUT(b, "null");
    if (t->input.forgotten || t->run->output.forgotten) PUT(b, ",\"data_removed\":true");
    PUT(b, ",\"error\":");
    put_error(t, b);
    PUT(b, ",\"attempt\":");
    json_put_u64(b, t->run->attempt);
    PUT(b, ",\"max_attempts\":");
    json_put_u64(b, t->max_attempts);
    if (t->state == TASK_RUNNING && t->run->steps) {
        PUT(b, ",\"progress\":{\"step\":");
        json_put_u64(b, t->run->step);
        PUT(b, ",\"steps\":");
        json_put_u64(b, t->run->steps);
        buf_putc(b, '}');
    }
    PUT(b, ",\"created_at\":");
    json_put_time(b, t->created_ns);
    PUT(b, ",\"started_at\":");
    json_put_time(b, t->run->started_ns);
    PUT(b, ",\"finished_at\":");
    json_put_time(b, t->run->finished_ns);
    PUT(b, ",\"deadline_at\":");
    json_put_time(b, t->deadline_ns);
    if (t->not_before_ns > t->created_ns && t->state == TASK_QUEUED) {
        PUT(b, ",\"not_before_at\":");
        json_put_time(b, t->not_before_ns);
    }
    if (with_queue && t->state == TASK_QUEUED) put_queue(g, t, b);
    int64_t queue_end = t->run->first_started_ns ? t->run->first_started_ns
                        : t->run->finished_ns    ? t->run->finished_ns
                                                 : now_of(g);
    PUT(b, ",\"metrics\":{\"queue_ms\":");
    json_put_u64(b, ms_between(t->created_ns, queue_end));
    PUT(b, ",\"run_ms\":");
    json_put_u64(b, (uint64_t)(t->run->run_ns / NS_PER_MS));
    PUT(b, ",\"device_ms\":");
    json_put_u64(b, (uint64_t)(t->run->device_ns / NS_PER_MS));
    PUT(b, ",\"batch_size\":");
    json_put_u64(b, t->run->batch_size);
    PUT(b, "},\"metadata\":");
    if (t->extra && t->extra->metadata.len)
        buf_put_str(b, buf_str(&t->extra->metadata));
    else
        PUT(b, "{}");
    if (t->extra && t->extra->retry_of.z[0]) {
        PUT(b, ",\"retry_of\":\"");
        buf_puts(b, t->extra->retry_of.z);
        buf_putc(b, '"');
    }
    PUT(b, ",\"urls\":{\"self\":\"/v1/tasks/");
    buf_put_str(b, sid);
    PUT(b, "\",\"cancel\":\"/v1/tasks/");
    buf_put_str(b, sid);
    PUT(b, "/cancel\",\"events\":\"/v1/tasks/");
    buf_put_str(b, sid);
    PUT(b, "/events\"},\"receipt\":{\"shard\":0,\"epoch\":");
    json_put_u64(b, t->created_epoch);
    PUT(b, ",\"seq\":");
    json_put_u64(b, t->created_seq);
    PUT(b, "}}");
}

void render_task_minimal(Gateway *g, const Task *t, Buf *b)
{
    TaskIdText id;
    core_task_id(core_of(g), t, &id);
    PUT(b, "{\"id\":\"");
    buf_put(b, id.z, TASK_ID_LEN);
    PUT(b, "\",\"status\":\"");
    buf_puts(b, task_state_name((TaskState)t->state));
    PUT(b, "\"}");
}

void gateway_task_json(Gateway *g, const Task *t, bool with_input, Buf *ret)
{
    render_task(g, t, with_input, true, ret);
}

void render_event(Gateway *g, const Task *t, const TaskEvent *e, Buf *b)
{
    TaskIdText id;
    core_task_id(core_of(g), t, &id);
    PUT(b, "{\"id\":\"");
    buf_puts(b, id.z);
    PUT(b, "\",\"seq\":");
    json_put_u64(b, e->seq);
    PUT(b, ",\"at\":");
    json_put_time(b, e->time_ns);
    PUT(b, ",\"status\":\"");
    buf_puts(b, task_state_name((TaskState)e->state));
    PUT(b, "\",\"attempt\":");
    json_put_u64(b, e->attempt);
    if (e->fail != FAIL_NONE && e->state != TASK_SUCCEEDED) {
        PUT(b, ",\"code\":\"");
        buf_puts(b, fail_name((FailCode)e->fail));
        buf_putc(b, '"');
    }
    if (e->kind == EVENT_FINISHED) {
        PUT(b, ",\"task\":");
        render_task(g, t, false, false, b);
    }
    buf_putc(b, '}');
}

void render_file(Gateway *g, const File *f, Buf *b)
{
    char hex[65];
    sha256_hex(&f->sha256, hex);
    PUT(b, "{\"id\":\"");
    buf_puts(b, f->id);
    PUT(b, "\",\"name\":");
    json_put_str(b, str_from(f->name));
    PUT(b, ",\"content_type\":");
    json_put_str(b, str_from(f->content_type && f->content_type[0] ? f->content_type
                                                                   : "application/octet-stream"));
    PUT(b, ",\"size\":");
    json_put_u64(b, f->size);
    PUT(b, ",\"sha256\":\"");
    buf_puts(b, hex);
    PUT(b, "\",\"created_at\":");
    json_put_time(b, f->created_ns);
    PUT(b, ",\"expires_at\":");
    json_put_time(b, f->expires_ns);
    if (f->owner_task) {
        const Task *t = core_task(core_of(g), f->owner_task);
        TaskIdText id;
        if (t) {
            core_task_id(core_of(g), t, &id);
            PUT(b, ",\"task\":\"");
            buf_puts(b, id.z);
            buf_putc(b, '"');
        }
    }
    PUT(b, ",\"urls\":{\"self\":\"/v1/files/");
    buf_puts(b, f->id);
    PUT(b, "\",\"content\":\"/v1/files/");
    buf_puts(b, f->id);
    PUT(b, "/content\"}}");
}
