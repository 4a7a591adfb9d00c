"""What the commands that send requests share: their flags, what these describe, and a sweep from start to end."""

import argparse
import asyncio
import os
import secrets
import signal
from pathlib import Path

from idealized_runtime.api.endpoint import FORCINGS, MAX_TOKENS_FIELDS, PATHS, Endpoint, read_key
from idealized_runtime.checks import not_negative_number, positive_number, whole_number
from idealized_runtime.cli.api.summary import is_of_load
from idealized_runtime.cli.flags import add_shared, made_of
from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import say

# Limits of a run that stand in the header of its log.
_LIMITS = ("max_requests", "max_cost", "usd_per_million_prompt_tokens", "usd_per_million_output_tokens",
           "max_retries", "max_retry_wait_s", "timeout_s")  # fmt: skip


def add_sending_arguments(parser: argparse.ArgumentParser, *, max_retries: int):
    """Flags of every command that sends requests: where, what, which sizes, within which limits."""
    server = parser.add_argument_group("server")
    server.add_argument("--base-url", required=True, help="with the version, such as http://127.0.0.1:8000/v1")
    add_shared(server, "--model", required=True, help="name that the server knows the model by")
    server.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the key")
    server.add_argument("--endpoint", dest="protocol", choices=PATHS, default="completions",
                        help="protocol (completions)")  # fmt: skip
    server.add_argument("--no-stream", dest="is_streaming", action="store_false",
                        help="ask for whole answers: no time to first token")  # fmt: skip
    add_shared(server, "--hardware", default="unknown",
               help="what serves the model, for the log: its row of the accelerators where it has one")  # fmt: skip
    add_shared(server, "--software", default="unknown", help="name and version of the server, for the log")
    sizes = parser.add_argument_group("sizes of prompts and answers")
    add_shared(sizes, "--all-num-input-tokens", "--all-num-output-tokens", required=True)
    sizes.add_argument("--tokenizer", type=Path, help="the model's tokenizer.json; else the server's usage counts")
    sizes.add_argument("--force-with", dest="forcings", nargs="*", choices=FORCINGS, default=["ignore_eos"],
                       help="fields that keep the server from stopping early (ignore_eos)")  # fmt: skip
    sizes.add_argument("--eos-token-ids", type=whole_number, nargs="+", default=[], help="tokens that logit_bias bans")
    sizes.add_argument("--max-tokens-field", choices=MAX_TOKENS_FIELDS, default="max_tokens", help="(max_tokens)")
    sizes.add_argument("--temperature", type=not_negative_number, help="the server's own without it")
    add_shared(sizes, "--seed", help="of what is drawn; by chance, so that no run repeats another's prompts")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-requests", type=whole_number, help="of the whole log, warm-ups and repeated ones included"
    )
    limits.add_argument(
        "--max-cost", type=not_negative_number, metavar="USD", help="of the whole log; needs both prices"
    )
    for name in ("--usd-per-million-prompt-tokens", "--usd-per-million-output-tokens"):
        limits.add_argument(name, type=not_negative_number, metavar="USD")
    limits.add_argument("--max-retries", type=whole_number, default=max_retries,
                        help="after 429, 5xx and lost connections (%(default)s)")  # fmt: skip
    limits.add_argument(
        "--max-retry-wait-s", type=not_negative_number, default=120.0, help="longest wait before one (120)"
    )
    limits.add_argument("--timeout-s", type=positive_number, default=600.0, help="of one request (600)")
    add_shared(parser, "--log", required=True, help="where every request goes: logs/<name>/<model>.jsonl")


