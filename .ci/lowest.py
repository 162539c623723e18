"""Print the lowest versions that setup.cfg allows for molrecon and its tests, as constraints for pip."""

from __future__ import annotations

import configparser
from pathlib import Path


def lowest(setup_cfg: Path, extras: tuple[str, ...] = ("test",)) -> list[str]:
    """Return `name==version` for every `name>=version` among the requirements.

    Raises:
        ValueError: a requirement of another form, whose lowest version cannot be told.
    """
    parser = configparser.ConfigParser()
    parser.read(setup_cfg, encoding="utf-8")
    lists = [parser["options"]["install_requires"], *(parser["options.extras_require"][extra] for extra in extras)]
    found = []
    for line in "\n".join(lists).split():
        name, relation, version = line.partition(">=")
        if not relation or not all(part.isdecimal() for part in version.split(".")):
            raise ValueError(f"{setup_cfg}: requirement {line!r}, expected NAME>=VERSION")
        found.append(f"{name}=={version}")
    return found


if __name__ == "__main__":
    print("\n".join(lowest(Path(__file__).resolve().parents[1] / "setup.cfg")))
