"""Print the OpenRecon label of the version in setup.cfg: as JSON, or with --base64 as the image's label holds it."""

from __future__ import annotations

import argparse
import base64
import configparser
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SETUP = FOLDER.parents[1] / "setup.cfg"
PLACE = "VERSION"  # in label.json


def version_of(setup_cfg: Path = SETUP) -> str:
    """Return the version.

    Raises:
        ValueError: one that scanners refuse, such as 1.0.0rc1.
    """
    parser = configparser.ConfigParser()
    parser.read(setup_cfg, encoding="utf-8")
    version = parser["metadata"]["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{setup_cfg}: version {version}, expected three numbers: OpenRecon takes no suffix")
    return version


def label(version: str) -> dict[str, Any]:
    """Return the label of a version."""
    content: dict[str, Any] = json.loads((FOLDER / "label.json").read_text(encoding="utf-8").replace(PLACE, version))
    return content


def main() -> None:
    """Print the label."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base64", action="store_true")
    args = parser.parse_args()
    content = label(version_of())
    if args.base64:
        print(base64.b64encode(json.dumps(content).encode()).decode())
    else:
        print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
