"""Rotary positions (arXiv:2104.09864), each pass's angles looked up once for all of its layers."""

import torch

from idealized_runtime.architectures import Architecture
from megatron_lm.layer_functions import rotary_frequencies


class Rotary:
    """Turns pairs of a head's dimensions, i and i + half of those that are turned, by angles of its position.

    Parameters
    ----------
    architecture : Architecture
    like : tensor
        Of the data type and on the device of the heads.

    Attributes
    ----------
    table : tensor of shape (2, positions, head_dim)
        Cosines, and sines with the sign that the first of a pair has and the second has not.
    num_turned : int
        Dimensions that are turned, the first of each head.
    """

    def __init__(self, architecture: Architecture, like: torch.Tensor):
        positions = torch.arange(architecture.max_position_embeddings, dtype=torch.float32, device=like.device)
        angles = torch.outer(positions, rotary_frequencies(architecture, like.device))
        self._half = angles.shape[-1]
        self.num_turned = 2 * self._half
        unturned = like.new_zeros(len(positions), architecture.head_dim - self.num_turned, dtype=torch.float32)
        cosines = torch.cat((angles.cos(), angles.cos(), unturned + 1), dim=-1)
        sines = torch.cat((-angles.sin(), angles.sin(), unturned), dim=-1)
        self.table = torch.stack((cosines, sines)).to(like.dtype)
        self._identity = torch.eye(architecture.head_dim, dtype=like.dtype, device=like.device)

    def angles(self, positions, num_sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines for the tokens of a pass, each of shape (tokens, 1, 1, head_dim).

        Parameters
        ----------
        positions : slice or int64 tensor
            Of each sequence.
        num_sequences : int
            Tokens are those of one sequence after those of another.
        """
        return self.table[:, positions].repeat(1, num_sequences, 1).unsqueeze(2).unsqueeze(2).unbind()

    def turn(self, heads: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Heads of shape (tokens, groups, heads, head_dim), turned."""
        cosines, sines = angles
        return torch.addcmul(heads * cosines, self._swap_pairs(heads), sines)

    def matrices(self, positions, num_turned: int) -> torch.Tensor:
        """What turns ``num_turned`` heads of one token and leaves one more, shape (num_turned + 1, head_dim, head_dim).

        A product with them is one kernel, where turning is three.
        """
        # What the rows of the identity are turned into.
        rotation = self.turn(self._identity, self.table[:, positions].unbind())
        return torch.cat((rotation.expand(num_turned, -1, -1), self._identity.unsqueeze(0)))

    def _swap_pairs(self, heads):
        first, second, unturned = heads.split((self._half, self._half, heads.shape[-1] - self.num_turned), dim=-1)
        return torch.cat((second, first, unturned), dim=-1)
