"""The model registry: versions, and the aliases that point to them."""
