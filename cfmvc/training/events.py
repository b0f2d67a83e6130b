"""What happens in a training and is worth a line: vetoed updates, large gradients, less memory."""

from dataclasses import dataclass, field
from typing import Any

VETOED = "update vetoed"


@dataclass(frozen=True)
class TrainingEvent:
    """One thing that happened.

    Parameters
    ----------
    kind
        ``nan`` (an update was vetoed, or a validation not counted), ``large_gradient`` (it was
        clipped), ``rollback`` or ``out_of_memory``.
    stage, epoch, step
        Where in the training.
    place
        Of ``nan``, the first layer whose values were not finite (``input, encoder, decoder, ...``)
        or ``gradient``.
    action
        What was done.
    parameters
        Names of the parameters whose gradients were not finite, or large.
    loss_parts
        Parts of the loss; None where not finite.
    grad_norm
        Norm of the whole gradient before clipping; None where not finite.
    cells
        Rows of the training cells in this step.
    module
        The first module whose output was not finite, where the step was replayed to find it.
    black_box
        Folder of the NaN black box, of the first non-finite step.
    """

    kind: str
    stage: str
    epoch: int
    step: int
    place: str
    action: str
    parameters: list[str] = field(default_factory=list)
    loss_parts: dict[str, float | None] = field(default_factory=dict)
    grad_norm: float | None = None
    cells: list[int] = field(default_factory=list)
    module: str | None = None
    black_box: str | None = None

    @property
    def is_veto(self) -> bool:
        """Whether an update was vetoed; a validation that was not finite has none."""
        return self.kind == "nan" and self.action == VETOED

    def as_json(self) -> dict[str, Any]:
        """Return plain values for one JSON line."""
        return dict(self.__dict__)
