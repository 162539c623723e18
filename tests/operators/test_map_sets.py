"""How many sets of maps: sound and folded objects, made and real."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.reconstructors.classical import CGSense
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, SoftSense, centred_fft, centred_ifft, espirit, map_sets_needed, random_mask
from tests.operators.test_espirit import centre, synthetic_scan

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no real k-space")


def wrapped(kspace: Tensor, cols: int) -> Tensor:
    """Return the k-space of the same coil images in a field of view of `cols` columns, folded in from both sides."""
    images = centred_ifft(kspace, (-2, -1))
    before = (images.shape[-1] - cols) // 2
    folded = images.new_zeros(*images.shape[:-1], cols)
    for column in range(images.shape[-1]):
        folded[..., (column - before) % cols] += images[..., column]
    return centred_fft(folded, (-2, -1))


@pytest.fixture(scope="module")
def head() -> Tensor:
    assert DATA is not None
    return torch.from_numpy(np.load(Path(DATA) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy"))[None]


def test_one_set_for_an_object_and_two_for_a_folded_one() -> None:
    shape = (64, 48)
    whole, folded = synthetic_scan(8, shape)[0], synthetic_scan(8, (64, 96))[0][..., ::2]
    region = torch.cat([centre(kspace, 24, 12) for kspace in (whole, folded)])
    sets = espirit(region, shape)
    answer = map_sets_needed(region, sets)
    assert answer.needed.tolist() == [1, 2]
    assert answer.energy.shape == answer.pixels.shape == (2, 2)
    assert float(answer.energy[0, 0]) > 0.995 and float(answer.energy[1].sum()) > 0.995
    assert float(answer.energy[0, 1]) < 1e-4 and float(answer.energy[1, 1]) > 1e-3
    assert float(answer.pixels[0, 1]) < 0.05 and float(answer.pixels[1, 1]) > 0.3
    alone = map_sets_needed(region[1:], espirit(region[1:], shape))
    torch.testing.assert_close(alone.energy, answer.energy[1:], rtol=1e-6, atol=1e-8)
    assert map_sets_needed(region, sets, energy_share=0.5, pixel_share=1).needed.tolist() == [1, 1]
    assert map_sets_needed(region, espirit(region, shape, n_maps=1)).needed.tolist() == [1, 1]


@needs_data
def test_a_sound_head_never_asks_for_two_sets(head: Tensor) -> None:
    noise = torch.randn(head.shape, dtype=head.dtype, generator=torch.Generator().manual_seed(0))
    sigma = 0.05 * float(centred_ifft(head, (-2, -1)).abs().square().sum(1).sqrt().amax())
    for lines in (8, 12, 24):
        region = centre(head + sigma * noise, 24, lines)
        answer = map_sets_needed(region, espirit(region, head.shape[2:], noise_level=sigma))
        assert answer.needed.tolist() == [1], (lines, answer)


@needs_data
@pytest.mark.parametrize("cols", [90, 144])
def test_a_head_wider_than_the_field_of_view_asks_for_two_sets(head: Tensor, cols: int) -> None:
    kspace = wrapped(head, cols)
    region = centre(kspace, 24, 24)
    answer = map_sets_needed(region, espirit(region, kspace.shape[2:]))
    assert answer.needed.tolist() == [2], answer


@needs_data
def test_two_sets_reconstruct_a_reduced_field_of_view(head: Tensor) -> None:
    # every second phase-encode line as the full grid: the head is twice as wide as the field of view
    kspace = head[..., ::2].contiguous()
    kspace = kspace / centred_ifft(kspace, (-2, -1)).abs().square().sum(1).sqrt().amax()
    reference = centred_ifft(kspace, (-2, -1))
    mask, region = random_mask(90, 3, 24 / 90, 0), centre(kspace, 24, 24)
    errors = []
    for n_maps in (1, 2):
        maps = espirit(region, kspace.shape[2:], n_maps=n_maps).maps
        operator = SoftSense(maps, mask) if n_maps > 1 else Sense(maps[:, 0], mask)
        image = CGSense(1e-2, solver=SolverSettings(tol=1e-2, max_steps=30))(operator.sampling(kspace), operator).value
        coil_images = (maps * image.reshape(1, n_maps, 1, *image.shape[-2:])).sum(1)
        errors.append(float((coil_images - reference).norm() / reference.norm()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda k, s: map_sets_needed(k.real, s), TypeError, "expected a complex dtype"),
        (
            lambda k, s: map_sets_needed(k[:, :3], s),
            ValueError,
            r"k-space \(1, 3, 12, 12\) does not fit maps",
        ),
        (lambda k, s: map_sets_needed(k, s, 0), ValueError, "energy_share is 0, expected a number between 0 and 1"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[..., object], error: type[Exception], message: str) -> None:
    region = centre(synthetic_scan(4, (24, 20))[0], 12, 12)
    sets = espirit(region, (24, 20))
    with pytest.raises(error, match=message):
        call(region, sets)
