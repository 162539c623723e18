"""Which files a run writes beside the ordinary ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, final

IMAGES = ("magnitude", "phase", "complex")
KEPT = ("maps", "noise")
FILES = {
    "magnitude": {"_part-mag.nii.gz": "magnitude, as the image itself"},
    "phase": {
        "_part-phase.nii.gz": "phase in rad, relative to the coil maps; of several sets of maps that of the first"
    },
    "complex": {
        "_part-real.nii.gz": "real part",
        "_part-imag.nii.gz": "imaginary part",
        "_part-complex.h5": "complex64 dataset `reconstruction`, with magnitude and phase as above",
    },
    "maps": {
        "_maps.npy": "coil maps (slices, coil, rows, cols) complex64, or (slices, set, coil, rows, cols), as --maps"
        " reads them"
    },
    "noise": {
        "_noise.npy": "noise covariance (coil, coil) complex128 that was used, E n_i conj(n_j) of a sample of k-space"
    },
    "noise map": {
        "_desc-noise.nii.gz": "standard deviation of each pixel of the magnitude, to first order in the noise, by the"
        " derivative of the image with random probes; scale, noise level, phase and coil maps are held fixed",
        "_desc-gfactor.nii.gz": "standard deviation of each complex pixel over that of the fully sampled scan without"
        " regularisation, and over sqrt(R): the g-factor of CG-SENSE; below 1 where a method removes noise",
    },
}
SUFFIXES = tuple(suffix for files in FILES.values() for suffix in files)


@final
@dataclass(frozen=True)
class Parts:
    """What is asked for beside the image, its submission, pages and sidecar.

    Attributes:
        images: of IMAGES; "magnitude" alone is in the image already, and gets no file of its own.
        keep: of KEPT.
        noise_probes: of how many random responses the noise map is made; None: there is none.

    Raises ValueError for other words, and fewer than one probe.
    """

    images: tuple[str, ...] = ("magnitude",)
    keep: tuple[str, ...] = ()
    noise_probes: int | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        for words, allowed in ((self.images, IMAGES), (self.keep, KEPT)):
            if not set(words) <= set(allowed) or len(set(words)) < len(words):
                raise ValueError(f"Parts: {', '.join(words)}, expected some of {', '.join(allowed)}, each once")
        if self.noise_probes is not None and self.noise_probes < 1:
            raise ValueError(f"Parts: {self.noise_probes} probes, expected at least one")

    @property
    def complex(self) -> bool:
        """Whether the complex image is needed."""
        return bool({"phase", "complex"} & set(self.images))

    def files(self) -> dict[str, str]:
        """Return the suffixes of the files, with what each of them holds."""
        images = () if self.images == ("magnitude",) else self.images
        words = [*images, *self.keep, *([] if self.noise_probes is None else ["noise map"])]
        return {suffix: text for word in words for suffix, text in FILES[word].items()}

    def description(self) -> dict[str, Any]:
        """Return the entry of the sidecar; empty where there are none."""
        files = {suffix.lstrip("_"): text for suffix, text in self.files().items()}
        probes = {} if self.noise_probes is None else {"noise_probes": self.noise_probes}
        return {"parts": {"files": files, **probes}} if files else {}

    def outputs_sha256(self, sha256: str) -> str:
        """Return the hash of these and of all that `sha256` is of; `sha256` itself where there are none."""
        description = self.description()
        if not description:
            return sha256
        return hashlib.sha256(f"{sha256}\n{json.dumps(description, sort_keys=True)}".encode()).hexdigest()


PLAIN = Parts()
