"""Transformer architectures: what must be known of a model to time it. Trained weights are not needed."""

import dataclasses
import difflib
import math
from dataclasses import dataclass

POSITION_EMBEDDINGS = ("learned_absolute", "rope")
NORMALIZATIONS = ("LayerNorm", "RMSNorm")
_EXPERT_FIELDS = ("num_experts", "moe_router_topk", "moe_ffn_hidden_size")
_SWITCHES = ("swiglu", "add_bias_linear", "add_qkv_bias", "untie_embeddings_and_output_weights")


@dataclass(frozen=True)
class Architecture:
    """A decoder-only Transformer, in Megatron's terms.

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
        Width of the feed-forward network; ``4 * hidden_size`` where it is not given.
    num_query_groups : int, optional
        Key-value heads of grouped-query attention; one per attention head where it is not given.
    swiglu : bool
        Gated feed-forward network (three matrices) instead of GELU (two matrices).
    normalization : {"LayerNorm", "RMSNorm"}
    position_embedding_type : {"learned_absolute", "rope"}
    rotary_base : float
        Base of the rotary angles; used with ``"rope"`` only.
    layernorm_epsilon : float
    add_bias_linear, add_qkv_bias : bool
        Bias of all linear layers; bias of the query-key-value projection (the first implies the second).
    untie_embeddings_and_output_weights : bool
        The output projection has a matrix of its own.
    num_experts, moe_router_topk : int, optional
        Experts of every layer's feed-forward network, and how many of them a token visits; none: dense.
    moe_ffn_hidden_size : int, optional
        Width of one expert; ``ffn_hidden_size`` where it is not given.
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
    num_experts: int | None = None
    moe_router_topk: int | None = None
    moe_ffn_hidden_size: int | None = None
    num_layers_profiled: int | None = None
    published_params: float | None = None
    published_log: str | None = None
    helm_names: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self):
        if self.ffn_hidden_size is None:
            object.__setattr__(self, "ffn_hidden_size", 4 * self.hidden_size)
        if self.num_query_groups is None:
            object.__setattr__(self, "num_query_groups", self.num_attention_heads)
        if self.num_experts is not None and self.moe_ffn_hidden_size is None:
            object.__setattr__(self, "moe_ffn_hidden_size", self.ffn_hidden_size)
        object.__setattr__(self, "helm_names", tuple(self.helm_names))
        self._check_sizes()
        self._check_experts()
        self._check_heads()
        self._check_choices()

    def _check_sizes(self):
        for field in ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "vocab_size",
                      "max_position_embeddings", "ffn_hidden_size"):  # fmt: skip
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{self.name}: {field} must be an integer of at least 1; got {value!r}")
        if self.num_layers_profiled is not None and self.num_layers_profiled not in range(1, self.num_layers + 1):
            raise ValueError(
                f"{self.name}: num_layers_profiled must lie in [1, {self.num_layers}]; got {self.num_layers_profiled!r}"
            )

    def _check_heads(self):
        for divisor, dividend in (("num_attention_heads", "hidden_size"), ("num_query_groups", "num_attention_heads")):
            if getattr(self, dividend) % getattr(self, divisor):
                raise ValueError(
                    f"{self.name}: {dividend} ({getattr(self, dividend)}) must be a multiple of "
                    f"{divisor} ({getattr(self, divisor)})"
                )
        if self.position_embedding_type == "rope" and self.head_dim % 2:
            raise ValueError(
                f"{self.name}: rotary positions turn pairs of dimensions; "
                f"hidden_size / num_attention_heads must be even, got {self.head_dim}"
            )

    def _check_experts(self):
        values = {field: getattr(self, field) for field in _EXPERT_FIELDS}
        if all(value is None for value in values.values()):
            return
        for field, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{self.name}: with experts, {field} must be an integer of at least 1; got {value!r}")
        if self.moe_router_topk > self.num_experts:
            raise ValueError(f"{self.name}: moe_router_topk must not exceed num_experts; got {self.moe_router_topk}")

    def _check_choices(self):
        for field, allowed in (
            ("normalization", NORMALIZATIONS),
            ("position_embedding_type", POSITION_EMBEDDINGS),
            *((field, (False, True)) for field in _SWITCHES),
        ):
            value = getattr(self, field)
            if value not in allowed or type(value) is not type(allowed[0]):
                raise ValueError(f"{self.name}: {field} must be one of {allowed}; got {value!r}")
        for field in ("rotary_base", "layernorm_epsilon"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{self.name}: {field} must be a positive number; got {value!r}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_params(self) -> int:
        """Exact number of parameters, embeddings and biases included; of all experts where there are any."""
        return self.count_params(self.num_experts)

    @property
    def num_active_params(self) -> int:
        """Parameters one token visits: of ``moe_router_topk`` experts a layer; all where there are no experts."""
        return self.count_params(self.moe_router_topk)

    def count_params(self, num_experts: int | None) -> int:
        """Parameters when ``num_experts`` experts of each layer count, beside all that is not an expert."""
        h = self.hidden_size
        norm = 2 * h if self.normalization == "LayerNorm" else h
        layer = self._attention_params() + self._ffn_params(num_experts) + 2 * norm
        embeddings = self.vocab_size * h * (2 if self.untie_embeddings_and_output_weights else 1)
        if self.position_embedding_type == "learned_absolute":
            embeddings += self.max_position_embeddings * h
        return self.num_layers * layer + embeddings + norm

    def _attention_params(self):
        h = self.hidden_size
        qkv_size = h + 2 * self.num_query_groups * self.head_dim
        has_qkv_bias = self.add_bias_linear or self.add_qkv_bias
        return h * qkv_size + h * h + (h if self.add_bias_linear else 0) + (qkv_size if has_qkv_bias else 0)

    def _ffn_params(self, num_experts):
        h = self.hidden_size
        ffn_size = self.ffn_hidden_size if num_experts is None else self.moe_ffn_hidden_size
        up_size = ffn_size * (2 if self.swiglu else 1)
        network = h * up_size + ffn_size * h + (up_size + h if self.add_bias_linear else 0)
        # The router is one matrix without bias.
        return network if num_experts is None else num_experts * network + h * self.num_experts

    def to_dict(self) -> dict:
        """Every field, in JSON's types; those of experts only where there are any."""
        fields = {**dataclasses.asdict(self), "helm_names": list(self.helm_names)}
        if self.num_experts is None:
            # So a log begun before there were experts can be continued: its header stays the same.
            fields = {name: value for name, value in fields.items() if name not in _EXPERT_FIELDS}
        return fields

    @classmethod
    def from_dict(cls, fields: dict) -> "Architecture":
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            A field is unknown or missing; the message names it.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"unknown architecture field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
        if missing := sorted(needed - set(fields)):
            raise ValueError(f"an architecture needs {', '.join(missing)}")
        return cls(**fields)

    @classmethod
    def from_hf_config(cls, config: dict, *, name: str | None = None) -> "Architecture":
        """Architecture of a Hugging Face ``config.json``.

        Parameters
        ----------
        config : dict
            The parsed file. Families that can be built: see ``HF_FAMILIES``.
        name : str, optional
            Name to give it; the end of the configuration's ``_name_or_path``, else its family.

        Raises
        ------
        ValueError
            The family, or an option of it, cannot be built here: named, never approximated.
        """
        family = config.get("model_type")
        if family not in HF_FAMILIES:
            raise ValueError(f"model_type {family!r} cannot be built here; families that can: {', '.join(HF_FAMILIES)}")
        name = name or str(config.get("_name_or_path") or family).rstrip("/").rsplit("/", 1)[-1]
        try:
            return HF_FAMILIES[family](config, name)
        except KeyError as error:
            raise ValueError(f"Hugging Face configuration of family {family!r} lacks {error}") from error


