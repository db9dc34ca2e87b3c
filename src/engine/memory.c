#include "engine/memory.h"

#include <ctype.h>
#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/inside.h"

enum { TREE_MAX = 256, TEXT_MAX = 64 * 1024 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TELLING 0 /* shadow memory and what was freed lately would count */
#else
#define TELLING 1
#endif

/* Files of /proc have no size: read until the end. */
static bool read_proc(const char *path, char text[TEXT_MAX])
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(text, 1, TEXT_MAX - 1, f);
    fclose(f);
    text[n] = 0;
    return n > 0;
}

static uint64_t resident(pid_t pid)
{
    char path[64], text[TEXT_MAX];
    unsigned long long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    /* NOLINTNEXTLINE(cert-err34-c): the kernel's text; its numbers fit */
    if (!read_proc(path, text) || sscanf(text, "%*u %llu", &pages) != 1) return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t proportional(pid_t pid)
{
    char path[64], text[TEXT_MAX];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    const char *at = read_proc(path, text) ? strstr(text, "\nPss:") : NULL;
    return at ? strtoull(at + 5, NULL, 10) * KIB : resident(pid);
}

uint64_t memory_of_self(void)
{
    return TELLING ? resident(getpid()) : 0;
}

/* The children of each of its threads. */
static size_t add_children(pid_t pid, pid_t tree[TREE_MAX], size_t len)
{
    char path[96], text[TEXT_MAX];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    if (!d) return len;
    for (struct dirent *e; (e = readdir(d));) {
        if (!isdigit((unsigned char)e->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", (int)pid, e->d_name);
        if (!read_proc(path, text)) continue;
        char *at = text, *end;
        for (long child; len < TREE_MAX && (child = strtol(at, &end, 10)) > 0 && end != at;
             at = end)
            tree[len++] = (pid_t)child;
    }
    closedir(d);
    return len;
}

uint64_t memory_of_tree(pid_t pid)
{
    pid_t tree[TREE_MAX] = {pid};
    uint64_t sum = 0;
    for (size_t i = 0, len = 1; i < len; i++) {
        sum += proportional(tree[i]);
        len = add_children(tree[i], tree, len);
    }
    return sum;
}

void memory_trim(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
