"""What the commands that send requests share: their flags, what these describe, and a sweep from start to end."""

import argparse
import asyncio
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from idealized_runtime.api.endpoint import FORCINGS, MAX_TOKENS_FIELDS, PATHS, Endpoint, read_key

# Exit codes beside 0.
FAILED, BUDGET_SPENT = 1, 3


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


def run_sweep(arguments, make_sweep: Callable) -> int:
    """Time what the log of a sweep lacks; the exit code.

    Parameters
    ----------
    arguments : Namespace
        With the flags of :func:`add_endpoint_arguments`, and ``log``.
    make_sweep : callable
        Given the arguments: the sweep, and the class that runs it.

    Raises
    ------
    KeyboardInterrupt, ValueError
        The run was interrupted, or refused; the log says so.
    """
    endpoint, budget = _make_endpoint(arguments), _make_budget(arguments)
    prompts, counted_by = _make_prompts(arguments)
    # pandas and httpx take their time to import: only once the arguments are known to be good.
    from idealized_runtime.api.runner import make_header
    from idealized_runtime.records import Journal

    sweep, runner = make_sweep(arguments)
    header = make_header(endpoint, sweep, hardware=arguments.hardware, software=arguments.software,
                         prompts=counted_by, limits=_limits(arguments))  # fmt: skip
    with Journal(arguments.log, header) as journal:
        held = journal.log
        budget.count_earlier(held.trials, held.lost)
        if held.trials:
            say(f"{arguments.log} holds {len(held.trials)} trials: going on")

        async def measure():
            async with _open_sender(endpoint, budget, arguments) as sender:
                await runner(sweep, sender, prompts, journal, report=say).run()

        return _run_logged(measure(), journal, arguments)


@asynccontextmanager
async def _open_sender(endpoint, budget, arguments):
    from idealized_runtime.api.client import ApiClient
    from idealized_runtime.api.trials import Retries, TrialSender

    retries = Retries(arguments.max_retries, max_wait_s=arguments.max_retry_wait_s)
    async with ApiClient(endpoint) as client:
        yield TrialSender(client, budget, retries, on_wait=say)


def _run_logged(measurement, journal, arguments) -> int:
    """Run the coroutine that fills a log; where it ends early the log and the exit code say why.

    Raises
    ------
    KeyboardInterrupt, ValueError
        The run was interrupted, or refused; the log says so.
    """
    from idealized_runtime.api.budget import BudgetSpentError
    from idealized_runtime.api.runner import FailingError

    try:
        asyncio.run(measurement)
    except (KeyboardInterrupt, asyncio.CancelledError):
        journal.stop("interrupted")
        raise KeyboardInterrupt from None
    except BudgetSpentError as error:
        journal.stop(str(error))
        say(f"stopped: {error}; {kept(arguments)}, with a larger budget")
        return BUDGET_SPENT
    except FailingError as error:
        journal.stop(str(error))
        say(f"stopped: {error}; {kept(arguments)}")
        return FAILED
    except ValueError as error:
        journal.stop(str(error))
        raise
    return 0


def _make_endpoint(arguments) -> Endpoint:
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


def _make_budget(arguments):
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
    for name, value in _limits(arguments).items():
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, and finite; got {value}")
    return Budget(
        max_requests=arguments.max_requests,
        max_cost_usd=arguments.max_cost,
        prices=Prices(*(price or 0.0 for price in prices)),
    )


def _make_prompts(arguments):
    """What makes the prompts, and how a header names it."""
    import hashlib

    from idealized_runtime.api.prompts import CalibratedPrompts, TokenizerPrompts

    if arguments.tokenizer is None:
        return CalibratedPrompts(), {"counted_by": "usage"}
    prompts = TokenizerPrompts(arguments.tokenizer, adds_special_tokens=arguments.endpoint == "completions")
    digest = hashlib.sha256(arguments.tokenizer.read_bytes()).hexdigest()
    return prompts, {"counted_by": "tokenizer", "tokenizer_sha256": digest}


def _limits(arguments) -> dict:
    """Limits of a run, for its header."""
    names = ("max_requests", "max_cost", "usd_per_million_prompt_tokens", "usd_per_million_output_tokens",
             "max_retries", "max_retry_wait_s", "timeout_s")  # fmt: skip
    return {name: getattr(arguments, name) for name in names}


def kept(arguments) -> str:
    """Where the measurements of a run that ended early are, in words."""
    log = getattr(arguments, "log", None)
    if log is None or not log.exists():
        return "nothing was kept"
    return f"what was measured is in {log}: give the same command to go on"


def say(sentence: str):
    """Print beside the answer, which goes to standard output."""
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def saying_warnings():
    """Print the warnings that are raised within, as sentences, if nothing fails there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        say(str(warning.message))
