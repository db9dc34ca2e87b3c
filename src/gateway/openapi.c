/* GET /openapi.json: made from the table of routes and the schemas below, once. What is in the
 * table is in the description. */
#include "gateway/internal.h"

#include <string.h>

static const char schemas[] =
    "\"Problem\":{\"type\":\"object\",\"description\":\"RFC 9457\",\"required\":[\"type\","
    "\"title\",\"status\",\"detail\",\"code\"],"
    "\"properties\":{\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},"
    "\"status\":{\"type\":\"integer\"},"
    "\"detail\":{\"type\":\"string\"},\"instance\":{\"type\":\"string\"},"
    "\"code\":{\"type\":\"string\",\"enum\":[%CODES%]},"
    "\"field\":{\"type\":\"string\"}}},"

    "\"TaskRequest\":{\"type\":\"object\",\"required\":[\"model\",\"input\"],"
    "\"additionalProperties\":false,\"properties\":{"
    "\"model\":{\"type\":\"string\",\"description\":\"A name, or name:version to pin one\","
    "\"examples\":[\"sdxl\",\"sdxl:3\"]},"
    "\"input\":{\"description\":\"What the model takes; {\\\"$file\\\": \\\"file_…\\\"} stands "
    "for an uploaded file\"},"
    "\"priority\":{\"type\":\"string\",\"enum\":[\"critical\",\"standard\",\"batch\"],"
    "\"default\":\"standard\"},"
    "\"deadline_s\":{\"type\":\"number\",\"minimum\":0.001,\"maximum\":2592000,"
    "\"description\":\"Not finished by then: expired\"},"
    "\"delay_s\":{\"type\":\"number\",\"minimum\":0,\"maximum\":2592000},"
    "\"max_attempts\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":20,\"default\":3},"
    "\"retention_s\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":2592000,\"default\":86400},"
    "\"metadata\":{\"type\":\"object\",\"maxProperties\":16,\"propertyNames\":{\"maxLength\":64},"
    "\"additionalProperties\":{\"type\":\"string\",\"maxLength\":512}},"
    "\"idempotency_key\":{\"type\":\"string\",\"maxLength\":255,\"description\":\"In lines of a "
    "batch only; elsewhere the header "
    "Idempotency-Key\"}}},"

    "\"Task\":{\"type\":\"object\",\"required\":[\"id\",\"model\",\"version\",\"priority\","
    "\"status\",\"created_at\"],\"properties\":{"
    "\"id\":{\"type\":\"string\",\"pattern\":\"^task_[0-9A-Z]{26}$\"},"
    "\"model\":{\"type\":\"string\"},"
    "\"version\":{\"type\":\"string\"},\"priority\":{\"type\":\"string\"},"
    "\"tenant\":{\"type\":\"string\"},"
    "\"status\":{\"type\":\"string\",\"enum\":[\"queued\",\"running\",\"succeeded\",\"failed\","
    "\"canceled\",\"expired\"]},"
    "\"input\":{\"description\":\"Only with ?include=input\"},\"output\":{\"description\":\"null "
    "until it has succeeded\"},"
    "\"data_removed\":{\"type\":\"boolean\"},"
    "\"error\":{\"oneOf\":[{\"type\":\"null\"},{\"type\":\"object\","
    "\"properties\":{\"code\":{\"type\":\"string\",\"enum\":[%FAILS%]},"
    "\"message\":{\"type\":\"string\"},\"retryable\":{\"type\":\"boolean\"}}}]},"
    "\"attempt\":{\"type\":\"integer\"},\"max_attempts\":{\"type\":\"integer\"},"
    "\"progress\":{\"type\":\"object\",\"properties\":{\"step\":{\"type\":\"integer\"},"
    "\"steps\":{\"type\":\"integer\"}}},"
    "\"created_at\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"started_at\":{\"type\":[\"string\",\"null\"],"
    "\"format\":\"date-time\"},\"finished_at\":{\"type\":[\"string\",\"null\"],"
    "\"format\":\"date-time\"},"
    "\"deadline_at\":{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"},"
    "\"not_before_at\":{\"type\":\"string\","
    "\"format\":\"date-time\"},\"queue\":{\"type\":\"object\","
    "\"properties\":{\"ahead\":{\"type\":[\"integer\",\"null\"]},"
    "\"estimated_start_at\":{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"},"
    "\"reason\":{\"type\":\"string\",\"description\":\"Why it cannot start now, however long it "
    "waits its turn; missing when only its turn has not come\"},"
    "\"reason_code\":{\"type\":\"string\",\"enum\":[\"paused\",\"no_worker\",\"no_device\","
    "\"no_memory\",\"load_failed\",\"unavailable\"]}}},"
    "\"metrics\":{\"type\":\"object\",\"properties\":{\"queue_ms\":{\"type\":\"integer\"},"
    "\"run_ms\":{\"type\":\"integer\"},"
    "\"device_ms\":{\"type\":\"integer\"},\"batch_size\":{\"type\":\"integer\"}}},"
    "\"metadata\":{\"type\":\"object\"},"
    "\"retry_of\":{\"type\":\"string\"},\"urls\":{\"type\":\"object\","
    "\"properties\":{\"self\":{\"type\":\"string\"},"
    "\"cancel\":{\"type\":\"string\"},\"events\":{\"type\":\"string\"}}},"
    "\"receipt\":{\"type\":\"object\",\"properties\":{\"shard\":{\"type\":\"integer\"},"
    "\"epoch\":{\"type\":\"integer\"},"
    "\"seq\":{\"type\":\"integer\"}}}}},"

    "\"TaskList\":{\"type\":\"object\",\"required\":[\"tasks\",\"next\",\"at_seq\"],"
    "\"properties\":{\"tasks\":{\"type\":\"array\","
    "\"items\":{\"$ref\":\"#/components/schemas/Task\"}},\"next\":{\"type\":[\"string\",\"null\"],"
    "\"description\":\"The cursor of the next page; a page may be short or empty and still have "
    "one\"},"
    "\"at_seq\":{\"type\":\"integer\"}}},"
    "\"BatchAnswer\":{\"type\":\"object\",\"description\":\"One a line\","
    "\"required\":[\"status\"],\"properties\":{"
    "\"status\":{\"type\":\"integer\"},\"replayed\":{\"type\":\"boolean\"},"
    "\"task\":{\"$ref\":\"#/components/schemas/Task\"},"
    "\"error\":{\"$ref\":\"#/components/schemas/Problem\"}}},"

    "\"File\":{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},"
    "\"name\":{\"type\":\"string\"},"
    "\"content_type\":{\"type\":\"string\"},\"size\":{\"type\":\"integer\"},"
    "\"sha256\":{\"type\":\"string\"},"
    "\"created_at\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"expires_at\":{\"type\":[\"string\",\"null\"],"
    "\"format\":\"date-time\"},\"task\":{\"type\":\"string\"},\"urls\":{\"type\":\"object\"}}},"

    "\"ModelVersion\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
    "\"version\":{\"type\":\"string\"},"
    "\"digest\":{\"type\":\"string\"},\"paused\":{\"type\":\"boolean\"},"
    "\"info\":{\"type\":\"object\"},"
    "\"schedulable\":{\"type\":\"boolean\"},\"reason\":{\"type\":\"string\"},"
    "\"reason_code\":{\"type\":\"string\"},"
    "\"loaded_on\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}},"
    "\"warm\":{\"type\":\"object\",\"properties\":{\"replicas\":{\"type\":\"integer\"},"
    "\"loaded\":{\"type\":\"integer\"},\"ordered\":{\"type\":\"boolean\"},"
    "\"reason\":{\"type\":\"string\"}}}}},"
    "\"Warm\":{\"type\":\"object\",\"required\":[\"replicas\"],\"additionalProperties\":false,"
    "\"properties\":{\"replicas\":{\"type\":[\"integer\",\"null\"],\"minimum\":0,"
    "\"maximum\":64}}},"
    "\"Model\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
    "\"latest\":{\"type\":\"string\"},"
    "\"paused\":{\"type\":\"boolean\"},\"versions\":{\"type\":\"array\",\"items\":"
    "{\"$ref\":\"#/components/schemas/ModelVersion\"}}}},"
    "\"ModelList\":{\"type\":\"object\",\"properties\":{\"models\":{\"type\":\"array\",\"items\":"
    "{\"$ref\":\"#/components/schemas/Model\"}}}},"
    "\"Worker\":{\"type\":\"object\"},"
    "\"WorkerList\":{\"type\":\"object\",\"properties\":{\"workers\":{\"type\":\"array\",\"items\":"
    "{\"$ref\":\"#/components/schemas/Worker\"}}}},"
    "\"QueueList\":{\"type\":\"object\",\"properties\":{\"queues\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\"}}}},"
    "\"TenantList\":{\"type\":\"object\",\"properties\":{\"tenants\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\"}}}},"
    "\"WorkerHello\":{\"type\":\"object\",\"description\":\"docs/worker-protocol.md\","
    "\"required\":[\"protocol\",\"name\","
    "\"devices\"],\"properties\":{\"protocol\":{\"type\":\"array\","
    "\"items\":{\"type\":\"integer\"}},\"name\":{\"type\":\"string\"},"
    "\"region\":{\"type\":\"string\"},\"pid\":{\"type\":\"integer\"},"
    "\"worker\":{\"type\":\"string\"},\"devices\":"
    "{\"type\":\"array\",\"items\":{\"type\":\"object\"}},\"models\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\"}},"
    "\"running\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}},"
    "\"runtime\":{\"type\":\"string\"}}},"
    "\"WorkerWelcome\":{\"type\":\"object\",\"properties\":{\"worker\":{\"type\":\"string\"},"
    "\"protocol\":{\"type\":\"integer\"},"
    "\"lease_s\":{\"type\":\"integer\"},\"ping_s\":{\"type\":\"integer\"},"
    "\"refused\":{\"type\":\"array\"},"
    "\"stale\":{\"type\":\"array\"}}},"
    "\"WorkerReport\":{\"type\":\"object\",\"description\":\"One a line; "
    "docs/worker-protocol.md\",\"required\":[\"t\"]},"
    "\"WorkerAnswer\":{\"type\":\"object\",\"description\":\"One a line\","
    "\"required\":[\"status\"],\"properties\":{\"status\":"
    "{\"type\":\"string\",\"enum\":[\"accepted\",\"duplicate\",\"fenced\",\"invalid\",\"retry\"]},"
    "\"detail\":{\"type\":\"string\"}}}";

