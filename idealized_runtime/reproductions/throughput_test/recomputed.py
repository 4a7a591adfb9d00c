"""Every derived number of the printed tables, recomputed from the measured ones, with a verdict and a reason.

A number follows where inputs that round to the printed ones give a value that rounds to the printed one. Each
derived quantity names its formula, in functions of :mod:`idealized_runtime.architectures.closed_forms` and
:mod:`idealized_runtime.measurements.throughput`.
"""

import itertools

import pandas as pd

from idealized_runtime.architectures import get_architecture
from idealized_runtime.architectures.closed_forms import (
    closed_form_flops_without_attention,
    closed_form_prompt_encoding_flops,
    closed_form_query_flops,
)
from idealized_runtime.measurements.throughput import cluster_efficiency, generation_tokens_per_s
from idealized_runtime.reproductions.throughput_test.printed import (
    CPU_TABLES,
    GPT_66B,
    GPT_175B,
    GPT_175B_A40,
    GPT_175B_CPU_1,
    GPT_175B_CPU_2,
    PIPELINE_TABLES,
    TABLES,
)
from idealized_runtime.reproductions.verdicts import agrees, unit_in_last_place

FOLLOWS, CUT, DIFFERS = "follows", "follows, cut instead of rounded", "does not follow"
VERDICTS = (FOLLOWS, CUT, DIFFERS)
# Counts are exact; every other printed number stands for all that round to it.
_COUNTS = ("batch_size", "num_prompt_tokens", "num_output_tokens", "num_nodes")
_FUNCTIONS = (
    closed_form_flops_without_attention,
    closed_form_prompt_encoding_flops,
    closed_form_query_flops,
    cluster_efficiency,
    generation_tokens_per_s,
)
_QUERY_FLOPS = "closed_form_query_flops(model, num_prompt_tokens, num_output_tokens)"
# By table and quantity, expressions that are evaluated as they stand: of cells of the row, of what stands above its
# table, of the table's sizes and model. They are monotone in each number.
_FORMULAS = {
    **{(table.name, "runtime_s"): "prompt_encoding_time_s + generation_time_s" for table in PIPELINE_TABLES},
    (GPT_66B.name, "tflops_per_s_per_device"): f"batch_size * {_QUERY_FLOPS} / 1e12 / runtime_s / 8",
    (GPT_175B.name, "estimated_runtime_s"): "num_nodes * runtime_s",
    (GPT_175B.name, "tflops_per_s_per_device"): f"batch_size * {_QUERY_FLOPS} / 1e12 / estimated_runtime_s / 24",
    (GPT_175B_A40.name, "cluster_pflops_per_s"): "16 * device_tflops_per_s / 1e3",
    (GPT_175B_A40.name, "total_tflops_per_s"): f"tokens_per_s / num_output_tokens * {_QUERY_FLOPS} / 1e12",
    (GPT_175B_A40.name, "cluster_efficiency_percent"): (
        "100 * cluster_efficiency(total_tflops_per_s, 1, 1e3 * cluster_pflops_per_s)"
    ),
    **{(table.name, "token_tflops"): "closed_form_flops_without_attention(model, 1) / 1e12" for table in CPU_TABLES},
    **{
        (table.name, "prompt_tflops"): "closed_form_prompt_encoding_flops(model, num_prompt_tokens) / 1e12"
        for table in CPU_TABLES
    },
    **{(table.name, "tokens_per_s"): "generation_tokens_per_s(batch_size, time_per_round_s)" for table in CPU_TABLES},
    (GPT_175B_CPU_1.name, "prompt_tflops_per_s"): "batch_size * prompt_tflops / prompt_encoding_time_s",
    (GPT_175B_CPU_1.name, "token_tflops_per_s"): "batch_size * token_tflops / time_per_round_s",
    # The labels of setting 2 are swapped: what it calls the prompt's operations are a token's.
    (GPT_175B_CPU_2.name, "token_tflops_per_s"): "batch_size * prompt_tflops / time_per_round_s",
}


def recompute_tables() -> pd.DataFrame:
    """Every derived number of every printed table.

    Returns
    -------
    DataFrame, one row a number
        ``table``, ``row`` (what tells its row from others; empty for a number above the table), ``quantity``,
        ``formula``, ``printed`` (text), ``recomputed``, ``verdict`` (one of ``VERDICTS``) and ``finding``, a
        sentence where the number does not simply follow.
    """
    rows = []
    for table in TABLES:
        named = [(row[0], dict(zip(table.columns, row, strict=True))) for row in table.rows]
        for label, cells in [("", table.facts), *named]:
            for quantity, printed in cells.items():
                formula = _FORMULAS.get((table.name, quantity))
                if formula is not None and printed is not None:
                    rows.append(_row(table, label, quantity, formula, printed, {**table.facts, **cells}))
    return pd.DataFrame(rows)


