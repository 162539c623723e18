from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.io import RawVolume, read_volume, write_cfl
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet
from molrecon.reconstructors.mol import MOL
from molrecon.scans.cohort import reconstruct_cohort, reconstruct_file
from molrecon.scans.comparison import CG_GRID, Comparison, reference_image, root_sum_of_squares, undersample
from molrecon.scans.manifest import Entry
from molrecon.scans.metrics import psnr
from molrecon.scans.outputs import output_names, output_paths, write_outputs
from molrecon.scans.preparation import prepare, read_maps
from molrecon.scans.reconstruction import reconstruct_prepared, reconstruct_volume, solve_slices
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, describe_sampling, make_sidecar, plain, write_json
from molrecon.simulation.phantom import write_phantom
from molrecon.solvers.solution import Solution, unbounded_solution
from operators import LinearOperator, centred_fft, centred_ifft, random_mask
from operators.hybrid import crop_readout

SHAPE = (40, 36)
SOURCE = ModelSource("untrained", "0" * 64)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "head.h5"
    return write_phantom(path, slices=2, coils=4, shape=SHAPE, noise_level=0.01)


@pytest.fixture(scope="module")
def full(sample: Path) -> RawVolume:
    return read_volume(sample)


@pytest.fixture(scope="module")
def scan(full: RawVolume) -> RawVolume:
    return undersample(full, random_mask(SHAPE[1], 2, 0.25, 0), 0.0, [0])


@pytest.fixture
def model() -> MOL:
    return MOL(ResidualNetwork(monotonicity=0.2, channels=4, features=8, levels=2, cycles=1)).eval()


def test_cropping_the_readout_is_exact_and_keeps_the_units():
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(2, 3, 20, 9, dtype=torch.complex128, generator=generator)
    image = centred_ifft(kspace, (-2, -1))[..., 5:15, :]
    cropped = crop_readout(kspace, 10)
    assert (centred_ifft(cropped, (-2, -1)) - image).abs().max() < 1e-12
    assert (cropped - centred_fft(image, (-2, -1))).abs().max() < 1e-12


def test_cropping_the_readout_keeps_columns_apart():
    kspace = torch.zeros(1, 1, 20, 9, dtype=torch.complex64)
    kspace[..., 4] = 1
    assert (crop_readout(kspace, 10).abs().amax(dim=(0, 1, 2)) > 0).tolist() == [k == 4 for k in range(9)]


def test_the_noise_level_is_found_on_the_oversampled_readout(scan: RawVolume):
    prepared = prepare(scan)
    assert prepared.noise_estimated
    assert prepared.noise_level == pytest.approx(0.01, rel=0.15)
    assert prepared.kspace.shape == (2, 4, *SHAPE)
    assert prepared.sampling_mask.shape == (1, 1, SHAPE[1])


def test_the_pipeline_delivers_the_equilibrium_with_its_bound(scan: RawVolume, model: MOL):
    result = reconstruct_volume(scan, model)
    assert result.image.shape == (2, *SHAPE)
    assert result.image.dtype == np.float32
    assert result.voxel_size == scan.voxel_size
    assert result.converged.all()
    assert (result.error_bound <= model.solver.tol).all()
    assert [len(history) for history in result.residuals] == [n + 1 for n in result.n_steps]
    prepared = prepare(scan)
    with torch.no_grad():
        direct = model(prepared.kspace, prepared.operator(slice(None)), noise_level=prepared.noise_level)
    scale = np.abs(result.image).max()
    assert np.abs(prepared.magnitude(direct.value) - result.image).max() < 1e-3 * scale


def test_a_fully_sampled_scan_comes_back_in_the_units_of_the_reference(full: RawVolume, model: MOL):
    result = reconstruct_volume(full, model)
    assert full.reference is not None
    assert psnr(full.reference, result.image) > 22
    assert np.median(result.image / full.reference) == pytest.approx(1, abs=0.1)


def test_the_batch_size_does_not_matter(scan: RawVolume, model: MOL):
    one, two = (reconstruct_volume(scan, model, batch_size=size).image for size in (1, 2))
    assert np.abs(one - two).max() < 1e-3 * one.max()
    with pytest.raises(ValueError, match="batch_size is 0"):
        reconstruct_volume(scan, model, batch_size=0)


