"""What every training writes beside its weights: a log and checkpoints."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import torch

from molrecon.io import write_atomically


def log_to(folder: Path) -> None:
    """Send log messages to stderr and to FOLDER/train.log; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.FileHandler(folder / "train.log"), logging.StreamHandler()],
    )


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Replace the checkpoint: whole or not at all. Raises OSError, with the older one still there."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getbuffer())
