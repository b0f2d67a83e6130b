"""Training cells that a model keeps: library sizes to draw from, control latents to start from."""

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class ReferenceCells:
    """Encoded training cells, a bounded number of each condition.

    Parameters
    ----------
    p
        Perturbation vectors, ``(n, K)``.
    batch, cell_type
        Column numbers, ``(n,)`` int64.
    library
        Total counts, ``(n,)``.
    int_mean, int_std, tech_mean, tech_std
        Moments of the posterior, ``(n, dim_int)`` and ``(n, dim_tech)``.
    spatial
        Coordinates, or None.
    """

    p: torch.Tensor
    batch: torch.Tensor
    cell_type: torch.Tensor
    library: torch.Tensor
    int_mean: torch.Tensor
    int_std: torch.Tensor
    tech_mean: torch.Tensor
    tech_std: torch.Tensor
    spatial: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.library)

    @property
    def is_control(self) -> torch.Tensor:
        """Which cells are unperturbed, ``(n,)`` bool."""
        return ~(self.p != 0).any(1)

    def select(self, rows: torch.Tensor) -> "ReferenceCells":
        """Return some cells (indices or a boolean mask)."""
        return ReferenceCells(**{name: value[rows] for name, value in self._present().items()})

    def to(self, device: torch.device) -> "ReferenceCells":
        """Return the cells on ``device``."""
        return ReferenceCells(**{name: v.to(device) for name, v in self._present().items()})

    def as_tensors(self) -> dict[str, torch.Tensor]:
        """Return the fields by name, for a file."""
        return {name: value.contiguous() for name, value in self._present().items()}

    def _present(self) -> dict[str, torch.Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def nearest(
        self, p: torch.Tensor, batch: torch.Tensor, cell_type: torch.Tensor
    ) -> torch.Tensor:
        """Draw a cell for each row from the most specific group that has any.

        The groups: the condition itself; the stratum's controls; the stratum; the cell type's
        controls; the cell type; all cells.

        Parameters
        ----------
        p, batch, cell_type
            Conditions asked for, ``(B, K)``, ``(B,)``, ``(B,)``.

        Returns
        -------
        torch.Tensor
            Row numbers, ``(B,)`` int64.
        """
        asked = torch.cat([p, batch[:, None].to(p), cell_type[:, None].to(p)], dim=1)
        conditions, member = torch.unique(asked, dim=0, return_inverse=True)
        rows = torch.empty(len(p), dtype=torch.int64, device=p.device)
        for number, condition in enumerate(conditions):
            wanted = (member == number).nonzero().reshape(-1)
            group = self._group(condition[:-2], condition[-2].long(), condition[-1].long())
            rows[wanted] = group[torch.randint(len(group), (len(wanted),), device=p.device)]
        return rows

    def _group(self, p: torch.Tensor, batch: torch.Tensor, cell_type: torch.Tensor) -> torch.Tensor:
        of_type = self.cell_type == cell_type
        of_stratum = of_type & (self.batch == batch)
        for mask in (
            of_stratum & (self.p == p).all(1),
            of_stratum & self.is_control,
            of_stratum,
            of_type & self.is_control,
            of_type,
        ):
            if mask.any():
                return mask.nonzero().reshape(-1)
        return torch.arange(len(self), device=p.device)
