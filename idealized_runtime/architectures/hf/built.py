"""Models that ``transformers`` knows and this library does not, counted by building them without memory.

The only file of the library that may import torch, and only when such a model is asked for.
"""

import importlib
import inspect
import json
import re
import warnings
from collections import defaultdict

from idealized_runtime.architectures.hf.networks import EXPERTS, TOPK
from idealized_runtime.architectures.hf.options import Options
from idealized_runtime.architectures.parts import Context, Matrix, Part

_QUERIES = ("q_proj", "query", "wq", "q", "q_lin")
_KEYS = ("k_proj", "key", "wk", "k", "k_lin")
_VALUES = ("v_proj", "value", "wv", "v", "v_lin")
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "att_proj", "wqkv")
_OUTPUTS = ("o_proj", "out_proj", "dense", "wo", "c_proj", "out", "out_lin")
_LATENT = "kv_a_proj_with_mqa"
# What layers are called in classes of transformers.
_LAYERS = re.compile(r"(.*?)(?:^|\.)(?:layers|h|blocks|layer|block)\.(\d+)\.(.+)$")


# Of models that read images or sound: what reads them.
_SENSES = re.compile(r"(?:^|\.)(?:vision|visual|audio|image|speech)\w*\.")


class BuiltByTransformersWarning(UserWarning):
    """A model was counted by building it; what its layers attend to was read from their matrices."""


def read(config: dict) -> dict:
    """Fields of the Architecture of a configuration whose class ``transformers`` has.

    Parameters are those of the built model, exactly. Matrices, experts and tables are told by their modules; what is
    cached, by the matrices that make keys and values.

    Raises
    ------
    ValueError
        ``transformers`` is not installed, does not know the class, or cannot build it; the message says which.
    """
    family = config.get("model_type")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ValueError(
            f"model_type {family!r:.80} is counted by building it, for which transformers and torch are needed "
            f"({error}): pip install transformers torch"
        ) from error
    known = f"transformers {transformers.__version__}"
    plain = {name: value for name, value in config.items() if name not in ("quantization_config", "auto_map")}
    # Infinity, which is no JSON.
    plain = json.loads(
        json.dumps(plain), object_hook=lambda d: float(d["__float__"]) if d.keys() == {"__float__"} else d
    )
    try:
        described = transformers.CONFIG_MAPPING[family].from_dict(plain)
    except KeyError as error:
        raise ValueError(f"model_type {family!r:.80} is known neither here nor to {known}") from error
    except Exception as error:
        raise ValueError(f"{known} refuses this {family!r}: {_first_line(error)}") from error
    if getattr(described, "is_encoder_decoder", False):
        raise ValueError(f"model_type {family!r} has an encoder, which is not counted here; decoders alone are")
    described = described.get_text_config()
    try:
        kind = _model_class(described, transformers)
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = kind._from_config(described)
    except Exception as error:
        raise ValueError(f"{known} cannot build this {family!r}: {_first_line(error)}") from error
    named = {name: parameter for name, parameter in model.named_parameters() if not _SENSES.search(name)}
    fields = _fields(model, named, described.to_dict(), torch)
    _check_count(model, named, fields)
    message = f"model_type {family!r} is counted by building it with {known}: its parameters exactly, what it caches by"
    message += " the matrices that make keys and values"
    if fields.pop("has_uncounted_states"):
        message += "; what layers keep that mix tokens otherwise is not counted"
    if fields.pop("has_hidden_experts"):
        message += "; its experts could not be told apart, and all count as visited"
    if len(named) < sum(1 for _ in model.parameters()):
        message += "; what reads images or sound is left out"
    warnings.warn(message, BuiltByTransformersWarning, stacklevel=4)
    return {**fields, "source": f"Hugging Face config.json, built by {known} without memory"}


def _model_class(described, transformers):
    """The class that generates text by this configuration, or the body of one, which gets a head."""
    if type(described) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(described)]
    module = importlib.import_module(type(described).__module__.replace("configuration_", "modeling_"))
    kinds = [kind for kind in vars(module).values() if inspect.isclass(kind) and hasattr(kind, "_from_config")]
    own = [kind for kind in kinds if kind.config_class is type(described) and "PreTrained" not in kind.__name__]
    heads = [kind for kind in own if kind.__name__.endswith("ForCausalLM")]
    if not heads and not any(kind.__name__.endswith(("ForCausalLM", "ForConditionalGeneration")) for kind in kinds):
        raise TypeError(f"no class of {module.__name__.rpartition('.')[2]} generates text")
    bodies = sorted((kind for kind in own if kind.__name__.endswith("Model")), key=lambda kind: len(kind.__name__))
    return (heads or bodies)[0]


