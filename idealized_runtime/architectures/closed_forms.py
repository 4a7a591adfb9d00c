"""Operations of a plain Transformer in closed form, as arXiv:2305.02440 writes them: 24 h^2 l (1 + n / 6h) a token."""

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.counting import polynomial


def closed_form_prompt_encoding_flops(architecture: Architecture, num_prompt_tokens, *, batch_size: int = 1):
    """24 b p h^2 l (1 + p / 6h): full p x p attention, no output projection.

    Parameters
    ----------
    architecture : Architecture
        Only ``hidden_size`` and ``num_layers`` count.
    num_prompt_tokens : int, float or array
        p, in each of the ``batch_size`` sequences.

    Returns
    -------
    int, float or ndarray
        Floating-point operations. Source: arXiv:2305.02440, section 3.1.1.
    """
    per_token, per_pair = _coefficients(architecture)
    return polynomial(num_prompt_tokens, "num_prompt_tokens", 0, per_token, per_pair, batch_size=batch_size)


def closed_form_output_token_flops(architecture: Architecture, num_context_tokens, *, batch_size: int = 1):
    """24 b h^2 l (1 + i / 6h), for the output token that follows i others.

    Parameters
    ----------
    num_context_tokens : int, float or array
        i: tokens so far, prompt included.

    Returns
    -------
    int, float or ndarray
        Floating-point operations. Source: arXiv:2305.02440, section A.2.
    """
    per_token, per_pair = _coefficients(architecture)
    return polynomial(num_context_tokens, "num_context_tokens", per_token, per_pair, batch_size=batch_size)


def closed_form_query_flops(architecture: Architecture, num_prompt_tokens, num_output_tokens):
    """Both together: a prompt of p tokens, and o - 1 further output tokens; arrays broadcast."""
    p, o = num_prompt_tokens, num_output_tokens
    # Contexts p + 1 to p + o - 1 have the mean p + o / 2, and the closed form is linear in them.
    further = (o - 1) * closed_form_output_token_flops(architecture, p + o / 2)
    return closed_form_prompt_encoding_flops(architecture, p) + further


def closed_form_flops_without_attention(architecture: Architecture, num_tokens):
    """24 h^2 l for each token: the FLOPs drawn in the paper's Figure 9, which leave the attention term out.

    Parameters
    ----------
    num_tokens : int, float or array
        Tokens of a query, prompt and output together; means over queries are allowed.

    Returns
    -------
    int, float or ndarray
        Floating-point operations.
    """
    return polynomial(num_tokens, "num_tokens", 0, _coefficients(architecture)[0])


def _coefficients(architecture):
    h, num_layers = architecture.hidden_size, architecture.num_layers
    return 24 * h * h * num_layers, 4 * h * num_layers
