"""The strength of a prior is judged by samples that were withheld, and the scan says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molrecon import load
from molrecon.command.parser import main
from molrecon.io import read_volume
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.reconstruction import NotAdaptable, adapt
from molrecon.scans.reconstruction.adaptation import LEAST_GAIN
from molrecon.simulation.phantom import write_phantom
from operators import random_mask
from operators.withholding import withheld_samples


@pytest.fixture(scope="module")
def model() -> Reconstructor:
    return load("mol-brain-2d", Reconstructor)


def write_undersampled(folder: Path, slices: int) -> Path:
    """Write the centre of a noisy scan, and some other lines at random."""
    kspace = read_volume(write_phantom(folder / "full.h5", slices, 4, (64, 64), 0.02)).kspace.copy()
    kspace[..., ~random_mask(64, 2.2, 0.25, 0)] = 0
    np.save(folder / "scan.npy", kspace)
    return folder / "scan.npy"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedVolume:
    return prepare(read_volume(write_undersampled(tmp_path_factory.mktemp("scan"), 4)))


@pytest.mark.parametrize("wrong", [0.05, 20.0])
def test_a_wrong_noise_level_is_noticed(prepared: PreparedVolume, model: Reconstructor, wrong: float) -> None:
    told = replace(prepared, noise_level=wrong * prepared.noise_level)
    factors = (1.0, 1 / wrong)
    found = adapt(told, model, factors=factors)
    assert found.factor == 1 / wrong and set(found.errors) == set(factors)
    assert found.errors[1 / wrong] < (1 - LEAST_GAIN) * found.errors[1.0]
    assert len(found.slices) <= 3 and adapt(told, model, factors=factors, at_once=2) == found


def test_another_level_has_to_be_better_by_more_than_chance(prepared: PreparedVolume, model: Reconstructor) -> None:
    assert adapt(prepared, model, factors=(0.999, 1.0, 1.001)).factor == 1.0


def test_what_cannot_be_adapted(prepared: PreparedVolume, model: Reconstructor) -> None:
    with pytest.raises(NotAdaptable, match="CGSense is not learned"):
        adapt(prepared, CGSense())
    with pytest.raises(NotAdaptable, match="no data"):
        adapt(replace(prepared, empty=np.ones_like(prepared.empty)), model)
    with pytest.raises(ValueError, match="expected 1 among them"):
        adapt(prepared, model, factors=(0.5, 2.0))
    regular = torch.zeros_like(prepared.sampling_mask)
    regular[..., ::3] = regular[..., 24:40] = True
    with pytest.raises(NotAdaptable, match="every n-th line"):
        adapt(replace(prepared, sampling_mask=regular), model)
    few = torch.zeros_like(prepared.sampling_mask)
    few[..., 32] = True
    with pytest.raises(NotAdaptable, match="outside its fully sampled centre"):
        adapt(replace(prepared, sampling_mask=few), model)


def test_the_command_says_what_was_chosen(tmp_path: Path) -> None:
    path = write_undersampled(tmp_path, 1)
    command = ["reconstruct", str(path), "--model", "mol-brain-2d"]
    # Twenty times too little noise: nothing is taken away until the withheld lines ask for it.
    assert main([*command, "--out", str(tmp_path / "told"), "--noise-level", "1e-4", "--adapt"]) == 0
    sidecar = json.loads((tmp_path / "told" / "scan.json").read_text())
    adapted = sidecar["noise"]["adapted"]
    assert adapted["factor"] in (0.7, 1.0, 1.4, 2.0) and set(adapted["errors"]) == {"0.7", "1.0", "1.4", "2.0"}
    assert adapted["seconds"] > 0 and adapted["slices"] == [0] and sidecar["noise"]["noise_level"] == 1e-4
    assert sidecar["summary"]["kind"] == "certified"
    # A method without a prior is told in a warning, and reconstructs.
    plain = [*command[:2], "--model", "cg-sense"]
    assert main([*plain, "--out", str(tmp_path / "plain"), "--adapt"]) == 0
    sidecar = json.loads((tmp_path / "plain" / "scan.json").read_text())
    assert [w["check"] for w in sidecar["warnings"]].count("adaptation") == 1 and sidecar["noise"]["adapted"] is None


def test_withheld_samples_are_lines_of_what_was_measured() -> None:
    mask = torch.zeros(2, 1, 64, dtype=torch.bool)
    mask[..., ::3] = True
    mask[..., 24:40] = True
    withheld = withheld_samples(mask, 2, np.random.default_rng(0), 0.25)
    assert withheld.shape == mask.shape and bool((mask | ~withheld).all()) and not withheld[..., 24:40].any()
    assert withheld.sum((1, 2)).tolist() == [4, 4]
