"""Expected against measured peak memory of the training stages."""
