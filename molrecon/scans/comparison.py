"""Methods side by side on a fully sampled scan that is undersampled after the fact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop
from molrecon.io.masks import canonical_mask, mask_kspace
from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.reconstructors.classical import ZeroFilled
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE
from molrecon.scans.metrics import nmse, psnr, ssim
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction, on_device, solve_slices
from molrecon.solvers.solution import Kind, Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, centred_ifft, crop_readout
from operators.sensitivity import coil_norm

CG_GRID = tuple(10 ** (k / 4) for k in range(-16, 1))  # of weights relative to the largest eigenvalue of A^H A
L1_GRID = tuple(10 ** (k / 4) for k in range(-16, -3))  # of weights relative to the brightest zero-filled pixel


@final
@dataclass(frozen=True)
class Score:
    """How one method did on a volume, by fastMRI's definitions: PSNR (dB) and SSIM with the reference volume's maximum.

    `psnr_rss` and `ssim_rss` are against the root sum of squares of the fully sampled coils where the reference is
    their combination by the maps; None where it is the root sum of squares itself. `seconds` is the reconstruction
    alone, without maps and loading; `iterations` those of the slowest slice; `error_bound` the largest of all slices,
    relative, to the method's own exact solution, None where a method knows none; `kind` what it rests on (see
    `Solution`). Methods without an iteration have nothing to converge: None for `converged`. A method that is
    `worse_than_zero_filled` in PSNR has diverged or does not fit the scan.
    """

    psnr: float
    ssim: float
    nmse: float
    psnr_rss: float | None
    ssim_rss: float | None
    seconds: float
    iterations: int
    error_bound: float | None
    kind: Kind
    converged: bool | None
    worse_than_zero_filled: bool


@final
@dataclass(frozen=True, eq=False)
class ScoredMethod:
    """A method's score, its image (slices, rows, cols) float32, and its regularisation weight (None: it has none)."""

    score: Score
    image: np.ndarray
    regularisation: float | None


def undersample(volume: RawVolume, sampling_mask: np.ndarray, noise_level: float, seed: Sequence[int]) -> RawVolume:
    """Return the volume as it would have been measured with this mask and more noise; the reference stays.

    Args:
        volume: fully sampled.
        sampling_mask: (cols,) bool, or (slices or 1, rows or 1, cols) as in `RawVolume`.
        noise_level: standard deviation of the complex noise that is ADDED to every sample, in the units of kspace.
        seed: of the noise.

    Raises:
        ValueError: a volume that is not fully sampled, a mask that does not fit, a negative noise level.
    """
    if volume.trajectory is not None:
        raise ValueError(f"compare: {volume.path} is of a trajectory, expected samples on the grid")
    if not volume.fully_sampled:
        measured, total = int(volume.sampling_mask.sum()), volume.sampling_mask.size
        remarks = "".join(f"; {remark}" for remark in volume.remarks)
        raise ValueError(
            f"compare: {volume.path} has {measured} of {total} samples, expected a fully sampled scan{remarks}"
        )
    if not noise_level >= 0:
        raise ValueError(f"undersample: noise_level is {noise_level}, expected a number that is not negative")
    mask = volume.sampling_mask & canonical_mask(sampling_mask, volume.kspace.shape)
    generator = np.random.default_rng([int(s) for s in seed])
    kspace = np.empty_like(volume.kspace)
    for one, out in zip(volume.kspace, kspace, strict=True):
        out[...] = one
        if noise_level > 0 and one.any():
            real_and_imaginary = generator.standard_normal((2, *one.shape), dtype=np.float32) * np.float32(
                noise_level / math.sqrt(2)
            )
            out += real_and_imaginary[0] + 1j * real_and_imaginary[1]
    mask_kspace(kspace, mask)
    return replace(volume, kspace=kspace, sampling_mask=mask)


def root_sum_of_squares(volume: RawVolume) -> np.ndarray:
    """Return `sqrt(sum_c |F^-1 y_c|^2)` cropped to the recon matrix, (slices, *recon_shape) float32."""
    image = np.empty((len(volume.kspace), *volume.recon_shape), dtype=np.float32)
    for one, out in zip(volume.kspace, image, strict=True):
        coils = centred_ifft(torch.from_numpy(one), (-2, -1))
        out[...] = center_crop(coil_norm(coils, 0).numpy(), volume.recon_shape)
    return image