def _from_gpt2(config, name):
    _require(config, "gpt2", activation_function=("gelu_new", "gelu_pytorch_tanh"), scale_attn_weights=(True,),
             scale_attn_by_inverse_layer_idx=(False,), reorder_and_upcast_attn=(False,), add_cross_attention=(False,),
             tie_word_embeddings=(True,), quantization_config=(None,))  # fmt: skip
    return Architecture(
        name,
        num_layers=config["n_layer"],
        hidden_size=config["n_embd"],
        num_attention_heads=config["n_head"],
        vocab_size=config["vocab_size"],
        max_position_embeddings=config.get("n_positions", 1024),
        ffn_hidden_size=config.get("n_inner"),
        layernorm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        source="Hugging Face config.json",
    )


# What transformers takes where a config.json is silent and families differ.
_HF_DEFAULTS = {
    "llama": {"max_position_embeddings": 2048, "num_key_value_heads": None, "attention_bias": False},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
}


def _from_llama(config, name):
    family = config["model_type"]
    config = {**_HF_DEFAULTS[family], **config}
    _check_llama_options(config, family)
    architecture = Architecture(
        name,
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        num_attention_heads=config["num_attention_heads"],
        vocab_size=config["vocab_size"],
        max_position_embeddings=config["max_position_embeddings"],
        ffn_hidden_size=config["intermediate_size"],
        num_query_groups=config["num_key_value_heads"],
        swiglu=True,
        normalization="RMSNorm",
        position_embedding_type="rope",
        rotary_base=_rotary_base(config, family),
        layernorm_epsilon=config.get("rms_norm_eps", 1e-6),
        add_bias_linear=False,
        add_qkv_bias=family == "qwen2",
        untie_embeddings_and_output_weights=not config.get("tie_word_embeddings", False),
        source="Hugging Face config.json",
    )
    _require(config, family, head_dim=(None, architecture.head_dim))
    return architecture