def test_slices_side_by_side_are_those_one_by_one(scan: RawVolume, model: MOL):
    kspace = np.concatenate([scan.kspace, 3 * scan.kspace[::-1]])
    several = replace(scan, kspace=kspace, reference=None)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = reconstruct_volume(several, model)
        torch.set_num_threads(2)
        together = reconstruct_volume(several, model, batch_size=4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(together.image, alone.image, atol=1e-4 * alone.image.max())
    np.testing.assert_allclose(together.scale, alone.scale, rtol=1e-5)
    assert together.converged.all() and (together.n_steps > 0).all()


def test_a_slice_without_data_is_delivered_as_zeros_and_flagged(scan: RawVolume, model: MOL):
    kspace = scan.kspace.copy()
    kspace[0] = 0
    result = reconstruct_volume(replace(scan, kspace=kspace), model)
    assert result.empty.tolist() == [True, False]
    assert not result.image[0].any() and result.image[1].any()
    assert result.converged.all() and result.n_steps[0] == 0 and result.error_bound[0] == 0


def test_the_last_residual_comes_on_demand(scan: RawVolume, model: MOL):
    prepared = prepare(scan)
    plain = reconstruct_prepared(prepared, model)
    result = reconstruct_prepared(prepared, model, keep_residual=True)
    assert plain.last_residual is None and result.last_residual is not None
    assert result.last_residual.shape == result.image.shape and result.last_residual.dtype == np.float32
    assert np.array_equal(plain.image, result.image)
    # The bound is |r| / (m |x|), with all columns of the readout and what rounding adds.
    size = np.linalg.norm(result.last_residual, axis=(1, 2)) / np.linalg.norm(result.image, axis=(1, 2))
    bound = result.certificate.monotonicity * result.error_bound
    assert (size > 0.5 * bound).all() and (size < 1.5 * bound).all()


def test_callbacks_of_a_call_are_no_part_of_the_settings(model: MOL):
    watched = replace(model.solver, on_step=print, on_backward=print, keep_residual=True)
    assert Settings(solver=watched).sha256(model) == Settings(solver=model.solver).sha256(model)
    assert Settings(solver=replace(model.solver, tol=0.1)).sha256(model) != Settings().sha256(model)


def test_non_convergence_is_reported(scan: RawVolume, model: MOL):
    model.solver = replace(model.solver, max_steps=1)
    result = reconstruct_volume(scan, model)
    assert not result.converged.any()
    assert (result.error_bound > model.solver.tol).all()


def test_given_maps_are_used_on_either_grid(scan: RawVolume, tmp_path: Path):
    maps = prepare(scan).sensitivity_maps.numpy()
    np.save(tmp_path / "maps.npy", maps)
    wide = np.zeros((len(maps), maps.shape[2], 2 * SHAPE[0], SHAPE[1]), np.complex64)
    wide[..., SHAPE[0] // 2 : SHAPE[0] // 2 + SHAPE[0], :] = maps[:, 0]
    write_cfl(tmp_path / "wide.cfl", wide.transpose(2, 3, 0, 1))  # rows, cols, slices, coils
    for name in ("maps.npy", "wide.cfl"):
        prepared = prepare(scan, maps=read_maps(tmp_path / name), noise_level=0.02)
        assert np.array_equal(prepared.sensitivity_maps.numpy(), maps)
        assert prepared.maps_source.method == "given"
        assert (prepared.noise_level, prepared.noise_estimated) == (0.02, False)
    assert np.array_equal(prepare(scan, maps=maps[:1]).sensitivity_maps[1].numpy(), maps[0])


@pytest.mark.parametrize("shape", [(2, 3, *SHAPE), (4, *SHAPE), (2, 4, 39, 36)])
def test_maps_that_do_not_fit_are_refused(scan: RawVolume, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"sensitivity maps .* expected \(2 or 1, 4, 40 or 80, 36\)"):
        prepare(scan, maps=np.ones(shape, np.complex64))


def test_the_magnitude_does_not_depend_on_the_normalisation_of_the_maps(scan: RawVolume):
    maps = prepare(scan).sensitivity_maps.numpy()
    image = torch.ones(2, *SHAPE, dtype=torch.complex64)
    small, large = (prepare(scan, maps=factor * maps) for factor in (1, 3))
    assert np.allclose(small.magnitude(image), large.magnitude(image / 3))


def test_a_single_coil_has_maps_of_ones(full: RawVolume, model: MOL):
    single = replace(full, kspace=np.ascontiguousarray(full.kspace[:, :1]))
    prepared = prepare(single)
    assert prepared.maps_source.method == "ones"
    assert reconstruct_prepared(prepared, model).image.shape == (2, *SHAPE)


def test_a_mask_of_rows_and_columns_leaves_the_readout_alone(full: RawVolume, model: MOL):
    kspace = centred_fft(centred_ifft(torch.from_numpy(full.kspace), (-2,))[..., 20:60, :], (-2,)).numpy()
    mask = np.random.default_rng(0).random(SHAPE) < 0.5
    mask[8:32, 6:30] = True
    plane = replace(
        full, kspace=kspace * mask + np.complex64(0), sampling_mask=mask, reference=None, reference_kind=None
    )
    prepared = prepare(plane)
    assert prepared.sampling_mask.shape == (1, *SHAPE)
    assert reconstruct_prepared(prepared, model).converged.all()
    assert describe_sampling(plane)["kind"] == "rows and columns"


def test_a_gpu_without_memory_gets_smaller_batches(scan: RawVolume, monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def method(kspace: torch.Tensor, _: object) -> Solution:
        sizes.append(len(kspace))
        if len(kspace) > 1:
            raise torch.OutOfMemoryError("full")
        ones = torch.ones(1)
        return Solution(kspace[:, 0], ones, ones[None], ones > 0, ones.long())

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # the CPU makes no batches where it has several threads
    solutions = solve_slices(method, prepare(scan), batch_size=2)
    assert sizes == [2, 1, 1]
    assert solutions.n_steps.tolist() == [1, 1]


def test_the_five_outputs_and_what_the_sidecar_says(scan: RawVolume, model: MOL, tmp_path: Path):
    prepared = prepare(scan)
    result = reconstruct_prepared(prepared, model)
    written = write_outputs(tmp_path, "head", prepared, result, SOURCE, "1" * 64)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["head.h5", "head.html", "head.json", "head.nii.gz", "head.png"]
    assert written == output_paths(tmp_path, "head")
    text = written[-1].read_text()
    sidecar = json.loads(text)
    assert sidecar["input"]["sha256"] == scan.sha256
    assert sidecar["model"] == {"name": "untrained", "weights_sha256": "0" * 64, "method": "MOL"}
    assert sidecar["settings_sha256"] == "1" * 64
    assert sidecar["sampling"]["columns"] == np.flatnonzero(scan.sampling_mask).tolist()
    assert sidecar["sampling"]["acceleration"] == pytest.approx(SHAPE[1] / scan.sampling_mask.sum(), abs=1e-3)
    assert sidecar["sensitivity_maps"]["method"] == "espirit"
    assert sidecar["solver"] == {"tol": model.solver.tol, "max_steps": model.solver.max_steps}
    assert sidecar["certificate"]["kind"] == "certified"
    assert [entry["index"] for entry in sidecar["slices"]] == [0, 1]
    assert all(entry["converged"] and entry["scale"] > 0 for entry in sidecar["slices"])
    assert set(sidecar["versions"]) >= {"molrecon", "torch", "numpy", "python", "platform"}
    assert "patient" not in text and "phantom-0" not in text


def test_zero_padded_columns_do_not_count_as_acceleration(full: RawVolume):
    padded = replace(full, attributes={"padding_left": 6, "padding_right": 30})
    assert describe_sampling(padded)["acceleration"] == 1


def test_json_has_no_number_that_is_not_one(tmp_path: Path):
    content = plain({"a": np.float32("nan"), "b": np.array([1, 2]), "c": (np.bool_(True), float("inf"))})
    assert content == {"a": None, "b": [1, 2], "c": [True, None]}
    write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == content


def test_output_names_are_never_shared():
    names = output_names([Path("/a/day1/scan.h5"), Path("/a/day2/scan.h5"), Path("/a/day2/other.h5")])
    assert names == ["day1_scan", "day2_scan", "other"]
    assert output_names([Path("/a/x/d/scan.h5"), Path("/a/y/d/scan.h5")]) == ["x_d_scan", "y_d_scan"]
    assert output_names([Path("/a/scan.h5"), Path("/a/scan.npy")]) == ["scan_h5", "scan_npy"]
    assert len(set(output_names([Path("/a/b_c.h5"), Path("/a/b/c.h5"), Path("/d/c.h5")]))) == 3
    with pytest.raises(ValueError, match="listed 2 times"):
        output_names([Path("/a/scan.h5"), Path("/a/b/../scan.h5")])


def test_a_cohort_goes_on_after_bad_volumes(sample: Path, model: MOL, tmp_path: Path):
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"no HDF5")
    lone = tmp_path / "lone.npy"
    np.save(lone, np.zeros((3, 4), np.complex64))
    out = tmp_path / "out"
    seen: list[Entry] = []
    entries = reconstruct_cohort([bad, sample, lone], out, model, SOURCE, Settings(), report=seen.append)
    assert [entry.status for entry in entries] == ["unreadable", "ok", "unreadable"]
    assert seen == entries
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["inputs"] == 3
    assert manifest["counts"] == {"ok": 1, "not converged": 0, "incomplete": 0, "unreadable": 2, "failed": 0}
    assert [item["status"] for item in manifest["volumes"]] == ["unreadable", "ok", "unreadable"]
    assert "bad.h5" in manifest["volumes"][0]["message"]
    assert all(Path(path).is_file() for path in manifest["volumes"][1]["outputs"])
    assert len(list(out.iterdir())) == 9  # five of the volume, records, lists, manifest.json, index.html
    assert sorted(path.stem for path in (out / "records").glob("*.json")) == ["bad", "head", "lone"]
    assert [path.name for path in (out / "records").glob("*.webp")] == ["head.webp"]


def test_a_volume_that_fails_leaves_nothing_behind(sample: Path, model: MOL, tmp_path: Path):
    settings = Settings(maps=np.ones((1, 7, 5, 5), np.complex64))
    (entry,) = reconstruct_cohort([sample], tmp_path / "out", model, SOURCE, settings)
    assert entry.status == "failed"
    assert "sensitivity maps" in entry.message
    names = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.parent.name != "lists")
    assert names == ["head.json", "index.html", "lists", "manifest.json", "records"]


def test_existing_outputs_are_replaced_or_kept_on_demand(sample: Path, model: MOL, tmp_path: Path):
    first = reconstruct_cohort([sample], tmp_path, model, SOURCE, Settings())
    page = tmp_path / "head.png"
    page.write_bytes(b"older")
    (kept,) = reconstruct_cohort([sample], tmp_path, model, SOURCE, Settings(), resume=True)
    assert kept.skipped and kept.status == "ok" and kept.outputs == first[0].outputs
    assert page.read_bytes() == b"older"
    (tmp_path / "head.json").unlink()
    (again,) = reconstruct_cohort([sample], tmp_path, model, SOURCE, Settings(), resume=True)
    assert not again.skipped
    assert page.read_bytes() != b"older"


def test_an_input_is_never_replaced(sample: Path, model: MOL):
    before = sample.read_bytes()
    with pytest.raises(ValueError, match="would replace an input"):
        reconstruct_cohort([sample], sample.parent, model, SOURCE, Settings())
    assert sample.read_bytes() == before
    assert list(sample.parent.iterdir()) == [sample]


def test_an_input_cannot_take_the_place_of_the_manifest(model: MOL, tmp_path: Path):
    with pytest.raises(ValueError, match="another name"):
        reconstruct_cohort([tmp_path / "manifest.npy"], tmp_path / "out", model, SOURCE, Settings())


def test_undersampling_keeps_what_was_measured(full: RawVolume):
    mask = random_mask(SHAPE[1], 2, 0.25, 0)
    scan = undersample(full, mask, 0.0, [0])
    assert np.array_equal(scan.kspace[..., mask], full.kspace[..., mask])
    assert not scan.kspace[..., ~mask].any()
    assert not np.signbit(scan.kspace[..., ~mask].real).any()
    with pytest.raises(ValueError, match="expected a fully sampled scan"):
        undersample(scan, mask, 0.0, [0])
    with pytest.raises(ValueError, match="mask"):
        undersample(full, mask[1:], 0.0, [0])


def test_added_noise_has_the_level_that_was_asked_for(full: RawVolume):
    mask = np.ones(SHAPE[1], dtype=bool)
    noise = undersample(full, mask, 0.3, [1, 2]).kspace - full.kspace
    assert np.sqrt(np.mean(np.abs(noise) ** 2)) == pytest.approx(0.3, rel=0.02)
    again = undersample(full, mask, 0.3, [1, 2]).kspace - full.kspace
    assert np.array_equal(noise, again)


def test_references_of_a_comparison(full: RawVolume, scan: RawVolume):
    assert full.reference is not None
    assert np.allclose(root_sum_of_squares(full), full.reference, rtol=1e-4, atol=1e-5)
    prepared = prepare(scan)
    assert np.array_equal(reference_image(full, prepared), root_sum_of_squares(full))
    combined = reference_image(replace(full, reference=None, reference_kind=None), prepared)
    inside = prepared.sensitivity_maps.abs().sum((1, 2)).numpy() > 0
    assert psnr(full.reference * inside, combined) > 30


def test_comparing_methods(full: RawVolume, scan: RawVolume, model: MOL):
    prepared = prepare(scan)
    comparison = Comparison(prepared, full)
    zero, cg = comparison.zero_filled, comparison.score("cg-sense", CGSense(0.01))
    best = comparison.tuned("cg-sense", CGSense, CG_GRID)
    assert (zero.score.iterations, zero.score.error_bound, zero.score.converged) == (0, None, None)
    assert cg.score.psnr > zero.score.psnr
    assert best.score.psnr >= cg.score.psnr - 0.3 and best.regularisation is not None
    result = reconstruct_prepared(prepared, model)
    assert comparison.reconstruction(result).score.psnr == pytest.approx(
        comparison.score("mol", model).score.psnr, abs=0.01
    )
    assert (zero.score.kind, cg.score.kind, comparison.score("mol", model).score.kind) == ("none", *["certified"] * 2)


def test_a_method_that_diverged_is_marked(full: RawVolume, scan: RawVolume):
    class Diverged(Reconstructor):
        def _solve(self, kspace: Tensor, operator: LinearOperator, *unused: object) -> Solution:
            return unbounded_solution(5 * operator.adjoint(kspace))

    comparison = Comparison(prepare(scan), full)
    assert comparison.score("diverged", Diverged()).score.worse_than_zero_filled
    assert not comparison.zero_filled.score.worse_than_zero_filled


def test_without_a_reference_in_the_file_the_root_sum_of_squares_is_compared_with_too(full: RawVolume, scan: RawVolume):
    assert Comparison(prepare(scan), full).zero_filled.score.psnr_rss is None
    combined = Comparison(prepare(scan), replace(full, reference=None, reference_kind=None)).zero_filled.score
    assert combined.psnr_rss == pytest.approx(Comparison(prepare(scan), full).zero_filled.score.psnr)
    assert combined.ssim_rss is not None and combined.psnr != combined.psnr_rss


def test_the_file_in_one_call(sample: Path, model: MOL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("molrecon.scans.cohort.run.load_method", lambda name: (model, ModelSource(name, "0" * 64)))
    result = reconstruct_file(sample, tmp_path / "out", model="mine")
    assert result.converged.all()
    assert json.loads((tmp_path / "out" / "head.json").read_text())["model"]["name"] == "mine"
    assert reconstruct_file(sample).image.shape == result.image.shape
    assert make_sidecar(prepare(read_volume(sample)), result, SOURCE)["input"]["fully_sampled"] is True


def test_a_folded_scan_gets_two_sets_of_maps_and_is_better_for_it(tmp_path: Path):
    full = read_volume(write_phantom(tmp_path / "head.h5", slices=1, shape=(96, 80), coils=8))
    kspace = np.ascontiguousarray(full.kspace[..., ::2])
    folded = replace(full, kspace=kspace, sampling_mask=np.ones((1, 1, 40), bool), recon_shape=(96, 40), reference=None)
    folded = replace(folded, reference_kind=None)
    mask = random_mask(40, 2, 0.4, 0)
    truth = root_sum_of_squares(folded)
    scan = undersample(folded, mask, 0.0, [0])
    scores = []
    for sets in (1, None):
        prepared = prepare(scan, map_sets=sets)
        result = reconstruct_prepared(prepared, CGSense())
        scores.append(psnr(truth, result.image))
    assert prepared.sets == 2 and prepared.maps_source.detail["sets"] == 2 and result.kind == "certified"
    assert scores[1] > scores[0] + 2
    assert prepared.first_set().operator([0]).sets is None
    # Methods that take one set get the first one.
    assert reconstruct_prepared(prepared, L1Wavelet()).image.shape == (1, 96, 40)
    np.save(tmp_path / "maps.npy", prepared.sensitivity_maps.numpy())
    given = prepare(scan, maps=read_maps(tmp_path / "maps.npy"))
    assert np.array_equal(given.sensitivity_maps.numpy(), prepared.sensitivity_maps.numpy())
    with pytest.raises(ValueError, match="map_sets is 3, expected 1, 2 or None"):
        prepare(scan, map_sets=3)
