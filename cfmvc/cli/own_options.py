"""Options of a command that has others below it."""

import typer

from cfmvc.errors import ConfigError


def expect_no_options(context: typer.Context) -> None:
    """Raise if options stand before the command that was called: it would not hear of them.

    Raises
    ------
    ConfigError
        Naming the options, and where they belong.
    """
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if _is_given(context, parameter.name or "")
    ]
    if given:
        called = f"{context.command_path} {context.invoked_subcommand}"
        raise ConfigError(
            f"{', '.join(given)}: belongs behind the command, if it has such an option: "
            f"{called} {given[0]} ..."
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # by name: typer has a click of its own, whose sources are none of click's
    return source is not None and source.name == "COMMANDLINE"