def _check_llama_options(config, family):
    _require(config, family, hidden_act=("silu",), mlp_bias=(False,), quantization_config=(None,),
             use_sliding_window=(False,))  # fmt: skip
    if family == "llama":
        _require(config, family, attention_bias=(False,))
    if family == "mistral":
        # A window no shorter than the context hides nothing.
        window = config["sliding_window"]
        if window is not None and window < config["max_position_embeddings"]:
            _require(config, family, sliding_window=(None,))
    if any(kind != "full_attention" for kind in config.get("layer_types") or ()):
        _require(config, family, layer_types=(None,))


def _rotary_base(config, family) -> float:
    """Base of the unscaled rotary angles, from either spelling: transformers 5 moved it into ``rope_parameters``."""
    base = config.get("rope_theta")
    _require(config, family, partial_rotary_factor=(None, 1.0))
    for spelling in ("rope_scaling", "rope_parameters"):
        rope = config.get(spelling) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        is_by_layer_type = any(isinstance(value, dict) for value in rope.values())
        if kind != "default" or is_by_layer_type or rope.get("partial_rotary_factor") not in (None, 1.0):
            raise ValueError(f"{family} with {spelling} = {rope!r} cannot be built here; allowed: the default rope")
        base = rope.get("rope_theta") or base
    return 10000.0 if base is None else float(base)


def _require(config, family, **allowed):
    """Refuse an option that would be built differently here; an absent one has its family's usual value."""
    for option, values in allowed.items():
        if option in config and config[option] not in values:
            raise ValueError(
                f"{family} with {option} = {config[option]!r} cannot be built here; allowed: "
                + ", ".join(repr(value) for value in values)
            )


HF_FAMILIES = {"gpt2": _from_gpt2, "llama": _from_llama, "mistral": _from_llama, "qwen2": _from_llama}

