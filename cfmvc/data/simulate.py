r"""The embedded default data set: simulated cells of which the true response is known.

The model, for cell :math:`c` of type :math:`k` in batch :math:`b` under perturbation :math:`p` at
dose :math:`d` (:math:`g` a gene):

.. math::
    u_c &\sim N(m_k, I) && \text{cell state: } n\_programmes \text{ activities} \\
    \eta_{cg} &= \beta_g + \tau_{kg} + \gamma_{bg} + \sum_j u_{cj} W_{jg}
        + x_c \xi_g + d\,\delta_{pg}(u_c, k) \\
    \pi_{cg} &= \mathrm{softmax}_g(\eta_c), \quad
    l_c \sim \mathrm{LogNormal}(\log median\_library, library\_spread) \\
    y_{cg} &\sim \mathrm{NB}(\text{mean} = l_c \pi_{cg}, \text{inverse dispersion} = \theta_g)

The response of a single perturbation is :math:`\delta_{pg} = 2\sigma(r_p \cdot u_c)\, a_{pg} +
e_{pkg}`: the direction :math:`a_p` is shared, its strength can be read from the state of the cell,
and :math:`e_{pk}` is the part of a cell type that nothing foretells. A combination adds its parts'
responses; of an interactive one that is not all (``interaction``, with :math:`s` its strength):

=========== =======================================================================================
``own``     a direction of its own is added as well, of which other combinations tell nothing
``limited`` a response :math:`r` becomes :math:`s \tanh(r / s)`, also that of a single one; here the
            sum does, and where both parts reach a gene it moves less than the sum of the two
``company`` each part adds what it does in all interactive combinations, and not alone; additive
            ones are made of other perturbations
=========== =======================================================================================

A dose multiplies the response, or (``half_dose`` :math:`h`) acts as :math:`d / (d + h_p)`, where
:math:`\log_{10} h_p \sim N(\log_{10} h, 1/2)` (a standard deviation).
Coordinates :math:`x_c` are uniform on the unit square; the first has a gradient :math:`\xi`.
With embeddings :math:`v_p`, a part of :math:`a_p` is linear in them, the same for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack
from scipy.special import expit, softmax

from cfmvc.data.config import SimulateConfig
from cfmvc.data.embeddings import EMBEDDINGS

CONTROL = "control"
SEPARATOR = "+"
_CELLS_PER_BLOCK = 1024
_STATES_PER_TYPE = 1024


@dataclass(frozen=True)
class Biology:
    """Everything that is fixed before a cell is drawn; arrays end in ``n_genes``."""

    base: np.ndarray
    batch: np.ndarray
    cell_type: np.ndarray
    programmes: np.ndarray
    type_state: np.ndarray
    gradient: np.ndarray
    theta: np.ndarray
    shared: np.ndarray
    specific: np.ndarray
    receptor: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    n_interactive: int
    interaction: np.ndarray
    limit: float
    half_dose: np.ndarray | None
    embedding: np.ndarray

    @classmethod
    def draw(cls, config: SimulateConfig) -> "Biology":
        """Draw effects and loadings from ``config.seed``."""
        rng = np.random.default_rng((config.seed, 0))
        n_genes, n_perts = config.n_genes, config.n_perturbations
        n_types, n_programmes = config.n_cell_types, config.n_programmes

        def sparse_effect(shape: tuple[int, ...], share: float, scale: float) -> np.ndarray:
            return _sparse(rng, (*shape, n_genes), share, scale)

        pairs, hit = _pairs(config, rng), config.perturbed_fraction
        receptor = rng.normal(size=(n_perts, n_programmes))
        embedding, shared = _embedded(config)
        return cls(
            base=rng.normal(0.0, 1.0, n_genes),
            batch=rng.normal(0.0, config.batch_effect, (config.n_batches, n_genes)),
            cell_type=sparse_effect((n_types,), 0.2, config.cell_type_effect),
            programmes=sparse_effect((n_programmes,), 0.2, config.programme_effect),
            type_state=rng.normal(0.0, 1.0, (n_types, n_programmes)),
            gradient=sparse_effect((), 0.1 if config.spatial else 0.0, 1.0),
            theta=config.inverse_dispersion * np.exp(rng.normal(0.0, 0.5, n_genes)),
            shared=sparse_effect((n_perts,), hit, config.perturbation_effect) + shared,
            specific=sparse_effect((n_perts, n_types), hit / 2, config.specific_effect),
            receptor=receptor / np.linalg.norm(receptor, axis=1, keepdims=True),
            pairs=pairs,
            n_interactive=config.n_interactive,
            interaction=_interaction(config, pairs, rng),
            limit=config.interaction_effect if config.interaction == "limited" else np.inf,
            half_dose=_half_doses(config),
            embedding=embedding,
        )

    @property
    def labels(self) -> list[str]:
        """Labels of all perturbations: the control, the single ones, the combinations."""
        singles = [f"P{i + 1}" for i in range(len(self.shared))]
        return [
            CONTROL,
            *singles,
            *(SEPARATOR.join((singles[a], singles[b])) for a, b in self.pairs),
        ]

    def is_interactive(self, label: int) -> bool:
        """Whether the perturbation is not the sum of its parts."""
        return 0 <= label - 1 - len(self.shared) < self.n_interactive

    def proportions(
        self, label: int, batch: int, cell_type: int, dose: float, state: np.ndarray, x: np.ndarray
    ) -> np.ndarray:
        """Return the expected proportions of cells of one condition, ``(n_cells, n_genes)``.

        Parameters
        ----------
        label, batch, cell_type
            Numbers of perturbation (0 is the control), batch and cell type.
        dose
            In the units of the data.
        state
            Programme activities, ``(n_cells, n_programmes)``.
        x
            First coordinate, ``(n_cells,)``.
        """
        log_rate = self.base + self.batch[batch] + self.cell_type[cell_type]
        # einsum, not BLAS: the sums must not depend on the number of threads
        log_rate = log_rate + np.einsum("cj,jg->cg", state, self.programmes)
        log_rate += x[:, None] * self.gradient
        effect = self._strength(label, dose) * self._response(label, cell_type, state)
        return softmax(log_rate + effect, axis=1)

    def _strength(self, label: int, dose: float) -> float:
        """Return what a dose multiplies the response by; a combination's is that of its parts."""
        if self.half_dose is None or label == 0:
            return dose
        return float(np.mean([dose / (dose + self.half_dose[part]) for part in self._parts(label)]))

    def _response(self, label: int, cell_type: int, state: np.ndarray) -> np.ndarray:
        response, interacts = np.zeros((len(state), len(self.base))), self.is_interactive(label)
        for part in self._parts(label):
            strength = 2.0 * expit(np.einsum("cj,j->c", state, self.receptor[part]))
            of_part = strength[:, None] * self.shared[part] + self.specific[part, cell_type]
            response += of_part if interacts else self._limited(of_part)
        if not interacts:
            return response
        return self._limited(response + self.interaction[label - 1 - len(self.shared)])

    def _limited(self, response: np.ndarray) -> np.ndarray:
        if np.isinf(self.limit):
            return response
        return self.limit * np.tanh(response / self.limit)

    def _parts(self, label: int) -> tuple[int, ...]:
        if label == 0:
            return ()
        single = label - 1
        return (single,) if single < len(self.shared) else self.pairs[single - len(self.shared)]


