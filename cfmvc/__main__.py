"""``python -m cfmvc``: the command line."""

from cfmvc.cli import main

main()
