"""What training and serving a model cost, as functions of its size: in FLOPs, or in dollars on rented accelerators.

The solver asks two things of an inference cost: its value and its derivative (:class:`InferenceCost`). The
textbook one is 2 N T FLOPs at a guessed utilisation (:class:`LinearCost`); a measured one takes its place without
any change elsewhere.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_not_negative, check_positive, check_utilization
from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.hardware.prices import DeviceRate, device_price, dollar_cost_usd
from idealized_runtime.lifetime.scaling_law import ModelSize

INFERENCE_FLOPS_PER_PARAM_AND_TOKEN = 2


class InferenceCost(Protocol):
    """Cost of all inference over the model's life, in the unit of the training cost.

    With x = ln N, the cost must be a continuous, convex function of x. Then training and inference together are
    strictly convex in x (6 N D(N) at equal loss is), so that there is one optimum and bisection of the
    derivative cannot miss it. Sums of constants and of powers of N are convex in x, whatever their exponents;
    steps, such as a number of accelerators that is rounded up, are not. The solver checks and refuses.
    """

    def cost(self, num_params):
        """Lifetime cost of serving models of ``num_params``; an array gives an array (broadcasting)."""

    def marginal_cost(self, num_params):
        """Derivative of that cost with respect to ln(num_params), same shape."""


@dataclass(frozen=True)
class LinearCost:
    """Cost proportional to the number of parameters.

    Parameters
    ----------
    per_param : float or array
        Lifetime cost of inference a parameter; zero where there is no demand.
    """

    per_param: float | np.ndarray

    def __post_init__(self):
        check_not_negative(per_param=self.per_param)

    def cost(self, num_params: ArrayLike) -> float | np.ndarray:
        return self.per_param * num_params

    def marginal_cost(self, num_params: ArrayLike) -> float | np.ndarray:
        return self.per_param * num_params


@dataclass(frozen=True)
class LifetimeCosts:
    """What the solver minimises: training plus inference, both in ``unit``.

    Parameters
    ----------
    per_training_flop : float or array
        1 to count FLOPs; dollars for each useful training FLOP otherwise.
    inference : InferenceCost
    unit : str
        ``"flops"`` or ``"usd"``.
    """

    per_training_flop: float | np.ndarray
    inference: InferenceCost
    unit: str

    def __post_init__(self):
        check_positive(per_training_flop=self.per_training_flop)

    def training(self, size: ModelSize) -> float | np.ndarray:
        """Cost of training alone."""
        return self.per_training_flop * size.training_flops

    def total(self, size: ModelSize) -> float | np.ndarray:
        """Cost of training and of all inference."""
        return self.training(size) + self.inference.cost(size.num_params)


def inference_flops(num_params, num_inference_tokens):
    """2 N T: a forward pass a token, prompt or output, without attention."""
    return INFERENCE_FLOPS_PER_PARAM_AND_TOKEN * num_params * num_inference_tokens


def flop_costs(num_inference_tokens: float) -> LifetimeCosts:
    """Costs counted in FLOPs: 6 N D + 2 N T (arXiv:2401.00448, Eq. 2).

    Parameters
    ----------
    num_inference_tokens : float or array
        T: prompt and output tokens over the model's life; may be zero.
    """
    check_not_negative(num_inference_tokens=num_inference_tokens)
    return LifetimeCosts(1.0, LinearCost(inference_flops(1, num_inference_tokens)), "flops")


@dataclass(frozen=True)
class Rental:
    """An accelerator, the type it computes in, and its price.

    Parameters
    ----------
    accelerator : Accelerator
    dtype : str
        A type whose peak rate is known for it, such as ``"bfloat16"``.
    price_usd_per_hour : float
    price_source : str
    """

    accelerator: Accelerator
    dtype: str
    price_usd_per_hour: float
    price_source: str = "as given"

    def __post_init__(self):
        check_positive(price_usd_per_hour=self.price_usd_per_hour)
        self.accelerator.peak_flops(self.dtype)

    def usd_per_flop(self, mfu: float) -> float:
        """Dollars a useful FLOP at this utilisation (MFU), a share of the peak rate in (0, 1]."""
        check_utilization(mfu=mfu)
        flop_s = 1 / (mfu * self.accelerator.peak_flops(self.dtype))
        return dollar_cost_usd(flop_s, num_accelerators=1, price_usd_per_hour=self.price_usd_per_hour)


DTYPE_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp8": "float8", "fp32": "float32", "tf32": "tfloat32"}
# Rental prices as arXiv:2401.00448 and its code assume them, for comparisons with it; elsewhere the dated
# prices of the accelerator's own row hold.
_ASSUMED = "assumed by arXiv:2401.00448 (2024)"
ASSUMED_PRICES_USD_PER_HOUR = {"A100-40GB": 1.10, "A100-80GB": 1.50, "H100": 2.00}


def rent(name: str, dtype: str, price_usd_per_hour: float | None = None) -> Rental:
    """An accelerator of the registry at a price: the one given, else that of arXiv:2401.00448, else its row's.

    Parameters
    ----------
    name : str
        As :func:`idealized_runtime.hardware.accelerators.get_accelerator` knows it; ``A100_80`` is ``A100-80GB``.
    dtype : str
        Full or short, in any case: ``"bfloat16"`` or ``"bf16"``.
    price_usd_per_hour : float, optional

    Raises
    ------
    ValueError
        The accelerator is not known, has no peak rate for this type, or has no price and none is given.
    """
    accelerator = get_accelerator(name)
    full_dtype = DTYPE_NAMES.get(dtype.lower(), dtype.lower())
    if full_dtype not in accelerator.peak_flops_per_s:
        short = {name: abbreviation for abbreviation, name in DTYPE_NAMES.items()}
        known = ", ".join(short.get(name, name) for name in accelerator.peak_flops_per_s) or "none"
        raise ValueError(f"{accelerator.name}: no peak rate is known for {dtype!r}; known: {known}")
    price = device_price(price_usd_per_hour, accelerator)
    if price_usd_per_hour is None and accelerator.name in ASSUMED_PRICES_USD_PER_HOUR:
        price = DeviceRate.exactly(ASSUMED_PRICES_USD_PER_HOUR[accelerator.name], _ASSUMED)
    if price is None:
        raise ValueError(f"{accelerator.name} has no price: give one, in dollars an hour of one accelerator")
    return Rental(accelerator, full_dtype, price.value, price.source)


def dollar_costs(
    *,
    training: Rental,
    inference: Rental,
    num_requests: float,
    num_prompt_tokens: float,
    num_output_tokens: float,
    training_mfu: float = 0.5,
    prompt_mfu: float = 0.5,
    output_mfu: float = 0.01,
) -> LifetimeCosts:
    """Dollar costs at assumed utilisations (arXiv:2401.00448, Eq. 4).

    Parameters
    ----------
    training, inference : Rental
    num_requests : float or array
        Over the model's life; may be zero.
    num_prompt_tokens, num_output_tokens : float or array
        Means over requests: with these costs nothing else of their distribution matters.
    training_mfu, prompt_mfu, output_mfu : float or array
        Utilisations in (0, 1].

    Returns
    -------
    LifetimeCosts
        In dollars.
    """
    check_not_negative(
        num_requests=num_requests, num_prompt_tokens=num_prompt_tokens, num_output_tokens=num_output_tokens
    )
    usd_per_param_and_request = inference_flops(1, num_prompt_tokens) * inference.usd_per_flop(prompt_mfu)
    usd_per_param_and_request += inference_flops(1, num_output_tokens) * inference.usd_per_flop(output_mfu)
    per_param = num_requests * usd_per_param_and_request
    return LifetimeCosts(training.usd_per_flop(training_mfu), LinearCost(per_param), "usd")