def _check_count(model, named, fields):
    """Refuse fields that do not count every parameter of the built model."""
    words = fields["vocab_size"] * fields["hidden_size"]
    # A body without a head gets one.
    is_added = model.get_output_embeddings() is None and fields["untie_embeddings_and_output_weights"]
    built = sum(parameter.numel() for parameter in named.values()) + is_added * words
    counted = words * (1 + fields["untie_embeddings_and_output_weights"])
    counted += sum(part.num_params() for layer in (*fields["layers"], fields["outer_parts"]) for part in layer)
    if counted != built:
        raise ValueError(
            f"{type(model).__name__} has {built} parameters, of which {counted} could be told apart as embeddings, "
            "layers and what is beside them"
        )


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"[:200]


def _fields(model, named, config, torch):
    # Some gather the options of attention and of experts.
    gathered = [value for name, value in config.items() if name in ("attn_config", "ffn_config") and value]
    c = Options({**{name: value for part in gathered for name, value in dict(part).items()}, **config}, "")
    c.family = config.get("model_type")
    linear = (torch.nn.Linear, torch.nn.Bilinear)
    modules = dict(model.named_modules())
    layers, outer = defaultdict(dict), {}
    for name, parameter in named.items():
        found = _LAYERS.search(name)
        where = outer if found is None else layers[int(found[2])]
        owner = modules[name.rpartition(".")[0]]
        is_matrix = parameter.dim() == 2 and (isinstance(owner, linear) or type(owner).__name__ == "Conv1D")
        is_router = parameter.dim() == 2 and parameter.shape[0] == (c.find(*EXPERTS) or 0)
        kind = "table" if isinstance(owner, torch.nn.Embedding) else "matrix" if is_matrix or is_router else "vector"
        if type(owner).__name__ == "Conv1D":
            # Its weight is kept as inputs by outputs.
            parameter = parameter.T if parameter.dim() == 2 else parameter
        # Two stacks of layers may have as many, and names: one of them keeps its own.
        short = name if found is None or found[3] in where else found[3]
        where[short] = (tuple(parameter.shape), kind)
    num_layers = max(layers, default=-1) + 1
    if not num_layers:
        raise ValueError(f"{type(model).__name__} has no layers that could be told apart")
    made = tuple(_layer(c, layers[number], number) for number in range(num_layers))
    hidden_size = c.size("hidden_size", "d_model", "n_embd", "dim")
    heads = c.maybe("num_attention_heads", "n_head", "n_heads") or 1
    groups = c.find("num_key_value_heads")
    groups = groups if isinstance(groups, int) and groups and heads % groups == 0 else heads
    vocab_size = c.size("vocab_size")
    tables = {name: shape for name, (shape, kind) in outer.items() if kind == "table"}
    # The first table of words is the embedding; the output projection is it, or a matrix of as many rows.
    words = next((name for name, shape in tables.items() if shape[0] >= vocab_size), None)
    head = next((name for name, (shape, kind) in outer.items() if kind == "matrix" and shape[0] == vocab_size), None)
    has_head = model.get_output_embeddings() is not None
    is_tied = head is None and (has_head or bool(config.get("tie_word_embeddings")))
    rest = {name: value for name, value in outer.items() if name not in (words, head)}
    width = tables[words][1] if words else hidden_size
    if words and not is_tied and tables[words][0] > vocab_size:
        # Embeddings of what is no word are not projected onto.
        rest[words] = ((tables[words][0] - vocab_size, width), "table")
    elif words:
        vocab_size = tables[words][0]
    with_experts = [part for part in made if part[0].num_experts]
    fields = {
        "num_layers": num_layers, "hidden_size": hidden_size, "num_attention_heads": heads, "num_query_groups": groups,
        "vocab_size": vocab_size,
        "ffn_hidden_size": _ffn_size(c, hidden_size), "normalization": "RMSNorm", "final_layernorm": False,
        "position_embedding_type": "rope", "add_bias_linear": False, "add_qkv_bias": False,
        "untie_embeddings_and_output_weights": not is_tied, "uncounted_options": {}, "layers": made,
        "outer_parts": (_part("beside the layers", c, rest),),
        "has_hidden_experts": (c.find(*EXPERTS) or 0) > 1 and not with_experts,
        "has_uncounted_states": any(not part.contexts and _mixes(layers[n]) for n, (part,) in enumerate(made)),
    }  # fmt: skip
    if width != hidden_size:
        # Its matrices between the two widths are among the rest.
        raise ValueError(f"{type(model).__name__} has embeddings of {width} beside hidden states of {hidden_size}")
    if longest := c.find("max_position_embeddings", "n_positions", "max_seq_len"):
        fields["max_position_embeddings"] = longest
    if with_experts:
        part = with_experts[0][0]
        size = c.find("moe_intermediate_size", "expert_ffn_hidden_size") or fields["ffn_hidden_size"]
        fields |= {"num_experts": part.num_experts, "moe_router_topk": part.topk,
                   "moe_ffn_hidden_size": size if isinstance(size, int) else fields["ffn_hidden_size"]}  # fmt: skip
    return fields


