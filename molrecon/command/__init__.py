"""The `molrecon` command: one file a subcommand."""
