/* model_yaml.c: libyaml makes a tree of nodes with their lines; tables of keys turn it into a
 * ModelYaml. Faults are collected, so that one look at the file mends them all. The depth is that
 * of the tables: an alias that makes the tree a ring is harmless. */
#include "engine/model_yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum {
    KEYS_MAX = 16,
    TEXT_MAX = 4096,
    TEXTS_MAX = 256,
    LATENT_MAX = 1 << 22, /* values: SDXL's are 2^16 */
    IMAGE_MAX = 1 << 26,  /* values: 4,096 × 4,096 pixels */
};

typedef enum {
    KEY_TEXT,
    KEY_U32,
    KEY_BYTES,
    KEY_BOOL,
    KEY_REAL,
    KEY_DIMS,
    KEY_TEXTS,
    KEY_SECTION
} KeyKind;

typedef struct Key {
    const char *name;
    KeyKind kind;
    size_t offset;          /* in ModelYaml; of a section: its `given`, or NOT_NOTED */
    double least, most;     /* of numbers; KEY_DIMS: of each, and there are exactly 3 */
    const struct Key *keys; /* of a section; ends with a zero name */
} Key;

#define NOT_NOTED  SIZE_MAX
#define AT(member) offsetof(ModelYaml, member)

static const Key onnx_keys[] = {
    {"batch", KEY_BOOL, AT(onnx.batch), 0, 0, NULL},
    {0},
};

static const Key exec_keys[] = {
    {"command", KEY_TEXTS, AT(exec.command), 0, 0, NULL},
    {"start_timeout_s", KEY_U32, AT(exec.start_timeout_s), 1, 86400, NULL},
    {"timeout_s", KEY_U32, AT(exec.timeout_s), 0, 7 * 86400, NULL},
    {0},
};

static const Key diffusion_defaults_keys[] = {
    {"steps", KEY_U32, AT(diffusion.defaults.steps), 1, 1000, NULL},
    {"images", KEY_U32, AT(diffusion.defaults.images), 1, 64, NULL},
    {"guidance", KEY_REAL, AT(diffusion.defaults.guidance), 0, 1000, NULL},
    {"solver", KEY_TEXT, AT(diffusion.defaults.solver), 0, 0, NULL},
    {0},
};

static const Key diffusion_limits_keys[] = {
    {"steps", KEY_U32, AT(diffusion.limits.steps), 1, 1000, NULL},
    {"images", KEY_U32, AT(diffusion.limits.images), 1, 64, NULL},
    {"guidance", KEY_REAL, AT(diffusion.limits.guidance), 0, 1000, NULL},
    {0},
};

static const Key diffusion_keys[] = {
    {"tokenizer", KEY_TEXT, AT(diffusion.tokenizer), 0, 0, NULL},
    {"tokens", KEY_U32, AT(diffusion.tokens), 3, 1024, NULL},
    {"latent", KEY_DIMS, AT(diffusion.latent), 1, 4096, NULL},
    {"image", KEY_DIMS, AT(diffusion.image), 1, 8192, NULL},
    {"timestep_scale", KEY_REAL, AT(diffusion.timestep_scale), 1e-6, 1e6, NULL},
    {"defaults", KEY_SECTION, NOT_NOTED, 0, 0, diffusion_defaults_keys},
    {"limits", KEY_SECTION, NOT_NOTED, 0, 0, diffusion_limits_keys},
    {0},
};

static const Key model_keys[] = {
    {"engine", KEY_TEXT, AT(engine), 0, 0, NULL},
    {"description", KEY_TEXT, AT(description), 0, 0, NULL},
    {"max_batch", KEY_U32, AT(max_batch), 1, 1024, NULL},
    {"batch_delay_ms", KEY_U32, AT(batch_delay_ms), 0, 10000, NULL},
    {"memory", KEY_BYTES, AT(memory_bytes), 1, 0, NULL},
    {"min_warm", KEY_U32, AT(min_warm), 0, 64, NULL},
    {"require_gpu", KEY_BOOL, AT(require_gpu), 0, 0, NULL},
    {"onnx", KEY_SECTION, AT(onnx.given), 0, 0, onnx_keys},
    {"exec", KEY_SECTION, AT(exec.given), 0, 0, exec_keys},
    {"diffusion", KEY_SECTION, AT(diffusion.given), 0, 0, diffusion_keys},
    {0},
};

const char *const model_yaml_engines[] = {"onnx", "diffusion", "exec", "echo", NULL};

typedef struct {
    const char *path;
    yaml_document_t doc;
    ModelYaml *out;
    Buf *problems;
    bool bad;
} Reader;

/* ---- faults ---- */

