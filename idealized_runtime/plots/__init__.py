"""Figures: data and axes in, axes out. Points are measured, lines are fitted.

``style`` is their look; ``runtimes`` draws the runtime model, ``throughput`` batches, ``prediction`` what was predicted
beside what was timed, ``stacks`` software compared and what capability costs, ``api`` and ``api_load`` what APIs
measured, ``tradeoffs`` the paper's cost against quality, ``lifetime`` what to train, ``explained`` what runtimes are,
``served`` what servers of others did.
"""

from idealized_runtime.plots.runtimes import plot_prompt_encoding_time, plot_residuals, plot_runtime_vs_output_tokens
from idealized_runtime.plots.style import finish_panels, make_panels, save_figure, use_style

__all__ = [
    "finish_panels",
    "make_panels",
    "plot_prompt_encoding_time",
    "plot_residuals",
    "plot_runtime_vs_output_tokens",
    "save_figure",
    "use_style",
]
