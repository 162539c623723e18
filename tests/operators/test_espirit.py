"""ESPIRiT maps against the coils that made the data, and against sigpy and BART on a real head."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.calibration import calibration_matrix, calibration_region
from operators.espirit import espirit, espirit_maps
from operators.fourier import centred_fft

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no real k-space")


def synthetic_scan(coil: int, shape: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return k-space (1, coil, rows, cols) of a disc with bars, and its unit-norm maps, complex128."""
    generator = np.random.default_rng(seed)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
    image = ((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1).double() * (1 + 0.5 * torch.sign(torch.sin(9 * x)) * (y.abs() < 0.5))
    maps = []
    for angle in 2 * math.pi * np.arange(coil) / coil:
        distance = (y - 1.3 * math.sin(angle)) ** 2 + (x - 1.3 * math.cos(angle)) ** 2
        phase = generator.uniform(-1, 1) * x + generator.uniform(-1, 1) * y + angle
        maps.append(torch.polar(1 / (distance + 0.2), phase))
    stacked = torch.stack(maps)
    unit = stacked / torch.linalg.vector_norm(stacked, dim=0)
    return centred_fft(stacked * image, (-2, -1))[None], (unit * (image > 0))[None]


def gap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return `1 - |<s1, s2>|` on the common support (the phase per pixel is free), and that support (rows, cols)."""
    norms = torch.linalg.vector_norm(first, dim=0), torch.linalg.vector_norm(second, dim=0)
    common = (norms[0] > 0.5) & (norms[1] > 0.5)
    product = (first.conj() * second).sum(dim=0).abs()[common] / (norms[0] * norms[1])[common]
    return (1 - product).double(), common


def centre(kspace: Tensor, rows: int, cols: int) -> Tensor:
    h, w = kspace.shape[-2:]
    return kspace[..., h // 2 - rows // 2 : h // 2 - rows // 2 + rows, w // 2 - cols // 2 : w // 2 - cols // 2 + cols]


@pytest.fixture(scope="module")
def head() -> Tensor:
    assert DATA is not None
    return torch.from_numpy(np.load(Path(DATA) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy"))[None]


@pytest.mark.parametrize(
    ("coil", "shape", "block", "tolerance"),
    [(8, (64, 56), (24, 24), 2e-3), (5, (49, 65), (20, 14), 5e-3), (8, (72, 60), (24, 8), 2e-2)],
)
def test_maps_are_those_that_made_the_data(
    coil: int, shape: tuple[int, int], block: tuple[int, int], tolerance: float
) -> None:
    kspace, truth = synthetic_scan(coil, shape)
    maps = espirit_maps(centre(kspace, *block), shape, tol=1e-5)
    assert maps.shape == (1, coil, *shape) and maps.dtype == torch.complex128
    difference, common = gap(maps[0], truth[0])
    inside = torch.linalg.vector_norm(truth[0], dim=0) > 0
    assert bool(common[inside].all())  # no signal is cropped away
    assert difference.median() < tolerance / 20 and difference.quantile(0.99) < tolerance
    norm = torch.linalg.vector_norm(maps, dim=1)
    assert bool(((norm - 1).abs().lt(1e-6) | (norm == 0)).all())


def test_phase_is_relative_to_the_virtual_coil() -> None:
    kspace, _ = synthetic_scan(6, (40, 40))
    region = centre(kspace, 20, 20)
    maps = espirit_maps(region, (40, 40))
    samples = region[0].flatten(1)
    virtual = torch.linalg.eigh(samples @ samples.mH).eigenvectors[:, -1]
    virtual = virtual / torch.sgn(virtual[virtual.abs().argmax()])
    component = torch.einsum("c,chw->hw", virtual.conj(), maps[0])
    assert component.imag.abs().max() < 1e-6 and component.real.min() > -1e-6
    rotated = espirit_maps(region * torch.polar(torch.tensor(3.0), torch.tensor(1.1)), (40, 40))
    assert torch.allclose(rotated, maps, atol=1e-6)


def test_batch_is_slice_by_slice() -> None:
    first, second = (centre(synthetic_scan(4, (32, 36), seed)[0], 20, 20) for seed in (1, 2))
    together = espirit_maps(
        torch.cat((first, second)).to(torch.complex64), (32, 36), noise_level=torch.tensor([0.0, 1e-3])
    )
    assert together.dtype == torch.complex64
    assert torch.equal(together[:1], espirit_maps(first.to(torch.complex64), (32, 36)))
    assert torch.equal(together[1:], espirit_maps(second.to(torch.complex64), (32, 36), noise_level=1e-3))


def test_noise_level_drops_singular_values_of_noise() -> None:
    kspace, truth = synthetic_scan(8, (64, 56))
    sigma = 0.1
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(3))
    region = centre(kspace + sigma * noise, 24, 24)
    plain = gap(espirit_maps(region, (64, 56), threshold=0.001)[0], truth[0])[0].mean()
    aware = gap(espirit_maps(region, (64, 56), threshold=0.001, noise_level=sigma)[0], truth[0])[0].mean()
    assert aware < plain / 3


def test_calibration_matrix_holds_every_block() -> None:
    region = torch.arange(2 * 5 * 4, dtype=torch.float64).reshape(2, 5, 4)
    matrix = calibration_matrix(region, (3, 2))
    assert matrix.shape == (3 * 3, 2 * 3 * 2)
    assert torch.equal(matrix[4], region[:, 1:4, 1:3].flatten())
    assert torch.equal(calibration_matrix(region[None], (3, 2), row_stride=2)[0, 3:], matrix[6:])


@needs_data
def test_agrees_with_sigpy_on_a_real_head(head: Tensor) -> None:
    app = pytest.importorskip("sigpy.mri.app", reason="sigpy is not installed")
    theirs = torch.from_numpy(app.EspiritCalib(head[0].numpy(), crop=0.95, show_pbar=False).run())
    ours = espirit_maps(centre(head, 24, 24), head.shape[2:], kernel_width=6, crop=0.95)[0]
    difference, common = gap(ours, theirs)
    assert difference.median() < 1e-5 and difference.quantile(0.99) < 1e-5
    support = torch.linalg.vector_norm(ours, dim=0) > 0.5
    assert common.sum() > 0.998 * support.sum()


def bart_maps(kspace: Tensor, folder: Path, n_maps: int, crop: float, *options: str) -> tuple[Tensor, Tensor]:
    """Return BART's maps (n_maps, coil, rows, cols) of k-space (1, coil, rows, cols), and eigenvalues; or skip."""
    bart = shutil.which("bart")
    if bart is None:
        pytest.skip("BART is not installed")
    coil, rows, cols = kspace.shape[1:]
    header = f"# Dimensions\n1 {rows} {cols} {coil}{' 1' * 12}\n"
    (folder / "kspace.hdr").write_text(header)
    (folder / "kspace.cfl").write_bytes(kspace[0].permute(0, 2, 1).contiguous().numpy().tobytes())
    # BART compares squared singular values with its threshold: 0.0004 is our 0.02
    subprocess.run(
        [bart, "ecalib", f"-m{n_maps}", "-r24", "-k6", "-t0.0004", f"-c{crop}", *options, "kspace", "maps", "values"],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    maps, values = (torch.from_numpy(np.fromfile(folder / f"{name}.cfl", np.complex64)) for name in ("maps", "values"))
    return maps.reshape(n_maps, coil, cols, rows).mT, values.real.reshape(n_maps, cols, rows).mT


@needs_data
def test_agrees_with_bart_on_a_real_head(head: Tensor, tmp_path: Path) -> None:
    theirs = bart_maps(head, tmp_path, 1, 0.9)[0][0]
    ours = espirit_maps(centre(head, 24, 24), head.shape[2:], kernel_width=6, crop=0.9)[0]
    difference, common = gap(ours, theirs)
    assert difference.median() < 1e-5 and difference.quantile(0.99) < 5e-4  # BART stops after 30 steps
    assert common.sum() > 0.995 * (torch.linalg.vector_norm(ours, dim=0) > 0.5).sum()
    phase = (ours.conj() * theirs).sum(dim=0)[common]
    phase = (phase / phase.mean()).angle().abs()  # one phase for the whole slice is free
    assert phase.median() < 5e-3 and phase.quantile(0.99) < 5e-2


@needs_data
@pytest.mark.parametrize("folded", [(1, 1), (1, 2), (2, 1)], ids=["whole", "columns folded", "rows folded"])
def test_two_maps_agree_with_bart_on_a_real_head(head: Tensor, folded: tuple[int, int], tmp_path: Path) -> None:
    # every second line: the head is twice as wide as the field of view, and two maps are needed
    kspace = head[..., :: folded[0], :: folded[1]].contiguous()
    theirs, _ = bart_maps(kspace, tmp_path, 2, 0.8)
    ours = espirit_maps(centre(kspace, 24, 24), kspace.shape[2:], kernel_width=6, n_maps=2)[0]
    supports = [torch.linalg.vector_norm(maps, dim=1) > 0.5 for maps in (ours, theirs)]
    for k in range(2):
        assert (supports[0][k] != supports[1][k]).sum() < 0.002 * supports[0][0].sum()
    # where both eigenvalues are near one any basis of the span is as good: the span is what is compared
    both = supports[0][1] & supports[1][1]
    assert both.sum() > (200 if folded == (1, 1) else 0.5 * supports[0][0].sum())
    bases = [maps[:, :, both].permute(2, 1, 0) for maps in (ours, theirs)]
    cosines = torch.linalg.svdvals(bases[0].mH @ bases[1])
    assert cosines.double().min(dim=1).values.quantile(0.01) > 1 - 1e-5
    alone = supports[0][0] & supports[1][0] & ~supports[0][1] & ~supports[1][1]
    difference = 1 - (ours[0].conj() * theirs[0]).sum(dim=0).abs()[alone].double()
    assert difference.median() < 1e-5 and difference.quantile(0.9) < 1e-3


@needs_data
def test_soft_maps_and_eigenvalues_agree_with_bart_on_a_real_head(head: Tensor, tmp_path: Path) -> None:
    kspace = head[..., ::2].contiguous()
    theirs, values = bart_maps(kspace, tmp_path, 2, 0.8, "-S")
    ours = espirit(centre(kspace, 24, 24), kspace.shape[2:], kernel_width=6, soft=True)
    matter = values > 0.36  # (2 crop - 1)^2: what is zero in both is not iterated to the end
    difference = (ours.eigenvalues[0] - values)[matter].abs()
    assert difference.median() < 1e-3 and difference.quantile(0.9) < 1e-2  # BART stops after 30 steps
    norms = [torch.linalg.vector_norm(maps, dim=1) for maps in (ours.maps[0], theirs)]
    assert (norms[0] - norms[1]).abs().quantile(0.99) < 1e-2
    assert 0.05 < float(((norms[0] > 0.01) & (norms[0] < 0.99)).double().mean()) < 0.5  # there is something to fade


def test_soft_maps_fade_with_the_eigenvalue() -> None:
    region = centre(folded_scan(4, (32, 24))[0], 16, 16)
    hard, soft = (espirit(region, (32, 24), soft=soft) for soft in (False, True))
    values = soft.eigenvalues[0]
    torch.testing.assert_close(values[values > 0.8], hard.eigenvalues[0][values > 0.8], rtol=0, atol=1e-2)
    norms = torch.linalg.vector_norm(soft.maps[0], dim=1)
    t = (values.clamp_min(0).sqrt() - 0.8) / 0.2
    expected = torch.where(t <= -1, 0.0, torch.where(t >= 1, 1.0, 0.5 * (1 + 2 * t / (1 + t**2))))
    torch.testing.assert_close(norms, expected, rtol=0, atol=1e-6)
    assert torch.equal(torch.linalg.vector_norm(hard.maps[0], dim=1) > 0, hard.eigenvalues[0] >= 0.8)
    assert torch.equal(hard.maps, espirit_maps(region, (32, 24), n_maps=2))


def folded_scan(coil: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return k-space of an object twice as wide as the field of view, and the maps of its two layers, unit norm."""
    kspace, truth = synthetic_scan(coil, (shape[0], 2 * shape[1]))
    quarter = shape[1] // 2  # the layers are the inner half and the outer quarters
    layers = truth[0].roll(-quarter, dims=-1)
    return kspace[..., ::2], torch.stack((layers[..., : shape[1]], layers[..., shape[1] :]))


def test_two_maps_span_both_layers_of_a_folded_object() -> None:
    shape = (64, 32)
    kspace, layers = folded_scan(8, shape)
    maps = espirit_maps(centre(kspace, 24, 20), shape, kernel_width=6, threshold=0.001, n_maps=2, tol=1e-6)[0]
    assert maps.shape == (2, 8, *shape)
    norms = torch.linalg.vector_norm(maps, dim=1)
    assert bool(((norms - 1).abs().lt(1e-6) | (norms == 0)).all())
    assert (maps[0].conj() * maps[1]).sum(dim=0).abs().max() < 1e-6
    present = torch.linalg.vector_norm(layers, dim=1) > 0.5
    for layer, where in zip(layers, present, strict=True):
        inside = torch.einsum("kchw,chw->khw", maps.conj(), layer)
        missing = 1 - inside.abs().square().sum(dim=0)[where]
        assert missing.quantile(0.99) < 1e-3
    assert bool((norms[1][present.all(dim=0)] > 0).double().mean() > 0.95)


def test_first_of_two_maps_is_the_only_one() -> None:
    region = centre(synthetic_scan(6, (40, 36))[0], 20, 20)
    two, one = espirit_maps(region, (40, 36), n_maps=2, tol=1e-6), espirit_maps(region, (40, 36), tol=1e-6)
    second = torch.linalg.vector_norm(two[0, 1], dim=0) > 0.5
    difference, common = gap(two[0, 0], one[0])
    assert torch.equal(common, torch.linalg.vector_norm(one[0], dim=0) > 0.5)
    assert difference[~second[common]].quantile(0.99) < 1e-6


def mask_1d(cols: int, lines: range) -> Tensor:
    mask = torch.zeros(1, 1, cols, dtype=torch.bool)
    mask[..., list(lines)] = True
    mask[..., ::5] = True
    return mask


def test_calibration_region_of_1d_masks() -> None:
    kspace = torch.randn(2, 3, 40, 50, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    region = calibration_region(kspace, mask_1d(50, range(21, 29)))
    assert torch.equal(region, kspace[:, :, 8:32, 20:29])  # line 20 is of the comb, line 29 is missing
    whole = calibration_region(kspace, mask_1d(50, range(21, 29)), max_shape=(40, 50))
    assert torch.equal(whole, kspace[:, :, :, 20:29])
    lines = mask_1d(50, range(21, 29))[0, 0].numpy()
    assert torch.equal(calibration_region(kspace, lines), region)  # as the makers of masks return them
    full = calibration_region(kspace, torch.ones(1, 1, 1, dtype=torch.bool))
    assert torch.equal(full, kspace[:, :, 8:32, 13:37])
    different = torch.cat((mask_1d(50, range(17, 30)), mask_1d(50, range(22, 34))))
    assert torch.equal(calibration_region(kspace, different), kspace[:, :, 8:32, 22:31])


def test_calibration_region_of_2d_masks() -> None:
    kspace = torch.randn(1, 2, 41, 50, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 41, 50)
    mask[:, 10:31, 16:34] = 1
    mask[:, ::3, ::3] = 1
    region = calibration_region(kspace, mask)
    assert torch.equal(region, kspace[:, :, 10:30, 16:34])
    radius = torch.hypot(torch.arange(41.0)[:, None] - 20, torch.arange(50.0) - 25)
    ellipse = calibration_region(kspace, (radius < 12)[None])
    assert min(ellipse.shape[2:]) >= 15


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda k: calibration_region(k, mask_1d(50, range(24, 27))),
            ValueError,
            "is 24 x 3 samples, expected at least 6",
        ),
        (lambda k: calibration_region(k, torch.zeros(1, 1, 50)), ValueError, "is 0 x 0 samples"),
        (lambda k: calibration_region(k, torch.ones(1, 1, 49)), ValueError, "does not fit the sampling mask"),
        (lambda k: calibration_region(k.real, torch.ones(1, 1, 50)), TypeError, "expected a complex dtype"),
        (lambda k: espirit_maps(k[0], (40, 50)), ValueError, r"expected \(batch, coil, rows, cols\)"),
        (lambda k: espirit_maps(k[..., :4], (40, 50), kernel_width=6), ValueError, "smaller than the kernel width 6"),
        (lambda k: espirit_maps(k, (40, 50), crop=1.5), ValueError, "crop 1.5"),
        (lambda k: espirit_maps(k, (40, 50), max_iterations=0), ValueError, "max_iterations 0 and tol .*, expected at"),
        (lambda k: espirit_maps(k, (40, 50), n_maps=3), ValueError, "n_maps is 3, expected 1 to 2, the coils"),
        (
            lambda k: espirit_maps(k, (40, 50), noise_level=torch.ones(2)),
            ValueError,
            r"noise_level \(2,\), expected a number or \(1,\), the batch",
        ),
        (lambda k: espirit_maps(k * 0, (40, 50)), ValueError, "zero or not finite"),
        (lambda k: espirit_maps(k * float("nan"), (40, 50)), ValueError, "zero or not finite"),
        (lambda k: espirit_maps(k.real, (40, 50)), TypeError, "expected a complex dtype"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[Tensor], object], error: type[Exception], message: str) -> None:
    kspace = torch.ones(1, 2, 40, 50, dtype=torch.complex64)
    with pytest.raises(error, match=message):
        call(kspace)