def _ffn_size(c, hidden_size):
    size = c.find("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "moe_intermediate_size")
    size = max(size) if isinstance(size, list) and size else size
    return size if isinstance(size, int) and size > 0 else 4 * hidden_size


def _layer(c, named, number):
    return (_part("layer", c, named, _contexts(c, named, number)),)


def _part(kind, c, named, contexts=()):
    """One part of named parameters: their shapes, and whether they are matrices, tables or neither."""
    num_experts, topk = c.find(*EXPERTS), c.find(*TOPK)
    matrices, vectors, expert_vectors, singles = [], 0, 0, defaultdict(list)
    for name, (shape, what) in named.items():
        size = 1
        for length in shape:
            size *= length
        in_experts = re.search(r"(?:^|\.)experts\.", name) is not None
        if in_experts and (one := re.search(r"experts\.\d+\.(.+)$", name)):
            # A module for each expert: counted once, with their number.
            singles[one[1]].append((name, shape, what, size))
        elif len(shape) == 3 and shape[1] > 1 and num_experts and shape[0] >= num_experts:
            matrices.append(Matrix(name, shape[1], shape[2], is_expert=True))
            if shape[0] > num_experts:
                # Experts that a token may choose in order to be left alone.
                matrices.append(Matrix(f"{name}, unused", (shape[0] - num_experts) * shape[1], shape[2], is_table=True))
        elif in_experts and len(shape) == 2 and shape[0] == num_experts:
            expert_vectors += shape[1]
        elif in_experts and len(shape) == 2 and num_experts and shape[0] % num_experts == 0:
            # Experts below each other.
            matrices.append(Matrix(name, shape[0] // num_experts, shape[1], is_expert=True))
        elif what == "vector":
            vectors += size
        else:
            matrices.append(Matrix(name.removesuffix(".weight"), *shape, is_table=what == "table"))
    for members in singles.values():
        name, shape, what, size = members[0]
        if what == "matrix" and len(members) == num_experts:
            matrices.append(Matrix(re.sub(r"experts\.\d+", "experts", name.removesuffix(".weight")), *shape, True))
        elif what == "matrix":
            matrices += [Matrix(member[0].removesuffix(".weight"), *member[1]) for member in members]
        elif len(members) == num_experts:
            expert_vectors += size
        else:
            vectors += sum(member[3] for member in members)
    has_experts = expert_vectors or any(matrix.is_expert for matrix in matrices)
    return Part(
        kind, tuple(matrices), vectors, contexts,
        num_experts=num_experts if has_experts else 0, topk=(topk or num_experts) if has_experts else 0,
        expert_vectors=expert_vectors,
    )  # fmt: skip


def _contexts(c, named, number):
    """What a layer attends to, told by the matrices that make its keys and values."""
    of_attention = [name for name in named if re.search(r"att", name)] or named
    rows = {name.removesuffix(".weight").rpartition(".")[2]: named[name][0] for name in of_attention
            if named[name][1] == "matrix" and "experts" not in name}  # fmt: skip
    kinds, window = c.find("layer_types"), c.find("sliding_window")
    kind = str(kinds[number]) if isinstance(kinds, list) and number < len(kinds) else "full_attention"
    is_other = not kind.endswith("attention") or kind.startswith("linear")
    if is_other or any("cross_att" in name for name in named):
        return ()

    def shape_of(names):
        return next((rows[name] for name in names if name in rows), None)

    if _LATENT in rows:
        heads, rotary_dim = c.size("num_attention_heads"), c.size("qk_rope_head_dim", least=0)
        latent = rows[_LATENT][0] - rotary_dim
        plain, value = c.size("qk_nope_head_dim"), c.size("v_head_dim")
        flops = (2 * heads * (plain + rotary_dim + value), 2 * heads * (2 * latent + rotary_dim))
        return (Context(rows[_LATENT][0], *flops),)
    queries, keys, values = shape_of(_QUERIES), shape_of(_KEYS), shape_of(_VALUES)
    fused, output = shape_of(_FUSED), shape_of(_OUTPUTS)
    if output is None or _has_state(named) or (keys is None and fused is None):
        return ()
    if fused is not None:
        numbers = fused[0] - output[1]
        per_pair = 4 * output[1]
    else:
        numbers = keys[0] + (values or keys)[0]
        per_pair = 2 * ((queries or output)[0] + output[1])
    is_windowed = "sliding" in kind and isinstance(window, int) and window > 0
    return (Context(numbers, per_pair, per_pair, window if is_windowed else None),)


def _has_state(named):
    return any(re.search(r"A_log|conv1d|dt_bias|time_decay|rg_lru|igate", name) for name in named)


def _mixes(named):
    return _has_state(named) or any(re.search(r"attn|attention|mixer", name) for name in named)
