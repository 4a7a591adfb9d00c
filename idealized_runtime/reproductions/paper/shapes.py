"""Table 1 and the operation counts: claims about the shapes of the models."""

from dataclasses import replace

from idealized_runtime.architectures import output_token_flops, prompt_encoding_flops, weight_bytes
from idealized_runtime.architectures.closed_forms import (
    closed_form_output_token_flops,
    closed_form_prompt_encoding_flops,
)
from idealized_runtime.reproductions.paper.models import PAPER_MODELS, device_table
from idealized_runtime.reproductions.verdicts import Claim, Claims, Evidence, tally

# Table 1: hidden size h, layers l, attention heads n; what else it prints is in ``PAPER_MODELS``.
PRINTED_SHAPES = {
    "OpenAI/davinci": "12288, 96, 96",
    "AI21/J1-Large v1": "4096, 32, 32",
    "AI21/J1-Grande v1": "5120, 50, 40",
    "AI21/J1-Jumbo v1": "13824, 76, 96",
    "Cohere/XL v20220609": "8192, 64, 64",
    "Anthropic/v4-s3": "8192, 64, 64",
    "Microsoft+NV/TNLG v2": "20480, 105, 128",
    "EleutherAI/GPT-J": "4096, 28, 16",
    "Yandex/YaLM": "10240, 80, 128",
    "BigScience/BLOOM": "14336, 70, 112",
}
# Longest context of the models studied (section 3.1.1).
CONTEXT_TOKENS = 2048
NOT_TIMED = "Its log is not published: Anthropic/v4-s3, of the same printed shape, stands in for it."

CLAIMS = Claims()


@CLAIMS.add_each(
    [
        ("2.1", "FLOPs of a forward pass over p tokens, sum of all matrix products", "24 b p h^2 l (1 + p / 6h)",
         closed_form_prompt_encoding_flops, prompt_encoding_flops),
        ("3.1.1", "FLOPs of the output token that follows i others, sum of all matrix products",
         "24 b h^2 l (1 + i / 6h)", closed_form_output_token_flops, output_token_flops),
    ]
)  # fmt: skip
def _closed_form(data, closed_form_flops, exact_flops) -> Evidence:
    # YaLM's feed-forward network was timed at another width; the closed form speaks of 4h.
    shapes = [shape for shape in set(_timed_shapes(data).values()) if shape.ffn_hidden_size == 4 * shape.hidden_size]
    is_equal = [
        exact_flops(shape, CONTEXT_TOKENS, logits="none") == closed_form_flops(shape, CONTEXT_TOKENS)
        for shape in shapes
    ]
    return tally(is_equal, "equal for {} of {} shapes")


@CLAIMS.add("3.1.1", "attention's share of the FLOPs is small: p << 6h, i << 6h", "largely true")
def _attention_share(data) -> Evidence:
    shares = {name: CONTEXT_TOKENS / (6 * shape.hidden_size) for name, shape in _timed_shapes(data).items()}
    # Beside what 24 h^2 l counts, at the longest context.
    return _largest_share(shares, f"of the rest, at {CONTEXT_TOKENS} tokens")


@CLAIMS.add("3.1.1", "projecting into the vocabulary is cheap beside the layers", "cheap")
def _vocabulary_share(data) -> Evidence:
    shares = {
        name: output_token_flops(shape, 1, attention="none")
        / output_token_flops(shape, 1, attention="none", logits="none")
        - 1
        for name, shape in _timed_shapes(data).items()
    }
    return _largest_share(shares, "of an output token's FLOPs in the layers")


def _largest_share(shares, of_what) -> Evidence:
    """A share is small where it is below a tenth."""
    model = max(shares, key=shares.get)
    text = f"at most {100 * shares[model]:.1f} % {of_what} ({model})"
    return Evidence(text, holds=shares[model] < 0.1, note="Small is taken as below 10 %.")