static const struct {
    const char *name, *schema, *text;
} parameters[] = {
    {"wait", "{\"type\":\"integer\",\"minimum\":0,\"maximum\":60}",
     "Seconds to wait for the next change; Prefer: wait=N waits for the end"},
    {"include", "{\"type\":\"string\",\"enum\":[\"input\"]}", "Show the input too"},
    {"last_event_id", "{\"type\":\"string\"}", "For who cannot send the header Last-Event-ID"},
    {"status", "{\"type\":\"string\"}", "A comma-separated list"},
    {"model", "{\"type\":\"string\"}", "A name, or name:version"},
    {"tenant", "{\"type\":\"string\"}",
     "One tenant's; others than the caller's own need the scope admin"},
    {"priority", "{\"type\":\"string\"}", "A comma-separated list"},
    {"created_after", "{\"type\":\"string\",\"format\":\"date-time\"}",
     "Only tasks created after this time"},
    {"cursor", "{\"type\":\"string\"}", "What \\\"next\\\" of the page before said"},
    {"limit", "{\"type\":\"integer\",\"minimum\":1,\"maximum\":200,\"default\":50}",
     "Tasks a page"},
    {"name", "{\"type\":\"string\",\"maxLength\":255}", "The file's name"},
    {"sha256", "{\"type\":\"string\",\"pattern\":\"^[0-9a-f]{64}$\"}",
     "Checked against the bytes that come"},
    {"task", "{\"type\":\"string\"}", "Workers: the task the file is for"},
    {"token", "{\"type\":\"integer\"}", "Workers: the lease's token"},
    {"verbose", "{\"type\":\"string\"}", "Say more"},
};

