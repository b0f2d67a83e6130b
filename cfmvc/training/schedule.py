"""How the learning rate goes: a linear warm-up, then a cosine down to ``lr_end``."""

import math

from cfmvc.training.config import LoopConfig


def learning_rate(config: LoopConfig, step: int, n_steps: int, factor: float) -> float:
    """Return the rate of a step.

    Parameters
    ----------
    config
        Peak rate, warm-up and end.
    step, n_steps
        Steps done, and steps planned in all.
    factor
        Of the peak: what rollbacks have left of it.
    """
    n_warmup = config.lr_warmup * n_steps
    rate, end = config.lr * factor, config.lr_end
    if step < n_warmup:
        return rate * (step + 1) / (n_warmup + 1)
    progress = min(1.0, (step - n_warmup) / max(n_steps - n_warmup, 1))
    return rate * (end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress)))
