"""Coil compression: exact algebra, then the energy kept on a real head against BART."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators.compression import compress_coils, compress_coils_geometric, mix_coils, virtual_coils
from operators.fourier import centred_fft, centred_ifft
from operators.sense import Sense

DATA = os.environ.get("MOLRECON_DATA")
METHODS = [compress_coils, compress_coils_geometric]


def random_complex(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int, seed: int = 7) -> Tensor:
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[..., 0] = True
    return mask


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    geometric=st.booleans(),
    spatial=st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple),
    batch=st.integers(1, 2),
    coils=st.integers(1, 5),
    data=st.data(),
    seed=st.integers(0, 99),
)
def test_compression_commutes_with_the_acquisition(
    geometric: bool, spatial: tuple[int, ...], batch: int, coils: int, data: st.DataObject, seed: int
) -> None:
    n_coils = data.draw(st.integers(1, coils))
    maps, x = random_complex(batch, coils, *spatial, seed=seed), random_complex(batch, *spatial, seed=seed + 1)
    operator = Sense(maps, random_mask(1, *(1,) * (len(spatial) - 1), spatial[-1], seed=seed))
    kspace = operator(x)
    compressed = (compress_coils_geometric if geometric else compress_coils)(kspace, n_coils)
    assert compressed.kspace.shape == (batch, n_coils, *spatial)
    identity = torch.eye(n_coils, dtype=torch.complex128)
    gram = compressed.matrix @ compressed.matrix.mH
    torch.testing.assert_close(gram, identity.expand_as(gram), rtol=1e-10, atol=1e-10)
    virtual = Sense(compressed.maps(maps), operator.sampling_mask)
    torch.testing.assert_close(virtual(x), compressed.kspace, rtol=1e-10, atol=1e-10)
    assert ((compressed.energy_kept > 0) & (compressed.energy_kept <= 1 + 1e-12)).all()
    if n_coils == coils:  # a change of basis: nothing is lost, and the normal operator is the same
        torch.testing.assert_close(compressed.energy_kept, torch.ones(batch, dtype=torch.float64))
        torch.testing.assert_close(virtual.normal(x), operator.normal(x), rtol=1e-10, atol=1e-10)


def test_energy_kept_is_that_of_the_singular_values() -> None:
    kspace = random_complex(2, 5, 6, 7, seed=0)
    for n_coils in (1, 3):
        energies = torch.linalg.svdvals(kspace.flatten(2)).square()
        expected = energies[:, :n_coils].sum(1) / energies.sum(1)
        torch.testing.assert_close(compress_coils(kspace, n_coils).energy_kept, expected)
        rows = centred_ifft(kspace, (-2,)).movedim(-2, 1)
        energies = torch.linalg.svdvals(rows).square()
        expected = energies[..., :n_coils].sum((1, 2)) / energies.sum((1, 2))
        torch.testing.assert_close(compress_coils_geometric(kspace, n_coils).energy_kept, expected)
        assert (expected >= compress_coils(kspace, n_coils).energy_kept).all()


def test_geometric_coils_are_aligned() -> None:
    # coil weights that turn slowly along the readout, so that two virtual coils hold everything at each position
    angle = torch.linspace(0, 3, 40, dtype=torch.float64)
    weights = torch.stack((angle.cos(), angle.sin(), 0.3 * (2 * angle).cos(), 0.5 + 0 * angle)).to(torch.complex128)
    second = weights.roll(1, dims=0) * torch.polar(torch.ones_like(angle), 2 * angle)
    image = random_complex(1, 1, 40, 9, seed=1), random_complex(1, 1, 40, 9, seed=2)
    coil_images = weights[None, :, :, None] * image[0] + second[None, :, :, None] * image[1]
    compressed = compress_coils_geometric(centred_fft(coil_images, (-2,)), 2)
    assert compressed.energy_kept.item() == pytest.approx(1, abs=1e-12)
    matrix = compressed.matrix[0]
    products = matrix[1:] @ matrix[:-1].mH
    u, s, vh = torch.linalg.svd(products)
    # each pair of neighbours is as close as two bases of these planes can be: the polar factor is the identity
    torch.testing.assert_close(u @ vh, torch.eye(2, dtype=torch.complex128).expand_as(products), rtol=1e-9, atol=1e-9)
    assert s.min() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_calibration_data_give_the_mixing(method: Callable[..., object]) -> None:
    kspace = random_complex(1, 5, 6, 7, seed=0)
    centre = kspace[..., 2:5]
    lines = torch.zeros(7, dtype=torch.bool)
    lines[2:5] = True
    ours = method(kspace, 2, centre)
    theirs = method(torch.where(lines, kspace, 0), 2)
    torch.testing.assert_close(ours.matrix, theirs.matrix)  # type: ignore[attr-defined]
    assert ours.kspace.shape == (1, 2, 6, 7)  # type: ignore[attr-defined]


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no real k-space")
@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
@pytest.mark.parametrize(("method", "flag"), [(compress_coils, "-S"), (compress_coils_geometric, "-G")])
def test_energy_kept_agrees_with_bart_on_a_real_head(method: Callable[..., object], flag: str, tmp_path: Path) -> None:
    assert DATA is not None
    head = torch.from_numpy(np.load(Path(DATA) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy"))[None]
    coil, rows, cols = head.shape[1:]
    # BART's first axis varies fastest and is the readout
    (tmp_path / "k.hdr").write_text(f"# Dimensions\n{rows} {cols} 1 {coil}{' 1' * 12}\n")
    (tmp_path / "k.cfl").write_bytes(head[0].permute(0, 2, 1).contiguous().numpy().tobytes())
    for n_coils in (2, 4):
        subprocess.run(
            ["bart", "cc", flag, "-A", "-p", str(n_coils), "k", "c"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        theirs = np.fromfile(tmp_path / "c.cfl", dtype=np.complex64).astype(np.complex128)
        kept = float((np.abs(theirs) ** 2).sum()) / float(head.abs().double().square().sum())
        ours = method(head, n_coils)
        assert ours.energy_kept.item() == pytest.approx(kept, abs=1e-5)  # type: ignore[attr-defined]


KSPACE = random_complex(1, 3, 6, 5, seed=0)
EYE = torch.eye(3, dtype=torch.complex128)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: compress_coils(KSPACE.real, 2), TypeError, r"compress_coils: k-space has dtype torch.float64"),
    (lambda: compress_coils(KSPACE, 4), ValueError, r"compress_coils: n_coils is 4, expected 1 to 3"),
    (lambda: compress_coils(KSPACE, 0), ValueError, r"compress_coils: n_coils is 0"),
    (lambda: compress_coils(KSPACE * 0, 2), ValueError, r"compress_coils: the data of some sample are zero or not"),
    (
        lambda: compress_coils(KSPACE, 2, KSPACE[:, :2]),
        ValueError,
        r"compress_coils: k-space .* calibration data \(1, 2",
    ),
    (
        lambda: compress_coils_geometric(KSPACE, 2, KSPACE[:, :, 1:]),
        ValueError,
        r"compress_coils_geometric: calibration data \(1, 3, 5, 5\) have 5 samples along the readout, expected 6",
    ),
    (lambda: mix_coils(EYE.expand(2, 3, 3), KSPACE.expand(3, 3, 6, 5)), ValueError, r"mix_coils: matrix \(2, 3, 3\)"),
    (lambda: mix_coils(EYE, KSPACE.real), TypeError, r"mix_coils: coil data has dtype torch.float64"),
    (lambda: mix_coils(KSPACE[0, :2, :2, 0], KSPACE), ValueError, r"mix_coils: matrix \(2, 2\) does not fit coil data"),
    (
        lambda: compress_coils_geometric(KSPACE, 2).maps(KSPACE[:, :, 1:]),
        ValueError,
        r"CompressedCoils: coil data \(1, 3, 5, 5\) do not fit the mixing of 6 readout positions and 3 coils",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def noisy(
    signals: list[float], slices: int = 2, samples: tuple[int, int] = (40, 50), sigma: float = 0.5
) -> torch.Tensor:
    """Return k-space of coils with signals of these powers, relative to the noise's, mixed by a unitary matrix."""
    coils = len(signals)
    amplitude = sigma * torch.tensor(signals, dtype=torch.float64).sqrt()[None, :, None, None]
    kspace = amplitude * random_complex(slices, coils, *samples, seed=1)
    kspace = mix_coils(torch.linalg.qr(random_complex(coils, coils, seed=2)).Q, kspace)
    kspace = kspace + sigma * random_complex(slices, coils, *samples, seed=3)
    kspace[..., ::2] = 0  # not measured
    return kspace