def verdict_counts(numbers: pd.DataFrame) -> pd.DataFrame:
    """How many numbers of each table and quantity have which verdict."""
    index = ["table", "quantity"]
    counts = numbers.pivot_table(index=index, columns="verdict", values="row", aggfunc="size", fill_value=0, sort=False)
    return counts.reindex(columns=list(VERDICTS), fill_value=0)


def findings(numbers: pd.DataFrame) -> pd.DataFrame:
    """Each sentence once, with the quantity and the rows it is about."""
    found = numbers[numbers["finding"] != ""]
    grouped = found.groupby(["table", "quantity", "finding"], sort=False)["row"].agg(", ".join)
    return grouped.reset_index()[["table", "quantity", "row", "finding"]]


def judge(printed: str, lowest: float, highest: float) -> str:
    """Verdict on a printed number, given the range of values that its inputs allow."""
    if agrees(printed, lowest, highest):
        return FOLLOWS
    return CUT if agrees(printed, lowest, highest, is_cut=True) else DIFFERS


def _row(table, label, quantity, formula, printed, texts) -> dict:
    code = compile(formula, "formula", "eval")
    known = {function.__name__: function for function in _FUNCTIONS} | {
        "model": get_architecture(table.architecture),
        "num_prompt_tokens": table.num_prompt_tokens,
        "num_output_tokens": table.num_output_tokens,
    }
    given = {name: float(texts[name]) for name in code.co_names if name in texts}
    ends = []
    for name, value in given.items():
        half = 0 if name in _COUNTS else unit_in_last_place(texts[name]) / 2
        ends.append((value - half, value + half))
    possible = [eval(code, known | dict(zip(given, corner, strict=True))) for corner in itertools.product(*ends)]
    verdict = judge(printed, min(possible), max(possible))
    return {
        "table": table.name,
        "row": label,
        "quantity": quantity,
        "formula": formula,
        "printed": printed,
        "recomputed": eval(code, known | given),
        "verdict": verdict,
        "finding": _finding(table, quantity, label, verdict),
    }


def _finding(table, quantity, label, verdict) -> str:
    if verdict == FOLLOWS:
        return _REMARKS.get((table.name, quantity), "")
    if verdict == CUT:
        return "The last digit is cut off, not rounded."
    # A number that does not follow and has no sentence is a KeyError: write it.
    by_row = (table.name, quantity, label)
    return _FINDINGS[by_row if by_row in _FINDINGS else by_row[:2]]


# What goes with numbers that follow, and yet do not mean what they say.
_REMARKS = {
    (GPT_175B.name, "estimated_runtime_s"): (
        "Three times the third that was timed is what a pipeline with fewer micro-batches than stages takes to "
        "generate (time_on_more_nodes), but an upper bound for prompts that are encoded in micro-batches; embedding "
        "and logits count three times."
    ),
    (GPT_175B_A40.name, "cluster_pflops_per_s"): (
        "16 x 149 is 2.384; 2.387 needs 149.2 TFLOP/s a device, and NVIDIA's datasheet has 149.7, which makes 2.395."
    ),
}
_TWICE = (
    "Twice what the closed form gives for the batch. 2 x 20 x 24 s h^2 l (1 + s / 6h), s = p + o, every operation "
    "counted twice and the output encoded with the prompt, gives {values}."
)
_SWAPPED = (
    "The two labels of setting 2 are swapped: a token takes 0.348 TFLOP, and the prompt of 512 tokens 179.358, of "
    "which 179.35 is cut."
)
# By table and quantity or, where rows differ, by row too.
_FINDINGS = {
    (GPT_66B.name, "tflops_per_s_per_device"): _TWICE.format(values="16.45, 16.43 and 5.60"),
    (GPT_175B.name, "tflops_per_s_per_device"): _TWICE.format(values="6.95, 7.87 and 3.22 on 24 devices"),
    (GPT_175B_A40.name, "total_tflops_per_s", "512"): (
        "66.2 token/s are 1.324 sequences of 197 TFLOP a second: 260 TFLOP/s, 1.15 times what is printed. A token rate "
        "over the generation time alone, prompts taking 13 % of the runtime, would fit; row 1900 it would not."
    ),
    (GPT_175B_A40.name, "total_tflops_per_s", "1900"): (
        "19.0 token/s are 0.19 sequences of 713 TFLOP a second: a third of what is printed, for which it would take "
        "59 token/s. A token rate over the generation time alone would widen the gap: no one reading fits both rows."
    ),
    (GPT_175B_CPU_1.name, "tokens_per_s"): "8 / 17.18 is 0.466, not 0.45.",
    (GPT_175B_CPU_2.name, "token_tflops_per_s"): "32 x 0.35 / 24.95 is 0.45, not 0.49.",
    (GPT_175B_CPU_2.name, "token_tflops"): _SWAPPED,
    (GPT_175B_CPU_2.name, "prompt_tflops"): _SWAPPED,
}
