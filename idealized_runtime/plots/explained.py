"""Drawings that explain: which runtimes there are, and how a Transformer generates text (Figures 1 and 2)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

RAW_COLOR, OVERHEAD_COLOR, PROMPT_COLOR, TOKEN_COLOR = "0.72", "#DE8F05", "#0173B2", "#56B4E9"
_PART_COLORS = {
    "one trial, whole": RAW_COLOR,
    "overhead of the API": OVERHEAD_COLOR,
    "prompt encoding": PROMPT_COLOR,
    "a further output token": TOKEN_COLOR,
}
_TOKEN_BOX, _OUTPUT_BOX, _LAYER_BOX, FEEDBACK_COLOR = "#FFF3D6", "#FBE0D2", "#E3EEF7", "#D55E00"
# Matrix products of one layer, with what they cost for each token: h the hidden size, i the tokens so far.
LAYER_OPERATORS = (
    ("Key, query, value\ntransformations", r"$6h^2$"),
    (r"Scores $Z$: $Q \times K^T$, softmax", r"$2ih$"),
    (r"Attention over $V$: $Z \times V$", r"$2ih$"),
    ("Linear projection", r"$2h^2$"),
    (r"FFN, $h \to 4h$", r"$8h^2$"),
    (r"FFN, $4h \to h$", r"$8h^2$"),
)


def runtime_parts(fit, num_prompt_tokens: int, num_output_tokens: int) -> tuple[float, float, np.ndarray]:
    """Overhead, prompt encoding time and the times of the further output tokens of one query, in seconds."""
    tokens_s = np.full(num_output_tokens - 1, fit.time_per_output_token_at(num_prompt_tokens))
    return fit.overhead_s or 0.0, fit.prompt_encoding_time_s(num_prompt_tokens), tokens_s


def plot_runtime_metrics(
    raw_runtimes_s: Sequence[float],
    estimates_s: dict[str, tuple[float, float, Sequence[float]]],
    *,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw the trials of one query to an API, and what denoised and idealized runtime make of it, to one scale.

    Parameters
    ----------
    raw_runtimes_s : sequence of float
        Runtimes of repeated trials.
    estimates_s : dict of (overhead, prompt encoding time, times of the further output tokens), by label
        Seconds; see :func:`runtime_parts`.
    """
    ax = plt.subplots()[1] if ax is None else ax
    trials_s = np.sort(np.asarray(raw_runtimes_s, dtype=float))[::-1]
    places = np.linspace(-0.36, 0.36, len(trials_s))
    ax.barh(places, trials_s, height=0.62 / len(trials_s), color=RAW_COLOR)
    for place, (overhead_s, prompt_s, tokens_s) in enumerate(estimates_s.values(), start=1):
        starts_s = overhead_s + prompt_s + np.concatenate([[0], np.cumsum(tokens_s)[:-1]])
        ax.barh(place, overhead_s, height=0.5, color=OVERHEAD_COLOR)
        ax.barh(place, prompt_s, left=overhead_s, height=0.5, color=PROMPT_COLOR)
        ax.barh(place, tokens_s, left=starts_s, height=0.5, color=TOKEN_COLOR, edgecolor="white", linewidth=0.4)
    labels = [f"Raw runtime,\n{len(trials_s)} trials", *estimates_s]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.6)
    ax.set_xlabel("Time (s)")
    ax.legend(handles=[Patch(color=color, label=label) for label, color in _PART_COLORS.items()], loc="lower right")
    ax.grid(axis="y", visible=False)
    return ax


def plot_text_generation(prompt: Sequence[str], outputs: Sequence[str], *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw a decoder-only Transformer at work: the prompt in one pass, then one pass for each further token.

    Parameters
    ----------
    prompt, outputs : sequence of str
        Tokens; each pass but the last feeds its output to the next.
    """
    ax = plt.subplots()[1] if ax is None else ax
    left, previous = 0.0, None
    for tokens, output in zip([prompt, *([token] for token in outputs)], outputs, strict=False):
        previous = _draw_pass(ax, left, tokens, output, previous)
        left += len(tokens) + 0.7
    ax.set(xlim=(-0.2, left - 0.4), ylim=(-0.35, 4.2))
    ax.axis("off")
    return ax


def plot_layer_operators(*, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the matrix products of one Transformer layer from bottom to top, with the operations of one token."""
    ax = plt.subplots()[1] if ax is None else ax
    for number, (name, flops) in enumerate(LAYER_OPERATORS):
        _box(ax, 0, number, 3.2, 0.74, name, _LAYER_BOX, fontsize=7)
        ax.text(3.45, number + 0.37, flops, va="center", fontsize=8)
        if number:
            _arrow(ax, (1.6, number - 0.26), (1.6, number))
    ax.text(3.45, len(LAYER_OPERATORS) - 0.02, "FLOPs\na token", va="bottom", fontsize=7.5)
    ax.set(xlim=(-0.1, 4.6), ylim=(-0.3, len(LAYER_OPERATORS) + 0.6))
    ax.axis("off")
    return ax


def _draw_pass(ax, left, tokens, output, previous):
    """One pass through the model, as wide as its tokens; the place from which its output is fed back."""
    span = len(tokens)
    for place, token in enumerate(tokens):
        center = left + place + 0.5
        color = _TOKEN_BOX if previous is None else _OUTPUT_BOX
        _box(ax, center - 0.45, 0.25, 0.9, 0.42, token, color)
        _arrow(ax, (center, 0.67), (center, 1.0))
    for level, name in enumerate(("layer 1", r"$\vdots$", "layer $l$")):
        _box(ax, left, 1.0 + 0.62 * level, span, 0.5, name, _LAYER_BOX if level != 1 else "white")
    top = (left + span - 0.45, 3.2)
    _arrow(ax, (top[0], 2.74), top)
    _box(ax, left + span - 0.9, 3.2, 0.9, 0.42, output, _OUTPUT_BOX)
    title = "prompt encoding" if previous is None else "one more token"
    ax.text(left + span / 2, -0.12, title, ha="center", va="center", fontsize=7.5, color="0.3")
    if previous is not None:
        # From the right of the last output down to this pass's input.
        x, y = previous
        _arrow(ax, (x, y), (left + 0.05, 0.46), color=FEEDBACK_COLOR, style="arc,angleA=0,angleB=180,armA=9,armB=9")
    return left + span, 3.41


def _box(ax, x, y, width, height, text, color, *, fontsize=8):
    look = {"facecolor": color, "edgecolor": "0.4", "linewidth": 0.8}
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", **look))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=fontsize)


def _arrow(ax, start, end, *, color="0.3", style="arc3"):
    look = {"arrowstyle": "-|>", "mutation_scale": 7, "color": color, "linewidth": 0.9}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=style, shrinkA=0, shrinkB=0, **look))
