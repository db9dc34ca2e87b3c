/*
 * Runs a fuzz target without libFuzzer: once on nothing, then on every file of the folders (or the
 * files) named on the command line. So the corpus is a regression test with any compiler.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long runs;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;

    if (!file || fstat(fileno(file), &st) != 0) {
        perror(path);
        exit(1);
    }
    /* Exactly as long as the file, so that a sanitizer sees a read past its end. */
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, file) != size) {
        perror(path);
        exit(1);
    }
    fclose(file);
    fprintf(stderr, "%s\n", path); /* the last line names the culprit of a crash */
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    runs++;
}

static void replay_folder(const char *path)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        char name[4096];
        if (entries[i]->d_name[0] != '.' &&
            snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name) < (int)sizeof name)
            replay_file(name);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    static const uint8_t nothing[1];
    struct stat st;

    LLVMFuzzerTestOneInput(nothing, 0);
    runs++;
    for (int i = 1; i < argc; i++) {
        if (stat(argv[i], &st) != 0)
            continue; /* a target without a corpus yet */
        if (S_ISDIR(st.st_mode))
            replay_folder(argv[i]);
        else
            replay_file(argv[i]);
    }
    printf("%lu inputs replayed\n", runs);
    return 0;
}
