"""The `molrecon` command: one file a subcommand, listed in `parser`; none imports torch before it runs."""
