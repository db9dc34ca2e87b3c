/* worker.h: the face of src/worker: the worker process. It takes leases from a server over HTTP
 * (docs/worker-protocol.md), runs them in engines, and reports until each report is answered. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/base.h"

typedef struct {
    const char *server_url;        /* "http://host:port" */
    const char *key;               /* of scope "worker"; NULL: none is sent */
    const char *name;              /* NULL: the host's name */
    const char *region;            /* NULL: none */
    const char *const *model_dirs; /* model repositories */
    size_t model_dirs_len;
    const char *cache_dir; /* optimised models; may be NULL */
    const char *work_dir;  /* scratch for input files; made when missing; NULL: below /tmp */
    uint32_t devices;      /* CPU executors; 0: one */
    uint32_t threads;      /* a device; 0: the processors divided by the devices */
    int device_index;      /* the only device of this process; -1: all */
    uint64_t memory_bytes; /* for models, of all devices; 0: what the machine has free */
    const char *ort_path;  /* ONNX Runtime's library; NULL: look for it */
    bool die_with_parent;  /* SIGKILL when the process that started this one ends */
} WorkerOptions;

enum {
    WORKER_EXIT_OK = 0,     /* drained */
    WORKER_EXIT_FAILED = 1, /* cannot start, or ended with work that could not be reported */
    WORKER_EXIT_REFUSED =
        77, /* the server refuses the key or the protocol: no use in trying again */
};

/* Runs until it is drained (by the server, or by SIGTERM or SIGINT: what runs is finished; a second
 * signal hands it back at once). Returns the process's exit code, or ends the process itself when a
 * model cannot be stopped. One call a process. */
int worker_run(const WorkerOptions *o);

#endif
