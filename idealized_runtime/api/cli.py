"""Command line: time a model behind an API, and fit what was timed."""

import argparse
import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path

from idealized_runtime.api.endpoint import FORCINGS, MAX_TOKENS_FIELDS, PATHS, Endpoint, read_key
from idealized_runtime.api.load_commands import add_parsers as add_load_parsers

# Exit codes beside 0 and argparse's 2, bad input; a refused key or model is one.
FAILED, BAD_INPUT, BUDGET_SPENT, INTERRUPTED = 1, 2, 3, 130
ESTIMATORS = ("minimum", "second_smallest", "quantile", "frontier")
_EPILOG = (
    "exit codes: 0 done, 1 requests failed, 2 bad input or a refused key or model, 3 budget spent, 130 interrupted"
)


def main(argv=None) -> int:
    """Run the command line; its exit code."""
    arguments = build_parser().parse_args(argv)
    # A scheduler's stop signal ends a sweep as Ctrl-C does, which shells keep from background jobs.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_kept(arguments)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more as it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return BAD_INPUT


_PROGRAM = "idealized_runtime.api"


def build_parser() -> argparse.ArgumentParser:
    """Parser of ``python -m idealized_runtime.api``; a command adds its own with ``add_parser``."""
    parser = argparse.ArgumentParser(prog=f"python -m {_PROGRAM}", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_profile(commands)
    _add_fit(commands)
    add_load_parsers(commands, add_endpoint_arguments=add_endpoint_arguments)
    return parser


def _add_profile(commands):
    parser = commands.add_parser(
        "profile", help="time synthetic prompts of known size; a run that was cut off goes on", epilog=_EPILOG
    )
    parser.set_defaults(run=run_profile)
    add_endpoint_arguments(parser)
    sizes = parser.add_argument_group("sweep")
    sizes.add_argument("--all-num-input-tokens", type=int, nargs="+", required=True, metavar="P", help="prompt sizes")
    sizes.add_argument("--all-num-output-tokens", type=int, nargs="+", required=True, metavar="O", help="output sizes")
    sizes.add_argument("--num-trials", type=int, default=10, help="timed requests a setting (10)")
    sizes.add_argument("--num-warmup", type=int, default=1, help="untimed requests a setting (1)")
    sizes.add_argument("--seed", type=int, help="of prompts and order; by chance, so that no run repeats another's")
    sizes.add_argument("--log", type=Path, required=True, help="where every request goes: logs/<name>/<model>.jsonl")


def add_endpoint_arguments(parser: argparse.ArgumentParser):
    """Flags of every command that sends requests: where, what, within which limits."""
    server = parser.add_argument_group("server")
    server.add_argument("--base-url", required=True, help="with the version, such as http://127.0.0.1:8000/v1")
    server.add_argument("--model", required=True, help="name that the server knows the model by")
    server.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the key")
    server.add_argument("--endpoint", choices=PATHS, default="completions", help="protocol (completions)")
    server.add_argument("--no-stream", action="store_true", help="ask for whole answers: no time to first token")
    server.add_argument("--hardware", default="unknown", help="what the server runs on, for the log")
    server.add_argument("--software", default="unknown", help="name and version of the server, for the log")
    sizes = parser.add_argument_group("sizes of prompts and answers")
    sizes.add_argument("--tokenizer", type=Path, help="the model's tokenizer.json; else the server's usage counts")
    sizes.add_argument("--force-with", nargs="*", choices=FORCINGS, default=["ignore_eos"],
                       help="fields that keep the server from stopping early (ignore_eos)")  # fmt: skip
    sizes.add_argument("--eos-token-ids", type=int, nargs="+", default=[], help="tokens that logit_bias bans")
    sizes.add_argument("--max-tokens-field", choices=MAX_TOKENS_FIELDS, default="max_tokens", help="(max_tokens)")
    sizes.add_argument("--temperature", type=float, help="the server's own without it")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-requests", type=int, help="of the whole log, warm-ups and repeated ones included")
    limits.add_argument("--max-cost", type=float, metavar="USD", help="of the whole log; needs both prices")
    limits.add_argument("--usd-per-million-prompt-tokens", type=float, metavar="USD")
    limits.add_argument("--usd-per-million-output-tokens", type=float, metavar="USD")
    limits.add_argument("--max-retries", type=int, default=5, help="after 429, 5xx and lost connections (5)")
    limits.add_argument("--max-retry-wait-s", type=float, default=120.0, help="longest wait before one (120)")
    limits.add_argument("--timeout-s", type=float, default=600.0, help="of one request (600)")


def _add_fit(commands):
    parser = commands.add_parser("fit", help="denoised parameters of a log, and their figure", epilog=_EPILOG)
    parser.set_defaults(run=run_fit)
    parser.add_argument("log", type=Path)
    parser.add_argument("--estimator", choices=ESTIMATORS, default="minimum", help="(minimum, the paper's)")
    parser.add_argument("--parameters", type=Path, help="parameter file to write, with HELM's keys")
    parser.add_argument("--figure", type=Path, help="figure to write, as .pdf and .png")


def run_profile(arguments) -> int:
    """Time what the log lacks."""
    endpoint = make_endpoint(arguments)
    budget = make_budget(arguments)
    prompts, counted_by = make_prompts(arguments)
    # pandas and httpx take their time to import: only once the arguments are known to be good.
    from idealized_runtime.api.profile import Sweep, make_header
    from idealized_runtime.records import LogWriter

    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    sweep = Sweep(tuple(arguments.all_num_input_tokens), tuple(arguments.all_num_output_tokens),
                  arguments.num_trials, arguments.num_warmup, seed)  # fmt: skip
    header = make_header(endpoint, sweep, hardware=arguments.hardware, software=arguments.software,
                         prompts=counted_by, limits=limits(arguments))  # fmt: skip
    with LogWriter(arguments.log, header) as log:
        budget.count_earlier(log.trials, log.lost)
        if log.trials:
            _say(f"{arguments.log} holds {len(log.trials)} trials: going on")
        exit_code = run_logged(_profile(endpoint, sweep, budget, prompts, log, arguments), log, arguments)
    return exit_code or _summarise(arguments.log)


def run_logged(measurement, log, arguments) -> int:
    """Run the coroutine that fills a log; where it ends early the log and the exit code say why.

    Raises
    ------
    KeyboardInterrupt, ValueError
        The run was interrupted, or refused; the log says so.
    """
    from idealized_runtime.api.budget import BudgetSpentError
    from idealized_runtime.api.profile import FailingError

    try:
        asyncio.run(measurement)
    except (KeyboardInterrupt, asyncio.CancelledError):
        log.stop("interrupted")
        raise KeyboardInterrupt from None
    except BudgetSpentError as error:
        log.stop(str(error))
        _say(f"stopped: {error}; {_kept(arguments)}, with a larger budget")
        return BUDGET_SPENT
    except FailingError as error:
        log.stop(str(error))
        _say(f"stopped: {error}; {_kept(arguments)}")
        return FAILED
    except ValueError as error:
        log.stop(str(error))
        raise
    return 0


async def _profile(endpoint, sweep, budget, prompts, log, arguments):
    from idealized_runtime.api.client import ApiClient
    from idealized_runtime.api.profile import Profiler
    from idealized_runtime.api.trials import Retries, TrialSender

    retries = Retries(arguments.max_retries, max_wait_s=arguments.max_retry_wait_s)
    async with ApiClient(endpoint) as client:
        sender = TrialSender(client, budget, retries, on_send=log.write_sent, on_wait=_say)
        await Profiler(sweep, sender, prompts, log, report=_say).run()


def make_endpoint(arguments) -> Endpoint:
    """Endpoint that the flags describe, with its key from the environment."""
    return Endpoint(
        base_url=arguments.base_url,
        model=arguments.model,
        protocol=arguments.endpoint,
        is_streaming=not arguments.no_stream,
        forcings=tuple(arguments.force_with),
        eos_token_ids=tuple(arguments.eos_token_ids),
        max_tokens_field=arguments.max_tokens_field,
        temperature=arguments.temperature,
        timeout_s=arguments.timeout_s,
        api_key=read_key(arguments.api_key_env, os.environ),
    )


def make_budget(arguments):
    """Budget that the flags describe.

    Raises
    ------
    ValueError
        A limit is not one, or a price is missing.
    """
    from idealized_runtime.api.budget import Budget, Prices

    prices = (arguments.usd_per_million_prompt_tokens, arguments.usd_per_million_output_tokens)
    if arguments.max_cost is not None and None in prices:
        raise ValueError("--max-cost needs --usd-per-million-prompt-tokens and --usd-per-million-output-tokens")
    for name, value in limits(arguments).items():
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, and finite; got {value}")
    return Budget(
        max_requests=arguments.max_requests,
        max_cost_usd=arguments.max_cost,
        prices=Prices(*(price or 0.0 for price in prices)),
    )


def make_prompts(arguments):
    """What makes the prompts, and how a header names it."""
    import hashlib

    from idealized_runtime.api.prompts import CalibratedPrompts, TokenizerPrompts

    if arguments.tokenizer is None:
        return CalibratedPrompts(), {"counted_by": "usage"}
    prompts = TokenizerPrompts(arguments.tokenizer, adds_special_tokens=arguments.endpoint == "completions")
    digest = hashlib.sha256(arguments.tokenizer.read_bytes()).hexdigest()
    return prompts, {"counted_by": "tokenizer", "tokenizer_sha256": digest}


def run_fit(arguments) -> int:
    """Print the denoised parameters of a log; write them and their figure where asked to."""
    from idealized_runtime.api.fit import fit_log, parameter_lines, save_fit_figure
    from idealized_runtime.fits import write_parameters

    trials, model = fit_log(arguments.log, estimator=arguments.estimator)
    name = str(trials["model"].iloc[0])
    print("\n".join(parameter_lines(model, trials, estimator=arguments.estimator)))
    if arguments.parameters is not None:
        write_parameters(arguments.parameters, {name: model}, sources={name: arguments.log})
    if arguments.figure is not None:
        save_fit_figure(trials, model, arguments.figure)
    return 0


def _summarise(path) -> int:
    """Print the sentence of 2023 for every setting; whether there is any."""
    import warnings

    from idealized_runtime.records import LogFormatError, read_trials, runtime_sentence

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trials = read_trials(path)
    except LogFormatError as error:
        _say(str(error))
        return FAILED
    for warning in caught:
        _say(str(warning.message))
    for (p, o), group in trials.groupby(["num_prompt_tokens", "num_output_tokens"]):
        runtimes_s = group["runtime_s"].tolist()
        setting = {"num_prompt_tokens": int(p), "num_output_tokens": int(o), "runtimes_s": runtimes_s}
        print(runtime_sentence(setting))
    return 0


def limits(arguments) -> dict:
    """Limits of a run, for its header."""
    names = ("max_requests", "max_cost", "usd_per_million_prompt_tokens", "usd_per_million_output_tokens",
             "max_retries", "max_retry_wait_s", "timeout_s")  # fmt: skip
    return {name: getattr(arguments, name) for name in names}


def _kept(arguments) -> str:
    log = getattr(arguments, "log", None)
    if log is None or not log.exists():
        return "nothing was kept"
    return f"what was measured is in {log}: give the same command to go on"


def _say(sentence: str):
    print(sentence, file=sys.stderr, flush=True)
