"""Designs of several batches out of the same seconds: each batch is known by its own timings."""

from collections.abc import Hashable, Mapping

import pandas as pd

from idealized_runtime.design.sequential import Block, SequentialDesign, Stopped


def next_blocks(
    designs: Mapping[Hashable, SequentialDesign],
    timings: Mapping[Hashable, pd.DataFrame],
    *,
    elapsed_s: float,
    first: int = 0,
) -> tuple[dict[Hashable, Block], dict[Hashable, Stopped]]:
    """What to time next of each batch, or why nothing more.

    Parameters
    ----------
    designs : mapping
        By batch, with the same ``max_seconds``.
    timings : mapping
        Of every batch, as :meth:`SequentialDesign.next_block` takes them.
    elapsed_s : float
        Device time of all batches so far.
    first : int
        Which batch is asked first: where the seconds do not suffice for all, it is not the same in every block.
    """
    blocks, stopped = {}, {}
    order = [*designs]
    first %= len(order)
    for batch in [*order[first:], *order[:first]]:
        step = designs[batch].next_block(timings[batch], elapsed_s=elapsed_s)
        if isinstance(step, Stopped):
            stopped[batch] = step
        else:
            blocks[batch] = step
            elapsed_s += step.expected_s or 0.0
    return blocks, stopped


def stopped_together(stopped: Mapping[str, Stopped]) -> Stopped:
    """Why nothing more is timed of all batches, by their names: the rule and error of the one that is known worst.

    Of those that missed the target, where some have.
    """
    missed = [it for it in stopped.values() if it.rule != "target"]
    worst = max(missed or stopped.values(), key=lambda it: it.error)
    sentences = [it.sentence if len(stopped) == 1 else f"{name}: {it.sentence}" for name, it in stopped.items()]
    return Stopped(worst.rule, worst.error, "; ".join(sentences))
