"""The one command: subcommands, shared flags, one error policy, two printers (a table, JSON)."""
