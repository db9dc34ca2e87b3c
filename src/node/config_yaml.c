/* The YAML file: keys and values by the table. libyaml's document interface is used because its
 * nodes know their lines. */
#include "node/config_table.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define ITEMS_MAX       10000
#define PROBLEMS_ENOUGH 500 /* then a mapping is rubbish: its keys are no longer compared */

static Str scalar_of(const yaml_node_t *n)
{
    return (Str){(const char *)n->data.scalar.value, n->data.scalar.length};
}

static unsigned line_of(const yaml_node_t *n)
{
    return (unsigned)n->start_mark.line + 1;
}

static const char *node_kind(const yaml_node_t *n)
{
    return n->type == YAML_SCALAR_NODE     ? "a single value"
           : n->type == YAML_SEQUENCE_NODE ? "a list"
                                           : "a mapping";
}

static bool is_section(Str name)
{
    for (size_t i = 0; i < config_fields_len; i++)
        if (*config_fields[i].section && !config_is_list_section(config_fields[i].section) &&
            str_eqz(name, config_fields[i].section))
            return true;
    return false;
}

/* A mapping's keys: no duplicates, all of them scalars. */
static bool check_key(Checker *k, yaml_document_t *doc, const yaml_node_t *map,
                      const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
    if (key->type != YAML_SCALAR_NODE) {
        config_problem(k, line_of(key), NULL, "a key is a name, not %s", node_kind(key));
        return false;
    }
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < pair; p++) {
        const yaml_node_t *other = yaml_document_get_node(doc, p->key);
        if (other->type != YAML_SCALAR_NODE || !str_eq(scalar_of(other), scalar_of(key))) continue;
        config_problem_value(k, line_of(key), NULL, scalar_of(key),
                             "is there already, on line %u: remove one", line_of(other));
        return false;
    }
    return true;
}

/* A list of values replaces what is there. */
static void empty_list(const Field *f, void *c)
{
    if (f->kind == KIND_PATHS) config_clear_models(c);
    if (f->kind == KIND_SCOPES) *(uint32_t *)(void *)((char *)c + f->at) = 0;
}

static void read_list(Checker *k, yaml_document_t *doc, const Field *f, void *c,
                      const yaml_node_t *list)
{
    const yaml_node_item_t *i = list->data.sequence.items.start,
                           *end = list->data.sequence.items.top;
    if (i == end && f->kind == KIND_SCOPES)
        config_problem(k, line_of(list), f, "is empty: such a key could do nothing");
    empty_list(f, c);
    for (; i < end; i++) {
        const yaml_node_t *n = yaml_document_get_node(doc, *i);
        if (n->type == YAML_SCALAR_NODE)
            config_set_value(k, line_of(n), f, c, scalar_of(n));
        else
            config_problem(k, line_of(n), f, "is a list of single values, not of %s", node_kind(n));
    }
}

static void read_items(Checker *k, yaml_document_t *doc, const Field *f, Config *c,
                       const yaml_node_t *list);

static void read_field(Checker *k, yaml_document_t *doc, const Field *f, void *c,
                       const yaml_node_t *n)
{
    bool takes_list = f->kind == KIND_PATHS || f->kind == KIND_SCOPES;
    if (f->kind == KIND_ITEMS) {
        read_items(k, doc, f, c, n);
    } else if (n->type == YAML_SEQUENCE_NODE && takes_list) {
        read_list(k, doc, f, c, n);
    } else if (n->type == YAML_SCALAR_NODE) {
        empty_list(f, c);
        config_set_value(k, line_of(n), f, c, scalar_of(n));
    } else {
        config_problem(k, line_of(n), f, "is %s, but should be %s", node_kind(n),
                       takes_list ? "a list of values" : "a single value");
    }
}

/* One item of keys: or tenants:. Every item begins with its name. */
static void read_item(Checker *k, yaml_document_t *doc, const ItemList *l, void *item,
                      const yaml_node_t *n)
{
    uint64_t seen = 0;
    if (n->type != YAML_MAPPING_NODE) {
        config_problem(k, line_of(n), NULL, "%s: %s is a mapping (- name: …), not %s", l->section,
                       l->what, node_kind(n));
        return;
    }
    config_set_defaults(l->section, item);
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
         p++) {
        if (k->problems > PROBLEMS_ENOUGH) break;
        if (!check_key(k, doc, n, p)) continue;
        const yaml_node_t *key = yaml_document_get_node(doc, p->key);
        const Field *f = config_field(l->section, scalar_of(key));
        if (!f) {
            config_problem_unknown(k, line_of(key), l->section, scalar_of(key));
            continue;
        }
        seen |= UINT64_C(1) << (f - config_fields);
        read_field(k, doc, f, item, yaml_document_get_node(doc, p->value));
    }
    for (size_t i = 0; i < config_fields_len; i++)
        if (!strcmp(config_fields[i].section, l->section) && !config_fields[i].def &&
            !(seen >> i & 1))
            config_problem(k, line_of(n), NULL, "%s: '%s' is missing: %s", l->section,
                           config_fields[i].name, config_fields[i].help);
}

