"""Perturbed data: what is found is as bad as it says, never worse than promised, and a broken promise is counted."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.command.parser import main
from molrecon.guarantees.method_on_scan import ConditionedMethod
from molrecon.guarantees.robustness import evaluate, select_slices, take_slices
from molrecon.guarantees.robustness_report import describe_robustness, robustness_figure, robustness_table
from molrecon.guarantees.robustness_trials import Robustness
from molrecon.io import RawVolume, read_npy, read_volume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.certificate import Certificate, certificate
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import Comparison, reference_image, undersample
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.simulation.phantom import write_phantom
from molrecon.solvers.batched import norm
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.weights import load, save
from operators import LinearOperator, Sense, crop_readout, random_mask

SHAPE = (36, 32)
LEVELS = (0.02, 0.1)
MU = 0.02


def small_network() -> ResidualNetwork:
    return ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("sample") / "head.h5", slices=2, coils=4, shape=SHAPE)


@pytest.fixture(scope="module")
def full(path: Path) -> RawVolume:
    return read_volume(path)


@pytest.fixture(scope="module")
def prepared(full: RawVolume) -> PreparedVolume:
    return prepare(undersample(full, random_mask(full.kspace.shape[-1], 2, 0.25, 0), 0.0, [0]))


@pytest.fixture(scope="module")
def result(full: RawVolume, prepared: PreparedVolume) -> Robustness:
    methods = {
        "zero-filled": ZeroFilled(),
        "cg-sense": CGSense(MU),
        "strict": MOL(small_network()),
        "unrolled": MoDL(small_network(), n_unrolls=3),
    }
    return evaluate(prepared, reference_image(full, prepared), methods, LEVELS, draws=2, steps=3)


def test_every_promise_is_kept_and_says_what_it_rests_on(result: Robustness):
    assert [curve.guarantee for curve in result.curves.values()] == ["certified", "certified", "certified", "none"]
    assert result.levels == (0.0, *LEVELS)
    for curve in result.curves.values():
        assert curve.violations == 0 and curve.converged
        assert [trial.level for trial in curve.worst_case] == [0.0, *LEVELS]
        assert [trial.level for trial in curve.gaussian] == [0.0, *(level for level in LEVELS for _ in range(2))]
        for trial in curve.trials:
            assert (trial.bound is None) == (trial.tightness is None) == (curve.guarantee == "none")
            assert trial.tightness is None or 0 <= trial.tightness <= 1


def test_the_worst_case_is_worse_than_noise_and_grows_with_its_size(result: Robustness):
    for name, curve in result.curves.items():
        for worst in curve.worst_case[1:]:
            noise = [trial for trial in curve.gaussian if trial.level == worst.level]
            assert all(worst.psnr < trial.psnr and worst.moved > trial.moved for trial in noise), name
            assert max(worst.ascent) > worst.ascent[0], name
        scores = [trial.psnr for trial in curve.worst_case]
        assert scores == sorted(scores, reverse=True), name


def test_the_ascent_climbs_what_psnr_measures(result: Robustness, full: RawVolume, prepared: PreparedVolume):
    reference = reference_image(full, prepared)
    root_mean_square = math.sqrt(float(np.mean(reference.astype(np.float64) ** 2)))
    for name, rounding in (("zero-filled", 1e-4), ("unrolled", 1e-4), ("cg-sense", 1e-2), ("strict", 0.1)):
        for trial in result.curves[name].worst_case[1:]:
            expected = 20 * math.log10(float(reference.max()) / (max(trial.ascent) * root_mean_square))
            assert trial.psnr == pytest.approx(expected, abs=rounding), name


def test_without_a_perturbation_both_scores_are_those_of_compare(
    result: Robustness, full: RawVolume, prepared: PreparedVolume
):
    comparison = Comparison(prepared, full)
    for name, outcome in (("zero-filled", comparison.zero_filled), ("cg-sense", comparison.score("", CGSense(MU)))):
        (trial,) = [trial for trial in result.curves[name].gaussian if trial.level == 0]
        assert trial.psnr == pytest.approx(outcome.score.psnr, abs=1e-5)
        assert trial.moved < 1e-4
    for curve in result.curves.values():
        (trial,) = [trial for trial in curve.gaussian if trial.level == 0]
        assert trial.psnr_reestimated == pytest.approx(trial.psnr, abs=1e-3)


def test_without_a_perturbation_everything_is_found_as_it_was(tmp_path: Path):
    # With readout oversampling the noise is estimated on rows that the cropped data no longer have.
    full = read_volume(write_phantom(tmp_path / "head.h5", slices=1, coils=4, shape=(64, 32)))
    scan = prepare(undersample(replace(full, recon_shape=(32, 32)), random_mask(32, 2, 0.25, 0), 0.0, [0]))
    assert scan.kspace.shape[-2] == 32 and scan.volume.kspace.shape[-2] > 32
    reference = np.ones((1, 32, 32), np.float32)
    found = evaluate(scan, reference, {"strict": MOL(small_network())}, (), draws=1, steps=1)
    (trial,) = found.curves["strict"].gaussian
    assert trial.psnr == pytest.approx(trial.psnr_reestimated, abs=1e-4)


def test_the_bound_of_cg_sense_is_reached_where_the_singular_value_is_the_root_of_its_weight():
    maps = torch.full((1, 1, 6, 5), math.sqrt(MU), dtype=torch.complex64)
    operator = Sense(maps, torch.ones(1, 1, 1, dtype=torch.bool))
    kspace, change = torch.randn(2, 1, 1, 6, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    method = ConditionedMethod(CGSense(MU), kspace, operator, 0.0, hold_guide=True)
    moved = method.solve(kspace + change, None).value - method.solve(kspace, None).value
    bound = method.bound(change)
    assert bound is not None
    torch.testing.assert_close(norm(moved), bound, rtol=1e-4, atol=0.0)


def test_a_guided_method_is_perturbed_with_its_guide_held_and_through_it(full: RawVolume, prepared: PreparedVolume):
    guided = ResidualNetwork(**{**small_network().settings(), "guide_channels": GUIDE_CHANNELS})
    assert guided.guide is not None
    with torch.no_grad():
        for parameter in guided.guide.heads.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    methods = {"guided": MOL(guided, first=MoDL(small_network(), n_unrolls=2))}
    found = evaluate(prepared, reference_image(full, prepared), methods, (0.05,), draws=1, steps=4)
    held, through = found.curves["guided"], found.curves["guided, through its guide"]
    assert (held.guarantee, through.guarantee) == ("certified", "none")
    assert held.worst_case[-1].bound is not None and through.worst_case[-1].bound is None
    assert held.violations == 0 and held.worst_case[0].psnr == pytest.approx(through.worst_case[0].psnr, abs=0.02)
    # Nothing is held that could be found anew, but for scale and phase.
    assert through.worst_case[-1].psnr < held.worst_case[-1].psnr_reestimated
    assert "guided, through its guide    5.0%" in robustness_table(found)


def test_a_broken_promise_is_counted_once_a_slice(full: RawVolume, prepared: PreparedVolume):
    class Boast(Reconstructor):
        def certificate(self) -> Certificate:
            return certificate(0.5, certified=False)

        def change_bound(self, conditioning: object, operator: LinearOperator, change: Tensor) -> Tensor:
            return 0.1 * norm(change)

        def _solve(self, kspace: Tensor, operator: LinearOperator, *unused: object) -> Solution:
            return unbounded_solution(operator.adjoint(kspace))

    found = evaluate(prepared, reference_image(full, prepared), {"boast": Boast()}, (0.05,), draws=1, steps=1)
    assert [trial.violations for trial in found.curves["boast"].trials] == [0, 2, 2]
    assert "estimated: 4 violations" in robustness_table(found)


def test_what_was_given_stays_and_what_was_estimated_is_estimated_again(full: RawVolume, prepared: PreparedVolume):
    retrospective = prepared.volume
    fixed = prepare(retrospective, prepared.sensitivity_maps.numpy(), prepared.noise_level)
    reference, methods = reference_image(full, prepared), {"cg-sense": CGSense(MU)}
    for scan, equal in ((fixed, True), (prepared, False)):
        trial = evaluate(scan, reference, methods, (0.1,), draws=1, steps=1).curves["cg-sense"].worst_case[-1]
        assert (abs(trial.psnr - trial.psnr_reestimated) < 1e-4) == equal


def test_slices_are_chosen_and_checked(full: RawVolume, prepared: PreparedVolume):
    kspace = full.kspace.copy()
    kspace[0] = 0
    half_empty = replace(full, kspace=kspace)
    assert select_slices(full, None) == [0, 1] and select_slices(half_empty, None) == [1]
    one = take_slices(full, [1])
    assert np.array_equal(one.kspace[0], full.kspace[1])
    assert one.reference is not None and one.reference.shape[0] == 1
    for volume, wanted in ((full, [2]), (half_empty, [0, 1])):
        with pytest.raises(ValueError, match="expected some of those that hold data"):
            select_slices(volume, wanted)
    mask = random_mask(SHAPE[1], 2, 0.25, 0)
    empty = prepare(undersample(half_empty, mask, 0.0, [0]))
    for scan, level, draws, steps in (
        (empty, 0.1, 1, 1),
        (prepared, -0.1, 1, 1),
        (prepared, 0.1, 0, 1),
        (prepared, 0.1, 1, 0),
    ):
        with pytest.raises(ValueError, match="expected levels that are not negative"):
            evaluate(scan, reference_image(full, scan), {}, (level,), draws=draws, steps=steps)


def test_table_json_and_figure_show_every_method(result: Robustness):
    table = robustness_table(result)
    assert len(table.splitlines()) == 2 + 4 * 3 + 4
    assert "strict: bound certified: 0 violations" in table and "unrolled: no bound is known" in table
    content = json.loads(json.dumps(describe_robustness(result), allow_nan=False))
    assert set(content["methods"]) == set(result.curves)
    assert content["methods"]["strict"]["worst_case"][-1]["psnr"] == result.curves["strict"].worst_case[-1].psnr
    figure = robustness_figure(result, "head")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("random") and titles[1].startswith("worst case")
    assert len([title for title in titles if title.startswith("5 x error")]) == 4
    for axes, curves in ((figure.axes[0], 2 * 4), (figure.axes[1], 2 * 4)):
        assert len(axes.get_lines()) == curves


def test_the_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, model in (("strict", MOL(small_network())), ("unrolled", MoDL(small_network(), n_unrolls=2))):
        save(model, tmp_path / f"{name}.safetensors", {})
    models = [str(tmp_path / f"{name}.safetensors") for name in ("strict", "unrolled")]
    command = ["robustness", str(path), "--accel", "2", "--center-fraction", "0.25", "--slices", "1", "--seed", "3"]
    command += ["--levels", "0.05", "--steps", "1", "--draws", "1", "--models", *models, "--device", "cpu"]
    files = ["--json", str(tmp_path / "numbers.json"), "--figure", str(tmp_path / "figure.png")]
    assert main([*command, *files]) == 0
    assert "certified: 0 violations" in capsys.readouterr().out
    content = json.loads((tmp_path / "numbers.json").read_text())
    assert list(content["methods"]) == ["zero-filled", "cg-sense", "strict", "unrolled"]
    assert content["levels"] == [0.0, 0.05] and content["slices"] == [1]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--models", models[1], "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["methods"] == {
        k: v for k, v in content["methods"].items() if k != "strict"
    }
    # Two files of one name are two models, and one file twice is a mistake.
    (tmp_path / "other").mkdir()
    save(MoDL(small_network(), n_unrolls=1), tmp_path / "other" / "unrolled.safetensors", {})
    same_name = [models[1], str(tmp_path / "other" / "unrolled.safetensors")]
    assert main([*command, "--models", *same_name, "--json", "-"]) == 0
    assert list(json.loads(capsys.readouterr().out)["methods"]) == ["zero-filled", "cg-sense", *same_name]
    assert main([*command, "--models", models[0], models[0]]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main([*command, "--slices", "7"]) == 2
    assert "hold data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--levels", "0.1,-1"])


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="needs measured data (MOLRECON_DATA)")
def test_a_strip_of_the_real_brain_keeps_the_certificate_and_nearly_uses_it_up():
    full = read_npy(Path(os.environ["MOLRECON_DATA"]) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy")
    strip = crop_readout(torch.from_numpy(full.kspace), 8).numpy()
    full = replace(full, kspace=strip, recon_shape=(8, 180))
    scan = prepare(undersample(full, random_mask(180, 4, 24 / 180, 0), 0.0, [0]))
    methods = {"strict": load(DEFAULT_MODEL, MOL)}
    found = evaluate(scan, reference_image(full, scan), methods, (0.02,), draws=1, steps=3)
    worst = found.curves["strict"].worst_case[-1]
    assert found.curves["strict"].violations == 0 and found.curves["strict"].converged
    assert worst.tightness is not None and worst.tightness > 0.3


def test_a_fixed_number_of_steps_begins_where_it_always_does() -> None:
    """A method without a tolerance would give another image from another start."""
    starts: list[Tensor | None] = []

    class Descent(Reconstructor):
        def _solve(self, kspace: Tensor, operator: Any, conditioning: Any, start: Any, solver: Any) -> Solution:
            starts.append(start)
            return unbounded_solution(operator.adjoint(kspace), 1)

    operator = Sense(torch.ones(1, 1, 8, 8, dtype=torch.complex64), torch.ones(1, 1, 8, dtype=torch.bool))
    kspace = torch.ones(1, 1, 8, 8, dtype=torch.complex64)
    method = ConditionedMethod(Descent().eval(), kspace, operator, 0.0, hold_guide=True)
    method.solve(kspace, torch.zeros(1, 8, 8, dtype=torch.complex64))
    method.ascend(kspace)
    assert starts == [None, None]
