"""The planner in a browser: choose a model, machines and queries, and see what they take, cost and draw, with
intervals, what serves a demand within objectives, where each number comes from, and the command that answers the same.

The page is served on this machine alone (127.0.0.1) and needs no network; files that are dropped into it stay here. It
opens in a browser by itself.
"""

from idealized_runtime.checks import positive_int
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import say

EXAMPLES = """\
examples: idealized-runtime page
          idealized-runtime page --logs cpu_eager --no-browser --port 8866
"""


def add_arguments(parser):
    """Flags of the command."""
    add_shared(parser, "--logs", nargs="+", default=[],
               help="further machines to choose from, beside a100, v100 and cpu: folders of timing logs")  # fmt: skip
    parser.add_argument("--port", type=positive_int, metavar="N", help="to listen at (default: 8866, or a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")


def run(arguments) -> int:
    """Serve the page until it is interrupted."""
    from idealized_runtime.page.server import serve

    if arguments.logs:
        from idealized_runtime.page.machines import read_machine

        for name in arguments.logs:
            # What cannot be read is refused here, and not in the page.
            read_machine(name)
    serve(port=arguments.port, opens_browser=not arguments.no_browser, machines=arguments.logs, say=say)
    return DONE
