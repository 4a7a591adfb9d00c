"""Logs of requests that tests make up."""

from idealized_runtime.records import (
    Journal,
)

HEADER = {
    "kind": "api",
    "model": "tiny",
    "hardware": "somewhere",
    "software": "mock 1.0",
    "base_url": "http://127.0.0.1:1/v1",
    "endpoint": "completions",
}


def make_trial(number=0, *, p=16, o=4, start_s=0.1, step_s=0.01, **fields):
    times_s = [start_s + step_s * index for index in range(o)]
    return {
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "trial": number,
        "is_warmup": False,
        "sent_at": "2026-11-21T10:00:00.000001+00:00",
        "definitions": "client-streamed",
        "time_to_first_token_s": times_s[0],
        "chunk_times_s": times_s,
        "runtime_s": times_s[-1] + 0.001,
        "usage": {"prompt_tokens": p, "completion_tokens": o, "prompt_tokens_details": {"cached_tokens": 0}},
        "status": 200,
        **fields,
    }


TRIALS = [make_trial(0, is_warmup=True), make_trial(0), make_trial(1), make_trial(0, p=1, o=1)]


def write_log(path, trials=TRIALS, header=HEADER, *, finish=True):
    with Journal(path, header) as journal:
        journal.start()
        for trial in trials:
            journal.append("trial", trial)
        if finish:
            journal.finish()
    return path
