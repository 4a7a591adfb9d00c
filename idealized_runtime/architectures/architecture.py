"""Transformer architectures: what must be known of a model to time it. Trained weights are not needed."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from idealized_runtime.architectures.checks import check_architecture
from idealized_runtime.architectures.hf import fields_of_hf_config
from idealized_runtime.architectures.parts import (
    Layer,
    Part,
    layers_from_json,
    layers_to_json,
    outer_part,
    plain_blocks,
)


@dataclass(frozen=True)
class Architecture:
    """A decoder-only Transformer, in Megatron's terms where Megatron has the concept.

    Parameters
    ----------
    name : str
        Key of the registry, of parameter files and of log files.
    num_layers, hidden_size, num_attention_heads : int
    vocab_size : int
        Rows of the embedding matrix, padding included.
    max_position_embeddings : int
        Tokens of context, prompt and output together.
    ffn_hidden_size : int, optional
        Width of the feed-forward network; ``4 * hidden_size`` where it is not given. Of the dense layers only,
        where layers have experts.
    num_query_groups : int, optional
        Key-value heads of grouped-query attention; one per attention head where it is not given.
    swiglu : bool
        Gated feed-forward network (three matrices) instead of an ungated one (two matrices). The activation is
        SiLU if gated and GELU (by tanh) if not, unless ``uncounted_options`` name another.
    normalization : {"LayerNorm", "RMSNorm"}
    position_embedding_type : {"learned_absolute", "rope", "alibi"}
    rotary_base : float
        Base of the rotary angles; used with ``"rope"`` only.
    layernorm_epsilon : float
    add_bias_linear, add_qkv_bias : bool
        Bias of all linear layers, a router's included; bias of the query-key-value projection (the first implies
        the second).
    untie_embeddings_and_output_weights : bool
        The output projection has a matrix of its own.
    num_experts, moe_router_topk : int, optional
        Routed experts of a layer's feed-forward network, and how many of them a token visits; none: dense.
    moe_ffn_hidden_size : int, optional
        Width of one expert; ``ffn_hidden_size`` where it is not given.
    moe_layer_freq : int or tuple of int
        Which layers have experts: of every so many the first, or a 1 (experts) or 0 (dense) for each layer.
    moe_shared_expert_intermediate_size : int, optional
        Width of the experts that every token visits, all of them together.
    moe_shared_expert_gate : bool
        Their output is weighed by a projection of the hidden state onto one number.
    kv_channels : int, optional
        Width of one attention head; ``hidden_size / num_attention_heads`` where it is not given.
    add_attention_bias : bool, optional
        Bias of the attention's projections; as ``add_bias_linear`` where it is not given.
    qk_layernorm : {None, "per_head", "all_heads"}
        Queries and keys are normalised: each head by itself with shared weights, or all heads together.
    softmax_type : {"vanilla", "learnable"}
        ``"learnable"``: each head has an attention sink, one learned logit beside those of the tokens.
    window_size : int, optional
        Tokens that a windowed layer attends to, the newest included; no layer is windowed where it is not given.
    window_attn_skip_freq : int or tuple of int, optional
        Which layers are windowed: all where it is not given; all but every so many-th; or a 1 or 0 for each layer.
    window_is_chunk : bool
        The context is cut into chunks of ``window_size``, and a token attends to its own chunk only.
    q_lora_rank, kv_lora_rank : int, optional
        Multi-latent attention, if the second is given: ranks of the queries (none: full) and of the latent that
        is cached instead of keys and values.
    qk_head_dim, qk_pos_emb_head_dim, v_head_dim : int, optional
        Its heads: widths of the query without position, of the query and the shared key with rotary position, and
        of the value.
    parallel_blocks : bool
        Attention and feed-forward network read the same hidden state; their outputs are added together.
    norms_per_layer : {2, 1, 4}
    embedding_layernorm : bool
        The embeddings are normalised.
    final_layernorm : bool
        The last hidden state is normalised.
    embedding_size : int, optional
        Width of the embeddings, and of what the output projection reads, where it is not ``hidden_size``: a matrix
        leads from one to the other, and one back.
    num_extra_positions : int
        Rows of the table of learned positions beyond ``max_position_embeddings``.
    add_output_layer_bias : bool
        The output projection has a bias.
    layers : tuple of tuple of Part, optional
        What each layer is made of, where the fields above do not say: layers that differ in more than experts and
        windows, linear attention, state spaces. Sizes above are then those of most layers, and nothing is counted
        from them but embeddings, output projection and final norm.
    outer_parts : tuple of Part
        What a model with ``layers`` has beside them, embeddings and the output projection.
    uncounted_options : mapping of str to JSON value
        Whatever else tells its layers from plain ones: it changes what is computed, but no count of parameters,
        bytes or matrix products. Named as in Megatron, or as in ``transformers``; no entry where as usual.
    num_layers_profiled : int, optional
        Depth that published timings of this model cover; layers are identical, so time scales with depth.
    published_params : float, optional
        Parameter count its owners state.
    published_log : str, optional
        File stem of its log among the published measurements.
    helm_names : tuple of str
        Names under which HELM and the authors' parameter files list it.
    source : str
        Where the row comes from.

    Raises
    ------
    ValueError
        A size is not positive, heads do not divide the width, or a choice is unknown; the message says which.

    Examples
    --------
    >>> from idealized_runtime import Architecture
    >>> gpt2 = Architecture("mine", num_layers=12, hidden_size=768, num_attention_heads=12, vocab_size=50257)
    >>> gpt2.num_params
    125226240
    """

    name: str
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    vocab_size: int = 50257
    max_position_embeddings: int = 2048
    ffn_hidden_size: int | None = None
    num_query_groups: int | None = None
    swiglu: bool = False
    normalization: str = "LayerNorm"
    position_embedding_type: str = "learned_absolute"
    rotary_base: float = 10000.0
    layernorm_epsilon: float = 1e-5
    add_bias_linear: bool = True
    add_qkv_bias: bool = True
    untie_embeddings_and_output_weights: bool = False
    # From here to uncounted_options: written only where they are not the default (see to_dict).
    num_experts: int | None = None
    moe_router_topk: int | None = None
    moe_ffn_hidden_size: int | None = None
    moe_layer_freq: int | tuple[int, ...] = 1
    moe_shared_expert_intermediate_size: int | None = None
    moe_shared_expert_gate: bool = False
    kv_channels: int | None = None
    add_attention_bias: bool | None = None
    qk_layernorm: str | None = None
    softmax_type: str = "vanilla"
    window_size: int | None = None
    window_attn_skip_freq: int | tuple[int, ...] | None = None
    window_is_chunk: bool = False
    q_lora_rank: int | None = None
    kv_lora_rank: int | None = None
    qk_head_dim: int | None = None
    qk_pos_emb_head_dim: int | None = None
    v_head_dim: int | None = None
    parallel_blocks: bool = False
    norms_per_layer: int = 2
    embedding_layernorm: bool = False
    final_layernorm: bool = True
    embedding_size: int | None = None
    num_extra_positions: int = 0
    add_output_layer_bias: bool = False
    layers: tuple[Layer, ...] | None = field(default=None, hash=False)
    outer_parts: Layer = field(default=(), hash=False)
    uncounted_options: Mapping[str, object] = field(default_factory=dict, hash=False)
    num_layers_profiled: int | None = None
    published_params: float | None = None
    published_log: str | None = None
    helm_names: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self):
        if self.ffn_hidden_size is None and isinstance(self.hidden_size, int):
            self._set("ffn_hidden_size", 4 * self.hidden_size)
        if self.num_query_groups is None:
            self._set("num_query_groups", self.num_attention_heads)
        if self.num_experts is not None and self.moe_ffn_hidden_size is None:
            self._set("moe_ffn_hidden_size", self.ffn_hidden_size)
        for name in ("helm_names", "moe_layer_freq", "window_attn_skip_freq"):
            # JSON has lists.
            if isinstance(getattr(self, name), list):
                self._set(name, tuple(getattr(self, name)))
        if isinstance(self.uncounted_options, Mapping):
            self._set("uncounted_options", dict(self.uncounted_options))
        check_architecture(self)
        self._leave_out_what_is_usual()

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def _leave_out_what_is_usual(self):
        """One architecture has one spelling, so that equal ones compare equal."""
        if self.kv_channels is not None and self.kv_channels * self.num_attention_heads == self.hidden_size:
            self._set("kv_channels", None)
        if self.embedding_size == self.hidden_size:
            self._set("embedding_size", None)
        if self.add_attention_bias == self.add_bias_linear:
            self._set("add_attention_bias", None)
        if isinstance(self.moe_layer_freq, tuple) and all(self.moe_layer_freq):
            self._set("moe_layer_freq", 1)

    @property
    def multi_latent_attention(self) -> bool:
        """Keys and values are projected from a latent, and the latent is cached."""
        return self.kv_lora_rank is not None

    @property
    def head_dim(self) -> int:
        """Width of one attention head's query and key."""
        if self.multi_latent_attention:
            return self.qk_head_dim + self.qk_pos_emb_head_dim
        return self.kv_channels or self.hidden_size // self.num_attention_heads

    @functools.cached_property
    def blocks(self) -> tuple[tuple[Part, int], ...]:
        """The parts of all layers, and how many there are of each."""
        if self.layers is None:
            return plain_blocks(self)
        parts = [part for layer in self.layers for part in layer]
        return tuple(Counter([*parts, *self.outer_parts]).items())

    @property
    def num_moe_layers(self) -> int:
        """Layers that have experts."""
        return sum(number for part, number in self.blocks if part.num_experts)

    @property
    def num_windowed_layers(self) -> int:
        """Layers that attend to a window of the context only."""
        return sum(number for part, number in self.blocks if any(context.window for context in part.contexts))

    @property
    def num_params(self) -> int:
        """Exact number of parameters, embeddings and biases included; of all experts where there are any."""
        return self.count_params(self.num_experts)

    @property
    def num_active_params(self) -> int:
        """Parameters that one token visits, of ``moe_router_topk`` experts a layer; all if there are no experts."""
        return self.count_params(self.moe_router_topk)

    def count_params(self, num_experts: int | None) -> int:
        """Parameters when ``num_experts`` experts of each layer count, beside all that is not an expert."""
        return outer_part(self).num_params() + sum(count * part.num_params(num_experts) for part, count in self.blocks)

    def features(self) -> dict:
        """What tells its layers from those of a plain GPT or Llama: fields and uncounted options, with values."""
        later = {name: value for name, value in self._later_fields().items() if name not in _NO_FEATURES}
        if self.layers is not None:
            kinds = dict.fromkeys(
                " and ".join(part.kind for part in layer if part.kind != "norms") for layer in self.layers
            )
            later["layers"] = "; ".join(kinds)
        positions = {"position_embedding_type": "alibi"} if self.position_embedding_type == "alibi" else {}
        return {**positions, **later, **self.uncounted_options}

    def _later_fields(self):
        later = dataclasses.fields(self)[_FIRST_LATER:_AFTER_LATER]
        values = {entry.name: getattr(self, entry.name) for entry in later}
        return {entry.name: values[entry.name] for entry in later if values[entry.name] not in (entry.default, {})}

    def to_dict(self) -> dict:
        """Every field, in JSON's types; those from ``num_experts`` to ``uncounted_options`` where they are unusual."""
        names = [entry.name for entry in dataclasses.fields(self)]
        # So a log begun before there were these fields can be continued: its header stays the same.
        kept = {name: getattr(self, name) for name in names[:_FIRST_LATER] + names[_AFTER_LATER:]}
        written = {**kept, **self._later_fields()}
        if self.layers is not None:
            written["layers"] = layers_to_json(self.layers)
        if self.outer_parts:
            written["outer_parts"] = layers_to_json((self.outer_parts,))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in written.items()}

    @classmethod
    def from_dict(cls, fields: dict) -> "Architecture":
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            A field is unknown or missing; the message names it.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"unknown architecture field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        needed = set(_NAMES[:4])
        if missing := sorted(needed - set(fields)):
            raise ValueError(f"an architecture needs {', '.join(missing)}")
        try:
            if fields.get("layers") is not None:
                fields = {**fields, "layers": layers_from_json(fields["layers"])}
            if fields.get("outer_parts"):
                fields = {**fields, "outer_parts": layers_from_json(fields["outer_parts"])[0]}
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"layers of {fields['name']!r:.80} are not as to_dict writes them: {error!r}") from error
        return cls(**fields)

    @classmethod
    def from_hf_config(cls, config: dict, *, name: str | None = None) -> "Architecture":
        """Architecture of a Hugging Face ``config.json``.

        Of a model that reads images or sound too, the language model is taken. Quantised weights count as parameters,
        layers for predicting several tokens at once do not.

        Parameters
        ----------
        config : dict
            The parsed file. Families that can be counted: see ``HF_FAMILIES``.
        name : str, optional
            Name to give it; the end of the configuration's ``_name_or_path``, else its family.

        Raises
        ------
        ValueError
            The family, or an option of it, cannot be counted here: named, never approximated.
        """
        path = config.get("_name_or_path")
        path = path if isinstance(path, str) and path else str(config.get("model_type"))
        name = name or path.rstrip("/").rsplit("/", 1)[-1]
        return cls(name, **fields_of_hf_config(config))


_NAMES = [entry.name for entry in dataclasses.fields(Architecture)]
_NO_FEATURES = ("uncounted_options", "layers", "outer_parts")
_FIRST_LATER, _AFTER_LATER = _NAMES.index("num_experts"), _NAMES.index("num_layers_profiled")
