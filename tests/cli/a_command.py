"""``cfmvc`` as a module, for processes that are forked."""

from cfmvc.cli import main

if __name__ == "__main__":
    main()