static void put_names(Buf *b, const char *names[], size_t n)
{
    for (size_t i = 0; i < n; i++) buf_printf(b, "%s\"%s\"", i ? "," : "", names[i]);
}

static void put_schemas(Buf *b)
{
    const char *codes[CODES], *fails[FAILS];
    size_t codes_len = 0, fails_len = 0;
    for (int c = CODE_OK + 1; c < CODES; c++) codes[codes_len++] = code_name((Code)c);
    for (int f = FAIL_NONE + 1; f < FAILS; f++) fails[fails_len++] = fail_name((FailCode)f);
    const char *at = strstr(schemas, "%CODES%"), *at2 = strstr(schemas, "%FAILS%");
    buf_put(b, schemas, (size_t)(at - schemas));
    put_names(b, codes, codes_len);
    at += 7;
    buf_put(b, at, (size_t)(at2 - at));
    put_names(b, fails, fails_len);
    buf_puts(b, at2 + 7);
}

static void put_parameter(Buf *b, const char *name, size_t n, const char *in, const char *schema,
                          const char *text, bool required)
{
    buf_printf(b, "%s{\"name\":\"%.*s\",\"in\":\"%s\"%s,\"schema\":%s",
               b->data[b->len - 1] == '[' ? "" : ",", (int)n, name, in,
               required ? ",\"required\":true" : "", schema);
    if (text) buf_printf(b, ",\"description\":\"%s\"", text);
    buf_putc(b, '}');
}