@CLAIMS.add("3.2", "davinci does not fit one 80-GB A100: weights in GB", "> 80")
def _davinci_gigabytes(data) -> Evidence:
    return Evidence(weight_bytes(data.timed_architectures()["davinci"]) / 1e9)


@CLAIMS.add("3.2", "minimum number of devices necessary to hold each model", "as in Table 1")
def _fewest_devices(data) -> Evidence:
    table = device_table({"a100": "A100-80GB"}).set_index("model")
    is_fewer = table["num_accelerators"] < table["num_accelerators_printed"]
    fewer = ", ".join(f"{name} ({number})" for name, number in table.loc[is_fewer, "num_accelerators"].items())
    note = f"Fewer devices hold weights and cache in half precision of {fewer}." if fewer else ""
    return tally(~is_fewer, "{} of {} models", note=note)


@CLAIMS.add("5.1", "number of models evaluated", "10")
def _num_models(data) -> Evidence:
    return Evidence(data.drawn()["model"].nunique())


@CLAIMS.add_each(
    [
        ("5.1", "smallest model (billion parameters)", "6", min),
        ("5.1", "largest model (billion parameters)", "530", max),
    ]
)
def _extreme_size(data, pick) -> Evidence:
    return Evidence(pick(shape.num_params for shape in _timed_shapes(data).values()) / 1e9)


def _shape(data, name) -> Evidence:
    shape = _timed_shapes(data)[name]
    text = f"{shape.hidden_size}, {shape.num_layers}, {shape.num_attention_heads}"
    profiled = shape.num_layers_profiled
    note = f"{profiled} of the {shape.num_layers} layers were timed." if profiled else ""
    return _own_or_other(name, Evidence(text, holds=text == PRINTED_SHAPES[name], note=note))


def _params_billion(data, name) -> Evidence:
    shape = _timed_shapes(data)[name]
    return _own_or_other(name, Evidence(shape.num_params / 1e9, note=_size_note(name, shape, data)))


def _num_accelerators(data, name) -> Evidence:
    shape = _timed_shapes(data)[name]
    timed = data.timings("a100")[PAPER_MODELS[name].architecture_name].iloc[0]
    num_stages = shape.num_layers // (shape.num_layers_profiled or shape.num_layers)
    number = int(timed["tensor_parallel_size"] * timed["pipeline_parallel_size"]) * num_stages
    return _own_or_other(name, Evidence(number))


CLAIMS.extend(
    Claim("Table 1", f"{name}: {quantity}", printed, recompute, (name,))
    for name, row in PAPER_MODELS.items()
    for quantity, printed, recompute in (
        ("hidden size, layers, heads", PRINTED_SHAPES[name], _shape),
        ("parameters (billion)", f"{row.num_params_printed / 1e9:g}", _params_billion),
        ("80-GB A100 devices", f"{row.num_accelerators['a100']}", _num_accelerators),
    )
)


def _own_or_other(name, evidence) -> Evidence:
    if name == "Cohere/XL v20220609":
        return replace(evidence, is_other_data=True, note=NOT_TIMED)
    return evidence


def _size_note(name, shape, data) -> str:
    """Why Table 1's parameters are not those of the shape that was timed."""
    if name == "Yandex/YaLM":
        gated = replace(shape, swiglu=True).num_params / 1e9
        return f"It was timed with an ungated feed-forward network; a gated one of that width has {gated:.0f}."
    if name == "AI21/J1-Jumbo v1":
        # J1's own vocabulary, as its sibling J1-Grande was timed with it.
        vocab_size = data.timed_architectures()["j1-grande"].vocab_size
        owners = replace(shape, vocab_size=vocab_size).num_params / 1e9
        return f"It was timed with a vocabulary of {shape.vocab_size}; with J1's {vocab_size} it has {owners:.0f}."
    return ""


def _timed_shapes(data):
    """Shapes that the logs print, by the names of Table 1."""
    architectures = data.timed_architectures()
    return {name: architectures[row.architecture_name] for name, row in PAPER_MODELS.items()}
