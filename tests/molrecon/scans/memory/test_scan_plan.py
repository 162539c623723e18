"""A scan inside a budget: the whole process keeps to it, the result is the same, and what cannot be done is said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from molrecon.command.parser import main
from molrecon.io import read_volume
from molrecon.io.large_arrays import arrays_on_disk, empty_array, on_disk, planes, release
from molrecon.networks import ResidualNetwork
from molrecon.networks.tiling import Tiled
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.mol import MOL
from molrecon.scans.memory.file_sizes import file_size
from molrecon.scans.memory.network_plan import PROGRAM_BYTES
from molrecon.scans.memory.scan_plan import inside_budget, plan_series
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.scan import Scan
from molrecon.scans.scan_reconstruction import reconstruct_scan
from molrecon.scans.settings import Settings
from molrecon.simulation.phantom import write_phantom

ROOT = Path(__file__).resolve().parents[4]
MIB = 2**20
PROGRAM = """
import sys
import molrecon.scans.reconstruction.report
from molrecon.command.parser import main
from molrecon.scans.data_checks import SliceChecks
molrecon.scans.reconstruction.report.check_slice = lambda *_: SliceChecks()  # a minute of work, a slice at a time
code = main(sys.argv[1:])
print([int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line][0], file=sys.stderr)
sys.exit(code)
"""


def peak_mib(*arguments: str) -> float:
    """Run the command in a process of its own, and return what it held at most; not ru_maxrss: see `volume.py`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not say what a process held")
def test_a_process_keeps_to_a_budget_that_the_scan_would_exceed(tmp_path: Path) -> None:
    slices, coils, rows, cols = 160, 32, 96, 80  # 315 MB
    rng = np.random.default_rng(0)
    one = (rng.normal(size=(coils, rows, cols)) + 1j * rng.normal(size=(coils, rows, cols))).astype(np.complex64)
    one[..., 1::2] = 0
    np.save(tmp_path / "maps.npy", np.full((1, coils, rows, cols), coils**-0.5, np.complex64))
    scan = np.lib.format.open_memmap(tmp_path / "scan.npy", "w+", np.complex64, (slices, coils, rows, cols))
    for k in range(slices):
        scan[k] = (k + 1) * one
    scan.flush()
    shared = ["--maps", str(tmp_path / "maps.npy"), "--noise-level", "0.1", "--model", "zero-filled"]
    command = ["reconstruct", str(tmp_path / "scan.npy"), *shared]
    budget = PROGRAM_BYTES // MIB + 450
    free = peak_mib(*command, "--out", str(tmp_path / "free"))
    held = peak_mib(*command, "--out", str(tmp_path / "held"), "--memory", f"{budget}MiB")
    assert held <= budget < free, (held, free)
    plan = json.loads((tmp_path / "held" / "scan.json").read_text())["memory"]
    assert plan["budget_bytes"] == budget * MIB and "slices at a time, k-space and maps on disk" in plan["plan"]
    images = [nibabel.Nifti1Image.from_filename(tmp_path / name / "scan.nii.gz").dataobj for name in ("free", "held")]
    np.testing.assert_array_equal(np.asarray(images[0]), np.asarray(images[1]))
    assert [path.suffix for path in sorted((tmp_path / "held").glob("scan.*"))] == [
        ".h5",
        ".html",
        ".json",
        ".gz",
        ".png",
    ]


def test_arrays_on_disk_keep_what_is_written_to_them(tmp_path: Path) -> None:
    with arrays_on_disk(tmp_path):
        assert on_disk()
        array = empty_array((4, 2**18), np.complex64)
        for k, plane in enumerate(planes(array)):
            assert not plane.any()
            plane[:] = k + 1j
        release()
        assert isinstance(empty_array((3,), np.float32).base, type(None))  # small ones stay in memory
        assert not list(tmp_path.iterdir())  # the files have no names
    np.testing.assert_array_equal(array.mean(axis=1), np.arange(4) + 1j)
    assert not on_disk() and empty_array((2, 2**20), np.float32).base is None


@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_a_scan_on_disk_is_reconstructed_as_one_in_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_phantom(tmp_path / "scan.h5", 3, 4, (64, 56), 0.01)
    if suffix == ".npy":
        np.save(tmp_path / "scan.npy", read_volume(path).kspace)
        path = tmp_path / "scan.npy"
    monkeypatch.setattr("molrecon.io.large_arrays.SMALLEST", 1)
    expected = reconstruct_scan(Scan.from_arrays(read_volume(path).kspace), CGSense())
    with arrays_on_disk(tmp_path):
        volume = read_volume(path)
        assert not volume.kspace.flags.owndata
        found = reconstruct_scan(Scan.from_arrays(volume.kspace), CGSense())
    np.testing.assert_array_equal(volume.kspace, read_volume(path).kspace)
    np.testing.assert_allclose(found[0].result.image, expected[0].result.image, rtol=1e-5)


