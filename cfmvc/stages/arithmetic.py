"""Arithmetic in the latent space: what the flow has to beat with the same encoder and decoder."""

import hashlib

import torch

from cfmvc.models.reference import ReferenceCells


class LatentArithmetic:
    """Control latents plus the mean shift of the same perturbation in other strata.

    The other strata are those of the same cell type where there are any; each weighs the same. Of
    what was seen nowhere else the stratum's own cells serve, and then the nearest dose, the
    stratum's own among others, as for the additive shift in expression. A combination that was not
    seen gets the sum of the shifts of its parts, as far as these were, the stratum's own among them
    (scGen's arithmetic, Lotfollahi 2019, with the strata told apart).

    Parameters
    ----------
    cells
        Encoded training cells, controls among them.
    """

    def __init__(self, cells: ReferenceCells) -> None:
        # By what was done whatever the dose: dose, batch and cell type with the shift there.
        self._seen_at: dict[bytes, list[tuple[float, int, int, torch.Tensor]]] = {}
        for (vector, batch, cell_type), shift in _shifts(cells).items():
            what, dose = _undosed(cells.vectors[vector])
            self._seen_at.setdefault(what, []).append((dose, batch, cell_type, shift))

    def moved(
        self,
        z_0: torch.Tensor,
        p: torch.Tensor,
        batch_idx: torch.Tensor,
        ct_idx: torch.Tensor,
    ) -> torch.Tensor:
        """Return the latents after the perturbation, ``(B, dim_int)``.

        Parameters
        ----------
        z_0
            Latents of control cells, ``(B, dim_int)``.
        p, batch_idx, ct_idx
            Conditions, ``(B, K)``, ``(B,)``, ``(B,)``.
        """
        asked = torch.cat([p, batch_idx[:, None].to(p), ct_idx[:, None].to(p)], dim=1)
        conditions, member = torch.unique(asked, dim=0, return_inverse=True)
        shifts = [self._shift(c[:-2], int(c[-2]), int(c[-1]), z_0) for c in conditions]
        return z_0 + torch.stack(shifts)[member]

    def _shift(
        self, p: torch.Tensor, batch: int, cell_type: int, z_0: torch.Tensor
    ) -> torch.Tensor:
        nothing = torch.zeros_like(z_0[0])
        if not p.any():
            return nothing
        whole = self._seen(p, batch, cell_type)
        if whole is not None:
            return whole
        parts = [p * (torch.arange(len(p), device=p.device) == column) for column in p.nonzero()]
        seen = [
            self._seen(part, batch, cell_type, is_part=True) for part in parts if len(parts) > 1
        ]
        return sum((part for part in seen if part is not None), start=nothing)

    def _seen(
        self, p: torch.Tensor, batch: int, cell_type: int, is_part: bool = False
    ) -> torch.Tensor | None:
        """Return the shift of what was done, at the nearest dose; None where it was never seen."""
        what, wanted = _undosed(p)
        seen = self._seen_at.get(what, [])
        exact = [one for one in seen if one[0] == wanted]
        elsewhere = [one for one in exact if one[1:3] != (batch, cell_type)]
        if is_part and any(one[2] == cell_type for one in exact):
            elsewhere = exact
        found = elsewhere or exact or seen
        near = [one for one in found if one[2] == cell_type] or found
        if not near:
            return None
        dose = min({dose for dose, *_ in near}, key=lambda dose: (abs(dose - wanted), dose))
        return torch.stack([shift for at, *_, shift in near if at == dose]).mean(0)


def _undosed(p: torch.Tensor) -> tuple[bytes, float]:
    """Return what stands for a vector ``(K,)`` whatever its dose, which scales all alike; and that.

    Vectors of a large screen, beside each other, would take gigabytes: a digest does not.
    """
    row = p.cpu().numpy()  # whose quotients are exact; on a GPU a number's inverse is multiplied
    dose = float(row.max())
    direction = row / row.max() if dose > 0 else row
    return hashlib.blake2b(direction.tobytes(), digest_size=16).digest(), dose


def _shifts(cells: ReferenceCells) -> dict[tuple[int, int, int], torch.Tensor]:
    """Return the mean shift of each perturbed condition whose stratum has controls."""
    finite = cells.select(cells.is_finite)
    keys = torch.stack([finite.vector, finite.batch, finite.cell_type], dim=1)
    distinct, member = torch.unique(keys, dim=0, return_inverse=True)
    means = torch.zeros(len(distinct), finite.int_mean.shape[1], device=keys.device)
    means.index_add_(0, member, finite.int_mean.float())
    means /= torch.bincount(member, minlength=len(distinct))[:, None]
    unperturbed = ~finite.vectors.any(1)
    by_key = {tuple(key): mean for key, mean in zip(distinct.tolist(), means, strict=True)}
    controls = {key[1:]: mean for key, mean in by_key.items() if unperturbed[key[0]]}
    return {
        (key[0], key[1], key[2]): mean - controls[key[1:]]
        for key, mean in by_key.items()
        if not unperturbed[key[0]] and key[1:] in controls
    }
