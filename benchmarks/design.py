"""How much of the published device time a design takes, and how far its estimates are off: replayed on the A100 logs.

    python benchmarks/design.py [--hardware a100] [--seeds 2]

Needs the published logs (PUBLISHED_DATA); about a minute a seed and core. Without --hardware also the V100 logs.
"""

import argparse
import warnings

from idealized_runtime.design.replay import at_shares, replay_each, replay_hand_made
from idealized_runtime.measurements.timed_models import read_timed_models

SHARES = (3000, 1500, 1000, 500, 250)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", nargs="+", default=["a100", "v100"])
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for hardware in arguments.hardware:
        timed = read_timed_models(hardware)
        tables = {"by hand": replay_hand_made(timed).drop(columns="kind")}
        for use_others in (True, False):
            label = f"sequential, {'other models known' if use_others else 'nothing known'}"
            paths = replay_each(timed, use_others=use_others, times_cheaper=SHARES[-1], seeds=range(arguments.seeds))
            tables[label] = at_shares(paths, SHARES)
        for label, table in tables.items():
            print(f"{hardware}, {label}; relative errors of all settings of {len(timed)} models, %")
            print(table.round(2).to_string(index=False), "\n")


if __name__ == "__main__":
    main()
