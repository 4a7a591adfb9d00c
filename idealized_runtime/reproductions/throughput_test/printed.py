"""Tables of an earlier throughput test, as printed.

Source: "Throughput Test of Inference Tasks", unpublished laboratory notes on serving GPT-J, a 66 B and a 175 B model
on AWS (P3, P4d, M6i) and FluidStack (A40) machines, one run a row. Numbers are text, so that their digits stay;
``None`` stands for a dash. What was measured and what was derived from it is told apart in :mod:`.recomputed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pandas as pd


@dataclass(frozen=True)
class PrintedTable:
    """One table, with what the notes state above it.

    Parameters
    ----------
    name : str
    architecture : str
        Registry name of the shape: the notes name their models by size.
    num_accelerators, num_stages : int
        GPUs, or the one machine whose CPUs worked; pipeline stages.
    num_prompt_tokens, num_output_tokens : int, optional
        "Input sequence length" and "generate sequence length"; None where a column has them.
    columns : tuple of str
        The first is what tells one row from another.
    rows : tuple of tuple of str or None
    facts : mapping of str to str
        Numbers stated above the table.
    """

    name: str
    architecture: str
    num_accelerators: int
    num_stages: int
    num_prompt_tokens: int | None
    num_output_tokens: int | None
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def frame(self) -> pd.DataFrame:
        """The table as printed, text."""
        return pd.DataFrame(self.rows, columns=list(self.columns))

    def timings(self) -> pd.DataFrame:
        """The measured times of a pipeline's table, one row a setting, as runtime models take them.

        The notes do not state how many prompts are encoded together; they are taken to be the batch.
        """
        printed = self.frame()
        sizes = {
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_output_tokens": self.num_output_tokens,
            "batch_size": int(self.facts["batch_size"]),
            "micro_batch_size": int(self.facts["batch_size"]),
            "token_micro_batch_size": printed["token_micro_batch_size"].astype(int),
            "pipeline_parallel_size": self.num_stages,
        }
        times = printed[["prompt_encoding_time_s", "generation_time_s", "runtime_s"]].astype(float)
        return pd.DataFrame(sizes).join(times)


_PIPELINE = ("token_micro_batch_size", "prompt_encoding_time_s", "generation_time_s", "runtime_s")
_PER_DEVICE = "tflops_per_s_per_device"
_CPU = ("batch_size", "prompt_encoding_time_s", "prompt_tflops_per_s", "time_per_round_s", "tokens_per_s",
        "token_tflops_per_s")  # fmt: skip

GPT_J = PrintedTable(
    "GPT-J, 4 p3.2xlarge", "gpt-j", 4, 4, 512, 32, _PIPELINE,
    (
        ("48", "1.93", "4.89", "6.82"),
        ("24", "1.92", "3.34", "5.26"),
        ("12", "1.93", "2.59", "4.52"),
        ("6", "1.93", "4.95", "6.88"),
        ("3", "1.92", "9.21", "11.13"),
        ("1", "1.94", "29.55", "31.48"),
    ),
    {"batch_size": "48"},
)  # fmt: skip
GPT_66B = PrintedTable(
    "66 B, 1 p4d.24xlarge", "opt-66b", 8, 8, 1024, 100, (*_PIPELINE, _PER_DEVICE),
    (
        ("20", "2.71", "42.78", "45.49", "16.44"),
        ("10", "2.72", "42.82", "45.54", "16.42"),
        ("4", "2.71", "130.78", "133.49", "5.60"),
    ),
    {"batch_size": "20", "layers_per_device": "8"},
)  # fmt: skip
GPT_175B = PrintedTable(
    "175 B, a third on 1 p4d.24xlarge", "davinci", 8, 8, 1024, 100,
    (*_PIPELINE, "estimated_runtime_s", _PER_DEVICE),
    (
        ("20", "2.14", "29.58", "31.72", "95.16", "6.94"),
        ("10", "2.14", "25.89", "28.03", "84.09", "7.86"),
        ("4", "2.14", "66.34", "68.48", "205.44", "3.22"),
    ),
    {"batch_size": "20", "layers_per_device": "4", "num_nodes": "3"},
)  # fmt: skip
GPT_175B_A40 = PrintedTable(
    "175 B, 2 x 8 A40", "davinci", 16, 16, None, None,
    ("num_prompt_tokens", "num_output_tokens", "tokens_per_s", "total_tflops_per_s", "cluster_efficiency_percent"),
    (("512", "50", "66.2", "226.35", "9.4"), ("1900", "100", "19.0", "420.82", "17.6")),
    {"device_tflops_per_s": "149", "cluster_pflops_per_s": "2.387"},
)  # fmt: skip
GPT_175B_CPU_1 = PrintedTable(
    "175 B, m6i.32xlarge, setting 1", "davinci", 1, 1, 1024, 100, _CPU,
    (
        ("1", "449.27", "0.80", "5.19", "0.19", "0.067"),
        ("4", "1431.55", "1.01", "11.76", "0.34", "0.11"),
        ("8", None, None, "17.18", "0.45", "0.16"),
        ("16", None, None, "24.37", "0.65", "0.22"),
        ("20", None, None, "28.57", "0.70", "0.25"),
    ),
    {"token_tflops": "0.35", "prompt_tflops": "361.19", "out_of_memory_batch_size": "24", "memory_gb": "512",
     "price_usd_per_hour": "6.1"},
)  # fmt: skip
GPT_175B_CPU_2 = PrintedTable(
    "175 B, m6i.32xlarge, setting 2", "davinci", 1, 1, 512, 50, _CPU,
    (
        ("1", None, None, "2.30", "0.43", "0.15"),
        ("4", None, None, "8.44", "0.47", "0.16"),
        ("8", None, None, "10.73", "0.74", "0.26"),
        ("16", None, None, "14.77", "1.08", "0.38"),
        ("32", None, None, "24.95", "1.28", "0.49"),
        ("40", None, None, "26.09", "1.53", "0.54"),
    ),
    {"token_tflops": "179.35", "prompt_tflops": "0.35", "out_of_memory_batch_size": "48", "memory_gb": "512",
     "price_usd_per_hour": "6.1"},
)  # fmt: skip
PIPELINE_TABLES = (GPT_J, GPT_66B, GPT_175B)
CPU_TABLES = (GPT_175B_CPU_1, GPT_175B_CPU_2)
TABLES = (*PIPELINE_TABLES, GPT_175B_A40, *CPU_TABLES)
