"""Runtimes of architectures that were never timed, from logs of other models on the same machine and software.

``work`` counts what a pass asks of a device, ``stack`` fits what the machine takes for it, ``left_out`` leaves out
one model after the other to see how well that predicts, ``predictor`` puts both together and places a new model on the
devices it needs, ``predicted`` is the runtime of that model with its interval, ``priced`` puts it on the terms that
its queries are priced by.
"""

from idealized_runtime.prediction.left_out import (
    LeftOutModel,
    coverage_table,
    leave_one_model_out,
    left_out_summary,
    left_out_table,
    prediction_error,
)
from idealized_runtime.prediction.predicted import PredictedRuntime, PredictionError
from idealized_runtime.prediction.predictor import MessagesNotTimedError, RuntimePredictor, fit_predictor, predict_model
from idealized_runtime.prediction.priced import predict_priced, prediction_table, priced_on_stack
from idealized_runtime.prediction.stack import StackTimes, fit_stack_times, stack_times_table

__all__ = [
    "LeftOutModel",
    "MessagesNotTimedError",
    "PredictedRuntime",
    "PredictionError",
    "RuntimePredictor",
    "StackTimes",
    "coverage_table",
    "fit_predictor",
    "fit_stack_times",
    "leave_one_model_out",
    "left_out_summary",
    "left_out_table",
    "predict_model",
    "predict_priced",
    "prediction_error",
    "prediction_table",
    "priced_on_stack",
    "stack_times_table",
]
