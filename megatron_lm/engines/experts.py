"""Feed-forward networks with experts, of which each token visits a few."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812

from idealized_runtime.architectures import Architecture
from megatron_lm.engines.products import Products

# Of torch.nn.functional.grouped_mm.
_ROW_ALIGNMENT_BYTES = 16


class Experts:
    """Routed and shared experts of one layer, on the parameters of Megatron's ``MoELayer``.

    Tokens are grouped by expert and go through the chosen experts in one grouped matrix product a
    matrix: weights of an expert that no token visits are not read, and nothing waits for the device
    to say which were visited.

    Parameters
    ----------
    layer : MoELayer
        Its experts' weights are moved to one tensor a matrix, where both find them from then on.
    activate : callable
        What stands between the two matrices of an expert, the gate included.
    products : Products
        How matrices are read.

    Raises
    ------
    ValueError
        A matrix is not as wide as grouped products need.
    """

    def __init__(self, layer, architecture: Architecture, activate: Callable, products: Products):
        _check_widths(architecture, layer.router.weight.dtype)
        self._topk = architecture.moe_router_topk
        options = architecture.uncounted_options
        self._scores_before_choice = options.get("moe_router_pre_softmax", False)
        self._scores_by_sigmoid = options.get("moe_router_score_function") == "sigmoid"
        self._groups = options.get("moe_router_num_groups"), options.get("moe_router_group_topk")
        self._factor = options.get("moe_router_topk_scaling_factor")
        self._activate, self._products, self._linear = activate, products, products.linear
        self._router, self._balance = (layer.router.weight, layer.router.bias), layer.router.expert_bias
        experts = layer.experts.local_experts
        self._up = _stack([expert.linear_fc1 for expert in experts])
        self._down = _stack([expert.linear_fc2 for expert in experts])
        self._numbers = torch.arange(len(experts), device=layer.router.weight.device)
        self._shared = layer.shared_experts

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Output of the layer for hidden states of shape (tokens, hidden size)."""
        weights, chosen = self._route(hidden)
        # A visit is a pair of a token and an expert; those of one expert are brought together.
        expert_of_visit, order = chosen.flatten().sort()
        ends = torch.searchsorted(expert_of_visit, self._numbers, right=True, out_int32=True)
        visits = hidden[order // self._topk]
        up = self._activate(self._visit(visits, self._up, expert_of_visit, ends))
        down = self._visit(up, self._down, expert_of_visit, ends)
        outputs = torch.empty_like(down).index_copy_(0, order, down).view(*chosen.shape, -1)
        routed = (outputs * weights.unsqueeze(-1)).sum(dim=1)
        return routed if self._shared is None else routed + self._visit_shared(hidden)

    def _route(self, hidden):
        """Weights and numbers of the experts that each token visits, each of shape (tokens, top k)."""
        scores = self._linear(hidden, *self._router).float()
        if self._scores_by_sigmoid:
            weights, chosen = self._choose_by_sigmoid(scores.sigmoid())
        elif self._scores_before_choice:
            weights, chosen = self._choose(scores.softmax(dim=-1))
        else:
            weights, chosen = self._choose(scores)
            weights = weights.softmax(dim=-1)
        weights = weights if self._factor is None else weights * self._factor
        return weights.to(hidden.dtype), chosen

    def _choose_by_sigmoid(self, scores):
        if self._balance is None:
            weights, chosen = self._choose(scores)
        else:
            # It has a say in which experts are chosen, none in what they weigh.
            chosen = self._choose(scores + self._balance)[1]
            weights = scores.gather(1, chosen)
        return weights / (weights.sum(dim=-1, keepdim=True) + 1e-20), chosen

    def _choose(self, scores):
        num_groups, num_kept = self._groups
        if num_groups is None:
            return scores.topk(self._topk)
        groups = scores.view(len(scores), num_groups, -1)
        best = groups.topk(self._topk // num_kept).values.sum(dim=-1).topk(num_kept).indices
        is_left_out = torch.ones_like(groups[..., 0], dtype=torch.bool).scatter_(1, best, value=False)
        return groups.masked_fill(is_left_out.unsqueeze(-1), -torch.inf).flatten(1).topk(self._topk)

    def _visit(self, visits, parameters, expert_of_visit, ends):
        weight, bias = parameters
        if not self._products.are_made_by_torch(visits, weight[0]):
            # On a CPU only, where each expert is read in the way that is quickest. What is recorded knows no such loop.
            starts, biases = [0, *ends.tolist()], [None] * len(weight) if bias is None else bias
            return torch.cat(
                [
                    self._linear(visits[start:end], weight[expert], biases[expert])
                    for expert, (start, end) in enumerate(pairwise(starts))
                    if end > start
                ]
            )
        outputs = F.grouped_mm(visits, weight.mT, offs=ends)
        return outputs if bias is None else outputs + bias[expert_of_visit]

    def _visit_shared(self, hidden):
        shared = self._shared
        output = self._linear(self._activate(self._linear(hidden, shared.linear_fc1.weight)), shared.linear_fc2.weight)
        if shared.gate_weight is None:
            return output
        return torch.sigmoid(self._linear(hidden, shared.gate_weight)) * output


def _check_widths(architecture, dtype):
    multiple = _ROW_ALIGNMENT_BYTES // dtype.itemsize
    for name in ("hidden_size", "moe_ffn_hidden_size"):
        if getattr(architecture, name) % multiple:
            raise ValueError(
                f"{architecture.name}: with experts, --inference-engine sdpa needs {name} to be a multiple of "
                f"{multiple} in {dtype}; got {getattr(architecture, name)}: use --inference-engine eager"
            )


def _stack(modules) -> tuple:
    """Weights of all experts in one tensor, and biases if they have any; the modules keep theirs in it."""
    return _stack_parameters([module.weight for module in modules]), (
        None if modules[0].bias is None else _stack_parameters([module.bias for module in modules])
    )


def _stack_parameters(parameters):
    stacked = torch.stack(list(parameters))
    for parameter, place in zip(parameters, stacked, strict=True):
        # A second copy of the weights would not fit.
        parameter.data = place
    return stacked