HR_PRINTF(3, 4)
static void fault(Reader *r, size_t line, const char *fmt, ...)
{
    if (line)
        buf_printf(r->problems, "%s:%zu: ", r->path, line);
    else
        buf_printf(r->problems, "%s: ", r->path);
    size_t from = r->problems->len;
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(r->problems, fmt, ap);
    va_end(ap);
    for (size_t i = from; i < r->problems->len; i++) /* one fault, one line */
        if (r->problems->data[i] < 0x20) r->problems->data[i] = ' ';
    buf_putc(r->problems, '\n');
    r->bad = true;
}

static size_t line_of(const yaml_node_t *n)
{
    return n->start_mark.line + 1;
}

static void unknown_key(Reader *r, const yaml_node_t *at, Str got, const Key *keys)
{
    const char *names[KEYS_MAX + 1] = {0};
    Buf known = {0};
    for (size_t i = 0; keys[i].name; i++) {
        CHECK(i < KEYS_MAX);
        names[i] = keys[i].name;
        buf_printf(&known, "%s%s", i ? ", " : "", keys[i].name);
    }
    const char *near = nearest_name(got, names);
    if (near) {
        fault(r, line_of(at), "unknown key '%.*s'; did you mean '%s'?", STR_ARG(got), near);
    } else {
        fault(r, line_of(at), "unknown key '%.*s'; known here: %s", (int)MIN(got.n, 64), got.p,
              buf_z(&known));
    }
    buf_done(&known);
}

/* ---- values ---- */

static Str scalar(const yaml_node_t *n)
{
    return (Str){(const char *)n->data.scalar.value, n->data.scalar.length};
}

static bool read_real(Str s, double *ret)
{
    char z[32];
    if (s.n == 0 || s.n >= sizeof z || strspn(s.p, "0123456789.eE+-") < s.n) return false;
    memcpy(z, s.p, s.n);
    z[s.n] = 0;
    char *end;
    double v = strtod(z, &end);
    if (end != z + s.n) return false;
    *ret = v;
    return true;
}

/* "1073741824", "512 MiB", "24GiB". */
static bool read_bytes(Str s, uint64_t *ret)
{
    static const struct {
        const char *unit;
        int shift;
    } units[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    size_t digits = 0;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9') digits++;
    uint64_t v;
    if (parse_u64((Str){s.p, digits}, &v)) return false;
    size_t unit = digits;
    while (unit < s.n && s.p[unit] == ' ') unit++;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (!str_eqz((Str){s.p + unit, s.n - unit}, units[i].unit)) continue;
        if (v > UINT64_MAX >> units[i].shift) return false;
        *ret = v << units[i].shift;
        return true;
    }
    return false;
}

static void read_texts(Reader *r, const Key *key, const yaml_node_t *n, YamlTexts *out)
{
    size_t len = 0;
    if (n->type == YAML_SEQUENCE_NODE)
        len = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
    if (len == 0 || len > TEXTS_MAX) {
        fault(r, line_of(n), "'%s' must be a list of 1 to %d texts, such as [python3, model.py]",
              key->name, TEXTS_MAX);
        return;
    }
    out->at = mem_new((len + 1) * sizeof *out->at);
    for (size_t i = 0; i < len; i++) {
        yaml_node_t *item = yaml_document_get_node(&r->doc, n->data.sequence.items.start[i]);
        if (item->type != YAML_SCALAR_NODE || scalar(item).n > TEXT_MAX ||
            strlen(scalar(item).p) != scalar(item).n) {
            fault(r, line_of(item), "item %zu of '%s' must be a text of at most %d bytes", i + 1,
                  key->name, TEXT_MAX);
            return;
        }
        out->at[out->len++] = mem_dup(scalar(item).p, scalar(item).n);
    }
}

static void read_dims(Reader *r, const Key *key, const yaml_node_t *n, YamlDims *out)
{
    YamlDims dims = {0};
    bool ok = n->type == YAML_SEQUENCE_NODE &&
              n->data.sequence.items.top - n->data.sequence.items.start == 3;
    for (size_t i = 0; ok && i < 3; i++) {
        yaml_node_t *item = yaml_document_get_node(&r->doc, n->data.sequence.items.start[i]);
        ok = item->type == YAML_SCALAR_NODE && parse_i64(scalar(item), &dims.at[i]) == 0 &&
             (double)dims.at[i] >= key->least && (double)dims.at[i] <= key->most;
        dims.len++;
    }
    if (!ok) {
        fault(r, line_of(n),
              "'%s' must be [channels, height, width], whole numbers from %.0f to %.0f", key->name,
              key->least, key->most);
        return;
    }
    *out = dims;
}

