"""The bars: on a terminal, elsewhere, and however the work ends."""

import io
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from cfmvc.cli.fitting import fit_file
from cfmvc.cli.predicting import predict_file
from cfmvc.progress.cells import CellProgress
from cfmvc.progress.epochs import ProgressBar
from cfmvc.training.callbacks import TrainingState
from tests.training.conftest import small_adata

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def has_cursor(self) -> bool:
        return self.getvalue().rfind(SHOWN) > self.getvalue().rfind(HIDDEN)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def state(epoch: int, n_epochs: int = 100) -> TrainingState:
    return TrainingState("train_vae", n_epochs, epoch, metrics={"train_loss": 2.0})


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_the_cursor_is_back_however_the_work_ends(
    terminal: Terminal, ending: type[BaseException] | None
) -> None:
    def work() -> None:
        with redirect_stderr(terminal), ProgressBar() as bar:
            bar.on_epoch_end(state(3))
            assert not terminal.has_cursor
            if ending is not None:
                raise ending

    if ending is None:
        work()  # early stopping: the last planned epoch never comes
    else:
        with pytest.raises(ending):
            work()
    assert "3/100 epochs" in terminal.getvalue()
    assert terminal.has_cursor


def test_cells_are_counted_from_the_start(terminal: Terminal) -> None:
    with redirect_stderr(terminal), CellProgress("generate") as progress:
        assert not terminal.has_cursor
        progress(4096, 8000)
        progress(8000, 8000)
    assert "8,000/8,000 cells" in terminal.getvalue()
    assert terminal.has_cursor


def test_a_log_file_gets_ten_lines_and_the_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        for epoch in range(1, 96):
            bar.on_epoch_end(state(epoch))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train_vae: epoch 10/100, train_loss 2"
    assert lines[-1] == "train_vae: epoch 95/100, train_loss 2"
    assert len(lines) == 10
    with CellProgress("generate") as progress:
        for done in range(100, 5001, 100):
            progress(done, 5000)
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[-1]) == (10, "generate: 5,000/5,000 cells")
    with CellProgress("generate") as progress:
        progress(5, 5)
    assert capsys.readouterr().err == ""


def test_fit_and_predict_leave_the_terminal_as_it_was(tmp_path: Path, terminal: Terminal) -> None:
    train, model = tmp_path / "train.h5ad", tmp_path / "model"
    small_adata(200, 20).write_h5ad(train)
    settings = ["vae.n_epochs=40", "vae.lr=1", "vae.patience=1", "vae.validate_every=1"]
    settings += ["flow.n_epochs=2", "compute.n_threads=1"]
    with redirect_stderr(terminal):
        fit_file(train, model, settings, [], None, None, False)
    assert "40/40 epochs" not in terminal.getvalue()  # it has stopped early
    assert terminal.has_cursor
    conditions = tmp_path / "conditions.csv"
    conditions.write_text("perturbation,batch,cell_type,n_cells\nA,b1,T,30\n")
    out = tmp_path / "pred.h5ad"
    with redirect_stderr(terminal):
        predict_file(str(model), conditions, out, train, 0, 2, "euler", [], None, "cpu")
    assert "30/30 cells" in terminal.getvalue()
    assert terminal.has_cursor