def _sparse(
    rng: np.random.Generator, shape: tuple[int, ...], share: float, scale: float
) -> np.ndarray:
    is_hit = rng.random(shape) < share
    return np.where(is_hit, rng.normal(0.0, scale, shape), 0.0)


def _pairs(config: SimulateConfig, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Return the parts of each combination, interactive ones first."""
    pairs = list(combinations(range(config.n_perturbations), 2))
    drawn = [pairs[i] for i in rng.permutation(len(pairs))]
    if config.interaction != "company":
        return tuple(sorted(drawn[: config.n_combinations]))
    sociable = [pair for pair in drawn if max(pair) < config.n_sociable]
    others = [pair for pair in drawn if min(pair) >= config.n_sociable]
    n_additive = config.n_combinations - config.n_interactive
    return (*sorted(sociable[: config.n_interactive]), *sorted(others[:n_additive]))


def _interaction(
    config: SimulateConfig, pairs: Sequence[tuple[int, int]], rng: np.random.Generator
) -> np.ndarray:
    """Return what the interactive combinations add, ``(n_interactive, n_genes)``."""
    of_what = {"own": config.n_interactive, "company": config.n_perturbations, "limited": 0}
    shape = of_what[config.interaction], config.n_genes
    drawn = _sparse(rng, shape, config.perturbed_fraction, config.interaction_effect)
    if config.interaction == "own":
        return drawn
    found = np.zeros((config.n_interactive, config.n_genes))
    if config.interaction == "company":
        for row, parts in zip(found, pairs, strict=False):  # the first ones interact
            row += drawn[list(parts)].sum(axis=0)
    return found


def _half_doses(config: SimulateConfig) -> np.ndarray | None:
    """Return the dose at which each perturbation has half of its response, ``(n_perturbations,)``.

    None, where responses go with the dose.
    """
    if config.half_dose is None:
        return None
    rng = np.random.default_rng((config.seed, 6))
    return np.asarray(config.half_dose * 10.0 ** rng.normal(0.0, 0.5, config.n_perturbations))


def _embedded(config: SimulateConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings, and the part of the shared responses that is linear in them."""
    rng = np.random.default_rng((config.seed, 3))
    shape = (config.embedding_dim, config.n_genes)
    embedding = rng.normal(size=(config.n_perturbations, config.embedding_dim))
    loadings = _sparse(rng, shape, config.perturbed_fraction, config.perturbation_effect)
    return embedding, np.einsum("pe,eg->pg", embedding, loadings)


def simulate(config: SimulateConfig) -> tuple[AnnData, AnnData]:
    """Simulate cells, and the true expectation of every condition.

    Parameters
    ----------
    config
        The section ``simulate`` of ``params.yaml``; the same values give the same bytes.

    Returns
    -------
    cells
        ``(n_cells, n_genes)`` in the canonical form: ``layers["counts"]`` CSR, ``obs`` columns
        ``perturbation, batch, cell_type`` (and ``dose``, 0 for controls), ``obsm["spatial"]``.
    truth
        One row a condition, whether or not a cell of it was drawn: every perturbation x batch x
        cell type (x dose), control included. ``layers["mean"]`` is the expected proportion of
        each gene, averaged over the cell states (and coordinates) of the cell type, times
        ``median_library``. The average is over ``1024`` antithetic draws of the state, the same
        draws for every condition of a cell type, so that effects carry hardly any Monte Carlo
        error. ``obs`` has the condition columns, ``is_interactive`` and ``n_cells`` (drawn).
    """
    biology = Biology.draw(config)
    cells = _draw_cells(config, biology)
    return cells, _true_means(config, biology, cells.obs)


def truth_of(config: SimulateConfig, x_range: tuple[float, float] = (0.0, 1.0)) -> AnnData:
    """Return the true expectation of every condition, as :func:`simulate` does, without cells.

    Parameters
    ----------
    config
        The section ``simulate`` that the cells were made with.
    x_range
        Bounds of the first coordinate, over which expectations are averaged: those of a region.
    """
    return _true_means(config, Biology.draw(config), None, x_range)


def _draw_cells(config: SimulateConfig, biology: Biology) -> AnnData:
    rng = np.random.default_rng((config.seed, 1))
    n_cells, labels = config.n_cells, biology.labels
    is_control = rng.random(n_cells) < config.control_fraction
    label = np.where(is_control, 0, rng.integers(1, len(labels), n_cells))
    batch = rng.choice(config.n_batches, n_cells, p=_uneven(config.n_batches))
    cell_type = rng.choice(config.n_cell_types, n_cells, p=_uneven(config.n_cell_types))
    dose = np.where(is_control, 0.0, rng.choice(config.doses or [1.0], n_cells))
    state = biology.type_state[cell_type] + rng.normal(size=(n_cells, config.n_programmes))
    place = rng.random((n_cells, 2))
    library = config.median_library * np.exp(rng.normal(0.0, config.library_spread, n_cells))

    blocks = []
    for start in range(0, n_cells, _CELLS_PER_BLOCK):
        rows = np.arange(start, min(start + _CELLS_PER_BLOCK, n_cells))
        mean = np.empty((len(rows), config.n_genes))
        keys = np.stack([label, batch, cell_type, dose], axis=1)[rows]
        for key in np.unique(keys, axis=0):
            here = (keys == key).all(axis=1)
            mean[here] = biology.proportions(
                int(key[0]),
                int(key[1]),
                int(key[2]),
                key[3],
                state[rows[here]],
                place[rows[here], 0],
            )
        mean *= library[rows, None]
        # a negative binomial is a Poisson with a gamma rate
        counts = rng.poisson(rng.gamma(biology.theta, mean / biology.theta))
        blocks.append(csr_matrix(counts, dtype=np.int32))

    obs = _condition_columns(config, biology, label, batch, cell_type, dose)
    obs.index = pd.Index([f"cell_{i + 1:06d}" for i in range(n_cells)])
    cells = AnnData(obs=obs, var=_genes(config), layers={"counts": vstack(blocks, format="csr")})
    if config.spatial:
        cells.obsm["spatial"] = place
    cells.uns["cfmvc"] = {
        "control": CONTROL,
        "separator": SEPARATOR,
        "source_file": "simulated",
        "simulate": config.model_dump_json(),
    }
    if config.embedding_dim:
        singles = biology.labels[1 : 1 + config.n_perturbations]
        columns = [str(number) for number in range(config.embedding_dim)]
        cells.uns[EMBEDDINGS] = pd.DataFrame(biology.embedding, index=singles, columns=columns)
    return cells


def _true_means(
    config: SimulateConfig,
    biology: Biology,
    drawn: pd.DataFrame | None,
    x_range: tuple[float, float] = (0.0, 1.0),
) -> AnnData:
    rng = np.random.default_rng((config.seed, 2))
    half = rng.normal(size=(_STATES_PER_TYPE // 2, config.n_programmes))
    noise = np.concatenate([half, -half])
    x_half = rng.random(_STATES_PER_TYPE // 2)
    low, high = x_range
    x = low + (high - low) * np.concatenate([x_half, 1.0 - x_half])
    conditions = [
        (label, batch, cell_type, dose)
        for label in range(len(biology.labels))
        for batch in range(config.n_batches)
        for cell_type in range(config.n_cell_types)
        for dose in ([0.0] if label == 0 else config.doses or [1.0])
    ]
    means = [
        biology.proportions(
            label, batch, cell_type, dose, biology.type_state[cell_type] + noise, x
        ).mean(axis=0)
        for label, batch, cell_type, dose in conditions
    ]
    label, batch, cell_type, dose = (np.asarray(column) for column in zip(*conditions, strict=True))
    obs = _condition_columns(config, biology, label, batch, cell_type, dose)
    obs["is_interactive"] = [biology.is_interactive(int(i)) for i in label]
    keys = [name for name in ("perturbation", "batch", "cell_type", "dose") if name in obs]
    if drawn is not None:
        sizes = drawn.groupby(keys, observed=True).size().to_dict()
        obs["n_cells"] = [sizes.get(key, 0) for key in obs[keys].itertuples(index=False, name=None)]
    obs.index = pd.Index([f"condition_{i + 1:04d}" for i in range(len(obs))])
    mean = (config.median_library * np.stack(means)).astype(np.float32)
    return AnnData(obs=obs, var=_genes(config), layers={"mean": mean})


def _condition_columns(
    config: SimulateConfig,
    biology: Biology,
    label: np.ndarray,
    batch: np.ndarray,
    cell_type: np.ndarray,
    dose: np.ndarray,
) -> pd.DataFrame:
    columns = {
        "perturbation": pd.Categorical(np.asarray(biology.labels, dtype=object)[label]),
        "batch": pd.Categorical([f"batch_{i + 1}" for i in batch]),
        "cell_type": pd.Categorical([f"type_{i + 1}" for i in cell_type]),
    }
    obs = pd.DataFrame(columns)
    if config.doses:
        obs["dose"] = dose.astype(float)
    return obs


def _genes(config: SimulateConfig) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([f"gene_{i + 1:04d}" for i in range(config.n_genes)]))


def _uneven(n: int) -> np.ndarray:
    """Shares that fall from the first to the last, which is half as frequent."""
    shares = np.linspace(1.0, 0.5, n)
    return np.asarray(shares / shares.sum())