static void read_section(Reader *r, const char *name, const yaml_node_t *n, const Key *keys);

static void read_value(Reader *r, const Key *key, const yaml_node_t *n)
{
    char *base = (char *)r->out;
    if (key->kind == KEY_SECTION) {
        if (key->offset != NOT_NOTED) *(bool *)(void *)(base + key->offset) = true;
        read_section(r, key->name, n, key->keys);
        return;
    }
    void *out = base + key->offset;
    if (key->kind == KEY_TEXTS) {
        read_texts(r, key, n, out);
        return;
    }
    if (key->kind == KEY_DIMS) {
        read_dims(r, key, n, out);
        return;
    }
    if (n->type != YAML_SCALAR_NODE) {
        fault(r, line_of(n), "'%s' must be a single value", key->name);
        return;
    }
    Str s = scalar(n);
    int shown = (int)MIN(s.n, 64);
    uint64_t u;
    double v;
    switch (key->kind) {
    case KEY_TEXT:
        if (s.n == 0 || s.n > TEXT_MAX || strlen(s.p) != s.n) {
            fault(r, line_of(n), "'%s' must be a text of 1 to %d bytes", key->name, TEXT_MAX);
            return;
        }
        *(char **)out = mem_dup(s.p, s.n);
        return;
    case KEY_U32:
        if (parse_u64(s, &u) || (double)u < key->least || (double)u > key->most) {
            fault(r, line_of(n), "'%s' must be a whole number from %.0f to %.0f, not '%.*s'",
                  key->name, key->least, key->most, shown, s.p);
            return;
        }
        *(uint32_t *)out = (uint32_t)u;
        return;
    case KEY_BYTES:
        if (!read_bytes(s, &u) || u == 0) {
            fault(r, line_of(n), "'%s' must be a size such as 512MiB or 24GiB, not '%.*s'",
                  key->name, shown, s.p);
            return;
        }
        *(uint64_t *)out = u;
        return;
    case KEY_BOOL:
        if (!str_eqz(s, "true") && !str_eqz(s, "false")) {
            fault(r, line_of(n), "'%s' must be true or false, not '%.*s'", key->name, shown, s.p);
            return;
        }
        *(bool *)out = s.p[0] == 't';
        return;
    case KEY_REAL:
        if (!read_real(s, &v) || !(v >= key->least && v <= key->most)) {
            fault(r, line_of(n), "'%s' must be a number from %g to %g, not '%.*s'", key->name,
                  key->least, key->most, shown, s.p);
            return;
        }
        *(double *)out = v;
        return;
    default:
        CHECK(!"a kind of key without a reader");
    }
}

/* name is NULL for the whole file. */
static void read_section(Reader *r, const char *name, const yaml_node_t *n, const Key *keys)
{
    if (n->type != YAML_MAPPING_NODE) {
        if (name)
            fault(r, line_of(n), "'%s' must hold keys with values", name);
        else
            fault(r, line_of(n), "must hold keys with values, such as 'engine: onnx'");
        return;
    }
    bool seen[KEYS_MAX] = {0};
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        yaml_node_t *k = yaml_document_get_node(&r->doc, p->key);
        yaml_node_t *v = yaml_document_get_node(&r->doc, p->value);
        if (k->type != YAML_SCALAR_NODE) {
            fault(r, line_of(k), "a key must be a word");
            continue;
        }
        size_t i = 0;
        while (keys[i].name && !str_eqz(scalar(k), keys[i].name)) i++;
        if (!keys[i].name) {
            unknown_key(r, k, scalar(k), keys);
        } else if (seen[i]) {
            fault(r, line_of(k), "key '%s' is given twice", keys[i].name);
        } else {
            seen[i] = true;
            read_value(r, &keys[i], v);
        }
    }
}

/* ---- the whole ---- */

static void require(Reader *r, bool given, const char *what)
{
    if (!given) fault(r, 0, "%s", what);
}

/* So that a full batch of them is a tensor that the engine can hold. */
static void check_floats(Reader *r, const char *name, const YamlDims *dims, int64_t most)
{
    if (dims->len == 3 && dims->at[0] * dims->at[1] * dims->at[2] > most)
        fault(r, 0, "diffusion.%s makes more than %lld values", name, (long long)most);
}

static void check_solver(Reader *r)
{
    static const char *const solvers[] = {"euler", "ab2", NULL};
    const char *got = r->out->diffusion.defaults.solver;
    if (!got || strcmp(got, "euler") == 0 || strcmp(got, "ab2") == 0) return;
    const char *near = nearest_name(str_from(got), solvers);
    fault(r, 0, "unknown diffusion.defaults.solver '%.64s'; %s", got,
          near ? near : "it is euler or ab2");
}

