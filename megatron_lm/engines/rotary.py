"""Rotary positions (arXiv:2104.09864), each pass's angles looked up once for all of its layers."""

import torch

from idealized_runtime.architectures import Architecture
from megatron_lm.layer_functions import rotary_factor, rotary_frequencies, rotary_width


class Rotary:
    """Turns pairs of a head's dimensions, of the data type and device of ``like``, by angles of its position.

    Pairs are i and i + half of those that are turned; neighbours where an architecture has them interleaved.
    """

    def __init__(self, architecture: Architecture, like: torch.Tensor):
        positions = torch.arange(architecture.max_position_embeddings, dtype=torch.float32, device=like.device)
        angles = torch.outer(positions, rotary_frequencies(architecture, like.device))
        self._half = angles.shape[-1]
        self._is_interleaved = architecture.uncounted_options.get("rotary_interleaved", False)
        width = rotary_width(architecture)
        unturned = like.new_zeros(len(positions), width - 2 * self._half, dtype=torch.float32)
        cosine, sine = (rotary_factor(architecture) * turned for turned in (angles.cos(), angles.sin()))
        cosines = torch.cat((self._join_pairs(cosine, cosine), unturned + 1), dim=-1)
        # Signed: the first of a pair turns against the second.
        sines = torch.cat((self._join_pairs(-sine, sine), unturned), dim=-1)
        self._table = torch.stack((cosines, sines)).to(like.dtype)
        self._identity = torch.eye(width, dtype=like.dtype, device=like.device)

    def angles(self, positions, num_sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines for the tokens of a pass, each of shape (tokens, 1, 1, head_dim).

        Parameters
        ----------
        positions : slice or int64 tensor
            Of each sequence.
        num_sequences : int
            Tokens are those of one sequence after those of another.
        """
        return self._table[:, positions].repeat(1, num_sequences, 1).unsqueeze(2).unsqueeze(2).unbind()

    def turn(self, heads: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Heads of shape (tokens, groups, heads, head_dim), turned."""
        cosines, sines = angles
        return torch.addcmul(heads * cosines, self._swap_pairs(heads), sines)

    def matrices(self, positions, num_turned: int) -> torch.Tensor:
        """What turns ``num_turned`` heads of one token and leaves one more, shape (num_turned + 1, head_dim, head_dim).

        A product with them is one kernel, where turning is three.
        """
        # What the rows of the identity are turned into.
        rotation = self.turn(self._identity, self._table[:, positions].unbind())
        return torch.cat((rotation.expand(num_turned, -1, -1), self._identity.unsqueeze(0)))

    def _join_pairs(self, first, second):
        return torch.stack((first, second), dim=-1 if self._is_interleaved else -2).flatten(-2)

    def _swap_pairs(self, heads):
        if self._is_interleaved:
            turned, unturned = heads.split((2 * self._half, heads.shape[-1] - 2 * self._half), dim=-1)
            return torch.cat((turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2), unturned), dim=-1)
        first, second, unturned = heads.split((self._half, self._half, heads.shape[-1] - 2 * self._half), dim=-1)
        return torch.cat((second, first, unturned), dim=-1)
