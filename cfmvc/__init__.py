"""cfmvc: reproducible, tracked and governed models of single-cell perturbation response."""

__version__ = "2.0.0"
