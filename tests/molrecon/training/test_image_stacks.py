"""Image stacks: every format gives the same slices, bad files say what is wrong, and scans follow their seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from molrecon.io import UnreadableInput
from molrecon.io.images import write_image
from molrecon.simulation.problem import Problem
from molrecon.training.image_stacks import Scans, hold_out, read_stack


def stack(slices: int = 5) -> np.ndarray:
    """Return boxes (slices, 40, 36) uint8, the last slice nearly empty."""
    images = np.zeros((slices, 40, 36), np.uint8)
    for i, image in enumerate(images):
        image[6:32, 5 : 20 + 2 * i] = 150
        image[12:20, 10:16] = 250
    images[-1] //= 50
    return images


def test_all_formats_give_the_same_slices(tmp_path: Path) -> None:
    images = stack()
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images)
    for name in ("c.nii", "d.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(images, 0, -1), np.eye(4)), tmp_path / name)
    (tmp_path / "e").mkdir()
    for i, image in enumerate(images):
        write_image(tmp_path / "e" / f"{i}.png", np.repeat(image[..., None], 3, 2) if i == 1 else image)
    for path in tmp_path.iterdir():
        found = read_stack(path)
        assert len(found) == 4  # the last slice is left out
        for one, expected in zip(found, images, strict=False):
            np.testing.assert_array_equal(one, expected)
    np.save(tmp_path / "f.npy", (images[0] * 1j).astype(np.complex64))
    assert read_stack(tmp_path / "f.npy")[0].dtype == np.complex64
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 30, 40), np.float32), np.eye(4)), tmp_path / "g.nii")
    assert [one.shape for one in read_stack(tmp_path / "g.nii", axis=1)] == [(20, 40)] * 30


def bad_files() -> dict[str, Callable[[Path], object]]:
    """Return name -> a function that writes it, in the order of MESSAGES."""
    images = stack()
    volume = nibabel.Nifti1Image(np.zeros((20, 20, 20, 2), np.uint8), np.eye(4))
    reim = np.zeros((3, 2, 20, 20), np.int16)
    nan = np.full((2, 20, 20), np.nan)

    def cut(path: Path) -> None:
        np.save(path, images)
        path.write_bytes(path.read_bytes()[:-100])

    def cut_volume(path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(images, np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:-20])

    def folder(path: Path) -> None:
        path.mkdir()
        write_image(path / "0.png", images[0])
        (path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")

    return {
        "missing.npy": lambda path: None,
        "text.npy": lambda path: path.write_text("hello"),
        "cut.npy": cut,
        "objects.npy": lambda path: np.save(path, np.array([{}, 1]), allow_pickle=True),
        "reim.npz": lambda path: np.savez(path, x=reim),
        "two.npz": lambda path: np.savez(path, x=images, y=images),
        "nan.npy": lambda path: np.save(path, nan),
        "zero.npy": lambda path: np.save(path, np.zeros((2, 20, 20))),
        "small.npy": lambda path: np.save(path, np.ones((2, 20, 5))),
        "time.nii": lambda path: nibabel.save(volume, path),
        "cut.nii.gz": cut_volume,
        "scan.dcm": lambda path: path.write_text("x"),
        "empty": lambda path: path.mkdir(),
        "folder": folder,
    }


MESSAGES = {
    "missing.npy": "FileNotFoundError",
    "text.npy": "found ValueError",
    "cut.npy": "found ValueError",
    "objects.npy": "found ValueError",
    "reim.npz": r"shape \(3, 2, 20, 20\), dtype int16, expected an array \(slices, rows, cols\)",
    "two.npz": r"2 arrays \['x', 'y'\], expected one array",
    "nan.npy": "slice 0 with NaN or infinity",
    "zero.npy": "2 slices that are zero everywhere",
    "small.npy": r"slice 0 of shape \(20, 5\), expected 16 x 16",
    "time.nii": r"shape \(20, 20, 20, 2\)",
    "cut.nii.gz": "EOFError",
    "scan.dcm": "another kind of file, expected a .npy",
    "empty": "a folder without .png",
    "folder": "1.png: found",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_bad_files_say_what_is_wrong(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    bad_files()[name](path)
    with pytest.raises(UnreadableInput, match=MESSAGES[name]) as error:
        read_stack(path)
    assert str(error.value).startswith(str(path))


def test_hold_out_leaves_a_gap() -> None:
    slices = [np.full((2, 2), i) for i in range(20)]
    training, validation = hold_out(slices, 0.2)
    assert [int(s[0, 0]) for s in validation] == [16, 17, 18, 19]
    assert [int(s[0, 0]) for s in training] == list(range(14))
    assert [len(part) for part in hold_out(slices[:3])] == [1, 1]
    with pytest.raises(ValueError, match="2 slices"):
        hold_out(slices[:2])


def equal(first: Problem, second: Problem) -> bool:
    pairs = [
        (first.kspace, second.kspace),
        (first.operator.sensitivity_maps, second.operator.sensitivity_maps),
        (first.operator.sampling_mask, second.operator.sampling_mask),
        (first.reference, second.reference),
        (first.noise_level, second.noise_level),
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def make_scans(seed: int = 0, coils: int = 8) -> Scans:
    slices = list(stack()[:-1])
    return Scans([slices, slices[:2]], [slices, slices[2:]], size=48, rows=8, first=2, seed=seed, coils=coils)


def test_scans() -> None:
    scans, late = make_scans(), make_scans()
    first = scans.draw(np.random.default_rng(1), 0)
    assert first.kspace.shape == (2, 8, 8, 48) and len(scans.bank) == 2
    scans.draw(np.random.default_rng(1), 16)
    late.draw(np.random.default_rng(1), 16)
    assert len(scans.bank) == 4
    assert equal(scans.draw(np.random.default_rng(2), 17), late.draw(np.random.default_rng(2), 17))
    (fixed,), (again,), (other,) = (one.problems(1) for one in (scans, late, make_scans(seed=1)))
    assert fixed.reference.shape == (1, 16, 48) and equal(fixed, again) and not equal(fixed, other)
    assert "6 slices (validation: 6)" in scans.describe() and "strips of 8 rows" in scans.describe()
    with pytest.raises(ValueError, match="expected some to train on"):
        Scans([[]], [list(stack())])
    with pytest.raises(ValueError, match="coils 2, expected"):
        make_scans(coils=2)


def test_the_random_stream_of_the_packaged_training() -> None:
    # The packaged 2D models were trained on these draws: another stream could not bring them back.
    scans = make_scans()
    drawn = [scans.draw(np.random.default_rng([0, step]), step) for step in (0, 1, 9)] + scans.problems(2)
    levels = [float(level) for problem in drawn for level in problem.noise_level]
    lines = [int(mask.sum()) for problem in drawn for mask in problem.operator.sampling_mask]
    a, b, c, d = 0.00479013, 0.021339627, 0.008902295, 0.00191135
    assert levels == pytest.approx([a, a, a, a, b, a, c, d], rel=1e-6)
    assert lines == [84, 64, 7, 9, 7, 13, 10, 18]
    assert float(torch.linalg.vector_norm(drawn[0].kspace)) == pytest.approx(7.824934, rel=1e-4)
