"""Our profiler of APIs against GuideLLM, on GuideLLM's own mock server.

The server waits 150 ms before the first token and 10 ms before each further one. Both tools send it streamed requests
of 32 prompt and 32 output tokens, one after the other, in turn (A B A B ...); a ratio is taken within its round. Ours
also fits the denoised runtime model over three prompt and three output sizes, whose parameters are known: the
server's time does not depend on the prompt, and sleeps a little longer than asked to.

Run:  python benchmarks/api.py [--rounds 5] [--requests 10]      (`make benchmarks` makes .servers/)
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.denoised import fit_denoised
from idealized_runtime.records import read_requests, read_trials
from idealized_runtime.records.importers import import_requests

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / ".servers"
TTFT_MS, ITL_MS = 150, 10
NUM_PROMPT_TOKENS = NUM_OUTPUT_TOKENS = 32
MEASURES = ("time_to_first_token_s", "time_per_output_token_s", "runtime_s")
_START_S = 120


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running(command: list, port: int, **environment) -> Iterator[str]:
    """A server started by a command, once it listens; gives its address, ends it afterwards."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output,
                                   env={**os.environ, "HF_HUB_OFFLINE": "1", **environment})  # fmt: skip
        try:
            end_s = time.monotonic() + _START_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > end_s:
                    output.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {output.read()[-2000:]}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _listens(port) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def mock_server():
    """GuideLLM's server of known speed."""
    port = free_port()
    command = [SERVERS / "guidellm/bin/guidellm", "mock-server", "--port", port, "--model", "mock",
               "--ttft-ms", TTFT_MS, "--itl-ms", ITL_MS]  # fmt: skip
    return running(command, port)


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of single bytes, with what transformers reads; GuideLLM makes its prompts by one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate([*alphabet, "</s>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def profile(base_url: str, log: Path, *, prompt_sizes, output_sizes, num_trials: int, model="mock", extra=()):
    """Log of our profiler, run as a user would."""
    command = [sys.executable, "-m", "idealized_runtime", "api", "profile", "--base-url", base_url, "--model", model,
               "--all-num-input-tokens", *prompt_sizes, "--all-num-output-tokens", *output_sizes,
               "--num-trials", num_trials, "--log", log, *extra]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, env=environment)
    return log


def measure_with_ours(base_url: str, folder: Path, *, num_requests: int) -> pd.DataFrame:
    """Trials of our profiler, one row a request."""
    log = profile(base_url, folder / "ours.jsonl", prompt_sizes=[NUM_PROMPT_TOKENS],
                  output_sizes=[NUM_OUTPUT_TOKENS], num_trials=num_requests)  # fmt: skip
    requests = read_requests(log)
    log.unlink()
    return requests[requests["is_fit"]]


def measure_with_guidellm(base_url: str, folder: Path, *, num_requests: int) -> pd.DataFrame:
    """Requests of a run of GuideLLM, one row each."""
    report = folder / "guidellm.json"
    sizes = f"prompt_tokens={NUM_PROMPT_TOKENS},output_tokens={NUM_OUTPUT_TOKENS}"
    command = [SERVERS / "guidellm/bin/guidellm", "run",
               "--backend", f"kind=openai_http,target={base_url.removesuffix('/v1')},model=mock,"
                            "request_format=/v1/completions",
               "--profile", "kind=synchronous", "--constraint", f"kind=max_requests,count={num_requests}",
               "--tokenizer", f"kind=huggingface_auto,model={write_tokenizer(folder / 'tokenizer')}",
               "--data", f"kind=synthetic_text,{sizes}", "--output", f"kind=json,path={report}",
               "--disable-console"]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, env=environment)
    requests = import_requests(report)
    report.unlink()
    return requests[requests["is_fit"]]


TOOLS = {"ours": measure_with_ours, "GuideLLM": measure_with_guidellm}


def compare_in_turn(base_url: str, folder: Path, *, num_rounds: int, num_requests: int) -> dict[str, pd.DataFrame]:
    """Median of each measure, one row a round, by tool; seconds."""
    medians = {name: [] for name in TOOLS}
    for _ in range(num_rounds):
        for name, measure in TOOLS.items():
            requests = measure(base_url, folder, num_requests=num_requests)
            medians[name].append(requests[list(MEASURES)].median())
    return {name: pd.DataFrame(rows) for name, rows in medians.items()}


def spread(values, digits) -> str:
    low, median, high = np.percentile(values, (25, 50, 75))
    return f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def print_comparison(medians):
    print("| measure | server's flag, ms | ours, ms | GuideLLM, ms | ours / GuideLLM |")
    print("|---|---|---|---|---|")
    flags = (TTFT_MS, ITL_MS, TTFT_MS + (NUM_OUTPUT_TOKENS - 1) * ITL_MS)
    for measure, flag_ms in zip(MEASURES, flags, strict=True):
        ours_s, theirs_s = (medians[name][measure].to_numpy() for name in TOOLS)
        cells = [
            measure,
            f"{flag_ms}",
            spread(1e3 * ours_s, 2),
            spread(1e3 * theirs_s, 2),
            spread(ours_s / theirs_s, 4),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def print_fit(base_url, folder, num_trials):
    sizes = {"prompt_sizes": [1, 64, 256], "output_sizes": [1, 8, 32]}
    log = profile(base_url, folder / "sweep.jsonl", **sizes, num_trials=num_trials)
    model = fit_denoised(read_trials(log), fit=RuntimeModel.fit)
    sums_ms = [1e3 * (model.overhead_s + model.prompt_encoding_time_s(p)) for p in sizes["prompt_sizes"]]
    print(f"denoised fit of {num_trials} trials a setting: g {1e3 * model.time_per_output_token_s:.3f} ms; prompt time "
          f"plus overhead at p = 1, 64, 256: {', '.join(f'{time_ms:.2f}' for time_ms in sums_ms)} ms")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10)
    arguments = parser.parse_args()
    if not (SERVERS / "guidellm/bin/guidellm").exists():
        print(
            "GuideLLM is not installed: `make benchmarks` puts it into .servers/; nothing is compared", file=sys.stderr
        )
        return
    with tempfile.TemporaryDirectory() as name, mock_server() as base_url:
        folder = Path(name)
        medians = compare_in_turn(base_url, folder, num_rounds=arguments.rounds, num_requests=arguments.requests)
        print_comparison(medians)
        print_fit(base_url, folder, arguments.requests)


if __name__ == "__main__":
    main()
