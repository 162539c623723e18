"""The `molrecon` command: molrecon.command.parser lists the commands and their exit codes."""

from __future__ import annotations

import sys

from molrecon.command.parser import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
