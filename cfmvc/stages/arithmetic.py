"""Arithmetic in the latent space: what the flow has to beat with the same encoder and decoder."""

import torch

from cfmvc.models.reference import ReferenceCells


class LatentArithmetic:
    """Control latents plus the mean shift of the same perturbation in other strata.

    The other strata are those of the same cell type where there are any; each weighs the same. Of a
    dose that was not seen the nearest one serves, and of what was seen nowhere else the stratum's
    own cells, as for the additive shift in expression. A combination that was not seen gets the sum
    of the shifts of its parts, as far as these were (scGen's arithmetic, Lotfollahi 2019, with the
    strata told apart).

    Parameters
    ----------
    cells
        Encoded training cells, controls among them.
    """

    def __init__(self, cells: ReferenceCells) -> None:
        self._vectors = cells.vectors
        self._shifts = _shifts(cells)

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
        seen = [self._seen(part, batch, cell_type) for part in parts if len(parts) > 1]
        return sum((part for part in seen if part is not None), start=nothing)

    def _seen(self, p: torch.Tensor, batch: int, cell_type: int) -> torch.Tensor | None:
        """Return the shift of what was done, at the nearest dose; None where it was never seen."""
        is_alike = (_undosed(self._vectors) == _undosed(p)).all(1)
        how_far = (self._vectors.amax(1) - p.amax()).abs()
        rows = {row: float(how_far[row]) for row in is_alike.nonzero().reshape(-1).tolist()}
        alike = {key: shift for key, shift in self._shifts.items() if key[0] in rows}
        elsewhere = {k: shift for k, shift in alike.items() if k[1:] != (batch, cell_type)}
        found = elsewhere or alike
        if not found:
            return None
        nearest = min({key[0] for key in found}, key=lambda row: (rows[row], row))
        of_it = {key: shift for key, shift in found.items() if key[0] == nearest}
        near = [shift for key, shift in of_it.items() if key[2] == cell_type]
        return torch.stack(near or list(of_it.values())).mean(0)


def _undosed(p: torch.Tensor) -> torch.Tensor:
    """Return vectors with 1 where the largest number is, ``(..., K)``: a dose scales all alike."""
    largest = p.amax(-1, keepdim=True)
    return p / torch.where(largest > 0, largest, 1.0)


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
