"""In which order a sweep is timed: in blocks, so that what drifts meanwhile meets every setting alike."""

from itertools import groupby
from random import Random

from idealized_runtime.records import setting_key
from idealized_runtime.records.log import Log
from megatron_lm.measurement import Measurement


def plan_visits(measurement: Measurement, log: Log) -> list[dict]:
    """Visits to settings that a log lacks, in their order.

    A block visits every setting once, in an order drawn by the measurement's seed; a single block keeps the order that
    was asked for. Weights are made once for each slice of the layers in a block, and the slice that ends one block
    begins the next. Of a setting that an earlier run has blocks of, only the trials that are left are planned.

    Returns
    -------
    list of dict
        ``setting``, the keys of its record; ``num_warmup`` and ``num_trials`` of this visit; ``is_last``: the setting
        then is complete. The first visit of a run warms up as often as was asked for. A later one does so once, where
        warm-ups were asked for at all: the setting before it has left caches of another size, in the allocator, the
        processor and, for engines that capture their steps, on the device.
    """
    num_trials, num_blocks = measurement.num_trials, measurement.num_blocks
    settings = [setting for setting in measurement.settings() if setting_key(setting) not in log.completed]
    num_held = {
        key: sum(len(block["runtimes_s"]) for block in log.blocks.get(key, [])) for key in map(setting_key, settings)
    }
    visits, visited = [], set()
    for block in range(num_blocks):
        end = num_trials * (block + 1) // num_blocks
        for setting in _in_order(settings, block, measurement):
            key = setting_key(setting)
            if num_held[key] < end:
                visits.append(
                    {
                        "setting": setting,
                        "num_warmup": min(measurement.num_warmup, 1) if key in visited else measurement.num_warmup,
                        "num_trials": end - num_held[key],
                        "is_last": block + 1 == num_blocks,
                    }
                )
                num_held[key] = end
                visited.add(key)
    return visits


def _in_order(settings, block, measurement) -> list[dict]:
    if measurement.num_blocks == 1:
        return settings
    shuffled = Random(f"{measurement.seed} {block}").sample(settings, len(settings))
    # The largest slice comes first of all: what does not fit the memory is then found at once.
    return sorted(shuffled, key=_slice_of, reverse=block % 2 == 0)


def by_slice(visits: list[dict]):
    """Visits that follow each other on one slice of the layers: pairs of its number of layers and an iterator."""
    return groupby(visits, key=lambda visit: _slice_of(visit["setting"]))


def _slice_of(setting) -> int:
    return setting["num_layers_profiled"]
