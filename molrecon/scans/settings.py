"""How volumes are reconstructed, and a hash of it."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field, fields
from typing import Any, Literal, final

import numpy as np
import torch

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.scan import Reading
from molrecon.scans.sidecar import plain, versions
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.weights.stored import describe_model


@final
@dataclass(frozen=True, eq=False)
class Settings:
    """How scans are read, and reconstructed: the arguments of `prepare` and `reconstruct_volume`, which
    say what they mean.

    Attributes:
        adapt: adapt the strength of a learned model to each scan (`adapt`).
        memory: bytes that the process may take, for `reconstruct_scan` to plan with; None: as many as it takes.
    """

    solver: SolverSettings | None = None
    maps: np.ndarray | None = None
    map_sets: int | None = None
    compress: int | Literal["auto"] | None = None
    noise_level: float | None = None
    adapt: bool = False
    device: torch.device | str = "cpu"
    batch_size: int = DEFAULT_BATCH_SIZE
    progress: bool = False
    memory: int | None = None
    reading: Reading = field(default_factory=Reading)
    parts: Parts = PLAIN

    def sha256(self, model: Reconstructor) -> str:
        """Return the hash of all that shapes the image besides the input and the weights, in hexadecimal.

        That is what the model's settings and the arguments say, and the version of molrecon; device and batch size only
        round differently. A model that cannot be described is never taken for another: its hash is new every time.
        """
        maps = None
        if self.maps is not None:
            maps = [str(self.maps.dtype), list(self.maps.shape), hashlib.sha256(self.maps.tobytes()).hexdigest()]
        try:
            described: dict[str, Any] | str = describe_model(model)
        except TypeError:
            described = secrets.token_hex()
        solver = self.solver or model.solver
        iteration = None
        if solver is not None:  # without what belongs to a call alone, such as its callbacks
            iteration = {f.name: getattr(solver, f.name) for f in fields(solver) if f.compare}
        shaping = {
            "maps": maps,
            "map_sets": self.map_sets,
            "compress": self.compress,
            "noise_level": self.noise_level,
            "adapt": self.adapt,
            "model": described,
            "solver": iteration,
            "molrecon": versions()["molrecon"],
            **self.reading.output_settings(),
        }
        return hashlib.sha256(json.dumps(plain(shaping), sort_keys=True).encode()).hexdigest()
