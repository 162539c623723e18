"""The verdict says what is certified, never more, and what is wrong comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.page.verdict import listed, verdict


def test_certified_and_converged(solved: Any) -> None:
    result = replace(solved.result, kind="certified", error_bound=np.array([1e-5, 9e-5, 2e-5]))
    found = verdict(result)
    assert found.level == "good"
    assert found.headline == ("Certified: all 3 slices within 0.0001 of the exact solution; at worst 9e-05 (slice 1).")
    assert found.certified and "anatomy" in found.not_certified[0]


def test_warnings_make_it_a_caution(solved: Any) -> None:
    result = replace(solved.result, kind="certified", warnings=[DataWarning(0, "a", 1.0, 0.5, "b")])
    found = verdict(result)
    assert found.level == "caution" and found.headline.endswith("1 warning about the data.")


@pytest.mark.parametrize("kind", ["estimated", "none"])
def test_what_is_not_certified_is_not_called_so(solved: Any, kind: Any) -> None:
    bound = np.full(3, np.nan) if kind == "none" else np.full(3, 5e-4)
    found = verdict(replace(solved.result, kind=kind, error_bound=bound, warnings=[]))
    assert found.level == "caution" and not found.certified
    assert not found.headline.startswith("Certified") and "nan" not in found.headline
    assert len(found.not_certified) == 2


def test_a_method_without_iteration(solved: Any) -> None:
    result = replace(solved.result, kind="none", solver=None, error_bound=np.full(3, np.nan), method="UNet")
    assert verdict(result).headline == "No error bound: UNet solves no equation to a tolerance."


def test_slices_that_missed_the_tolerance_are_named(solved: Any) -> None:
    result = replace(
        solved.result,
        kind="certified",
        converged=np.array([True, False, False]),
        error_bound=np.array([1e-4, 0.02, 0.01]),
        left_out={"repetitions": 2},
    )
    found = verdict(result)
    assert found.level == "bad"
    assert found.headline == (
        "Not converged: 2 of 3 slices (1, 2) missed the tolerance 0.0001; the error bound is at worst 0.02 (slice 1)."
        " Incomplete: 2 repetitions left out."
    )
    assert any("(1, 2)" in sentence for sentence in found.not_certified)


def test_numbers_in_words() -> None:
    assert listed([]) == ""
    assert listed([3]) == "3"
    assert listed([0, 1, 2, 3, 7, 9, 10]) == "0 to 3, 7, 9, 10"
