"""What a process has freed."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Let the C library give back to the system what was freed, where it is one that can (glibc).

    Otherwise what a training has freed stays with the process, and what comes next is put on top.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
