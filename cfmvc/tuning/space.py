"""The parameters that a study searches: checked before the first trial, suggested in each."""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import optuna

from cfmvc.config import Section, parse_section, section_of
from cfmvc.errors import ConfigError, listed, suggest
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.tuning.config import Choice, Range, TuneConfig

SECTIONS: dict[str, type[Section]] = {"vae": VaeConfig, "flow": FlowConfig, "joint": JointConfig}
# The seed is no parameter of a model: the best of several is luck.
TUNABLE = [
    f"{section}.{key}"
    for section, config in SECTIONS.items()
    for key in config.model_fields
    if key != "seed"
]
Values = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """What is searched.

    Parameters
    ----------
    entries
        By name (``vae.beta``), parents of conditions first; each holds the present value.
    present
        The present value of every tunable parameter.
    """

    entries: dict[str, Range | Choice]
    present: Values

    @classmethod
    def of(cls, tune: TuneConfig, params: Mapping[str, Any]) -> "Space":
        """Check a space against the parameters that it changes.

        The present values always belong to it, so that a study can begin with them: bounds and
        choices that leave one out are extended by it.

        Raises
        ------
        ConfigError
            If a section or a name is unknown, a value is none that the parameter takes, or
            conditions refer to each other.
        """
        for section, config in SECTIONS.items():
            section_of(params, section, config)
        present = {
            f"{section}.{key}": value
            for section in SECTIONS
            for key, value in params[section].items()
        }
        for name, entry in tune.space.items():
            _expect_tunable(name, f"tune.space.{name}")
            _expect_conditions(name, entry)
            if isinstance(entry, Range):
                _expect_numbers(name, present[name])
        for number, values in enumerate(tune.warm_start):
            _expect_like(tune.space, values, f"tune.warm_start[{number}]")
        extended = {}
        for name, entry in tune.space.items():
            warm = [values[name] for values in tune.warm_start if name in values]
            extended[name] = _extended(name, entry, present[name], warm)
        space = cls({name: extended[name] for name in _parents_first(extended)}, present)
        for name, entry in space.entries.items():
            for value in _ends(entry):
                space._expect_accepted({name: value}, f"tune.space.{name}")
            if isinstance(entry, Range):
                _expect_whole(name, entry, present[name])
        for number, values in enumerate(tune.warm_start):
            space._expect_inside(values, f"tune.warm_start[{number}]")
        return space

    def suggest(self, trial: optuna.Trial) -> Values:
        """Let a trial choose; what its conditions exclude keeps the present value."""
        chosen = Values()
        for name, entry in self.entries.items():
            if self._is_searched(entry, chosen):
                chosen[name] = _suggested(trial, name, entry)
        return chosen

    def warm(self, values: Values) -> Values:
        """Return a whole trial of some values: the rest are the present ones."""
        chosen = Values()
        for name, entry in self.entries.items():
            if self._is_searched(entry, {**self.present, **values, **chosen}):
                chosen[name] = values.get(name, self.present[name])
        return chosen

    def changes(self, values: Values) -> dict[str, tuple[Any, Any]]:
        """Return present and other value of each parameter in which they differ."""
        return {
            name: (self.present[name], value)
            for name, value in values.items()
            if value != self.present[name]
        }

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for a fingerprint."""
        return {name: entry.model_dump() for name, entry in self.entries.items()}

    def _is_searched(self, entry: Range | Choice, chosen: Values) -> bool:
        at = {**self.present, **chosen}
        return all(at[name] in wanted for name, wanted in (entry.when or {}).items())

    def _expect_accepted(self, values: Values, where: str) -> None:
        for name, value in values.items():
            section, _, key = name.partition(".")
            own = {k.partition(".")[2]: v for k, v in self.present.items() if k.startswith(section)}
            try:
                parse_section(SECTIONS[section], {**own, key: value}, section)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error

    def _expect_inside(self, values: Values, where: str) -> None:
        for name, value in values.items():
            entry = self.entries.get(name)
            if entry is None:
                continue  # not searched in this study: the present value stands
            low, high = _ends(entry)[0], _ends(entry)[-1]
            inside = value in entry.choices if isinstance(entry, Choice) else low <= value <= high
            if not inside:
                raise ConfigError(f"{where}: {name}: {value!r} is outside of tune.space")


def merged(params: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return parameters in which the values of a trial are set."""
    changed = {name: dict(v) if isinstance(v, Mapping) else v for name, v in params.items()}
    for name, value in values.items():
        section, _, key = name.partition(".")
        changed[section][key] = value
    return changed


