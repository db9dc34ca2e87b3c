"""Serve a Python function as a model of Headrace's `exec` engine. Standard library only.

A model is one file beside this one:

    from headrace_exec import TaskError, serve

    def run(input, task):
        if "text" not in input:
            raise TaskError("bad_input", "text is missing")
        return {"length": len(input["text"])}

    serve(run)

Headrace starts it once and keeps it alive; what is loaded before `serve` stays loaded. The two talk
in JSON objects, one a line. Lines to the model, on its standard input:

    {"id": "task_1", "op": "run", "attempt": 1, "input": {...}}
    {"id": "task_1", "op": "cancel"}

Lines from the model, on its standard output: the first one when it is ready, then for every task
any number of progress and log lines and exactly one output or error.

    {"ready": true}
    {"id": "task_1", "progress": {"step": 3, "steps": 10}}
    {"id": "task_1", "log": "text"}
    {"id": "task_1", "output": {...}}
    {"id": "task_1", "error": {"code": "bad_input", "message": "...", "retryable": false}}

Standard error is the model's log. When standard input ends, the tasks already received are finished
and the program exits. Try a model by hand with

    echo '{"id":"t","op":"run","attempt":1,"input":{"text":"Guten Tag"}}' | python3 -u model.py
"""

import json
import os
import queue
import sys
import threading
import traceback


class TaskError(Exception):
    """Raised by a model to fail its task with a code of its own.

    `code` is bad_input (the caller's fault), model_error, out_of_memory or a word of yours;
    `retryable` says whether another attempt may succeed.
    """

    def __init__(self, code, message, retryable=False):
        super().__init__(message)
        self.code, self.retryable = code, retryable


class Task:
    """What a model knows about the task it runs, beside the input.

    `id` is the task's name, `attempt` counts from 1, `canceled` turns true when nobody wants the
    output any more: long models look at it between steps and return early with anything.
    """

    def __init__(self, request, send):
        self.id, self.attempt = request["id"], request.get("attempt", 1)
        self.input, self.canceled, self._send = request.get("input"), False, send

    def progress(self, step, steps):
        """Report that `step` of `steps` is done."""
        self._send({"id": self.id, "progress": {"step": step, "steps": steps}})

    def log(self, text):
        """Add a line to the task's own log."""
        self._send({"id": self.id, "log": str(text)})


def serve(run):
    """Answer tasks with `run(input, task)`, one at a time, until standard input ends.

    `input` is the task's input as Python data, `task` a Task. What `run` returns, anything that
    JSON can hold, is the output; an exception is the task's error (model_error unless it is a
    TaskError) and the next task goes on. What `run` prints goes to standard error.
    """
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # a print in the model or its libraries must not break the protocol

    lock = threading.Lock()  # a model may report progress from threads of its own

    def send(message):
        line = json.dumps(message, ensure_ascii=False, allow_nan=False) + "\n"
        with lock:
            stdout.write(line)
            stdout.flush()

    tasks, waiting = {}, queue.SimpleQueue()
    send({"ready": True})
    threading.Thread(target=_read, args=(tasks, waiting, send), daemon=True).start()
    while (task := waiting.get()) is not None:
        try:
            if task.canceled:
                raise TaskError("canceled", "canceled before its start")
            send({"id": task.id, "output": run(task.input, task)})
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more
        except TaskError as e:
            error = {"code": e.code, "message": str(e), "retryable": e.retryable}
            send({"id": task.id, "error": error})
        except Exception as e:
            traceback.print_exc()
            error = {"code": "model_error", "message": f"{type(e).__name__}: {e}"}
            send({"id": task.id, "error": {**error, "retryable": False}})
        tasks.pop(task.id, None)


def _read(tasks, waiting, send):
    """Take requests while the model runs, so that a cancel arrives in time (its own thread)."""
    for line in open(0, encoding="utf-8", errors="replace", closefd=False):
        try:
            request = json.loads(line)
            if request["op"] == "run":
                tasks[request["id"]] = Task(request, send)
                waiting.put(tasks[request["id"]])
            elif request["op"] == "cancel" and request["id"] in tasks:
                tasks[request["id"]].canceled = True
        except Exception as e:
            print(f"headrace_exec: skipped a line: {e!r}: {line[:200]!r}", file=sys.stderr)
    waiting.put(None)
