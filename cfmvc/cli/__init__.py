"""The ``cfmvc`` command; heavy imports wait until a command needs them."""

from cfmvc.cli.app import main

__all__ = ["main"]
