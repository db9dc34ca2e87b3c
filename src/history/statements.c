/* statements.c: the schema, and every statement there is. */
#include "history/inside.h"

/* The body comes last, so that looking at a row reads no page of a large one. Kinds are never
 * deleted: there are as many as tenants × their model versions ever used.
 *
 * tasks_by_kind        lists by tenant, model, version: (kind, no), for an index entry ends with
 *                      the row's number
 * tasks_unsuccessful   lists of failed, canceled, expired ones: few, among many
 * tasks_by_finish      the sweep's order, and what lies beyond the log's end
 * tasks_by_expiry      the sweep's order by retention */
const char *const history_schema =
    "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), shard INTEGER NOT NULL,"
    " applied_seq INTEGER NOT NULL, task_rows INTEGER NOT NULL) STRICT;"
    "CREATE TABLE kinds (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL,"
    " version TEXT NOT NULL, UNIQUE (tenant, model, version)) STRICT;"
    "CREATE TABLE tasks (no INTEGER PRIMARY KEY, kind INTEGER NOT NULL, state INTEGER NOT NULL,"
    " class INTEGER NOT NULL, finished_seq INTEGER NOT NULL, created_ns INTEGER NOT NULL,"
    " finished_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL, check_sum INTEGER NOT NULL,"
    " body BLOB NOT NULL) STRICT;"
    "CREATE INDEX tasks_by_kind ON tasks (kind);"
    "CREATE INDEX tasks_unsuccessful ON tasks (kind) WHERE state > 2;"
    "CREATE INDEX tasks_by_finish ON tasks (finished_seq);"
    "CREATE INDEX tasks_by_expiry ON tasks (expires_ns) WHERE expires_ns > 0;"
    "CREATE TABLE files (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,"
    " owner_task INTEGER NOT NULL, size INTEGER NOT NULL, check_sum INTEGER NOT NULL,"
    " body BLOB NOT NULL) STRICT;"
    "CREATE INDEX files_by_task ON files (owner_task);";

_Static_assert(TASK_SUCCEEDED == 2, "the schema says so: tasks_unsuccessful");

/* INDEXED BY makes a statement fail rather than run over the whole table without its index. */
#define TASK_COLUMNS                                                                               \
    "t.no, t.finished_seq, t.created_ns, t.finished_ns, t.expires_ns, t.state, t.class,"           \
    " k.tenant, k.model, k.version, t.check_sum, t.body FROM tasks AS t"                           \
    " LEFT JOIN kinds AS k ON k.id = t.kind"
#define FILE_COLUMNS "no, id, tenant, owner_task, size, check_sum, body FROM files"
#define TASK_VALUES                                                                                \
    "(no, kind, state, class, finished_seq, created_ns, finished_ns, expires_ns, check_sum, body)" \
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
#define FILE_VALUES                                                                                \
    "(no, id, tenant, owner_task, size, check_sum, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"

const char *const history_sql[STMTS] = {
    [STMT_BEGIN] = "BEGIN IMMEDIATE",
    [STMT_COMMIT] = "COMMIT",
    [STMT_ROLLBACK] = "ROLLBACK",
    [STMT_META_PUT] = "UPDATE meta SET applied_seq = ?1, task_rows = ?2 WHERE one = 1",

    [STMT_KIND_FIND] = "SELECT id FROM kinds WHERE tenant = ?1 AND model = ?2 AND version = ?3",
    [STMT_KIND_ADD] = "INSERT INTO kinds (tenant, model, version) VALUES (?1, ?2, ?3)",

    [STMT_TASK_ADD] = "INSERT OR IGNORE INTO tasks " TASK_VALUES,
    [STMT_TASK_REPLACE] = "REPLACE INTO tasks " TASK_VALUES,
    [STMT_TASK_BODY] = "UPDATE tasks SET check_sum = ?2, body = ?3 WHERE no = ?1",
    [STMT_TASK_DELETE] = "DELETE FROM tasks WHERE no = ?1",

    [STMT_FILE_PUT] = "REPLACE INTO files " FILE_VALUES,
    [STMT_FILE_ADD] = "INSERT OR IGNORE INTO files " FILE_VALUES,
    [STMT_FILE_DELETE] = "DELETE FROM files WHERE id = ?1",
    [STMT_FILES_OF_TASK_DELETE] =
        "DELETE FROM files INDEXED BY files_by_task WHERE owner_task = ?1 RETURNING id",

    [STMT_TASK_GET] = "SELECT " TASK_COLUMNS " WHERE t.no = ?1",
    [STMT_FILE_GET] = "SELECT " FILE_COLUMNS " WHERE id = ?1",

    [STMT_LIST_ALL] = "SELECT no, state, class, created_ns FROM tasks"
                      " WHERE no < ?1 ORDER BY no DESC",
    [STMT_LIST_KINDS] = "SELECT id FROM kinds WHERE (?1 IS NULL OR tenant = ?1)"
                        " AND (?2 IS NULL OR model = ?2) AND (?3 IS NULL OR version = ?3)"
                        " LIMIT ?4",
    [STMT_LIST_KIND] = "SELECT no, state, class, created_ns FROM tasks INDEXED BY tasks_by_kind"
                       " WHERE kind = ?1 AND no < ?2 ORDER BY no DESC LIMIT 1",
    [STMT_LIST_KIND_UNSUCCESSFUL] =
        "SELECT no, state, class, created_ns FROM tasks INDEXED BY tasks_unsuccessful"
        " WHERE kind = ?1 AND no < ?2 AND state > 2 ORDER BY no DESC LIMIT 1",

    /* For history_collect: number and a key that rises; ?1 rows at most. */
    [STMT_SWEEP_EXPIRED] = "SELECT no, expires_ns FROM tasks INDEXED BY tasks_by_expiry"
                           " WHERE expires_ns > 0 ORDER BY expires_ns LIMIT ?1",
    [STMT_SWEEP_OLDEST] = "SELECT no, finished_ns FROM tasks INDEXED BY tasks_by_finish"
                          " ORDER BY finished_seq LIMIT ?1",
    [STMT_SWEEP_NEWEST] = "SELECT no, -finished_seq FROM tasks INDEXED BY tasks_by_finish"
                          " ORDER BY finished_seq DESC LIMIT ?1",
    [STMT_PAGES] = "PRAGMA page_count",
    [STMT_FREE_PAGES] = "PRAGMA freelist_count",

    [STMT_SALVAGE_TASKS] = "SELECT " TASK_COLUMNS " WHERE t.no >= ?1 ORDER BY t.no",
    [STMT_SALVAGE_FILES] = "SELECT " FILE_COLUMNS " WHERE no >= ?1 ORDER BY no",
};
