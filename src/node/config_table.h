/* config_table.h: inside node/config*.c: the table of keys, and how one value is checked and set by
 * it. */
#ifndef NODE_CONFIG_TABLE_H
#define NODE_CONFIG_TABLE_H

#include "node/config.h"

typedef enum {
    KIND_LISTEN, /* char * */
    KIND_PATH,   /* char *, relative ones from the file's folder */
    KIND_PATHS,  /* char **, size_t: a list */
    KIND_BOOL,
    KIND_U32,
    KIND_U64,
    KIND_RATE,   /* double */
    KIND_SIZE,   /* uint64_t, bytes */
    KIND_MS,     /* uint32_t */
    KIND_S,      /* uint32_t */
    KIND_LEVEL,  /* SayLevel */
    KIND_FORMAT, /* SayFormat */
    KIND_NAME,   /* char[64] */
    KIND_SHA256,
    KIND_SCOPES, /* uint32_t: a list */
    KIND_TIME,   /* int64_t, Unix ns */
    KIND_ITEMS,  /* a list of mappings: the section of the same name */
} Kind;

typedef struct {
    const char *section; /* "" = top */
    const char *name;
    Kind kind;
    size_t at;       /* offset in Config, or in the list's item */
    double min, max; /* of numbers, sizes, durations (ms or s) */
    const char *def; /* as it would be written; NULL: none. In a list's item NULL = required */
    const char *help;
} Field;

extern const Field config_fields[];
extern const size_t config_fields_len;

/* A list of mappings in Config. */
typedef struct {
    const char *section;
    size_t len_at, item_size;
    const char *what;
} ItemList;

extern const ItemList config_item_lists[];
extern const size_t config_item_lists_len;

bool config_is_list_section(const char *section);
const Field *config_field(const char *section, Str name); /* NULL: no such key */

/* ---- problems: a line each in why ---- */

typedef struct {
    const char *file; /* or the option's name; NULL: none */
    const char *dir;  /* relative paths start here; NULL: as they are */
    Buf *why;
    int problems;
} Checker;

/* line 0: none; f NULL: no key. */
HR_PRINTF(4, 5)
void config_problem(Checker *k, unsigned line, const Field *f, const char *fmt, ...);
HR_PRINTF(5, 6)
void config_problem_value(Checker *k, unsigned line, const Field *f, Str value, const char *fmt,
                          ...);
void config_problem_unknown(Checker *k, unsigned line, const char *section, Str name);
int config_problems_end(Checker *k) HR_MUST_CHECK; /* 0, or ERR_INVALID when there were problems */

/* ---- values ---- */

/* Sets a key from text; base: the Config, or the list's item. A list gets one value more. Frees
 * what was there. A bad value is a problem and changes nothing. */
void config_set_value(Checker *k, unsigned line, const Field *f, void *base, Str value);
/* The defaults of a list's item, or (list_section NULL) of a Config. */
void config_set_defaults(const char *list_section, void *base);
void config_clear_models(Config *c);
void config_put_amount(Buf *b, Kind kind, double v); /* for people */

#endif
