"""What is expected of a model before it is timed: its prediction, and how far predictions of other models were off."""

from collections.abc import Mapping

from idealized_runtime.architectures import Architecture
from idealized_runtime.design.belief import Prior
from idealized_runtime.design.deviations import UNKNOWN, learn_deviations
from idealized_runtime.measurements.timed_models import TimedModel
from idealized_runtime.prediction import PredictedRuntime, RuntimePredictor, fit_predictor, predict_model
from idealized_runtime.prediction.stack import placement_of, prompt_range


def prior_of(predicted: PredictedRuntime, predictor: RuntimePredictor) -> Prior:
    """Prediction of a model, with the deviations that the models it is predicted from show when left out.

    With fewer than three of those, or where the stack is shipped without its timings, deviations are ``UNKNOWN``.
    """

    def expected(num_prompt_tokens, num_output_tokens):
        return predicted.predict(num_prompt_tokens, num_output_tokens, extrapolate=True)

    if not predictor.left_out:
        return Prior(expected, UNKNOWN)
    pattern = learn_deviations(predictor.left_out)
    return Prior(expected, pattern.deviations, pattern)


def prior_of_architecture(
    architecture: Architecture, timed: Mapping[str, TimedModel], *, num_context_tokens: int | None = None
) -> Prior:
    """What logs of other models on the machine tell of an architecture; a log of its own name is left out.

    Raises
    ------
    ValueError
        As ``fit_predictor`` and ``predict_model``.
    """
    predictor = fit_predictor([model for name, model in timed.items() if name != architecture.name])
    predicted = predict_model(architecture, predictor, num_context_tokens=num_context_tokens)
    return prior_of(predicted, predictor)


def prior_from_others(name: str, timed: Mapping[str, TimedModel]) -> Prior:
    """What the other timed models tell of one of them, laid out as it was timed: nothing of its own log is used."""
    own = timed[name]
    predictor = fit_predictor([model for other, model in timed.items() if other != name])
    predicted = PredictedRuntime(own.architecture, placement_of(own), predictor.times, prompt_range(timed.values()))
    return prior_of(predicted, predictor)
