"""The loss of a trained model as a function of its size and its training tokens, and what follows in closed form.

Every function takes arrays, and so do the coefficients of a law: a bootstrap's draws are one law of arrays.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_not_negative, check_positive, did_you_mean
from idealized_runtime.lifetime.fitted_range import FittedRange

TRAINING_FLOPS_PER_PARAM_AND_TOKEN = 6
# Parameters or tokens: what asks for more counts as out of reach.
MAX_SIZE = 1e100
COEFFICIENTS = ("A", "B", "E", "alpha", "beta")


@dataclass(frozen=True)
class ModelSize:
    """How large a model is and how long it is trained.

    Parameters
    ----------
    num_params, num_training_tokens : float or array
        N and D of arXiv:2203.15556.
    """

    num_params: float | np.ndarray
    num_training_tokens: float | np.ndarray

    def __post_init__(self):
        check_positive(num_params=self.num_params, num_training_tokens=self.num_training_tokens)

    @property
    def training_flops(self):
        """Operations of forward and backward pass, 6 N D, without attention (arXiv:2001.08361)."""
        return TRAINING_FLOPS_PER_PARAM_AND_TOKEN * self.num_params * self.num_training_tokens

    @property
    def training_tokens_per_param(self):
        return self.num_training_tokens / self.num_params


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats a token.

    Parameters
    ----------
    A, B, alpha, beta : float or array
        Positive.
    E : float or array
        The loss that no size and no number of tokens gets below; not negative.
    source : str
        Where the coefficients come from.
    fitted_range : FittedRange, optional
        The training runs behind them, where these are known.

    Raises
    ------
    ValueError
        A coefficient outside its range.
    """

    A: float | np.ndarray
    B: float | np.ndarray
    E: float | np.ndarray
    alpha: float | np.ndarray
    beta: float | np.ndarray
    source: str = ""
    fitted_range: FittedRange | None = None

    def __post_init__(self):
        check_positive(A=self.A, B=self.B, alpha=self.alpha, beta=self.beta)
        check_not_negative(E=self.E)

    def loss(self, num_params: ArrayLike, num_training_tokens: ArrayLike) -> float | np.ndarray:
        """Final training loss, nats a token."""
        check_positive(num_params=num_params, num_training_tokens=num_training_tokens)
        return self.E + self.A / num_params**self.alpha + self.B / num_training_tokens**self.beta

    def reducible_loss(self, loss: ArrayLike) -> float | np.ndarray:
        """L - E: what size and tokens together may leave.

        Raises
        ------
        ValueError
            The loss is E or less, which nothing reaches.
        """
        check_positive(loss=loss)
        reducible = np.asarray(loss, dtype=float) - self.E
        if (reducible <= 0).any():
            given, floor = (array[reducible <= 0].flat[0] for array in np.broadcast_arrays(loss, self.E))
            raise ValueError(f"loss must be above E = {floor:g}, which no model gets below; got {given:g}")
        return reducible[()]

    def training_tokens_for(self, loss: ArrayLike, num_params: ArrayLike) -> float | np.ndarray:
        """D: the training tokens with which models of this size reach this loss.

        Raises
        ------
        ValueError
            Models of this size do not reach it with any number of tokens.
        """
        check_positive(num_params=num_params)
        left = self._left_of_loss(loss, num_params, self.A, self.alpha, "parameters", "training tokens")
        return (self.B / left) ** (1 / self.beta)

    def params_for(self, loss: ArrayLike, num_training_tokens: ArrayLike) -> float | np.ndarray:
        """N: the size that reaches this loss with so many training tokens.

        Raises
        ------
        ValueError
            No size reaches it.
        """
        check_positive(num_training_tokens=num_training_tokens)
        left = self._left_of_loss(loss, num_training_tokens, self.B, self.beta, "training tokens", "parameters")
        return (self.A / left) ** (1 / self.alpha)

    def _left_of_loss(self, loss, given, scale, exponent, unit, other):
        """What one of size and tokens leaves of the reducible loss to the other."""
        reducible = self.reducible_loss(loss)
        left = reducible - scale / given**exponent
        bad = np.asarray(left) <= 0
        if bad.any():
            least = (scale / reducible) ** (1 / exponent)
            loss, given, least = (array[bad].flat[0] for array in np.broadcast_arrays(loss, given, least, bad)[:3])
            raise ValueError(
                f"no number of {other} reaches loss {loss:g} with {given:.4g} {unit}: "
                f"more than {least:.4g} {unit} are needed, or a higher loss"
            )
        return left


def is_reachable(law: ScalingLaw, loss) -> np.ndarray:
    """Whether a loss lies above E, and not by so little that only sizes beyond 1e100 would reach it.

    Parameters
    ----------
    law : ScalingLaw
    loss : float or array
        They broadcast.
    """
    reducible = np.subtract(loss, law.E)
    log_reducible = np.log(np.where(reducible > 0, reducible, np.nan))
    log_num_params = (np.log(law.A * (1 + law.alpha / law.beta)) - log_reducible) / law.alpha
    log_num_tokens = (np.log(law.B * (1 + law.beta / law.alpha)) - log_reducible) / law.beta
    return np.maximum(log_num_params, log_num_tokens) < np.log(MAX_SIZE)


PROPERTIES = ("loss", "num_params", "num_training_tokens", "training_flops")


