"""The metrics against fastMRI's formulas, written out, and against an SSIM of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from molrecon.scans.metrics import nmse, psnr, ssim

RNG = np.random.default_rng(7)
# fastMRI images are of the order of 1e-5 to 1e-3; constants that are not scaled by the data range would show here.
REFERENCE = (np.abs(RNG.normal(size=(3, 18, 15))) * 2e-4).astype(np.float32)
REFERENCE *= np.array([1.0, 0.3, 2.0], np.float32)[:, None, None]
IMAGE = REFERENCE + (RNG.normal(size=REFERENCE.shape) * 3e-5).astype(np.float32)
METRICS = (nmse, psnr, ssim)


def ssim_by_hand(reference, image, data_range):
    """Wang et al. 2004 over every 7x7 window, variances divided by 48."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    slices = []
    for one, other in zip(reference.astype(float), image.astype(float), strict=True):
        values = []
        for top in range(one.shape[0] - 6):
            for left in range(one.shape[1] - 6):
                a = one[top : top + 7, left : left + 7].ravel()
                b = other[top : top + 7, left : left + 7].ravel()
                (va, cab), (_, vb) = np.cov(a, b)
                ma, mb = a.mean(), b.mean()
                values.append((2 * ma * mb + c1) * (2 * cab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
        slices.append(np.mean(values))
    return float(np.mean(slices))


def test_nmse_is_the_ratio_of_squared_norms():
    expected = np.linalg.norm((REFERENCE - IMAGE).astype(float)) ** 2 / np.linalg.norm(REFERENCE.astype(float)) ** 2
    assert nmse(REFERENCE, IMAGE) == pytest.approx(expected, rel=1e-6)


def test_psnr_takes_the_maximum_of_the_whole_reference_volume():
    error = np.mean((REFERENCE.astype(float) - IMAGE.astype(float)) ** 2)
    expected = 20 * math.log10(REFERENCE.max()) - 10 * math.log10(error)
    assert psnr(REFERENCE, IMAGE) == pytest.approx(expected, rel=1e-9)
    by_slice = np.mean([psnr(REFERENCE[n : n + 1], IMAGE[n : n + 1]) for n in range(3)])
    assert abs(by_slice - expected) > 0.5


def test_ssim_agrees_with_an_independent_implementation():
    assert ssim(REFERENCE, IMAGE) == pytest.approx(ssim_by_hand(REFERENCE, IMAGE, float(REFERENCE.max())), abs=1e-10)
    assert ssim(REFERENCE, IMAGE, 1e-3) == pytest.approx(ssim_by_hand(REFERENCE, IMAGE, 1e-3), abs=1e-10)


def test_known_values():
    reference = np.zeros((1, 8, 8))
    reference[0, 0, 0] = 2.0
    assert nmse(reference, 0 * reference) == 1.0
    assert psnr(reference, reference + 0.2) == pytest.approx(20.0)
    assert psnr(reference, reference + 0.2, data_range=20.0) == pytest.approx(40.0)


def test_equal_volumes():
    assert nmse(REFERENCE, REFERENCE) == 0.0
    assert psnr(REFERENCE, REFERENCE) == math.inf
    assert ssim(REFERENCE, REFERENCE) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_scaling_both_volumes_changes_nothing(metric):
    assert metric(REFERENCE * 4096, IMAGE * 4096) == pytest.approx(metric(REFERENCE, IMAGE), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("reference", "image", "message"),
    [
        (REFERENCE, IMAGE[:, 1:], r"\(3, 18, 15\) and image \(3, 17, 15\)"),
        (REFERENCE[0], IMAGE[0], r"\(18, 15\), expected \(slices, h, w\)"),
        (REFERENCE[:0], IMAGE[:0], "none empty"),
        (REFERENCE, IMAGE * np.nan, "NaN or infinity in the image"),
        (REFERENCE + np.inf, IMAGE, "NaN or infinity in the reference"),
        (REFERENCE * 0, IMAGE, "without a positive value"),
    ],
)
def test_bad_volumes_are_refused(metric, reference, image, message):
    with pytest.raises(ValueError, match=f"{metric.__name__}: .*{message}"):
        metric(reference, image)


@pytest.mark.parametrize("metric", METRICS)
def test_complex_volumes_are_refused(metric):
    with pytest.raises(TypeError, match="take the magnitude first"):
        metric(REFERENCE, IMAGE.astype(np.complex64))


def test_ssim_needs_room_for_its_window():
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ssim(REFERENCE[:, :6], IMAGE[:, :6])


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("data_range", [0.0, -1.0, math.nan, math.inf])
def test_data_range_must_be_positive(metric, data_range):
    with pytest.raises(ValueError, match="data_range"):
        metric(REFERENCE, IMAGE, data_range)
