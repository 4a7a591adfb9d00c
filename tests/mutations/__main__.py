"""``python -m tests.mutations``: thousands of damaged inputs, and what became of each.

No traceback, no hang, and no number that moves by more than 1 % without a word. Ends with 1 where one was found, which
``--only NUMBER`` makes again. From the repository root.
"""

import argparse
import resource
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.mutations.kinds import KINDS
from tests.mutations.trials import FAULTS, Trials

MEMORY_BYTES = 8 << 30


def run_share(share, number, seed, names, only):
    """Outcomes of every so many of the mutations."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    kinds = [kind for kind in KINDS if kind.name in names]
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), kinds, seed=seed)
        return [trials.run(one) for one in only or range(share[0], number, share[1])]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--kinds", nargs="+", choices=[kind.name for kind in KINDS], default=[kind.name for kind in KINDS]
    )
    parser.add_argument("--only", type=int, nargs="+")
    parser.add_argument("--show", type=int, default=5, help="examples of each fault of a kind")
    arguments = parser.parse_args()
    shares = [(first, arguments.processes) for first in range(arguments.processes)] if not arguments.only else [(0, 1)]
    with ProcessPoolExecutor(len(shares)) as pool:
        done = pool.map(
            run_share,
            shares,
            *([each] * len(shares) for each in (arguments.number, arguments.seed, arguments.kinds, arguments.only)),
        )
        outcomes = [outcome for share in done for outcome in share]
    counts = Counter((outcome.kind, outcome.verdict) for outcome in outcomes)
    for kind in arguments.kinds:
        print(
            f"{kind:18}",
            ", ".join(f"{verdict} {count}" for (name, verdict), count in sorted(counts.items()) if name == kind),
        )
    totals = Counter(outcome.verdict for outcome in outcomes)
    print(f"{'all':18}", ", ".join(f"{verdict} {count}" for verdict, count in sorted(totals.items())))
    shown = Counter()
    for outcome in outcomes:
        shown[outcome.kind, outcome.verdict] += 1
        if (outcome.verdict in FAULTS and shown[outcome.kind, outcome.verdict] <= arguments.show) or arguments.only:
            print(f"  {outcome.number} {outcome.kind}, {outcome.mutator}: {outcome.verdict}: {outcome.detail}")
    return int(any(outcome.verdict in FAULTS for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