static void put_parameters(Buf *b, const Route *r)
{
    buf_puts(b, ",\"parameters\":[");
    for (const char *p = strchr(r->pattern, '{'); p; p = strchr(p + 1, '{'))
        put_parameter(b, p + 1, (size_t)(strchr(p, '}') - p - 1), "path", "{\"type\":\"string\"}",
                      NULL, true);
    for (const char *q = r->query; *q;) {
        size_t n = strcspn(q, " ");
        for (size_t i = 0; i < ARRAY_LEN(parameters); i++)
            if (strlen(parameters[i].name) == n && memcmp(parameters[i].name, q, n) == 0)
                put_parameter(b, q, n, "query", parameters[i].schema, parameters[i].text, false);
        q += n;
        while (*q == ' ') q++;
    }
    if (r->handle == submit_post || r->handle == tasks_retry)
        put_parameter(
            b, "Idempotency-Key", 15, "header", "{\"type\":\"string\",\"maxLength\":257}",
            "A quoted string: the same key and body answer with the first task, for 24 h and at "
            "least until it has ended",
            false);
    if (r->handle == submit_post)
        put_parameter(b, "traceparent", 11, "header", "{\"type\":\"string\"}",
                      "W3C trace context, kept with the task", false);
    if (r->handle == submit_post || r->handle == tasks_get)
        put_parameter(
            b, "Prefer", 6, "header", "{\"type\":\"string\"}",
            "wait=N: answer when the task has ended, after N seconds (1 to 60) at the latest",
            false);
    if (r->handle == batch_post)
        put_parameter(b, "Prefer", 6, "header", "{\"type\":\"string\"}",
                      "wait=N: answer each line when its task has ended, after N seconds (1 to 60) "
                      "at the latest; return=minimal: of each task only its id and status",
                      false);
    if (r->handle == events_get)
        put_parameter(b, "Last-Event-ID", 13, "header", "{\"type\":\"string\"}",
                      "Go on after this event", false);
    buf_putc(b, ']');
}

static void put_body(Buf *b, const Route *r)
{
    if (!r->body) return;
    buf_puts(b, ",\"requestBody\":{\"required\":true,\"content\":{");
    if (r->handle == files_post)
        buf_puts(
            b,
            "\"application/octet-stream\":{},"
            "\"multipart/form-data\":{\"schema\":{\"type\":\"object\",\"properties\":"
            "{\"file\":{\"type\":\"string\",\"contentMediaType\":\"application/octet-stream\"}}}}");
    else
        buf_printf(b, "\"%s\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}",
                   r->flags & ROUTE_NDJSON ? "application/x-ndjson" : "application/json", r->body);
    buf_puts(b, "}}");
}

