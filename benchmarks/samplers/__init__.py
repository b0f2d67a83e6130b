"""Which sampler and pruner `cfmvc tune` should have, measured on our own problem."""