def chinchilla_size(law: ScalingLaw, **given) -> ModelSize:
    """The size that reaches its loss with the fewest training FLOPs, from one of its four properties.

    Parameters
    ----------
    law : ScalingLaw
    **given : float or array
        Exactly one of ``loss``, ``num_params``, ``num_training_tokens`` and ``training_flops``.

    Returns
    -------
    ModelSize
        N = G (C / 6)^a and D = (C / 6)^b / G, with a = beta / (alpha + beta) and b = 1 - a (arXiv:2203.15556, Eq. 4).

    Raises
    ------
    ValueError
        None or several are given, one is not positive, or the loss is E or less.
    """
    _check_given(given, 1, "a Chinchilla size follows from exactly one property")
    ((name, value),) = given.items()
    if name == "loss":
        # At the optimum the size's share of the reducible loss is beta / (alpha + beta), the tokens' the rest.
        reducible = law.reducible_loss(value)
        return ModelSize(
            num_params=(law.A * (1 + law.alpha / law.beta) / reducible) ** (1 / law.alpha),
            num_training_tokens=(law.B * (1 + law.beta / law.alpha) / reducible) ** (1 / law.beta),
        )
    exponent_sum = law.alpha + law.beta
    scale = (law.alpha * law.A / (law.beta * law.B)) ** (1 / exponent_sum)  # G
    if name == "num_params":
        params_times_tokens = (value / scale) ** (exponent_sum / law.beta)
    elif name == "num_training_tokens":
        params_times_tokens = (value * scale) ** (exponent_sum / law.alpha)
    else:
        params_times_tokens = value / TRAINING_FLOPS_PER_PARAM_AND_TOKEN
    return ModelSize(
        num_params=scale * params_times_tokens ** (law.beta / exponent_sum),
        num_training_tokens=params_times_tokens ** (law.alpha / exponent_sum) / scale,
    )


def size_from(law: ScalingLaw, **given) -> ModelSize:
    """The size that two of its four properties fix.

    Parameters
    ----------
    law : ScalingLaw
    **given : float or array
        Exactly two properties, named as in :func:`chinchilla_size`, other than ``loss`` with ``training_flops``.

    Raises
    ------
    ValueError
        Not two are given, one is not positive, or nothing has both. A loss and a compute budget are refused:
        two sizes have both, one on either side of the Chinchilla size, or none.
    """
    _check_given(given, 2, "a size follows from exactly two properties")
    if given.keys() == {"loss", "training_flops"}:
        raise ValueError(
            "a loss and a compute budget do not fix a size: one smaller and one larger than the Chinchilla size have "
            "both, or none has; give the loss and the parameters or the training tokens, or ask for the Chinchilla size"
        )
    num_params, num_training_tokens = given.get("num_params"), given.get("num_training_tokens")
    if "loss" in given and num_params is None:
        num_params = law.params_for(given["loss"], num_training_tokens)
    elif "loss" in given:
        num_training_tokens = law.training_tokens_for(given["loss"], num_params)
    elif "training_flops" in given:
        params_times_tokens = given["training_flops"] / TRAINING_FLOPS_PER_PARAM_AND_TOKEN
        if num_params is None:
            num_params = params_times_tokens / num_training_tokens
        else:
            num_training_tokens = params_times_tokens / num_params
    return ModelSize(num_params, num_training_tokens)


def _check_given(given, number, rule):
    """Refuse unknown properties, another number of them, and what is not positive."""
    if unknown := given.keys() - set(PROPERTIES):
        raise TypeError(f"properties are {', '.join(PROPERTIES)}; got {', '.join(sorted(unknown))}")
    if len(given) != number:
        raise ValueError(f"{rule}; got {', '.join(name for name in PROPERTIES if name in given) or 'none'}")
    check_positive(**given)


_HOFFMANN = "Hoffmann et al. 2022, arXiv:2203.15556"
# arXiv:2203.15556, abstract: 70 million to over 16 billion parameters on 5 to 500 billion tokens. The refit is to
# points of its Figure 4.
_HOFFMANN_RANGE = FittedRange((7e7, 1.6e10), (5e9, 5e11))
SCALING_LAWS = {
    "chinchilla": ScalingLaw(
        406.4, 410.7, 1.69, 0.336, 0.283,
        f"{_HOFFMANN}, approach 3, with the exponents that arXiv:2401.00448 (Beyond Chinchilla) and its code use",
        _HOFFMANN_RANGE,
    ),
    "hoffmann-2022": ScalingLaw(406.4, 410.7, 1.69, 0.34, 0.28, f"{_HOFFMANN}, Eq. 10, as printed", _HOFFMANN_RANGE),
    "hoffmann-2022-tex": ScalingLaw(
        406.4, 410.7, 1.6934, 0.3392, 0.2849,
        f"{_HOFFMANN}, as its TeX source has them before rounding, quoted by Besiroglu et al. 2024, arXiv:2404.10102",
        _HOFFMANN_RANGE,
    ),
    "epoch": ScalingLaw(482.01, 2085.43, 1.8172, 0.3478, 0.3658,
                        "Besiroglu et al. 2024 (Epoch AI), arXiv:2404.10102: a refit to the points of Hoffmann et al.",
                        _HOFFMANN_RANGE),
}  # fmt: skip


def get_scaling_law(name: str = "chinchilla", **coefficients) -> ScalingLaw:
    """A published set of coefficients by name, any of them replaced by those given.

    Parameters
    ----------
    name : str
        One of ``SCALING_LAWS``.
    **coefficients : float
        ``A``, ``B``, ``E``, ``alpha``, ``beta``.

    Raises
    ------
    ValueError
        No set has this name, or a coefficient is out of range.
    """
    if name not in SCALING_LAWS:
        hint = did_you_mean(name, SCALING_LAWS)
        raise ValueError(f"no coefficients named {name!r}{hint}; there are: {', '.join(SCALING_LAWS)}")
    law = SCALING_LAWS[name]
    if not coefficients:
        return law
    return replace(law, **coefficients, source=f"{', '.join(sorted(coefficients))} as given; the rest: {law.source}")
