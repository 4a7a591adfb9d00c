"""Step times of a model that nobody served, from what a prediction knows of the machine and its software."""

from collections.abc import Callable

import numpy as np

from idealized_runtime.architectures import Architecture
from idealized_runtime.prediction.predicted import PredictedRuntime
from idealized_runtime.prediction.work import step_work
from idealized_runtime.serving.evidence import expert_share
from idealized_runtime.serving.fitting import non_negative_least_squares
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.steps import TERMS, StepModel, share_visited


def predict_steps(predicted: PredictedRuntime, scheduler: Scheduler, **known) -> StepModel:
    """Step model of a prediction: the line through the times of passes that steps of all kinds would take.

    What is predicted of passes of one sequence holds for steps of many as far as reading, computing and launching make
    them up; what a server does beside (scheduling, sampling, sending) is in none of the logs, and not in it.

    Parameters
    ----------
    predicted : PredictedRuntime
        As from :func:`~idealized_runtime.prediction.predict_model`.
    scheduler : Scheduler
        Its limits say how large steps are.
    known
        ``hardware, software`` of the model.

    Returns
    -------
    StepModel
        ``origin`` is predicted; its covariance is what the models left out of the prediction show, all of it to one
        side, and NaN-free only where enough were timed: else None.
    """
    architecture, placement = predicted.architecture, predicted.placement

    def seconds(n, context, p):
        work = step_work(architecture, placement, num_sequences=n, num_context_tokens=context, num_prompt_tokens=p)
        return predicted.times.pass_time_s(work, is_cuda=placement.is_cuda)

    error = predicted.error
    return line_through_steps(
        architecture, seconds, scheduler, error_of_steps=error and error.token, error_of_prompts=error and error.prompt,
        num_accelerators=placement.num_accelerators, **known,
    )  # fmt: skip


def line_through_steps(
    architecture: Architecture,
    seconds: Callable,
    scheduler: Scheduler,
    *,
    error_of_steps: float | None,
    error_of_prompts: float | None,
    num_accelerators: int,
    **known,
) -> StepModel:
    """Step model of an architecture: the line through predicted times of the steps that a scheduler allows.

    Parameters
    ----------
    architecture : Architecture
    seconds : callable
        Times of steps, of arrays: sequences that generate, tokens before each of them, prompt tokens.
    scheduler : Scheduler
    error_of_steps, error_of_prompts : float or None
        Standard errors, relative, of steps that generate and of prompt tokens; None where none is known.
    num_accelerators : int
        Of one engine.
    known
        ``hardware, software`` of the model.
    """
    limit, share = scheduler.max_num_seqs, expert_share(architecture)
    sizes = np.unique(np.geomspace(1, limit, 9).round())
    longest = architecture.max_position_embeddings
    contexts = np.unique(np.minimum([128, 512, 1024, 2048, 4096], longest))
    prompts = np.unique(np.minimum([0, 128, 512, 2048], min(scheduler.max_num_batched_tokens, longest)))
    n, context, p = (grid.ravel() for grid in np.meshgrid(sizes, contexts, prompts, indexing="ij"))
    times_s = seconds(n, context, p)
    features = np.column_stack([np.ones_like(n), p, n, n * context, share_visited(n + p, share)])
    # Steps that only generate are most of all steps; what prompts add to them comes after.
    times, decodes = np.zeros(len(TERMS)), p == 0
    for places, of in (([0, 2, 3, 4] if share else [0, 2, 3], decodes), ([1], ~decodes)):
        rest_s = times_s[of] - features[of] @ times[:5]
        times[places] = non_negative_least_squares(
            features[of][:, places] / times_s[of, None], rest_s / times_s[of], np.ones(of.sum())
        )
    covariance = None
    if error_of_steps is not None:
        # Errors of a stack shift all of a model's steps one way: prompts by theirs, tokens by theirs.
        errors = times * error_of_steps
        errors[1] = times[1] * error_of_prompts
        covariance = np.outer(errors, errors)
    return StepModel(
        **dict(zip(TERMS, times.tolist(), strict=True)), expert_share=share, covariance=covariance, scheduler=scheduler,
        origin="predicted", num_accelerators=num_accelerators * scheduler.num_engines, **known,
    )  # fmt: skip
