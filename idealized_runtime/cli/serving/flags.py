"""Flags of a server's scheduler and of objectives, which several subcommands share."""

from idealized_runtime.checks import positive_int
from idealized_runtime.serving.scheduler import POLICIES


def add_scheduler(parser, defaults: str, *, several_limits: bool = False):
    """Add the flags that make a :class:`~idealized_runtime.serving.scheduler.Scheduler`; they are None where not given.

    Parameters
    ----------
    parser : ArgumentParser
    defaults : str
        Where values come from that are not given, for the help.
    several_limits : bool
        Several numbers of sequences are compared: ``all_max_num_seqs``.
    """
    group = parser.add_argument_group("the server's scheduler", f"As the server was started; default: {defaults}.")
    group.add_argument("--policy", choices=POLICIES,
                       help="continuous: prompts in chunks beside the tokens of running sequences (vLLM); "
                       "prompts-first: whole prompts in steps of their own; static: a batch is done before the next "
                       "begins")  # fmt: skip
    several = {"dest": "all_max_num_seqs", "nargs": "+"} if several_limits else {}
    group.add_argument("--max-num-seqs", type=positive_int, metavar="N", **several,
                       help="sequences that run at once" + "; several to compare them" * several_limits)  # fmt: skip
    group.add_argument("--max-num-batched-tokens", type=positive_int, metavar="N",
                       help="tokens of a step, generated and encoded")  # fmt: skip
    group.add_argument("--cache-tokens", type=positive_int, metavar="N",
                       help="tokens that the cache holds; full, it preempts (default: no limit)")  # fmt: skip
    group.add_argument("--num-engines", type=positive_int, metavar="N", help="data-parallel copies of the model")


def scheduler_of(arguments, base):
    """The scheduler of the flags; what they do not say is as in another."""
    from dataclasses import replace

    return replace(
        base, **{name: value for name in vars(base) if (value := getattr(arguments, name, None)) is not None}
    )


def add_objectives(group):
    """Add the flags that :func:`objectives_of` reads."""
    group.add_argument("--objective", dest="objectives", nargs="+", default=[], metavar="METRIC:STATISTIC=S",
                       help="all that is to be met, in seconds: ttft:p95=0.5 tpot:mean=0.05 e2e:p99=10")  # fmt: skip
    group.add_argument("--workload", metavar="NAME",
                       help="objectives and sizes that others plan for (chat, retrieval, ...; `plan --workload list` "
                       "shows all, with their sources); --queries and --objective go before")  # fmt: skip


def objectives_of(arguments) -> tuple:
    """Objectives of the flags, and the workload that is named, or None."""
    from idealized_runtime.serving.objectives import Objective, get_workload

    workload = None if arguments.workload is None else get_workload(arguments.workload)
    objectives = [Objective.parse(text) for text in arguments.objectives]
    if not objectives and workload is None:
        raise ValueError("--objective must be given, such as ttft:p95=0.5, or --workload with those of others")
    return objectives or list(workload.objectives), workload


def describe(scheduler) -> str:
    """A scheduler's rules in words."""
    cache = "" if scheduler.cache_tokens is None else f", {scheduler.cache_tokens} cached tokens"
    engines = "" if scheduler.num_engines == 1 else f", {scheduler.num_engines} engines"
    return (
        f"{scheduler.policy} batching, up to {scheduler.max_num_seqs} sequences and {scheduler.max_num_batched_tokens} "
        f"tokens a step{cache}{engines}"
    )
