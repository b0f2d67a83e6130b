"""What is made ahead: in order, so many ahead, with its errors, and left behind without waiting."""

from collections.abc import Generator
from functools import partial
from threading import Event, Thread, current_thread

import pytest

from cfmvc.data.ahead import made_ahead

LONG = 30.0  # seconds; nothing here takes any


def test_results_come_in_order_and_one_is_made_ahead() -> None:
    began = [Event() for _ in range(4)]

    def make(number: int) -> int:
        assert current_thread().name.startswith("made-ahead")
        began[number].set()
        return number

    results = made_ahead(partial(make, number) for number in range(4))
    assert next(results) == 0
    assert began[1].wait(LONG)
    assert not began[2].is_set()
    assert list(results) == [1, 2, 3]
    assert list(made_ahead([])) == []


def test_as_many_are_made_ahead_as_are_asked_for() -> None:
    began = [Event() for _ in range(6)]
    results = made_ahead([partial(event.set) for event in began], n_ahead=3)
    next(results)
    assert all(event.wait(LONG) for event in began[:4])
    assert not began[4].is_set()
    assert len(list(results)) == 5


def test_an_error_comes_where_its_result_would_have() -> None:
    def fail() -> int:
        raise ValueError("no second one")

    results = made_ahead([lambda: 1, fail, lambda: 3])
    assert next(results) == 1
    with pytest.raises(ValueError, match="no second one"):
        next(results)


def test_who_stops_does_not_wait_for_what_is_being_made() -> None:
    """Garbage collection may close it in a thread that the maker's end would have to wait for."""
    may_end, began, made = Event(), Event(), list[int]()

    def slow() -> int:
        began.set()
        may_end.wait(LONG)
        made.append(2)
        return 2

    results = made_ahead([lambda: 1, slow, lambda: made.append(3) or 3])
    assert next(results) == 1
    assert began.wait(LONG)
    assert isinstance(results, Generator)
    closing = Thread(target=results.close, daemon=True)
    closing.start()
    closing.join(LONG)
    try:
        assert not closing.is_alive()
    finally:
        may_end.set()
    assert 3 not in made
