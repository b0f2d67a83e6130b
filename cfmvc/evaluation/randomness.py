"""Random numbers that depend on what they are for, and not on what was drawn before."""

import hashlib

import numpy as np


def random_generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on the seed and the names alone."""
    digest = hashlib.sha256("\n".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