def test_a_noise_covariance_and_a_wide_readout_are_handled_slice_by_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read_volume(write_phantom(tmp_path / "scan.h5", 2, 4, (48, 40), 0.01))
    volume = replace(volume, noise_covariance=1e-4 * np.diag([1.0, 2, 3, 4]).astype(complex))
    monkeypatch.setattr("molrecon.io.large_arrays.SMALLEST", 1)
    expected = prepare(volume)
    with arrays_on_disk(tmp_path):
        prepared = prepare(volume)
    for name in ("kspace", "sensitivity_maps"):
        torch.testing.assert_close(getattr(prepared, name), getattr(expected, name))


def prepared(slices: int = 6) -> PreparedVolume:
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(slices, 4, 64, 48)) + 1j).astype(np.complex64)
    return prepare(Scan.from_arrays(kspace, volumetric=True).frames[0].volume, np.ones((1, 4, 64, 48), complex), 1.0)


def test_plans_of_slices_take_fewer_at_a_time_before_they_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.memory.scan_plan.OUTPUT_BYTES", 0)
    scan, model = prepared(), MOL(ResidualNetwork())
    plans = [plan_series(scan, 1, model, "slice", "4GiB", size) for size in (1, 4)]
    assert [plan.batch_size for plan in plans] == [1, 4] and plans[0].total < plans[1].total
    tight = plan_series(scan, 1, model, "slice", plans[1].total - 1, 4)
    assert 1 <= tight.batch_size < 4 and tight.model is model and tight.total <= tight.budget
    with pytest.raises(ValueError, match=r"budget is 0.\d\d GiB, expected 0.\d\d or more for one slice .* program 0"):
        plan_series(scan, 1, model, "slice", PROGRAM_BYTES + 2 * MIB, 4)
    with pytest.raises(ValueError, match="expected a size such as '8GiB'"):
        plan_series(scan, 1, model, "slice", "much", 4)


def test_plans_of_volumes_tile_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.memory.scan_plan.OUTPUT_BYTES", 0)
    network = ResidualNetwork(ndim=3, levels=1, cycles=1, channels=4, features=64)
    scan = prepared(60)
    whole = plan_series(scan, 1, MOL(network), "volume", "8GiB", 2)
    assert whole.choices.startswith("the whole image at once") and isinstance(whole.model, MOL)
    tight = plan_series(scan, 1, MOL(network), "volume", whole.total - 40 * MIB, 2)
    assert isinstance(tight.model, MOL) and isinstance(tight.model.network, Tiled) and "tiles" in tight.describe()
    with pytest.raises(ValueError, match="or more for 60x64x48 with 4 coils"):
        plan_series(scan, 1, MOL(network), "volume", PROGRAM_BYTES + 50 * MIB, 2)
    with pytest.raises(ValueError, match="CGSense sees a volume at a time, expected MOL"):
        plan_series(scan, 1, CGSense(), "volume", "8GiB", 2)


def test_the_plan_is_obeyed_and_told(tmp_path: Path) -> None:
    scan = Scan.from_arrays(prepared(6).volume.kspace, volumetric=True)
    mol = MOL(ResidualNetwork(ndim=3, levels=1, cycles=1, channels=2, features=4, monotonicity=0.3)).eval()
    solver = replace(mol.solver, tol=1e-2)
    settings = Settings(solver=solver, maps=np.full((1, 4, 64, 48), 0.5 + 0j), noise_level=1.0)
    (free,) = reconstruct_scan(scan, mol, settings)
    (found,) = reconstruct_scan(scan, mol, replace(settings, memory=4 * 2**30))
    assert free.plan is None and found.plan is not None and found.plan.budget == 4 * 2**30
    np.testing.assert_allclose(found.result.image, free.result.image, atol=0.02 * free.result.image.max())


def test_what_reading_takes_is_known_before(tmp_path: Path) -> None:
    path = write_phantom(tmp_path / "scan.h5", 3, 4, (64, 56), 0.01)
    size = file_size(path)
    assert size is not None and size.kspace == read_volume(path).kspace.nbytes == 3 * size.plane and size.by_slice
    np.save(tmp_path / "scan.npy", read_volume(path).kspace)
    assert file_size(tmp_path / "scan.npy") == size
    assert file_size(tmp_path / "none.h5") is None
    refused = pytest.raises(ValueError, match=r"the budget is 0.20 GiB, expected 0.[69]\d or more: one slice of it")
    with refused, inside_budget(path, tmp_path, 200 * MIB):
        raise RuntimeError("not refused")


def test_the_command_refuses_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_phantom(tmp_path / "scan.h5", 1, 2, (32, 32), 0.01)
    command = ["reconstruct", str(path), "--out", str(tmp_path / "out"), "--model", "cg-sense"]
    assert main([*command, "--memory", "300MiB"]) == 4
    assert re.search(r"the budget is 0.29 GiB, expected 0.[69]\d or more", capsys.readouterr().err)
    assert main([*command, "--memory", "plenty"]) == 2
    assert "expected a size such as '8GiB'" in capsys.readouterr().err
