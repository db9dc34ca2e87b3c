/* headrace sim: the simulator (src/sim). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "sim/judge_file.h"
#include "sim/sim.h"

#define SEEDS_DEFAULT  20
#define SEED_CPU_S_MAX 30 /* a seed takes some 0.1 s, with sanitizers 2 */

static const Option options[] = {
    {"faults", 0, NULL, "with faults (without: calm worlds)", NULL},
    {"seed", 0, "N", "this seed only; with --minutes: begin there", NULL},
    {"seeds", 0, "A..B|FILE", "these seeds; a file has one a line, and comments after '#'", NULL},
    {"minutes", 0, "M", "fresh seeds until the time is up", NULL},
    {"profile", 0, "NAME", "swarm (default) or calm", "swarm calm"},
    {"judge", 0, "FILE", "judge what clients of a real server wrote down; no simulation", NULL},
    {"trace", 0, NULL, "print the seed's trace", NULL},
    {"keep-going", 0, NULL, "do not stop at the first failure", NULL},
};

typedef struct {
    uint64_t first, last;
    int64_t until_ns; /* boot time; 0: none */
    const char *file; /* of seeds, or NULL */
    bool keep_going, faults;
    SimOptions o;

    uint64_t seeds, failures, hash;
    int64_t simulated_ns;
    SimResult sum;
} Runs;

static uint64_t current_seed;

/* A CHECK of ours failed, or a seed takes for ever: say in which. */
static void on_signal(int sig)
{
    char line[80] = "seed ";
    size_t n = strlen(line);
    char digits[24];
    size_t at = sizeof digits;
    uint64_t v = current_seed;
    do digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    memcpy(line + n, digits + at, sizeof digits - at);
    n += sizeof digits - at;
    memcpy(line + n, sig == SIGABRT ? ": a CHECK failed\n" : ": it does not end\n", 18);
    n += strlen(line + n);
    if (write(STDOUT_FILENO, line, n) < 0) _exit(1);
    signal(sig, SIG_DFL);
    if (sig != SIGABRT) _exit(1);
}

static void run_one(Runs *r, uint64_t seed)
{
    SimResult x = {0};
    current_seed = seed;
    const struct itimerval limit = {.it_value.tv_sec = SEED_CPU_S_MAX};
    (void)setitimer(ITIMER_VIRTUAL, &limit, NULL);
    sim_run(seed, &r->o, &x);
    r->seeds++;
    r->simulated_ns += x.simulated_ns;
    r->hash = chain64(r->hash, &x.hash, sizeof x.hash);
    for (int i = 0; i < HAPS; i++) r->sum.haps[i] += x.haps[i];
    r->sum.submits += x.submits;
    r->sum.tasks += x.tasks;
    r->sum.leases += x.leases;
    r->sum.reads += x.reads;
    r->sum.restarts += x.restarts;
    r->sum.records += x.records;
    if (x.invariant) {
        r->failures++;
        printf("seed %llu: invariant %d at %lld.%03lld s: %.*s\n"
               "  replay: headrace sim %s--seed %llu --trace\n",
               (unsigned long long)seed, x.invariant, (long long)(x.at_ns / NS_PER_S),
               (long long)(x.at_ns % NS_PER_S / NS_PER_MS), STR_ARG(buf_str(&x.why)),
               r->faults ? "--faults " : "", (unsigned long long)seed);
        fflush(stdout);
    }
    sim_result_done(&x);
}

static void summary(const Runs *r, int64_t wall_ns)
{
    int64_t cpu_ns = (int64_t)clock() * (NS_PER_S / CLOCKS_PER_SEC);
    printf("%llu seeds, %llu failed; %lld s simulated in %lld.%02lld s (%lld times real time, %lld "
           "times the CPU's); hash %016llx\n",
           (unsigned long long)r->seeds, (unsigned long long)r->failures,
           (long long)(r->simulated_ns / NS_PER_S), (long long)(wall_ns / NS_PER_S),
           (long long)(wall_ns % NS_PER_S / (10 * NS_PER_MS)),
           (long long)(r->simulated_ns / MAX(wall_ns, 1)),
           (long long)(r->simulated_ns / MAX(cpu_ns, 1)), (unsigned long long)r->hash);
    printf("%llu submits, %llu accepted, %llu leases, %llu reads, %llu records, %llu restarts\n",
           (unsigned long long)r->sum.submits, (unsigned long long)r->sum.tasks,
           (unsigned long long)r->sum.leases, (unsigned long long)r->sum.reads,
           (unsigned long long)r->sum.records, (unsigned long long)r->sum.restarts);
    const char *sep = "faults: ";
    for (int i = 0; i < HAPS; i++) {
        if (!r->sum.haps[i]) continue;
        printf("%s%llu %s", sep, (unsigned long long)r->sum.haps[i], hap_names[i]);
        sep = ", ";
    }
    if (*sep == ',') putchar('\n');
}

