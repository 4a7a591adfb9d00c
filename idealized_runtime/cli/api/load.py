"""Time requests at so many in parallel (closed loops), or at the times of a Poisson process (open loops).

A request that is refused under load is a result: none is sent again unless --max-retries says so.
"""

from idealized_runtime.checks import positive_int, positive_number, whole_number
from idealized_runtime.cli.api.sending import add_sending_arguments, run_sweep
from idealized_runtime.cli.api.summary import add_objectives, objectives_of, print_summary
from idealized_runtime.cli.flags import add_shared

EXAMPLES = """\
example: idealized-runtime api load --base-url http://127.0.0.1:8000/v1 --model NAME --all-num-input-tokens 512 \\
    --all-num-output-tokens 16 --all-num-parallel 1 2 4 8 --objective ttft=0.5 e2e=2 --log logs/api/NAME-load.jsonl
"""


def add_arguments(parser):
    """Flags of the command."""
    add_sending_arguments(parser, max_retries=0)
    load = parser.add_argument_group("load")
    load.add_argument("--all-num-parallel", type=positive_int, nargs="+", default=[], metavar="N", help="closed loops")
    load.add_argument("--all-rates", dest="all_rates_per_s", type=positive_number, nargs="+", default=[], metavar="R",
                      help="open loops, requests/s")  # fmt: skip
    load.add_argument("--mix", dest="is_mixed", action="store_true",
                      help="one load of all sizes, each request's drawn at random, not one load a size")  # fmt: skip
    load.add_argument(
        "--num-requests",
        type=positive_int,
        default=100,
        help="of each size at each load; with --mix, of each load (100)",
    )
    load.add_argument("--num-warmup", type=whole_number, default=4, help="uncounted ones before, at the same load (4)")
    load.add_argument("--num-repetitions", type=positive_int, default=1, help="passes through all loads (1)")
    add_objectives(parser)
    add_shared(parser, "--json")


def run(arguments) -> int:
    """Time what the log lacks of a load sweep, and summarise it."""
    from idealized_runtime.api.load import LoadRunner, LoadSweep
    from idealized_runtime.records import read_requests

    objectives = objectives_of(arguments)
    if code := run_sweep(arguments, LoadSweep, LoadRunner):
        return code
    return print_summary(read_requests(arguments.log), objectives, as_json=arguments.json)
