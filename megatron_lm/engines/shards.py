"""What tensor parallelism adds to plain torch calls."""

import torch
from torch import distributed

from megatron_lm.engines.products import Products


class Shards:
    """Each rank of a tensor parallel group holds a shard of every matrix (arXiv:1909.08053)."""

    def __init__(self, group, products: Products):
        self._group, self._products = group, products
        self.count, self._index = group.size(), group.rank()

    def linear(self, hidden, weight, bias):
        """Linear layer whose inputs are shared out among the ranks: each one's part is summed over them."""
        if self.count == 1:
            return self._products.linear(hidden, weight, bias)
        output = self._products.linear(hidden, weight).contiguous()
        distributed.all_reduce(output, group=self._group)
        return output if bias is None else output.add_(bias)

    def add_linear(self, hidden, inputs, weight, bias):
        """Add to ``hidden``, in place, what :meth:`linear` gives."""
        if self.count > 1:
            hidden.add_(self.linear(inputs, weight, bias))
        elif bias is None and self._products.are_made_by_torch(inputs, weight):
            hidden.addmm_(inputs, weight.t())
        else:
            hidden.add_(self._products.linear(inputs, weight, bias))

    def embed(self, tokens, look_up, num_rows):
        """Embeddings of tokens: ``look_up`` gives those of a rank's own ``num_rows``, by their place among them."""
        if self.count == 1:
            return look_up(tokens)
        local = tokens - self._index * num_rows
        is_elsewhere = (local < 0) | (local >= num_rows)
        output = look_up(local.masked_fill(is_elsewhere, 0))
        output.masked_fill_(is_elsewhere.unsqueeze(-1), 0.0)
        distributed.all_reduce(output, group=self._group)
        return output

    def gather(self, logits):
        """Logits of the whole vocabulary, padding included, from those of each rank's range."""
        if self.count == 1:
            return logits
        parts = [torch.empty_like(logits) for _ in range(self.count)]
        distributed.all_gather(parts, logits.contiguous(), group=self._group)
        return torch.cat(parts, dim=-1)
