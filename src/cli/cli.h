/* cli.h: what the subcommands share. main.c has the table of them; each lies in a file of its own
 * name. Terminal facts are read once at the start; results go to stdout, everything else to
 * stderr. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdio.h>

#include "base/base.h"

/* Exit statuses, the same for every command: `headrace help exit-codes`. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,    /* the task failed, was canceled or expired; the log is damaged; … */
    CLI_USAGE = 2,     /* the command line or the configuration is wrong */
    CLI_NO_SERVER = 3, /* nothing answers */
    CLI_REFUSED = 4,   /* the server said no (4xx) */
    CLI_SERVER = 5,    /* the server failed (5xx) */
    CLI_TIMEOUT = 6,   /* the task is not finished yet */
    CLI_INTERRUPTED = 130,
};

/* ---- options and commands (args.c) ---- */

typedef struct {
    const char *name;  /* "models" */
    char letter;       /* 'm' for -m; 0: none */
    const char *value; /* what it takes, as in help ("FILE"); NULL: a flag */
    const char *help;
    const char *words; /* for completion: "a b c"; NULL: by value (FILE, DIR) */
} Option;

typedef struct {
    const Option *option;
    const char *value; /* "" for a flag */
} Given;

struct Command;

typedef struct {
    const struct Command *command;
    const char **words; /* owned array of borrowed texts: what is no option */
    size_t words_len;
    Given *given; /* owned, in order */
    size_t given_len;
} Args;

typedef struct Command {
    const char *name;
    const char *words;   /* after the options in the synopsis: "MODEL", "ID..." */
    const char *summary; /* one line */
    const char *about;   /* a paragraph or NULL */
    const Option *options;
    size_t options_len;
    bool client; /* takes --server, --key-file, --data, --json too */
    size_t words_min, words_max;
    const char *examples;
    int (*run)(const Args *a); /* exit status */
} Command;

extern const Command *const commands[]; /* NULL-ended, in the order of help; defined in main.c */
extern const Option client_options[];
extern const size_t client_options_len;
const Command *command_find(const char *name); /* NULL: none */
/* The i-th option a command takes, its own ones first; NULL at the end. */
const Option *command_option(const Command *c, size_t i);

/* CLI_OK, CLI_USAGE (said on stderr). *ret_help: --help was given. */
int args_parse(const Command *c, int argc, char *const *argv, Args *ret, bool *ret_help);
void args_done(Args *a);
bool args_has(const Args *a, const char *name);
const char *args_text(const Args *a, const char *name, const char *otherwise); /* the last one */
size_t args_each(const Args *a, const char *name, size_t from, const char **ret_value);
/* Whole number in range; an option not given leaves *ret. CLI_USAGE said. */
int args_u64(const Args *a, const char *name, uint64_t min, uint64_t max, uint64_t *ret);
/* "30s", "5m", "1.5h", or seconds. */
int args_seconds(const Args *a, const char *name, double *ret);
void command_print_help(const Command *c, FILE *to);
int help_print(void); /* the overview */
int help_exit_codes(void);

/* ---- saying (cli.c) ---- */

typedef struct {
    bool out_tty, err_tty;
    bool out_colour, err_colour;
    bool utf8;
    int width, height; /* of the terminal; 0 when there is none */
} Terminal;

void terminal_setup(void);
const Terminal *terminal(void);

typedef enum { TONE_PLAIN, TONE_BOLD, TONE_DIM, TONE_RED, TONE_GREEN, TONE_YELLOW, TONE_BLUE } Tone;
const char *tone_begin(bool coloured, Tone t); /* "" when not coloured */
const char *tone_end(bool coloured, Tone t);

/* "error: …" on stderr, and returns status. */
HR_PRINTF(2, 3)
int fail(int status, const char *fmt, ...);
HR_PRINTF(1, 2)
void hint(const char *fmt, ...); /* a line more, dim */

/* Text from elsewhere made harmless for a terminal: no control characters, no escape sequences, no
 * marks that turn the direction, valid UTF-8. lines: newlines and tabs stay. */
void put_clean(Buf *b, Str s, bool lines);
void put_age(Buf *b, int64_t ns); /* "3 s", "2 min", "5 h", "4 d": one unit */
int64_t wall_now_ns(void);
int64_t boot_now_ns(void);
void out_buf(const Buf *b); /* to stdout */

/* ---- tables (table.c) ---- */

#define GRID_COLUMNS_MAX 12
typedef struct {
    const char *title;
    bool right; /* numbers */
    bool flex;  /* may be cut to fit the terminal */
} GridColumn;

typedef struct {
    const GridColumn *columns;
    size_t columns_len;
    struct GridCell *cells; /* owned, row by row */
    size_t cells_len, cells_cap;
} Grid;

void grid_init(Grid *g, const GridColumn *columns, size_t columns_len); /* columns: borrowed */
void grid_done(Grid *g);
void grid_cell(Grid *g, Tone tone, Str text); /* cleaned; the next one in the row */
HR_PRINTF(3, 4)
void grid_cellf(Grid *g, Tone tone, const char *fmt, ...);
/* width 0: as wide as it gets. */
void grid_put(const Grid *g, int width, bool coloured, Buf *ret);
void grid_print(const Grid *g); /* to stdout, fitting it */
size_t text_width(Str s);       /* terminal columns of clean text */

/* ---- progress (progress.c) ---- */

typedef struct {
    const char *label; /* before all else; may be NULL; borrowed */
    bool live;         /* a terminal: one line, redrawn */
    bool shown;        /* there is a line to wipe */
    int64_t start_ns;
    unsigned tick;
    Buf last;         /* what was said last (not live) */
    Buf status;       /* clean */
    const char *note; /* said instead of status; NULL: none */
    int64_t ahead;    /* −1: unknown */
    uint64_t step, steps;
    int64_t step_start_ns; /* when the first step was seen */
    uint64_t step_first;
} Progress;

void progress_init(Progress *p, const char *label, bool live, int64_t now_ns);
void progress_wipe(Progress *p); /* so that something else can be said */
void progress_done(Progress *p); /* wipes the line */
void progress_status(Progress *p, Str status);
/* steps 0: unknown */
void progress_step(Progress *p, uint64_t step, uint64_t steps, int64_t now_ns);
/* Draws when live; else says what changed since the last call, if anything. */
void progress_show(Progress *p, int64_t now_ns);
void progress_put(const Progress *p, int64_t now_ns, int width, bool utf8, Buf *ret); /* the line */

#endif
