"""The images to train on and to validate with share no subject."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from examples import _subjects as sources
from examples._families import families
from molrecon.simulation.images import ImageSet

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the real images are not here")


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (sources.SIAT_TRAIN, sources.SIAT_VALIDATION),
        (sources.UKAT_TRAIN, sources.UKAT_VALIDATION),
        (sources.WATERFAT_TRAIN, [sources.WATERFAT_VALIDATION]),
        (sources.PDFF_TRAIN, [sources.PDFF_VALIDATION]),
        ([sources.SINGLE_TRAIN], [sources.SINGLE_VALIDATION, "umich_t1brain_200"]),
        (sources.MS_TRAIN, sources.MS_VALIDATION),
        (sources.JLF_TRAIN, sources.JLF_VALIDATION),
        (sources.IXI_TRAIN, sources.IXI_VALIDATION),
    ],
)
def test_subjects_are_not_shared(training: Iterable[object], validation: Iterable[object]) -> None:
    assert not set(training) & set(validation)


def images(sets: Iterable[ImageSet]) -> set[bytes]:
    return {np.ascontiguousarray(one).tobytes() for s in sets for one in s.stored}


@needs_data
def test_no_image_is_trained_on_and_validated_with() -> None:
    training, validation = sources.training_sets(Path(str(DATA))), sources.validation_sets(Path(str(DATA)))
    assert not images(training) & images(validation)
    assert sum(map(len, training)) > 2900
    for one in (*training, *validation):
        image = one.image(len(one) - 1)
        assert image.ndim == 2
        assert np.isfinite(image).all()
        assert np.abs(image).max() == pytest.approx(1)


@needs_data
def test_families_are_whole_slices_of_their_own() -> None:
    every = families(Path(str(DATA)))
    assert [f.name for f in every if not f.chooses] == ["8-coil brain", "half field of view", "4-coil brain"]
    cases = [next(f.cases()) for f in every]
    assert len({case.name for case in cases}) == len(every)
    for case in cases:
        assert case.full.kspace.shape[1] in (4, 8)
        assert case.full.fully_sampled
        assert 1.9 < case.sampling_mask.size / case.sampling_mask.sum() < 5
