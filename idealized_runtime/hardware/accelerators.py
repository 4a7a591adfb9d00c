"""Accelerators: memory, bandwidth, peak rates, power and price, each figure with its source.

Figures that no source states are None, never a guess. Specifications were compared in November 2026 with
public quotations of the documents named. A price belongs to its date and its kind of contract: compare
prices of one date only, and give your own wherever a function takes ``price_usd_per_hour``.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FIGURES = ("memory_bytes", "memory_bandwidth_bytes_per_s", "peak_flops_per_s", "power_watts", "price_usd_per_hour")


@dataclass(frozen=True)
class Accelerator:
    """One accelerator.

    Parameters
    ----------
    name : str
        Key of the registry.
    memory_bytes : float, optional
        As its maker states it, in powers of ten; the device itself reports a few per cent more.
    memory_bandwidth_bytes_per_s : float, optional
    peak_flops_per_s : mapping of str to float
        Dense matrix products by type of the operands: tensor cores where there are any, without sparsity.
        Integer types count integer operations.
    power_watts : float, optional
        Maximum (thermal design) power: an upper bound of the draw.
    price_usd_per_hour : float, optional
        Of one accelerator, with its share of the machine around it.
    price_date : str, optional
        ISO date or month of that price.
    sources : mapping of str to str
        By figure: where it was read. Every figure that is not None has one.
    log_names : tuple of str
        Names under which others know it: the ``hardware`` of a timing log's header, a folder under ``logs/``, the
        spellings of arXiv:2401.00448's calculators.

    Raises
    ------
    ValueError
        A figure is not positive, or lacks its source or (a price) its date.
    """

    name: str
    memory_bytes: float | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    peak_flops_per_s: Mapping[str, float] = field(default_factory=dict, hash=False)
    power_watts: float | None = None
    price_usd_per_hour: float | None = None
    price_date: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    log_names: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("peak_flops_per_s", "sources"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for name in FIGURES:
            given = getattr(self, name)
            values = list(given.values()) if isinstance(given, Mapping) else [given] if given is not None else []
            if not all(value > 0 for value in values):
                raise ValueError(f"{self.name}: {name} must be positive; got {given!r}")
            if values and not self.sources.get(name):
                raise ValueError(f"{self.name}: {name} has no source")
        if (self.price_usd_per_hour is None) != (self.price_date is None):
            raise ValueError(f"{self.name}: a price and its date go together; got {self.price_date!r}")

    def peak_flops(self, dtype: str) -> float:
        """Peak dense FLOP/s of matrix products of this type.

        Raises
        ------
        ValueError
            Not known; the message lists the types that are.
        """
        if dtype not in self.peak_flops_per_s:
            known = ", ".join(self.peak_flops_per_s) or "none"
            raise ValueError(f"{self.name}: no peak rate is known for {dtype!r}; known: {known}")
        return self.peak_flops_per_s[dtype]


_V100 = "NVIDIA V100 Tensor Core GPU datasheet, 1165301-r5, SXM2"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet, 1758950-r4, SXM; 40 GB: NVIDIA A100 architecture whitepaper (2020)"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet, SXM (sparse rates halved)"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, 3002446, SC23 (sparse rates halved)"
_A40 = "NVIDIA A40 datasheet (images.nvidia.com, a40/nvidia-a40-datasheet.pdf)"
_B200 = (
    "NVIDIA Blackwell architecture technical brief, HGX B200, per GPU (dense rates); memory: DGX B200 datasheet, "
    "1,440 GB of 8"
)
_GB200 = "NVIDIA GB200 NVL72 specifications over 72 (sparse rates halved); power: NVIDIA Blackwell architecture brief"
_B300 = "NVIDIA HGX B300 specifications over 8 (sparse rates halved)"
_GB300 = "NVIDIA GB300 NVL72 specifications over 72 (sparse rates halved)"
_L40S = "NVIDIA L40S datasheet (sparse rates halved)"
_L4 = "NVIDIA L4 Tensor Core GPU datasheet (sparse rates halved)"
_A10G = "NVIDIA A10G datasheet of 2022-02-17, for Amazon EC2 G5"
_RTX_4090 = "NVIDIA Ada GPU architecture whitepaper, table 2 (FP32 accumulation)"
_MI300X = "AMD Instinct MI300X Platform and Accelerator data sheets"
_PAPER_A100 = "arXiv:2305.02440, Figures 8 and 9: AWS on demand, p4d.24xlarge at $32.77 for 8 A100-40GB"
_PAPER_V100 = "arXiv:2305.02440, Figures 8 and 9: AWS on demand, p3.16xlarge at $24.48 for 8 V100"
_AWS_2026 = "AWS on-demand price list, Linux, us-east-1, 2026-09-25"
_AWS_P6 = "AWS EC2 public price catalog, Linux on demand, us-east-1, as quoted on 2026-09-01: "
_AWS_G5 = "AWS on demand, Linux, us-east-1: g5.xlarge at $1.006, as quoted by factualminds.com in June 2026"
_AWS_G6 = "AWS Pricing API, on demand, us-east-1, as captured on 2026-08-17: "
_COREWEAVE = "CoreWeave's price page, on demand, North America, as read on 2026-09-20: "
_RUNPOD_A40 = "RunPod Secure Cloud, per GPU, as collected on 2026-08-19 (data set privum/ai-compute-prices)"
_RUNPOD_4090 = "RunPod Secure Cloud, per GPU, as a user of it noted in September 2026"
_DIGITALOCEAN = "DigitalOcean API, gpu-mi300x1-192gb, as collected on 2026-10-07 (data set tokenwatt/gpu-cloud-prices)"
_CPU = (
    "measured 2026-11-21 with torch 2.13.0 on both cores, medians: a copy of 1 GiB, bytes read and written; "
    "products of 4096 x 4096 matrices; memory as the system reports it"
)
_A100_PEAKS = {"float32": 19.5e12, "tfloat32": 156e12, "bfloat16": 312e12, "float16": 312e12, "int8": 624e12}
# To three digits, as they are quoted everywhere: half of the sparse 1,979 is 989.5, the architecture's 989.4.
_HOPPER_PEAKS = {
    "float32": 67e12,
    "tfloat32": 494.5e12,
    "bfloat16": 989e12,
    "float16": 989e12,
    "float8": 1978e12,
    "int8": 1978e12,
}  # fmt: skip
_BLACKWELL_PEAKS = {
    "float32": 75e12,
    "tfloat32": 1125e12,
    "bfloat16": 2250e12,
    "float16": 2250e12,
    "float8": 4500e12,
    "float4": 9000e12,
}  # fmt: skip


def _sources(specification, price=None):
    return {**dict.fromkeys(FIGURES, specification), "price_usd_per_hour": price}


_REGISTRY = (
    Accelerator("V100-32GB", 32e9, 900e9, {"float32": 15.7e12, "float16": 125e12}, 300.0,
                3.06, "2023-05", _sources(_V100, _PAPER_V100), ("v100", "Tesla V100-SXM2-32GB")),
    Accelerator("A100-40GB", 40e9, 1555e9, _A100_PEAKS, 400.0,
                4.096, "2023-05", _sources(_A100, _PAPER_A100), ("A100_40", "NVIDIA A100-SXM4-40GB")),
    # The paper prices its 80-GB devices as the 40-GB ones of that instance.
    Accelerator("A100-80GB", 80e9, 2039e9, _A100_PEAKS, 400.0,
                4.096, "2023-05", _sources(_A100, _PAPER_A100), ("a100", "A100_80", "NVIDIA A100-SXM4-80GB")),
    Accelerator("H100", 80e9, 3350e9, _HOPPER_PEAKS, 700.0, 6.88, "2026-09-25",
                _sources(_H100, _AWS_2026 + ": p5.48xlarge at $55.04 for 8"),
                ("H100-SXM", "h100_sxm", "H100-80GB", "NVIDIA H100 80GB HBM3")),
    Accelerator("H200", 141e9, 4800e9, _HOPPER_PEAKS, 700.0, 7.912, "2026-09-25",
                _sources(_H200, _AWS_2026 + ": p5en.48xlarge at $63.296 for 8"), ("h200", "h200_sxm", "NVIDIA H200")),
    Accelerator("B200", 180e9, 8000e9, _BLACKWELL_PEAKS, 1000.0, 14.2416, "2026-09-01",
                _sources(_B200, _AWS_P6 + "p6-b200.48xlarge at $113.9328 for 8"), ("b200_sxm", "NVIDIA B200")),
    Accelerator("GB200", 186e9, 8000e9, {"float32": 80e12, "tfloat32": 1250e12, "bfloat16": 2500e12,
                                         "float16": 2500e12, "float8": 5000e12, "float4": 10000e12}, 1200.0,
                10.5, "2026-09-20", _sources(_GB200, _COREWEAVE + "an instance of GB200 NVL72 at $42.00 for 4"),
                ("NVIDIA GB200",)),
    Accelerator("B300", 288e9, 8000e9, {"float32": 75e12, "tfloat32": 1125e12, "bfloat16": 2250e12,
                                        "float16": 2250e12, "float8": 4500e12}, None, 17.802, "2026-09-01",
                _sources(_B300, _AWS_P6 + "p6-b300.48xlarge at $142.416 for 8"),
                ("b300_sxm", "NVIDIA B300 SXM6 AC")),
    # Clouds that have it name no price of it without a contract (CoreWeave, September 2026).
    Accelerator("GB300", 288e9, 8000e9, {"bfloat16": 2500e12, "float16": 2500e12, "float8": 5000e12},
                sources=_sources(_GB300), log_names=("NVIDIA GB300",)),
    Accelerator("L40S", 48e9, 864e9, {"float32": 91.6e12, "tfloat32": 183e12, "bfloat16": 366.5e12,
                                      "float16": 366.5e12, "float8": 733e12, "int8": 733e12}, 350.0,
                1.861, "2026-08-17", _sources(_L40S, _AWS_G6 + "g6e.xlarge at $1.861"), ("NVIDIA L40S",)),
    Accelerator("L4", 24e9, 300e9, {"float32": 30.3e12, "tfloat32": 60e12, "bfloat16": 121e12,
                                    "float16": 121e12, "float8": 242.5e12, "int8": 242.5e12}, 72.0,
                0.8048, "2026-08-17", _sources(_L4, _AWS_G6 + "g6.xlarge at $0.8048"), ("NVIDIA L4",)),
    Accelerator("A10G", 24e9, 600e9, {"float32": 35e12, "tfloat32": 35e12, "bfloat16": 70e12,
                                      "float16": 70e12, "int8": 140e12}, 300.0,
                1.006, "2026-06", _sources(_A10G, _AWS_G5), ("NVIDIA A10G",)),
    Accelerator("RTX 4090", 24e9, 1008e9, {"float32": 82.6e12, "tfloat32": 82.6e12, "bfloat16": 165.2e12,
                                           "float16": 165.2e12, "float8": 330.3e12, "int8": 660.6e12}, 450.0,
                0.74, "2026-09", _sources(_RTX_4090, _RUNPOD_4090), ("RTX4090", "NVIDIA GeForce RTX 4090")),
    Accelerator("MI300X", 192e9, 5300e9, {"float32": 163.4e12, "tfloat32": 653.7e12, "bfloat16": 1307.4e12,
                                          "float16": 1307.4e12, "float8": 2614.9e12, "int8": 2614.9e12}, 750.0,
                2.59, "2026-10-07", _sources(_MI300X, _DIGITALOCEAN), ("AMD Instinct MI300X",)),
    Accelerator("A40", 48e9, 696e9,
                {"float32": 37.4e12, "tfloat32": 74.8e12, "bfloat16": 149.7e12, "float16": 149.7e12}, 300.0,
                0.44, "2026-08-19", _sources(_A40, _RUNPOD_A40), ("a40", "NVIDIA A40")),
    # The machine of logs/cpu, a virtual one that hides its processor's model: measured, since nothing can be looked up.
    Accelerator("cpu", 25.3e9, 27.1e9, {"float32": 0.352e12, "bfloat16": 1.84e12},
                sources=_sources(_CPU), log_names=("Intel(R) Xeon(R) Processor, 2 cores",)),
)  # fmt: skip

ACCELERATORS = {accelerator.name: accelerator for accelerator in _REGISTRY}


# The names that others have for a row go to it as well.
_BY_NAME = {known.casefold(): row for row in _REGISTRY for known in (row.name, *row.log_names)}


def find_accelerator(name: str) -> Accelerator | None:
    """Row of the registry, by its name or by the name that timing logs have for it; None where there is none."""
    return _BY_NAME.get(name.casefold())


def get_accelerator(name: str) -> Accelerator:
    """Row of the registry, as :func:`find_accelerator`, or by the beginning of a name where that is of one row.

    Raises
    ------
    ValueError
        No row has this name, or several begin with it; the message lists the nearest, or those, and all rows.
        For another, make an :class:`Accelerator`.

    Examples
    --------
    >>> get_accelerator("H100").memory_bytes
    80000000000.0
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an accelerator is text; got {name!r:.60}")
    if (row := find_accelerator(name)) is not None:
        return row
    family = {row.name: row for known, row in _BY_NAME.items() if name and known.startswith(name.casefold())}
    if len(family) == 1:
        return next(iter(family.values()))
    near = family or difflib.get_close_matches(name, ACCELERATORS, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise ValueError(f"no accelerator named {name!r:.60}; {hint}there are: {', '.join(ACCELERATORS)}")
