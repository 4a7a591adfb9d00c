"""What subcommands there are, and their flags."""

from importlib import import_module

from idealized_runtime.cli.main import COMMANDS, Parser


def parser_of(name):
    """Parser of one subcommand."""
    parser = Parser(prog=f"idealized-runtime {name}")
    import_module(f"idealized_runtime.cli.{COMMANDS[name][0]}").add_arguments(parser)
    return parser


def flags_of(*names):
    """Flags that any of the subcommands has."""
    return {flag for name in names for action in parser_of(name)._actions for flag in action.option_strings}