/* What the tables cannot say. */
static void check(Reader *r)
{
    ModelYaml *y = r->out;
    if (y->engine) {
        size_t i = 0;
        while (model_yaml_engines[i] && strcmp(y->engine, model_yaml_engines[i]) != 0) i++;
        if (!model_yaml_engines[i]) {
            const char *near = nearest_name(str_from(y->engine), model_yaml_engines);
            if (near)
                fault(r, 0, "unknown engine '%.64s'; did you mean '%s'?", y->engine, near);
            else
                fault(r, 0, "unknown engine '%.64s'; it is onnx, diffusion, exec or echo",
                      y->engine);
            return;
        }
    }
    const char *engine = y->engine ? y->engine : "onnx";
    const struct {
        const char *name;
        bool given;
    } sections[] = {
        {"onnx", y->onnx.given}, {"exec", y->exec.given}, {"diffusion", y->diffusion.given}};
    for (size_t i = 0; i < ARRAY_LEN(sections); i++)
        if (sections[i].given && strcmp(sections[i].name, engine) != 0)
            fault(r, 0, "section '%s' is for models of 'engine: %s'; this one is of '%s'",
                  sections[i].name, sections[i].name, engine);
    if (strcmp(engine, "exec") == 0)
        require(r, y->exec.command.len > 0,
                "'engine: exec' needs its program: 'exec: {command: [python3, model.py]}'");
    if (strcmp(engine, "diffusion") == 0) {
        require(r, y->diffusion.tokens > 0, "'engine: diffusion' needs diffusion.tokens");
        require(r, y->diffusion.latent.len == 3,
                "'engine: diffusion' needs diffusion.latent: [channels, height, width]");
        require(r, y->diffusion.image.len == 3,
                "'engine: diffusion' needs diffusion.image: [channels, height, width]");
        if (y->diffusion.image.len == 3 && y->diffusion.image.at[0] != 3)
            fault(r, 0, "diffusion.image must have 3 channels (red, green, blue), not %lld",
                  (long long)y->diffusion.image.at[0]);
        if (y->diffusion.defaults.steps > y->diffusion.limits.steps ||
            y->diffusion.defaults.images > y->diffusion.limits.images ||
            y->diffusion.defaults.guidance > y->diffusion.limits.guidance)
            fault(r, 0, "a value in diffusion.defaults is over its own in diffusion.limits");
        check_floats(r, "latent", &y->diffusion.latent, LATENT_MAX);
        check_floats(r, "image", &y->diffusion.image, IMAGE_MAX);
        check_solver(r);
    }
}

void model_yaml_defaults(ModelYaml *y)
{
    *y = (ModelYaml){
        .onnx.batch = true,
        .exec.start_timeout_s = 60,
        .diffusion = {.timestep_scale = 1000,
                      .defaults = {.steps = 20, .images = 1, .guidance = 3},
                      .limits = {.steps = 100, .images = 8, .guidance = 20}},
    };
}

int model_yaml_parse(const char *path, Str text, ModelYaml *ret, Buf *problems)
{
    ModelYaml y;
    model_yaml_defaults(&y);
    Reader r = {.path = path, .out = &y, .problems = problems};
    if (text.n > MODEL_YAML_MAX) {
        fault(&r, 0, "is longer than %d KiB", MODEL_YAML_MAX / 1024);
        return ERR_INVALID;
    }
    yaml_parser_t parser;
    CHECK(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
    if (!yaml_parser_load(&parser, &r.doc)) {
        fault(&r, (parser.problem_mark.line ? parser.problem_mark : parser.context_mark).line + 1,
              "%s%s%s", parser.problem ? parser.problem : "cannot be read",
              parser.context ? " " : "", parser.context ? parser.context : "");
    } else {
        yaml_node_t *root = yaml_document_get_root_node(&r.doc);
        if (root) read_section(&r, NULL, root, model_keys);
        if (!r.bad) check(&r); /* an empty file says nothing, and that may be enough */
        yaml_document_delete(&r.doc);
    }
    yaml_parser_delete(&parser);
    if (r.bad) {
        model_yaml_done(&y);
        return ERR_INVALID;
    }
    *ret = y;
    return 0;
}

void model_yaml_done(ModelYaml *y)
{
    mem_free(y->engine);
    mem_free(y->description);
    for (size_t i = 0; i < y->exec.command.len; i++) mem_free(y->exec.command.at[i]);
    mem_free(y->exec.command.at);
    mem_free(y->diffusion.tokenizer);
    mem_free(y->diffusion.defaults.solver);
    *y = (ModelYaml){0};
}
