"""Masks read off the zeros of k-space: one for each slice, in one shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molrecon.io.masks import canonical_mask, describe_zero_padding, infer_sampling_mask, mask_kspace
from operators import equispaced_fraction_mask, random_mask

SHAPE = (3, 2, 20, 24)  # slices, coils, rows, cols


def masks(*shape, seed=0, share=0.5):
    return np.random.default_rng(seed).random(shape) < share


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), rows=st.sampled_from([1, 20]), slices=st.sampled_from([1, 3]))
def test_masks_that_differ_by_slice_are_found_as_they_are(kspace_of, seed, rows, slices):
    mask = masks(slices, rows, 24, seed=seed)
    mask[:, :, 11:13] = True
    data = kspace_of(*SHAPE) * mask[:, None]
    np.testing.assert_array_equal(infer_sampling_mask(data), canonical_mask(mask, SHAPE))


@pytest.fixture(scope="module")
def kspace_of():
    def make(*shape):
        rng = np.random.default_rng(3)
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)

    return make


def test_a_slice_without_data_follows_the_others_where_they_agree(kspace_of):
    mask = masks(1, 1, 24)
    data = (kspace_of(*SHAPE) * mask).astype(np.complex64)
    data[1] = 0
    np.testing.assert_array_equal(infer_sampling_mask(data), mask)
    differing = masks(3, 1, 24, seed=1)
    data = (kspace_of(*SHAPE) * differing[:, None]).astype(np.complex64)
    data[1] = 0
    differing[1] = False
    np.testing.assert_array_equal(infer_sampling_mask(data), differing)


def test_whole_columns_beside_scattered_samples(kspace_of):
    mask = np.repeat(masks(3, 1, 24), 20, axis=1)
    mask[2] = masks(20, 24, seed=5)
    data = kspace_of(*SHAPE) * mask[:, None]
    data[0, :, 3, np.flatnonzero(mask[0, 0])[0]] = 0  # by chance, in a column that was read out
    np.testing.assert_array_equal(infer_sampling_mask(data), mask)


def test_every_slice_is_masked_by_its_own(kspace_of):
    mask, data = masks(3, 1, 24), kspace_of(*SHAPE)
    masked = data.copy()
    mask_kspace(masked, mask)
    np.testing.assert_array_equal(masked, data * mask[:, None])
    floats = masked.view(np.float32)
    assert not np.signbit(floats[floats == 0]).any()


def test_one_shape():
    columns, plane = masks(24), masks(20, 24)
    for mask, expected in (
        (columns, columns[None, None]),
        (np.tile(columns, (20, 1)), columns[None, None]),
        (np.tile(columns, (3, 20, 1)), columns[None, None]),
        (plane, plane[None]),
        (np.tile(plane, (3, 1, 1)), plane[None]),
    ):
        np.testing.assert_array_equal(canonical_mask(mask, SHAPE), expected)
    assert canonical_mask(masks(3, 1, 24), SHAPE).shape == (3, 1, 24)


@pytest.mark.parametrize("shape", [(), (23,), (19, 24), (2, 1, 24), (3, 2, 24), (1, 3, 1, 24)])
def test_masks_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"expected bool \(3 or 1, 20 or 1, 24\)"):
        canonical_mask(np.ones(shape, bool), SHAPE)
    with pytest.raises(ValueError, match="dtype float64"):
        canonical_mask(np.ones(24), SHAPE)


def padded(rows, cols, mask):
    """The mask of columns `mask` in the middle of a larger k-space (rows, cols) with zeros around."""
    whole = np.zeros((len(mask), rows[1], cols[1]), bool)
    top, left = (rows[1] - rows[0]) // 2, (cols[1] - cols[0]) // 2
    whole[:, top : top + rows[0], left : left + cols[0]] = mask
    return canonical_mask(whole, (len(mask), 1, rows[1], cols[1]))


def test_zero_padding_and_then_undersampling_is_told_with_what_it_does_to_the_mask():
    columns = equispaced_fraction_mask(80, 4, 0.08, 0)[None, None]
    (rows,) = describe_zero_padding(padded((64, 96), (80, 80), columns), 96)
    assert "rows 0 to 15 and 80 to 95 of 96 are zero" in rows
    assert "rows and columns" in rows and "kspace[..., 16:80, :]" in rows
    rows, cols = describe_zero_padding(padded((64, 96), (80, 120), columns), 96)
    first, last = np.flatnonzero(columns)[[0, -1]] + 20
    assert f"columns 0 to {first - 1} and {last + 1} to 119 of 120 are zero" in cols
    assert f"{columns.sum()} of 120 columns (acceleration {120 / columns.sum():.3g})" in cols
    assert f"kspace[..., {first}:{last + 1}]" in cols
    (cols,) = describe_zero_padding(padded((96, 96), (80, 96), np.ones((1, 1, 80), bool)), 96)
    assert "80 of 96 columns (acceleration 1.2) where 80 of 80 between them were (1)" in cols
    differing = np.stack([equispaced_fraction_mask(80, 4, 0.08, seed)[None] for seed in (0, 5)])
    assert len(differing) == 2 and len(describe_zero_padding(padded((64, 96), (80, 80), differing), 96)) == 1


def test_no_zero_padding_is_seen_where_there_is_none():
    for seed in range(40):
        for draw in (random_mask, equispaced_fraction_mask):
            assert not describe_zero_padding(draw(96, 4, 0.08, seed)[None, None], 64)
    assert not describe_zero_padding(np.ones((1, 1, 96), bool), 64)
    assert not describe_zero_padding(masks(1, 64, 96, share=0.2), 64)
    partial_echo = np.zeros((1, 64, 96), bool)
    partial_echo[:, 20:] = True
    assert not describe_zero_padding(partial_echo, 64)
    partial_fourier = np.zeros((1, 1, 96), bool)
    partial_fourier[..., 30:] = True
    assert not describe_zero_padding(partial_fourier, 64)