/* Runs the seeds of a file. */
static int run_file(const char *path, Runs *r)
{
    char line[400];
    FILE *f = fopen(path, "r");
    if (!f)
        return fail(CLI_USAGE, "--seeds takes a range such as 1..100 or a file, not '%s'", path);
    while (fgets(line, sizeof line, f) && (!r->failures || r->keep_going)) {
        uint64_t seed;
        if (parse_u64((Str){line, strcspn(line, " #\n")}, &seed) == 0) run_one(r, seed);
    }
    fclose(f);
    return CLI_OK;
}

static int read_range(const char *text, Runs *r)
{
    const char *dots = text ? strstr(text, "..") : NULL;
    if (!text) return CLI_OK;
    if (!dots || strchr(text, '/')) {
        r->file = text;
        return CLI_OK;
    }
    if (dots && parse_u64((Str){text, (size_t)(dots - text)}, &r->first) == 0 &&
        parse_u64(str_from(dots + 2), &r->last) == 0 && r->first <= r->last)
        return CLI_OK;
    return fail(CLI_USAGE, "--seeds takes a range such as 1..100, not '%s'", text);
}

/* The checker of the simulator on a history of the end-to-end tests. */
static int judge(const char *path)
{
    Buf said = {0};
    int broken = 0, err = judge_file(path, &broken, &said);
    if (err)
        fail(CLI_FAILED, "%s: %s\n%.*s", path, err_text(err), STR_ARG(buf_str(&said)));
    else
        printf("%.*s%s", STR_ARG(buf_str(&said)), broken ? "" : "\n");
    buf_done(&said);
    return err || broken ? CLI_FAILED : CLI_OK;
}

static int run(const Args *a)
{
    if (args_has(a, "judge")) return judge(args_text(a, "judge", NULL));
    Runs r = {.first = 1, .last = SEEDS_DEFAULT, .keep_going = args_has(a, "keep-going")};
    uint64_t minutes = 0, seed = 0;
    r.faults = args_has(a, "faults");
    r.o = (SimOptions){.profile = args_text(a, "profile", r.faults ? "swarm" : "calm"),
                       .trace = args_has(a, "trace")};
    int status = args_u64(a, "minutes", 1, 100000, &minutes);
    if (status == CLI_OK) status = args_u64(a, "seed", 0, UINT64_MAX, &seed);
    if (status == CLI_OK) status = read_range(args_text(a, "seeds", NULL), &r);
    if (status != CLI_OK) return status;
    if (strcmp(r.o.profile, "swarm") != 0 && strcmp(r.o.profile, "calm") != 0)
        return fail(CLI_USAGE, "--profile takes swarm or calm, not '%s'", r.o.profile);
    int64_t begin = boot_now_ns();
    if (args_has(a, "seed")) r.first = r.last = seed;
    if (minutes) {
        if (!args_has(a, "seed")) r.first = (uint64_t)wall_now_ns() % 1000000000000;
        r.last = UINT64_MAX;
        r.until_ns = begin + (int64_t)minutes * 60 * NS_PER_S;
        printf("seeds from %llu\n", (unsigned long long)r.first);
        fflush(stdout);
    }
    say_setup(r.o.trace ? SAY_INFO : (SayLevel)(SAY_ERROR + 1), SAY_TEXT, "sim");
    signal(SIGABRT, on_signal);
    signal(SIGVTALRM, on_signal);
    if (r.file) status = run_file(r.file, &r);
    for (uint64_t i = r.first; !r.file; i++) {
        run_one(&r, i);
        if (i == r.last || (r.failures && !r.keep_going)) break;
        if (r.until_ns && boot_now_ns() >= r.until_ns) break;
    }
    if (status != CLI_OK) return status;
    summary(&r, boot_now_ns() - begin);
    return r.failures ? CLI_FAILED : CLI_OK;
}

const Command command_sim = {
    .name = "sim",
    .words = "",
    .summary = "Simulate the server under faults, to find its mistakes",
    .about =
        "Runs the server's own code in one process under a simulated clock, disk, network and\n"
        "devices, a world a seed, and judges what clients, workers and the log saw. A seed\n"
        "gives the same world, and the same hash, every time.",
    .options = options,
    .options_len = ARRAY_LEN(options),
    .examples = "  headrace sim --faults --seeds 1..200\n"
                "  headrace sim --faults --minutes 10\n"
                "  headrace sim --faults --seed 4711 --trace | less\n",
    .run = run,
};
