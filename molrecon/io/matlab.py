"""Matrices in MATLAB files, the form in which sensing matrices are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat


def read_matrix(path: str | Path, name: str) -> np.ndarray:
    """Return a variable of a MATLAB file (up to version 7).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MATLAB file, or one without this variable.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a MATLAB file with {name}")
    try:
        return np.asarray(loadmat(path)[name])
    except Exception as error:  # scipy raises nearly everything on damaged bytes
        raise ValueError(f"{path}: {type(error).__name__} ({error}), expected a MATLAB file with {name}") from error