def test_the_noise_says_how_many_virtual_coils() -> None:
    found = virtual_coils(noisy([100, 30, 3, 0, 0, 0]), 0.5)
    assert found.matrix.shape == (3, 6)
    torch.testing.assert_close(found.matrix @ found.matrix.mH, torch.eye(3, dtype=torch.complex128))
    assert 0 <= found.signal_lost <= 0.1
    # With 2 coils the third one's signal is lost: 3 times the noise of one of six coils.
    fewer = virtual_coils(noisy([100, 30, 3, 0, 0, 0]), 0.5, 2)
    assert fewer.matrix.shape == (2, 6) and fewer.signal_lost == pytest.approx(0.5, rel=0.1)
    assert fewer.energy_kept == pytest.approx(132 / 139, rel=0.01)
    # Less noise, more coils.
    assert len(virtual_coils(noisy([100, 30, 3, 0.3, 0, 0], sigma=0.5), 0.5).matrix) == 3
    assert len(virtual_coils(noisy([100, 30, 3, 0.3, 0, 0], sigma=0.5), 0.5, most_lost=0.01).matrix) == 4
    with pytest.raises(ValueError, match="noise_level is -1"):
        virtual_coils(noisy([1, 1]), -1)
    with pytest.raises(ValueError, match="n_coils is 3"):
        virtual_coils(noisy([1, 1]), 1, 3)


def test_a_slice_without_data_has_no_say_in_the_virtual_coils() -> None:
    kspace = noisy([100, 3, 0, 0])
    kspace[0] = 0
    alone = virtual_coils(kspace[1:], 0.5)
    both = virtual_coils(kspace, 0.5)
    torch.testing.assert_close(both.matrix, alone.matrix)
    assert both.signal_lost == pytest.approx(alone.signal_lost)