def run_sweep(arguments, sweep_class, runner_class) -> int:
    """Time what the log of a sweep lacks; the exit code.

    Parameters
    ----------
    arguments : Namespace
        With the flags of :func:`add_sending_arguments`, and those that the sweep is made of.
    sweep_class, runner_class : class
        :class:`~idealized_runtime.api.profile.Sweep` and what runs it, or those of a load.

    Raises
    ------
    KeyboardInterrupt, ValueError
        The run was interrupted, or refused; the log says so.
    """
    # A scheduler's stop signal ends a sweep as Ctrl-C does, which shells keep from background jobs. asyncio lets what
    # is under way end in order for that one only; for the other, an exception anywhere would lose a request.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    endpoint = made_of(Endpoint, arguments, api_key=read_key(arguments.api_key_env, os.environ))
    budget, (prompts, counted_by) = _make_budget(arguments), _make_prompts(arguments)
    sweep = made_of(sweep_class, arguments, seed=secrets.randbits(32) if arguments.seed is None else arguments.seed)

    from idealized_runtime.api.client import ApiClient
    from idealized_runtime.api.runner import make_header
    from idealized_runtime.api.trials import Retries, TrialSender
    from idealized_runtime.records import Journal

    header = make_header(endpoint, sweep, hardware=arguments.hardware, software=arguments.software, prompts=counted_by,
                         limits={name: getattr(arguments, name) for name in _LIMITS})  # fmt: skip
    with Journal(arguments.log, header) as journal:
        held = journal.log
        is_theirs_load, is_ours_load = is_of_load(held.header), is_of_load(header)
        if is_theirs_load != is_ours_load:
            theirs, ours = ("requests under load", "a sweep of sizes")[:: 1 if is_theirs_load else -1]
            raise ValueError(f"{arguments.log} holds {theirs}, which {ours} would mix into: give another --log")
        budget.count_earlier(held.records, held.lost)
        if held.records:
            say(f"{arguments.log} holds {len(held.records)} trials: going on")

        async def measure():
            retries = Retries(arguments.max_retries, max_wait_s=arguments.max_retry_wait_s)
            async with ApiClient(endpoint) as client:
                sender = TrialSender(client, budget, retries, on_wait=say)
                await runner_class(sweep, sender, prompts, journal, report=say).run()

        return _run_logged(measure(), journal, arguments.log)


def _run_logged(measurement, journal, path) -> int:
    """Run the coroutine that fills a log; where it ends early the log and the exit code say why."""
    from idealized_runtime.api.budget import BudgetSpentError
    from idealized_runtime.api.runner import FailingError

    kept = f"what was measured is in {path}: give the same command to go on"
    try:
        asyncio.run(measurement)
    except (KeyboardInterrupt, asyncio.CancelledError):
        journal.stop("interrupted")
        raise KeyboardInterrupt(kept) from None
    except BudgetSpentError as error:
        journal.stop(str(error))
        say(f"stopped: {error}, the budget is spent; {kept}, with a larger one")
        return NOTHING_DONE
    except FailingError as error:
        journal.stop(str(error))
        say(f"stopped: {error}; {kept}")
        return NOTHING_DONE
    except ValueError as error:
        journal.stop(str(error))
        raise
    return DONE


def _make_budget(arguments):
    from idealized_runtime.api.budget import Budget, Prices

    prices = (arguments.usd_per_million_prompt_tokens, arguments.usd_per_million_output_tokens)
    if arguments.max_cost is not None and None in prices:
        raise ValueError("--max-cost needs --usd-per-million-prompt-tokens and --usd-per-million-output-tokens")
    prices = Prices(*(price or 0.0 for price in prices))
    return Budget(max_requests=arguments.max_requests, max_cost_usd=arguments.max_cost, prices=prices)


def _make_prompts(arguments):
    """What makes the prompts, and how a header names it."""
    from idealized_runtime.api.prompts import CalibratedPrompts, TokenizerPrompts
    from idealized_runtime.records.files import sha256_of

    if arguments.tokenizer is None:
        return CalibratedPrompts(), {"counted_by": "usage"}
    prompts = TokenizerPrompts(arguments.tokenizer, adds_special_tokens=arguments.protocol == "completions")
    digest = sha256_of(arguments.tokenizer)
    return prompts, {"counted_by": "tokenizer", "tokenizer_sha256": digest}
