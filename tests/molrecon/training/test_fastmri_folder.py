"""fastMRI folders: bad files are listed, slices are read as they are drawn, and problems are what they say."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.io import UnreadableInput
from molrecon.simulation.phantom import write_phantom
from molrecon.simulation.problem import Problem
from molrecon.training.fastmri_folder import FastMRIFolder
from molrecon.training.fastmri_slices import SliceCache
from molrecon.training.self_supervised import split

SHAPE = (48, 56)
COILS = 4


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a fully sampled fastMRI file, 3 slices of 48 x 56 by 4 coils."""
    return write_phantom(tmp_path_factory.mktemp("sample") / "a.h5", 3, COILS, SHAPE).read_bytes()


@pytest.fixture
def folder(tmp_path: Path, sample: bytes) -> Path:
    """Return a folder of two good files."""
    for name in ("file1.h5", "file2.h5"):
        (tmp_path / name).write_bytes(sample)
    return tmp_path


def edited(path: Path, sample: bytes, change: Callable[[h5py.File], object]) -> Path:
    path.write_bytes(sample)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    """Return what replaces the kspace of an open file."""

    def apply(file: h5py.File) -> None:
        kspace = change(file["kspace"][()])
        del file["kspace"]
        file["kspace"] = kspace

    return apply


