"""What several commands share: arguments, what they name, messages and exit codes."""
