"""The negative binomial on the dense matrix, term by term as in the textbook."""

import torch


def dense_nb_log_likelihood(
    x: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    """Log-probability of counts, element by element, with ``lgamma`` of every entry.

    Parameters
    ----------
    x, mean
        Counts and means, ``(B, G)``.
    theta
        Inverse dispersions, ``(G,)``.
    """
    eps = 1e-8
    log_sum = torch.log(theta + mean + eps)
    return (
        torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1.0)
        + theta * (torch.log(theta + eps) - log_sum)
        + x * (torch.log(mean + eps) - log_sum)
    )
