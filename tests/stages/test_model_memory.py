"""What a model is expected to hold while it computes."""

from cfmvc.stages.model_memory import ModelMemory
from cfmvc.training.memory import NUMBER


def test_pairs_of_cells_are_compared_a_bounded_number_of_columns_at_a_time() -> None:
    n, sizes = 1024, {"n_genes": 4, "n_batch": 1, "n_ct": 1, "n_perts": 5000}
    chosen = {"dim_int": 2, "dim_tech": 2, "hidden_vae": 4, "hidden_flow": 4, "hidden_ctx": 4}
    model = ModelMemory({**sizes, **chosen, "n_basis": 2, "dropout_vae": 0.0, "spatial_dim": None})
    held = [a for a in model.flow(n, "backward", 1.0) if a.what == "pairs of cells"]
    of_distances = n * n * 2 * NUMBER * 5
    assert sum(arrays.n_bytes * arrays.n for arrays in held) < of_distances + 0.2e9