static void read_items(Checker *k, yaml_document_t *doc, const Field *f, Config *c,
                       const yaml_node_t *list)
{
    const ItemList *l = config_item_lists;
    while (strcmp(l->section, f->name) != 0) l++;
    if (list->type != YAML_SEQUENCE_NODE) {
        bool nothing = list->type == YAML_SCALAR_NODE && scalar_of(list).n == 0;
        config_problem(k, line_of(list), f,
                       "%s, but should be a list: each item begins with '- name: …'",
                       nothing ? "is empty" : node_kind(list));
        return;
    }
    size_t len = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (len > ITEMS_MAX) {
        config_problem(k, line_of(list), f, "has %zu items; at most %d", len, ITEMS_MAX);
        return;
    }
    char *items = len ? mem_new(len * l->item_size) : NULL;
    for (size_t i = 0; i < len; i++) {
        const yaml_node_t *n = yaml_document_get_node(doc, list->data.sequence.items.start[i]);
        char *item = items + i * l->item_size;
        read_item(k, doc, l, item, n);
        for (size_t o = 0; o < i && *item; o++) {
            if (strcmp(items + o * l->item_size, item) != 0) continue;
            config_problem(k, line_of(n), NULL, "%s: the name '%s' is taken by an item above",
                           l->section, item);
            break;
        }
    }
    char **at = (char **)(void *)((char *)c + f->at);
    mem_free(*at);
    *at = items;
    *(size_t *)(void *)((char *)c + l->len_at) = len;
}

static void read_section(Checker *k, yaml_document_t *doc, const char *section, Config *c,
                         const yaml_node_t *map)
{
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        if (k->problems > PROBLEMS_ENOUGH) break;
        if (!check_key(k, doc, map, p)) continue;
        const yaml_node_t *key = yaml_document_get_node(doc, p->key),
                          *value = yaml_document_get_node(doc, p->value);
        Str name = scalar_of(key);
        const Field *f = config_field(section, name);
        if (f) {
            c->lines[f - config_fields] = line_of(value);
            read_field(k, doc, f, c, value);
        } else if (!*section && is_section(name)) {
            char z[32];
            snprintf(z, sizeof z, "%.*s", STR_ARG(name));
            if (value->type == YAML_MAPPING_NODE)
                read_section(k, doc, z, c, value);
            else
                config_problem(k, line_of(key), NULL, "%s: should have its keys below it, indented",
                               z);
        } else {
            config_problem_unknown(k, line_of(key), section, name);
        }
    }
}

static void problem_yaml(Checker *k, const yaml_parser_t *p)
{
    unsigned line = (unsigned)p->problem_mark.line + 1;
    const char *what = p->problem ? p->problem : "cannot be read";
    if (p->context)
        config_problem(k, line, NULL, "no valid YAML: %s %s", what, p->context);
    else
        config_problem(k, line, NULL, "no valid YAML: %s", what);
}

static void read_document(Checker *k, yaml_parser_t *parser, Config *c)
{
    yaml_document_t doc, second;
    if (!yaml_parser_load(parser, &doc)) {
        problem_yaml(k, parser);
        return;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&doc);
    bool empty = !root || (root->type == YAML_SCALAR_NODE && scalar_of(root).n == 0);
    if (!empty && root->type != YAML_MAPPING_NODE)
        config_problem(k, line_of(root), NULL,
                       "should be keys and values ('listen: 127.0.0.1:8700'), not %s",
                       node_kind(root));
    else if (!empty)
        read_section(k, &doc, "", c, root);
    yaml_document_delete(&doc);
    if (!root) return; /* the stream's end */
    if (!yaml_parser_load(parser, &second)) {
        problem_yaml(k, parser);
        return;
    }
    root = yaml_document_get_root_node(&second);
    if (root)
        config_problem(k, line_of(root), NULL,
                       "a second document ('---'): only one is read; join them");
    yaml_document_delete(&second);
}

int config_parse(Str yaml, const char *file, const char *dir, Config *ret, Buf *why)
{
    Config c;
    Checker k = {.file = file, .dir = dir, .why = why};
    config_defaults(&c);
    c.file = mem_dup(file, strlen(file));
    c.lines = mem_new(config_fields_len * sizeof *c.lines);
    yaml_parser_t parser;
    CHECK(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml.p, yaml.n);
    read_document(&k, &parser, &c);
    yaml_parser_delete(&parser);
    int err = config_problems_end(&k);
    if (err) config_done(&c);
    *ret = c;
    return err;
}
