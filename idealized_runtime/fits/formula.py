"""An analyst's own fit: a statsmodels formula as a model of runtimes, with its usual diagnostics."""

import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_positive, token_array
from idealized_runtime.fits.entries import entry_of, from_json
from idealized_runtime.fits.interpolation import locate
from idealized_runtime.fits.protocol import NoIntervalError, PredictingModel, plain
from idealized_runtime.fits.settings import batch_size_of, validate_settings
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.statistics.errors import with_errors
from idealized_runtime.statistics.intervals import half_width

RESPONSE = "runtime_s"
_WEIGHT_COLUMNS = (RESPONSE, "runtime_std_s", "num_trials", *TOKEN_COLUMNS)
# patsy evaluates a formula as Python, and one may come out of a file: it may say this much and no more.
_WORDS = {
    *TOKEN_COLUMNS, "np", "C", "I", "Treatment", "Sum", "Diff", "Helmert", "Poly", "bs", "cr", "center", "standardize",
    "df", "degree", "knots", "levels", "reference", "include_intercept", "lower_bound", "upper_bound", "True", "False",
}  # fmt: skip
_NUMPY_WORDS = {
    "abs", "cbrt", "ceil", "clip", "exp", "floor", "log", "log10", "log1p", "log2", "maximum", "minimum", "power",
    "sqrt", "square", "where",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class FormulaModel(PredictingModel):
    """Weighted least squares of a formula; obeys the protocol of models of runtimes.

    A formula is a fit: ``functools.partial(FormulaModel, formula)`` takes a frame, as ``RuntimeModel.fit`` does. Where
    prompt sizes are a category, ``C(num_prompt_tokens)``, what lies between profiled ones is read off the straight line
    through its neighbours, and beyond them off the line that ``fits.interpolation`` goes on along. Intervals are of the
    true mean runtime, were the formula right; they know nothing of what it errs by between profiled sizes.

    Parameters
    ----------
    formula : str
        As statsmodels and patsy read it: ``runtime_s ~`` terms of ``num_prompt_tokens`` and ``num_output_tokens``, with
        ``C``, ``I``, ``bs``, ``cr`` and functions of ``np``. It is fitted again when it is read from parameters, so it
        takes no other names.
    runtimes : DataFrame
        As :meth:`.RuntimeModel.fit` takes it; trials of a setting are averaged.
    weights : str
        Expression of the columns ``runtime_s``, ``runtime_std_s``, ``num_trials`` and the sizes: one over the variance
        of a setting's mean runtime, but for a factor. By default relative errors count alike.
    cov_type : str
        Of the covariance, as statsmodels names it: ``"HC3"`` where variances are not those that the weights say.
    min_prompt_sizes : int
        Fewer are refused.
    sources : tuple of mappings
        ``file`` and ``sha256`` of the logs that were fitted.

    Raises
    ------
    ValueError
        The formula cannot be read, its terms cannot be told apart by these settings, or the runtimes cannot be fitted;
        the message says which.
    """

    method: ClassVar[str] = "formula"

    formula: str
    runtimes: pd.DataFrame
    weights: str = "1 / runtime_s ** 2"
    cov_type: str = "nonrobust"
    min_prompt_sizes: int = 1
    sources: tuple = ()

    def __post_init__(self):
        # Whatever is wrong shows where the model is made; queries may be of mean sizes.
        self.predict(float(self.num_prompt_tokens[0]), 1.5)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The settings fitted, one a row."""
        return validate_settings(self.runtimes, min_prompt_sizes=self.min_prompt_sizes)

    @cached_property
    def results(self):
        """Results of statsmodels, with ``results.summary()`` and all its other diagnostics."""
        import statsmodels.formula.api as smf

        response, tilde, terms = self.formula.partition("~")
        if not tilde or response.strip() != RESPONSE:
            raise ValueError(f"a formula must be of the form '{RESPONSE} ~ terms'; got {self.formula!r}")
        _check_words("formula", terms, _WORDS)
        _check_words("weights", self.weights, {*_WEIGHT_COLUMNS})
        try:
            weights = self.settings.eval(self.weights) + 0.0 * self.settings[RESPONSE]
            check_positive(weights=weights)
            model = smf.wls(self.formula, self.settings, weights=weights, eval_env={"np": np})
            rank, num_terms = np.linalg.matrix_rank(model.wexog), model.wexog.shape[1]
            results = model.fit(cov_type=self.cov_type) if rank == num_terms else None
        except Exception as error:
            # patsy, pandas and statsmodels raise classes of their own for what they cannot read.
            raise ValueError(
                f"{self.formula!r} with weights {self.weights!r} cannot be fitted: {_first_line(error)}"
            ) from error
        if results is None:
            raise ValueError(
                f"{self.formula!r} has {num_terms} coefficients, of which {len(self.settings)} settings tell only "
                f"{rank} apart; take terms out, or time more sizes"
            )
        return results

    @property
    def batch_size(self) -> int | None:
        """Queries that run together; None where it is not known."""
        return batch_size_of(self.runtimes)

    @property
    def num_prompt_tokens(self) -> np.ndarray:
        """Profiled prompt sizes, ascending."""
        return self.settings["num_prompt_tokens"].unique()

    @property
    def prompt_range(self) -> tuple[int, int]:
        """Smallest and largest profiled prompt."""
        return self.num_prompt_tokens[0], self.num_prompt_tokens[-1]

    @property
    def reference_num_prompt_tokens(self) -> int:
        """The middle one of the profiled prompt sizes."""
        return int(self.num_prompt_tokens[len(self.num_prompt_tokens) // 2])

    @property
    def time_per_output_token_s(self) -> float:
        """Seconds from the first output token to the second at ``reference_num_prompt_tokens``."""
        return self.time_per_output_token_at(self.reference_num_prompt_tokens)

    @property
    def r_squared(self) -> float:
        """Of :meth:`predict` on the settings fitted, unweighted, as for other models of runtimes."""
        residuals = self.residuals
        squares = ((residuals[RESPONSE] - residuals["predicted_s"]) ** 2).sum()
        return float(1 - squares / ((residuals[RESPONSE] - residuals[RESPONSE].mean()) ** 2).sum())

    @property
    def residuals(self) -> pd.DataFrame:
        """Measured and predicted runtime and the relative error, predicted / measured - 1, one row a setting."""
        frame = self.settings[[*TOKEN_COLUMNS, RESPONSE]]
        predicted_s = self.predict(frame["num_prompt_tokens"].to_numpy(), frame["num_output_tokens"].to_numpy())
        return with_errors(frame, predicted_s)

    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Runtime of each query in seconds; float for two scalars, else an array.

        Raises
        ------
        ValueError
            A number of tokens is below 1 or not finite, or p lies outside the profiled range and ``extrapolate`` is
            not set.
        """
        rows, shape = self._rows(num_prompt_tokens, num_output_tokens, extrapolate)
        return plain((rows @ self.results.params.to_numpy()).reshape(shape))

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Confidence interval (lower, upper) of the true mean runtime, not below 0, by the covariance of the results.

        Raises
        ------
        ValueError
            As :meth:`predict`.
        NoIntervalError
            There are as many coefficients as settings.
        """
        rows, shape = self._rows(num_prompt_tokens, num_output_tokens, extrapolate)
        return tuple(plain(bound_s.reshape(shape)) for bound_s in self._bounds(rows, level))

    def time_per_output_token_interval_s(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval (lower, upper) of :attr:`time_per_output_token_s`, neither below 0."""
        (second, _), (first, _) = (self._rows(self.reference_num_prompt_tokens, o, False) for o in (2, 1))
        lower_s, upper_s = self._bounds(second - first, level)
        return float(lower_s[0]), float(upper_s[0])

    def to_json(self) -> dict:
        """HELM's keys, and under ``"fit"`` formula and settings, to which :meth:`from_json` fits it again."""
        names = ("formula", "weights", "cov_type", "batch_size", "min_prompt_sizes", "sources")
        fit = {name: getattr(self, name) for name in names}
        fit["settings"] = {name: column.to_numpy() for name, column in self.settings.items()}
        return entry_of(self, self.num_prompt_tokens, fit, method=self.method)

    @classmethod
    def from_json(cls, entry: Mapping) -> "FormulaModel":
        """The model of an entry that :meth:`to_json` made; ``fits.model_from_json`` reads any entry."""
        fit = dict(entry["fit"])
        settings = pd.DataFrame({name: from_json(values, np.nan) for name, values in fit["settings"].items()})
        if fit["batch_size"] is not None:
            settings["batch_size"] = fit["batch_size"]
        options = {name: fit[name] for name in ("weights", "cov_type", "min_prompt_sizes")}
        return cls(fit["formula"], settings, **options, sources=tuple(fit["sources"]))

    def _bounds(self, rows, level) -> tuple[np.ndarray, np.ndarray]:
        """Confidence intervals of linear combinations of the coefficients, none below 0."""
        if self.results.df_resid < 1:
            raise NoIntervalError(
                f"no interval is known: {self.formula!r} has as many coefficients as there are settings; time more"
            )
        error_s = np.sqrt(np.einsum("ni,ij,nj->n", rows, self.results.cov_params().to_numpy(), rows))
        dof = self.results.df_resid if self.results.use_t else np.inf
        estimate_s, half_s = rows @ self.results.params.to_numpy(), half_width(level, dof, 0.0) * error_s
        return np.maximum(estimate_s - half_s, 0), estimate_s + half_s

    def _rows(self, num_prompt_tokens, num_output_tokens, extrapolate) -> tuple[np.ndarray, tuple]:
        """Rows of the design of each query, and the shape that the queries broadcast to."""
        p = self._checked_prompts(num_prompt_tokens, extrapolate)
        p, o = np.broadcast_arrays(p, token_array("num_output_tokens", num_output_tokens))
        shape, p, o = p.shape, p.ravel(), o.ravel()
        if "C(num_prompt_tokens" not in self.formula.replace(" ", ""):
            return self._design(p, o), shape
        sizes = self.num_prompt_tokens
        if len(sizes) == 1 and np.any(p != sizes[0]):
            raise ValueError(f"one prompt size was profiled, {sizes[0]}, so there is no line to go on along")
        times_s = self._design(sizes, np.ones_like(sizes)) @ self.results.params.to_numpy()
        anchors = locate(p, sizes, times_s, 0.0)
        left, right = (self._design(sizes[side], o) for side in (anchors.left, anchors.right))
        return left + anchors.position[:, None] * (right - left), shape

    def _design(self, p, o) -> np.ndarray:
        from patsy import PatsyError, build_design_matrices

        # Many queries are of few sizes, and patsy takes its time for each.
        pairs, pair_of = np.unique(p + 1j * o, return_inverse=True)
        sizes = dict(zip(TOKEN_COLUMNS, (pairs.real, pairs.imag), strict=True))
        try:
            return np.asarray(build_design_matrices([self.results.model.data.model_spec], sizes)[0])[pair_of]
        except PatsyError as error:
            raise ValueError(f"{self.formula!r} predicts no queries of such sizes: {_first_line(error)}") from error


def influence_table(model: FormulaModel) -> pd.DataFrame:
    """How much each setting bears on the fit, and how far it lies off.

    Returns
    -------
    DataFrame, one row a setting
        Its sizes and ``runtime_s``; ``leverage``, its share of its own prediction; ``cooks_distance``, how far all
        predictions move without it, in squared standard errors; ``studentized_residual``, in standard errors that are
        estimated without it.
    """
    from statsmodels.api import OLS

    # statsmodels tells the influence in least squares without weights, which weighted columns make of any others.
    weighted = model.results.model
    influence = OLS(weighted.wendog, weighted.wexog).fit().get_influence()
    return model.settings[[*TOKEN_COLUMNS, RESPONSE]].assign(
        leverage=influence.hat_matrix_diag,
        cooks_distance=influence.cooks_distance[0],
        studentized_residual=influence.resid_studentized_external,
    )


def heteroscedasticity_test(model: FormulaModel) -> pd.Series:
    """Breusch and Pagan's test that the weighted residuals scatter alike at all numbers of tokens (Koenker's version).

    Returns
    -------
    Series
        ``lm_statistic, lm_p_value, f_statistic, f_p_value``; a small p value says that the weights are not right.
    """
    from statsmodels.stats.diagnostic import het_breuschpagan

    regressors = np.column_stack([np.ones(len(model.settings)), model.settings[TOKEN_COLUMNS]])
    values = het_breuschpagan(model.results.wresid, regressors)
    return pd.Series(values, index=["lm_statistic", "lm_p_value", "f_statistic", "f_p_value"], dtype=float)


def _first_line(error) -> str:
    return str(error).strip().split("\n")[0]


def _check_words(name, text, words):
    """Refuse every name in an expression but these and a few functions of numpy, and every text."""
    allowed = ", ".join(sorted(words - {"np"}))
    previous = ""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"{name} {text!r} cannot be read: {error.args[0]}") from error
    for token in tokens:
        is_word = token.string in (_NUMPY_WORDS if previous == "np." else words)
        if token.type == tokenize.STRING or (token.type == tokenize.NAME and not is_word):
            functions = f", and of np: {', '.join(sorted(_NUMPY_WORDS))}" if "np" in words else ""
            raise ValueError(f"{name} may not say {token.string!r}; it may say {allowed}{functions}")
        previous = previous + token.string if token.string == "." else token.string
