"""What the stages leave for each other, as ``dvc.yaml`` names it.

A place of its own, so that a stage needs no other stage's script, nor the libraries behind it.
"""

from pathlib import Path

PREPARED = Path("data/prepared/cells.h5ad")
SPLIT = Path("data/prepared/split.json")
VAE = Path("models/vae")
FLOW = Path("models/flow")
GENERATED = Path("results/generated.h5ad")
ARITHMETIC = Path("results/latent_arithmetic.h5ad")
AVERAGES = Path("results/evaluate.json")