def _expect_tunable(name: str, where: str) -> None:
    if name not in TUNABLE:
        raise ConfigError(
            f"{where}: no parameter '{name}'{suggest(name, TUNABLE)}; "
            f"valid are {listed(TUNABLE, most=len(TUNABLE))}"
        )


def _expect_conditions(name: str, entry: Range | Choice) -> None:
    for parent in entry.when or {}:
        _expect_tunable(parent, f"tune.space.{name}.when")


def _expect_numbers(name: str, present: Any) -> None:
    """Check that there are numbers between the bounds of a range."""
    if _kind(name) not in (int, float):
        raise ConfigError(
            f"tune.space.{name}: a range, and the parameter takes words: list them as choices"
        )
    if isinstance(present, str):  # a section takes it for the number that it reads as
        raise ConfigError(
            f"tune.space.{name}: a range, and the present value, with which a study begins, is the "
            f"text {present!r}: write it in params.yaml with no quotes"
        )


def _expect_like(space: Mapping[str, Range | Choice], values: Values, where: str) -> None:
    """Check a warm start's names and, of ranges, that its values are numbers of the same kind."""
    for name, value in values.items():
        _expect_tunable(name, where)
        if not isinstance(space.get(name), Range):
            continue
        if not isinstance(value, int | float):
            found = "null" if value is None else repr(value)
            raise ConfigError(f"{where}: {name}: expected a number without quotes, found {found}")
        if _kind(name) is int and value % 1:
            raise ConfigError(f"{where}: {name}: takes whole numbers, and {value} is none")


def _expect_whole(name: str, entry: Range, present: Any) -> None:
    """Check that a range of a parameter that takes whole numbers alone draws no others."""
    for bound in (entry.low, entry.high):
        if _kind(name) is int and isinstance(bound, float):
            is_present = isinstance(present, float) and bound == present
            at = " in params.yaml" if is_present else ""
            raise ConfigError(
                f"tune.space.{name}: takes whole numbers, and between bounds of which one is "
                f"{bound} others are drawn: write {bound:.0f}{at}"
            )


def _kind(name: str) -> Any:
    section, _, key = name.partition(".")
    return SECTIONS[section].model_fields[key].annotation


_AUTOMATIC_AT_ZERO = {"vae.n_epochs"}  # no neighbour of 1


def _extended(name: str, entry: Range | Choice, present: Any, warm: list[Any]) -> Range | Choice:
    if isinstance(entry, Choice):
        more = [] if present in entry.choices else [present]
        return entry.model_copy(update={"choices": [*entry.choices, *more]})
    if name in _AUTOMATIC_AT_ZERO and present == 0:
        raise ConfigError(
            f"tune.space.{name}: a range, and the present value, with which a study begins, is 0: "
            "as the cells ask for; set a number in params.yaml, or list choices"
        )
    if entry.log and present <= 0:
        raise ConfigError(
            f"tune.space.{name}: log: true, and the present value, with which a study begins, is "
            f"{present}; leave log out, or list choices"
        )
    low, high = min(entry.low, present), max(entry.high, present)
    if any(float(value) % 1 for value in (present, *warm)):  # between bounds that are whole
        low, high = float(low), float(high)
    return entry.model_copy(update={"low": low, "high": high})


def _parents_first(entries: dict[str, Range | Choice]) -> list[str]:
    graph = {
        name: [parent for parent in entry.when or {} if parent in entries]
        for name, entry in entries.items()
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = listed(error.args[1])
        raise ConfigError(f"tune.space: conditions go in a circle: {circle}") from error


def _ends(entry: Range | Choice) -> list[Any]:
    return list(entry.choices) if isinstance(entry, Choice) else [entry.low, entry.high]


def _suggested(trial: optuna.Trial, name: str, entry: Range | Choice) -> Any:
    if isinstance(entry, Choice):
        return trial.suggest_categorical(name, entry.choices)
    if isinstance(entry.low, int) and isinstance(entry.high, int):
        return trial.suggest_int(name, entry.low, entry.high, log=entry.log)
    return trial.suggest_float(name, entry.low, entry.high, log=entry.log)