def undersampled(kspace: np.ndarray) -> np.ndarray:
    kspace = kspace.copy()
    columns = np.arange(kspace.shape[-1])
    kspace[..., (columns % 3 != 0) & (abs(columns - SHAPE[1] // 2) > 6)] = 0
    return kspace


def padded(kspace: np.ndarray) -> np.ndarray:
    kspace = kspace.copy()
    kspace[..., :6] = 0
    return kspace


def tensors(problem: Problem) -> list[Tensor]:
    operator = problem.operator
    return [problem.kspace, operator.sensitivity_maps, operator.sampling_mask, problem.reference, problem.noise_level]


def same(first: Problem, second: Problem) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def test_bad_files_are_listed(folder: Path, sample: bytes, caplog: pytest.LogCaptureFixture) -> None:
    expected = {
        "a_cut.h5": "truncated",
        "b_text.h5": "file signature not found",
        "c_no_kspace.h5": "no kspace among",
        "d_real.h5": "expected a complex dataset",
        "e_single.h5": "two coils or more",
        "f_test.h5": "undersampled data, 28 of 56 columns",
        "g_header.h5": "expected an ISMRMRD XML header",
        "h_empty.h5": "no data in the middle",
        "i_narrow.h5": "40 columns, expected 46 or more",
    }
    (folder / "a_cut.h5").write_bytes(sample[: len(sample) // 2])
    (folder / "b_text.h5").write_text("not HDF5")
    edited(folder / "c_no_kspace.h5", sample, lambda file: file.pop("kspace") and None)
    edited(folder / "d_real.h5", sample, replaced(lambda kspace: kspace.real))
    edited(folder / "e_single.h5", sample, replaced(lambda kspace: kspace[:, 0]))
    edited(folder / "f_test.h5", sample, replaced(undersampled))
    edited(folder / "g_header.h5", sample, lambda file: file["ismrmrd_header"].write_direct(np.array(b"<x")) and None)
    edited(folder / "h_empty.h5", sample, replaced(lambda kspace: 0 * kspace))
    write_phantom(folder / "i_narrow.h5", 1, COILS, (48, 40))
    (folder / "notes.txt").write_text("not a scan")
    with caplog.at_level(logging.WARNING):
        data = FastMRIFolder(folder, rows=12)
    assert {path.name: why for path, why in data.rejected}.keys() == expected.keys()
    for path, why in data.rejected:
        assert expected[path.name] in why, (path.name, why)
        assert path.name in caplog.text
    assert [file.path.name for file in (*data.files, *data.held_out)] == ["file1.h5", "file2.h5"]
    assert "9 files or slices unusable" in data.describe()


def test_nothing_left(tmp_path: Path, sample: bytes) -> None:
    with pytest.raises(UnreadableInput, match="no such folder"):
        FastMRIFolder(tmp_path / "nowhere")
    with pytest.raises(UnreadableInput, match=r"no \.h5 files"):
        FastMRIFolder(tmp_path)
    (tmp_path / "a.h5").write_bytes(sample[:1000])
    with pytest.raises(UnreadableInput, match=r"1 files, none of them usable \(a.h5: found OSError"):
        FastMRIFolder(tmp_path)
    (tmp_path / "a.h5").write_bytes(sample)
    with pytest.raises(UnreadableInput, match="1 usable file to train on, expected two or more, or a folder"):
        FastMRIFolder(tmp_path)
    assert FastMRIFolder(tmp_path, tmp_path).held_out
    with pytest.raises(ValueError, match=r"accelerations \(8, 4\)"):
        FastMRIFolder(tmp_path, accelerations=(8, 4))


@pytest.mark.parametrize("rows", [12, None])
def test_problems_are_what_they_say(folder: Path, rows: int | None) -> None:
    data = FastMRIFolder(folder, rows=rows, batch=2)
    for seed in range(4):
        problem = data.draw(np.random.default_rng(seed), 0)
        operator = problem.operator
        assert problem.reference.shape == (2, rows or SHAPE[0], SHAPE[1])
        assert problem.kspace.shape == (2, COILS, rows or SHAPE[0], SHAPE[1])
        lines = operator.sampling_mask.sum((1, 2))
        assert operator.sampling_mask.shape == (2, 1, SHAPE[1]) and ((lines >= 8) & (lines <= 18)).all()
        assert operator.sampling_mask[..., SHAPE[1] // 2 - 3 : SHAPE[1] // 2 + 3].all()
        assert 0.5 < float(problem.reference.abs().max()) < 2
        sampled = operator.sampling_mask[:, None].expand(problem.kspace.shape)
        assert not problem.kspace[~sampled].any()
        # What the reference does not explain is the noise added to it: that of its own measurement is in both.
        difference = (problem.kspace - operator(problem.reference)).abs().square()
        for i, level in enumerate(problem.noise_level.tolist()):
            assert 0.008 < level <= 0.03
            unexplained = float(difference[i][sampled[i]].mean().sqrt())
            assert unexplained < 1.2 * level + 0.01
            assert unexplained**2 > 0.6 * (level**2 - 0.012**2)
    assert [len(p.reference[0]) for p in data.problems(2)] == [24 if rows else SHAPE[0]] * 2


def test_the_noise_level_is_known(folder: Path) -> None:
    quiet = FastMRIFolder(folder, rows=None, noise_range=(0.001, 0.001))
    loud = FastMRIFolder(folder, rows=None, noise_range=(0.05, 0.05))
    first, second = (data.draw(np.random.default_rng(0), 0) for data in (quiet, loud))
    # The sample was made with 0.01, and fat is about 1.
    assert float(first.noise_level) == pytest.approx(0.01, rel=0.3)
    assert float(second.noise_level) == pytest.approx(0.05, rel=1e-6)
    sampled = second.operator.sampling_mask[:, None].expand(second.kspace.shape)
    added = (second.kspace - first.kspace)[sampled].abs().square().mean()
    total = float((added + first.noise_level**2).sqrt())
    assert total == pytest.approx(0.05, rel=0.06)


def test_draws_depend_on_the_generator_alone(folder: Path) -> None:
    warm, cold = FastMRIFolder(folder, rows=12), FastMRIFolder(folder, rows=12, cache_bytes=0)
    for seed in range(3):
        warm.draw(np.random.default_rng(seed), seed)
    first, again = (data.draw(np.random.default_rng(1), 1) for data in (warm, cold))
    assert same(first, again) and not same(first, warm.draw(np.random.default_rng(2), 2))
    assert same(warm.problems(3)[1], cold.problems(3)[1])
    copied = copy.deepcopy(warm)  # as processes get it, and with nothing kept
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda seed: copied.draw(np.random.default_rng(seed), 0), [1, 1, 1]))
    assert all(same(first, one) for one in drawn)


def test_a_file_that_turns_bad_is_listed_and_replaced(
    folder: Path, sample: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(kspace: np.ndarray) -> np.ndarray:
        kspace = kspace.copy()
        kspace[0, 1, 3, 4] = np.nan
        kspace[1, :, :, :30:2] = 0
        return kspace

    data = FastMRIFolder(folder, folder, rows=12, cache_bytes=0)
    (folder / "file1.h5").write_bytes(sample[:5000])
    edited(folder / "file2.h5", sample, replaced(spoil))
    with caplog.at_level(logging.WARNING):
        drawn = [data.draw(np.random.default_rng(seed), seed) for seed in range(8)]
    assert len(drawn) == 8 and data.replaced >= 4
    found = ("truncated file", "NaN or infinity in slice 0", "undersampled data, 41 of 56")
    assert len(data.rejected) == 3 and "another slice takes its place" in caplog.text
    assert all(any(text in why for _, why in data.rejected) for text in found)
    # A run that resumes meets the same slices.
    assert same(data.draw(np.random.default_rng(7), 7), drawn[7])
    assert len(data.problems(2)) == 2
    (folder / "file2.h5").unlink()
    with pytest.raises(UnreadableInput, match="unusable slices in a row"):
        data.draw(np.random.default_rng(0), 0)


def test_columns_that_were_never_acquired(folder: Path, sample: bytes) -> None:
    for name in ("file1.h5", "file2.h5"):
        edited(folder / name, sample, replaced(padded))
    data = FastMRIFolder(folder, rows=12)
    assert not data.rejected
    mask = data.draw(np.random.default_rng(0), 0).operator.sampling_mask
    assert not mask[..., :6].any() and mask.any()


def test_files_of_other_coils_never_share_a_batch(folder: Path) -> None:
    write_phantom(folder / "file0.h5", 2, 3, SHAPE)
    data = FastMRIFolder(folder, rows=12, batch=2)
    rng = np.random.default_rng(1)
    coils = {data.draw(rng, step).kspace.shape[1] for step in range(4)}
    assert coils == {3, COILS}


def test_as_measured(folder: Path, sample: bytes) -> None:
    edited(folder / "file1.h5", sample, replaced(undersampled))
    data = FastMRIFolder(folder, rows=12, as_measured=True)
    assert not data.rejected
    problem = data.draw(np.random.default_rng(0), 0)
    assert int(problem.operator.sampling_mask.sum()) == 28
    assert torch.isnan(torch.view_as_real(problem.reference)).all() and torch.isfinite(problem.noise_level).all()
    assert torch.isfinite(torch.view_as_real(problem.kspace)).all()
    with pytest.raises(UnreadableInput, match="none of them usable"):
        validation = folder / "validation"
        validation.mkdir()
        edited(validation / "file1.h5", sample, replaced(undersampled))
        FastMRIFolder(folder, validation, rows=12, as_measured=True)


def test_fully_sampled_files_among_measured_ones_can_be_parted(folder: Path) -> None:
    rng = np.random.default_rng(0)
    problem = FastMRIFolder(folder, rows=12, as_measured=True).draw(rng, 0)
    assert int(problem.operator.sampling_mask.sum()) < SHAPE[1] / 2
    given, loss = split(problem, rng)
    assert given.operator.sampling_mask.sum() < problem.operator.sampling_mask.sum()
    assert torch.isfinite(loss(problem.reference))


def test_kept_values_stay_within_the_limit() -> None:
    kept = SliceCache(3 * 400)
    for i in range(5):
        kept.put((i,), torch.zeros(100))
        assert kept.get((0,)) is not None or i > 3
        kept.get((0,))
    assert [kept.get((i,)) is not None for i in range(5)] == [True, False, False, True, True]
    kept.put((9,), torch.zeros(1000))
    assert kept.get((9,)) is None