def reference_image(volume: RawVolume, prepared: PreparedVolume) -> np.ndarray:
    """Return what the fully sampled volume shows, the reference of the metrics; (slices, *recon_shape) float32.

    The root sum of squares when the file carries such a reference, as fastMRI's multi-coil files do; otherwise the
    coil-combined image `|sum_c conj(s_c) F^-1 y_c| / sqrt(sum_c |s_c|^2)` with the maps of `prepared`, zero where
    those are; with several sets of maps the root sum of squares of what lies in their span.
    """
    if volume.reference_kind == "rss":
        return root_sum_of_squares(volume)
    maps = prepared.sensitivity_maps
    combined = torch.zeros_like(maps[:, :, 0])
    for k, one in enumerate(torch.from_numpy(volume.kspace)):
        coils = centred_ifft(crop_readout(one[None], maps.shape[-2])[0], (-2, -1))
        weight = coil_norm(maps[k], 1).square()
        combined[k] = torch.linalg.vecdot(maps[k], coils, dim=1) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    return prepared.magnitude(combined[:, 0] if prepared.sets == 1 else combined)


@final
class Comparison:
    """Runs methods on one prepared scan and scores them against the fully sampled one (`reference_image`).

    Args:
        prepared: the undersampled scan.
        volume: the fully sampled scan.
        device, batch_size, progress: as for `reconstruct_volume`.

    Attributes:
        reference: (slices, *recon_shape) float32.
        zero_filled: the outcome of zero filling, below which no other should be.
    """

    def __init__(
        self,
        prepared: PreparedVolume,
        volume: RawVolume,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: bool = False,
    ) -> None:
        self.prepared = prepared
        self.reference = reference_image(volume, prepared)
        self.root_sum_of_squares = None if volume.reference_kind == "rss" else root_sum_of_squares(volume)
        self.device = device
        self.batch_size = batch_size
        self.progress = progress
        self.zero_filled_psnr = -math.inf
        self.zero_filled = self.score("zero-filled", ZeroFilled())
        self.zero_filled_psnr = self.zero_filled.score.psnr

    def score(self, name: str, model: Reconstructor, *, solver: SolverSettings | None = None) -> ScoredMethod:
        """Score a method with the noise level of the prepared scan.

        Args:
            name: for the progress bar.
            model: in whatever mode and place; it is left there.
            solver: in place of the model's own.
        """
        prepared = self.prepared if model.takes_sets else self.prepared.first_set()
        with evaluating(on_device(model, self.device)) as working:

            def method(kspace: Tensor, A: LinearOperator) -> Solution:
                solution: Solution = working(kspace, A, noise_level=prepared.noise_level, solver=solver)
                return solution

            slices = solve_slices(
                method,
                prepared,
                device=self.device,
                batch_size=self.batch_size,
                progress=self.progress,
                description=name,
            )
        iterates = (solver or model.solver) is not None or slices.n_steps.any()
        return self._outcome(
            prepared.magnitude(slices.image),
            slices.seconds,
            slices.n_steps,
            None if slices.kind == "none" else slices.error_bound,
            slices.converged if iterates else None,
            slices.kind,
        )

    def tuned(self, name: str, build: Callable[[float], Reconstructor], grid: Sequence[float]) -> ScoredMethod:
        """Score the weight of a grid with the best PSNR against the reference, which no user could choose."""
        outcomes = [replace(self.score(name, build(weight)), regularisation=weight) for weight in grid]
        return max(outcomes, key=lambda outcome: outcome.score.psnr)

    def reconstruction(self, result: Reconstruction) -> ScoredMethod:
        """Score what `reconstruct_prepared` made of the same prepared scan."""
        seconds = result.seconds - self.prepared.seconds
        bound = None if result.kind == "none" else result.error_bound
        return self._outcome(result.image, seconds, result.n_steps, bound, result.converged, result.kind)

    def _outcome(
        self,
        image: np.ndarray,
        seconds: float,
        n_steps: np.ndarray,
        error_bound: np.ndarray | None,
        converged: np.ndarray | None,
        kind: Kind,
    ) -> ScoredMethod:
        combined = self.root_sum_of_squares
        quality = psnr(self.reference, image)
        score = Score(
            psnr=quality,
            ssim=ssim(self.reference, image),
            nmse=nmse(self.reference, image),
            psnr_rss=None if combined is None else psnr(combined, image),
            ssim_rss=None if combined is None else ssim(combined, image),
            seconds=round(seconds, 4),
            iterations=int(n_steps.max()),
            error_bound=None if error_bound is None else float(error_bound.max()),
            kind=kind,
            converged=None if converged is None else bool(converged.all()),
            worse_than_zero_filled=quality < self.zero_filled_psnr,
        )
        return ScoredMethod(score, image, None)