_PAPER = "arXiv:2305.02440, Table 1"
_LOG = "arguments printed by the published log"
_REGISTRY = (
    # The shapes that arXiv:2305.02440 timed; vocab_size as padded in its A100 logs.
    Architecture("davinci", 96, 12288, 96, 51200, published_params=175e9, published_log="openai_davinci",
                 helm_names=("openai/davinci", "together/opt-175b"), source=_PAPER),
    Architecture("j1-large", 32, 4096, 32, 50304, published_params=6.7e9, published_log="ai21_j1_large",
                 helm_names=("ai21/j1-large", "openai/curie", "microsoft/TNLGv2_7B"), source=_PAPER),
    Architecture("j1-grande", 50, 5120, 40, 262144, published_params=17e9, published_log="ai21_j1_grande",
                 helm_names=("ai21/j1-grande",), source=_PAPER),
    Architecture("j1-jumbo", 76, 13824, 96, 51200, published_params=178e9, published_log="ai21_j1_jumbo",
                 helm_names=("ai21/j1-jumbo",), source=_PAPER),
    Architecture("anthropic-v4-s3", 64, 8192, 64, 50688, published_params=52e9, published_log="anthropic",
                 helm_names=("anthropic/stanford-online-all-v4-s3", "cohere/xlarge-20220609"), source=_PAPER),
    Architecture("tnlg-v2", 105, 20480, 128, 51200, num_layers_profiled=35, published_params=530e9,
                 published_log="mt_nlg", helm_names=("microsoft/TNLGv2_530B",), source=_PAPER),
    Architecture("gpt-j", 28, 4096, 16, 50304, published_params=6e9, published_log="gptj_6b",
                 helm_names=("huggingface/gptj_6b", "gooseai/gpt-j-6b", "together/gpt-j-6b"), source=_PAPER),
    # Profiled with an ungated feed-forward network: 78.9 B of the 100 B parameters its owners state.
    Architecture("yalm", 80, 10240, 128, 50688, ffn_hidden_size=27308, published_params=100e9,
                 published_log="yalm", helm_names=("together/yalm",), source=_PAPER),
    Architecture("bloom", 70, 14336, 112, 250680, published_params=176e9, published_log="bloom",
                 helm_names=("together/bloom",), source=_PAPER),
    Architecture("gpt-neox-20b", 44, 6144, 64, 50304, published_params=20e9, published_log="gpt_neox_20b",
                 helm_names=("gooseai/gpt-neo-20b", "together/gpt-neox-20b"), source="arXiv:2204.06745; " + _LOG),
    Architecture("opt-66b", 64, 9216, 72, 50688, published_params=66e9, published_log="opt_66b",
                 helm_names=("together/opt-66b",), source="arXiv:2205.01068; " + _LOG),
    Architecture("ada", 24, 1024, 16, 50304, published_params=350e6, published_log="openai_ada",
                 helm_names=("openai/ada",), source=_LOG),
    Architecture("gpt2-9.9b", 48, 4096, 32, 50304, published_log="gpt2", source=_LOG),
    # Open models that fit a laptop; vocab_size as published.
    Architecture("gpt2-small", 12, 768, 12, max_position_embeddings=1024, published_params=124e6,
                 source="Radford et al. 2019; Hugging Face gpt2"),
    Architecture("gpt2-medium", 24, 1024, 16, max_position_embeddings=1024, published_params=355e6,
                 source="Radford et al. 2019; Hugging Face gpt2-medium"),
    Architecture("gpt2-large", 36, 1280, 20, max_position_embeddings=1024, published_params=774e6,
                 source="Radford et al. 2019; Hugging Face gpt2-large"),
    Architecture("distilgpt2", 6, 768, 12, max_position_embeddings=1024, published_params=82e6,
                 source="Hugging Face distilbert/distilgpt2"),
    Architecture("smollm2-135m", 30, 576, 9, 49152, max_position_embeddings=8192, ffn_hidden_size=1536,
                 num_query_groups=3, swiglu=True, normalization="RMSNorm", position_embedding_type="rope",
                 rotary_base=100000.0, add_bias_linear=False, add_qkv_bias=False, published_params=135e6,
                 source="arXiv:2502.02737; Hugging Face HuggingFaceTB/SmolLM2-135M"),
)  # fmt: skip

ARCHITECTURES = {architecture.name: architecture for architecture in _REGISTRY}


def get_architecture(name: str) -> Architecture:
    """Row of the registry.

    Raises
    ------
    ValueError
        No row has this name; the message lists the nearest names and how to describe a new model.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=3) or list(ARCHITECTURES)
    raise ValueError(
        f"no architecture named {name!r}; did you mean {', '.join(near)}? "
        "Describe a new one with --num-layers, --hidden-size and --num-attention-heads, or with --hf-config"
    )


def published_architecture(log_stem: str) -> Architecture | None:
    """Row whose published log has this file stem; None where no row has."""
    return next((row for row in _REGISTRY if row.published_log == log_stem), None)
