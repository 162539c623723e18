"""What is compared of the volumes of a cohort, and which of them stand out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from molrecon.scans.page.distributions import draw_distributions
from molrecon.scans.page.figures import QUANTITIES, figures, positive, robust_z, short, stands_out
from molrecon.scans.page.rows import Row

BOUND, NOISE, *_ = QUANTITIES


def test_the_robust_z_is_its_formula() -> None:
    values = np.random.default_rng(0).lognormal(size=51)
    logs = np.log(values)
    mad = np.median(np.abs(logs - np.median(logs)))
    assert np.allclose(robust_z(values.tolist()), (logs - np.median(logs)) / (1.4826 * mad), rtol=1e-12)


def test_one_odd_value_stands_out_and_hides_no_other() -> None:
    values = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0, 1.03, 30.0, 40.0]
    found = [stands_out(z, NOISE) for z in robust_z(values)]
    assert found == [False] * 7 + [True] * 2


def test_values_that_are_mostly_alike() -> None:
    z = robust_z([20.0] * 9 + [90.0])
    assert z[:9] == [0.0] * 9 and stands_out(z[9], NOISE)
    assert robust_z([20.0] * 9) == [0.0] * 9
    assert max(map(abs, robust_z([0.1 + 0.2, 0.3] * 5))) < 1e-9
    nearly = robust_z([1.0] * 9 + [1.09, 1.11])
    assert [stands_out(z, NOISE) for z in nearly] == [False] * 10 + [True]


def test_few_values_and_unknown_ones() -> None:
    assert robust_z([]) == [] and robust_z([1.0, 1.0, 1.0, 99.0]) == [0.0] * 4
    z = robust_z([None, 1.0, 1.1, 0.9, 1.0, 1.05, None, 50.0])
    assert z[0] == z[6] == 0.0 and z[7] > 3.5


def test_a_small_bound_is_not_odd() -> None:
    assert not stands_out(-9.0, BOUND) and stands_out(9.0, BOUND)
    assert stands_out(-9.0, NOISE)


def test_figures_of_a_sidecar(solved: Any) -> None:
    found = figures(solved.sidecar)
    result = solved.result
    assert found["slices"] == 3 and found["kind"] == result.kind and found["n_steps"] == result.n_steps.max()
    assert found["error_bound"] == pytest.approx(result.error_bound.max())
    assert found["noise"] == pytest.approx(result.noise_level / result.image.max())
    assert figures({}) == figures({"slices": 3}) == figures({"slices": [None]}) == {}


def test_positive_numbers_alone_have_a_logarithm() -> None:
    assert positive(3) == 3.0 and positive(1e-9) == 1e-9
    assert [positive(value) for value in (0, -1, None, math.nan, math.inf, True, "3")] == [None] * 7


def test_numbers_in_short() -> None:
    assert [short(value) for value in (100.0, 12.3, 1.23, 0.0001234)] == ["100", "12", "1.2", "0.00012"]


def test_histograms_count_every_volume_once() -> None:
    rows = [Row(f"v{k}", "ok", "ok", "good", values={"noise": 1.0 + k / 100}) for k in range(20)]
    rows.append(Row("far", "ok", "ok", "good", values={"noise": 500.0}, z={"noise": 40.0}))
    (drawn,) = draw_distributions(rows)
    tall = (drawn.bottom - drawn.top) / drawn.most
    counted = sum(bar.height + bar.outliers_height for bar in drawn.bars) / tall
    assert counted == pytest.approx(21) and drawn.most == 20
    assert [(row.name, value) for row, value in drawn.outliers] == [("far", "500")] and drawn.more == 0
    assert "over 21 volumes" in drawn.text and "outliers: far" in drawn.text
    assert all(0 <= bar.x <= drawn.width and bar.outliers_y >= drawn.top - 1e-6 for bar in drawn.bars)
    assert draw_distributions(rows[:1]) == []
