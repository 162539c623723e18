"""`molrecon certify`: a model's certificate, and whether a scan can be found to contradict it.

findings = certify(load("mol-guided-2d", MOL), sample_problem())
findings.certificate, findings.violations, describe(findings)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.guarantees.certify_report import Findings
from molrecon.guarantees.checks import check_decrease, check_equilibrium, check_locally
from molrecon.guarantees.perturbation import check_data_perturbations, check_map_perturbations
from molrecon.io import RawVolume
from molrecon.reconstructors.base import evaluating
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import undersample
from molrecon.scans.trajectories.preparation import prepare_volume
from molrecon.simulation.phantom import coil_maps, phantom_volume
from operators import LinearOperator, Sense, SoftSense, file_seed, poisson_disc_mask, random_mask

# Slices, rows and columns: small, so that all checks take less than a minute.
SAMPLE_SHAPES = {2: (1, 72, 64), 3: (10, 32, 28)}
SAMPLE_COILS, SAMPLE_NOISE = 6, 0.01
ACCELERATION, CENTER_FRACTION = 4.0, 0.08


@final
@dataclass(frozen=True, eq=False)
class CertifiedScan:
    """One image to reconstruct: k-space (1, coil, *spatial), operator, noise level in its units (None: estimated)."""

    name: str
    kspace: Tensor
    operator: LinearOperator
    noise_level: float | None


def sample_problem(ndim: int = 2, seed: int = 0) -> CertifiedScan:
    """Return a simulated head scan: fourfold undersampled, six coils, noise of 0.01 of the fat's intensity.

    Args:
        ndim: 2 for a slice with columns missing, 3 for a volume with (slice, column) pairs missing, its readout first:
            the axes are (row, slice, column).
        seed: of head, coils, mask and noise.
    """
    slices, rows, cols = SAMPLE_SHAPES[ndim]
    plane = (rows, cols)
    image = torch.from_numpy(phantom_volume(slices, plane, seed))
    maps = torch.from_numpy(coil_maps(slices, SAMPLE_COILS, plane, seed))
    combined = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    image, maps = image * combined[:, 0], maps / combined
    if ndim == 3:
        image, maps = image.transpose(0, 1)[None], maps.permute(1, 2, 0, 3)[None]
        mask = poisson_disc_mask((slices, cols), ACCELERATION, seed, calibration=(6, 8))[None, None]
    else:
        mask = random_mask(cols, ACCELERATION, CENTER_FRACTION, [seed])[None, None]
    operator = Sense(maps, torch.as_tensor(mask))
    generator = torch.Generator().manual_seed(seed)
    kspace = operator(image)
    noise = SAMPLE_NOISE * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    name = f"simulated head, {' x '.join(map(str, image.shape[1:]))}, {SAMPLE_COILS} coils"
    return CertifiedScan(name, operator.sampling(kspace + noise), operator, SAMPLE_NOISE)


def volume_problem(
    volume: RawVolume,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
) -> CertifiedScan:
    """Return the brightest slice of a scan; a fully sampled one is undersampled fourfold along its columns.

    Args:
        volume: the scan.
        maps, noise_level, device: as for `molrecon.scans.trajectories.preparation.prepare_volume`.
    """
    name = volume.path.name
    if volume.fully_sampled:
        mask = random_mask(volume.kspace.shape[-1], ACCELERATION, CENTER_FRACTION, file_seed(volume.path))
        volume = undersample(volume, mask, 0.0, (0,))
        name += f", {int(mask.sum())} of {mask.size} columns"
    prepared = prepare_volume(volume, maps, noise_level, device)
    k = int(torch.linalg.vector_norm(prepared.kspace.flatten(1), dim=1).argmax())
    return CertifiedScan(
        f"{name}, slice {k}",
        prepared.kspace[[k]],
        prepared.operator([k]),
        prepared.noise_level,
    )


def certify(model: MOL, problem: CertifiedScan, *, seed: int = 0) -> Findings:
    """Look for a contradiction of a model's certificate on one scan.

    Args:
        model: its device and solver settings apply. It is looked at in evaluation mode, and left as it was.
        problem: the scan.
        seed: of starts, perturbations and directions.

    Raises:
        ValueError: a scan with another number of spatial axes than the network.
    """
    with evaluating(model), _fixed_weights(model):
        return _certify(model, problem, seed)


def _certify(model: MOL, problem: CertifiedScan, seed: int) -> Findings:
    begin = time.perf_counter()
    device = next(model.parameters()).device
    kspace, operator = problem.kspace.to(device), problem.operator.on(device)
    conditioning = model.condition(kspace, operator, problem.noise_level)
    ndim = conditioning.phase.ndim - (1 if operator.sets is None else 2)
    if ndim != model.network.ndim:
        raise ValueError(f"certify: a scan with {ndim} spatial axes, expected {model.network.ndim} as the network has")
    with torch.no_grad():
        image = model(kspace, operator, conditioning=conditioning).value
    perturbations = check_data_perturbations(model, kspace, operator, conditioning, seed=seed)
    if isinstance(operator, (Sense, SoftSense)):
        kind, mask, fourier_ndim = type(operator), operator.sampling_mask, operator.encoding.fourier_ndim
        perturbations += check_map_perturbations(
            model,
            kspace,
            operator,
            conditioning,
            maps=operator.sensitivity_maps,
            rebuild=lambda maps: kind(maps, mask, fourier_ndim),
            seed=seed,
        )
    stretch, monotone = check_locally(model, image, conditioning, seed=seed)
    return Findings(
        certificate=model.certificate(),
        problem=problem.name,
        noise_level=float(conditioning.noise_level),
        data_weight=float(model.data_weight(conditioning.noise_level).detach()),
        equilibrium=check_equilibrium(model, kspace, operator, conditioning, seed=seed),
        decrease=check_decrease(model, kspace, operator, conditioning, seed=seed),
        perturbations=tuple(perturbations),
        stretch=stretch,
        monotone=monotone,
        seconds=time.perf_counter() - begin,
    )


@contextmanager
def _fixed_weights(model: MOL) -> Iterator[None]:
    """Ask for no gradients of the weights: what follows from them alone is then computed once, not at every step."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
