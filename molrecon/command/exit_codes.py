"""The exit codes of every command; molrecon.command.parser says in its help when each of them is returned."""

from __future__ import annotations

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_UNREADABLE = 3
EXIT_FAILED = 4
EXIT_NOT_CONVERGED = 5
EXIT_VIOLATED = 6
EXIT_INTERRUPTED = 130