static void put_answers(Buf *b, const Route *r)
{
    buf_printf(b, ",\"responses\":{\"%d\":{\"description\":\"%s\"", r->status,
               http_status_text(r->status));
    const char *type = r->handle == events_get      ? "text/event-stream"
                       : r->flags & ROUTE_NDJSON    ? "application/x-ndjson"
                       : r->handle == files_content ? "*/*"
                       : r->handle == backup_get    ? "application/x-tar"
                       : r->answer                  ? "application/json"
                       : r->handle == worker_stream ? "application/x-ndjson"
                       : r->handle == openapi_get   ? "application/json"
                       : r->handle == ops_home      ? "text/html"
                       : r->status == 204           ? NULL
                                                    : "text/plain";
    if (type && r->answer)
        buf_printf(b, ",\"content\":{\"%s\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}}",
                   type, r->answer);
    else if (type)
        buf_printf(b, ",\"content\":{\"%s\":{}}", type);
    buf_putc(b, '}');
    if (r->handle == submit_post)
        buf_puts(b, ",\"200\":{\"description\":\"The task ended within the wait\","
                    "\"content\":{\"application/json\":{\"schema\":"
                    "{\"$ref\":\"#/components/schemas/Task\"}}}}");
    buf_puts(b, ",\"default\":{\"$ref\":\"#/components/responses/Problem\"}}");
}

static const char *lower_method(HttpMethod m)
{
    return m == HTTP_M_GET ? "get" : m == HTTP_M_POST ? "post" : m == HTTP_M_PUT ? "put" : "delete";
}

static void put_operation(Buf *b, const Route *r)
{
    buf_printf(b, "\"%s\":{\"summary\":\"%s\"", lower_method(r->method), r->summary);
    if (r->flags & ROUTE_OPEN) buf_puts(b, ",\"security\":[]");
    put_parameters(b, r);
    put_body(b, r);
    put_answers(b, r);
    buf_putc(b, '}');
}

static void make(Buf *b)
{
    buf_puts(b, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"Headrace\",\"version\":\"" HR_VERSION
                "\",\"summary\":"
                "\"Asynchronous inference: durable tasks over HTTP\","
                "\"license\":{\"name\":\"Apache-2.0\",\"identifier\":"
                "\"Apache-2.0\"}},\"security\":[{\"key\":[]},{}],\"paths\":{");
    bool first = true;
    for (size_t i = 0; i < routes_len; i++) {
        bool seen = false;
        for (size_t k = 0; k < i; k++) seen |= strcmp(routes[k].pattern, routes[i].pattern) == 0;
        if (seen) continue;
        buf_printf(b, "%s\"%s\":{", first ? "" : ",", routes[i].pattern);
        first = false;
        put_operation(b, &routes[i]);
        for (size_t k = i + 1; k < routes_len; k++) {
            if (strcmp(routes[k].pattern, routes[i].pattern) != 0) continue;
            buf_putc(b, ',');
            put_operation(b, &routes[k]);
        }
        buf_putc(b, '}');
    }
    buf_puts(
        b,
        "},\"components\":{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\","
        "\"description\":"
        "\"A key such as hr_live_…; a server without keys listens on loopback only and needs "
        "none\"}},\"responses\":{"
        "\"Problem\":{\"description\":\"What went wrong and how to mend it\","
        "\"content\":{\"application/problem+json\":"
        "{\"schema\":{\"$ref\":\"#/components/schemas/Problem\"}}}}},\"schemas\":{");
    put_schemas(b);
    buf_puts(b, "}}}");
}

void openapi_get(Exchange *x)
{
    Buf *b = &x->g->openapi;
    if (!b->len) make(b);
    exchange_reply(x, 200, "application/json", buf_str(b));
}
