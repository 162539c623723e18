"""A full disk: every kind of output is refused as a whole, what was there stays, nothing else is left, nothing crashes.

The disk is full in three ways: a small file system in memory, where mounting is allowed; a limit on the size of files;
and a system call that fails as it would.
"""

from __future__ import annotations

import errno
import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from molrecon.command.parser import main
from molrecon.io import write_cfl, write_nifti, write_submission
from molrecon.io.images import write_image
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans.quality_page import write_png
from molrecon.scans.sidecar import write_json
from molrecon.simulation.phantom import write_phantom
from molrecon.training.checkpoints import write_checkpoint
from molrecon.training.log import TrainingLog, read_log
from molrecon.training.loop import train
from molrecon.training.task import Task
from molrecon.training.train_settings import TrainSettings
from molrecon.weights import save

KIB = 1024
Full = Callable[[], AbstractContextManager[None]]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def page(seed: int) -> Figure:
    figure = Figure()
    figure.add_subplot().imshow(noise(seed, 40, 40))
    return figure


def network(seed: int) -> MOL:
    return MOL(ResidualNetwork(monotonicity=0.2, channels=2, features=24, levels=1, cycles=1, seed=seed))


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "nii.gz": lambda folder, seed: write_nifti(folder / "a.nii.gz", noise(seed, 3, 50, 60), None),
    "nii": lambda folder, seed: write_nifti(folder / "a.nii", noise(seed, 3, 50, 60), None),
    "h5": lambda folder, seed: write_submission(folder / "a.h5", noise(seed, 3, 50, 60)),
    "sample": lambda folder, seed: write_phantom(folder / "a.h5", 1, 4, (32, 32), seed=seed),
    "png": lambda folder, seed: write_png(folder / "a.png", page(seed)),
    "photograph": lambda folder, seed: write_image(folder / "a.png", (255 * noise(seed, 90, 90)).astype(np.uint8)),
    "json": lambda folder, seed: write_json(folder / "a.json", {"a": noise(seed, 3000)}),
    "cfl": lambda folder, seed: write_cfl(folder / "a", noise(seed, 60, 60)),
    "safetensors": lambda folder, seed: save(network(seed), folder / "a.safetensors", {"seed": seed}),
    "checkpoint": lambda folder, seed: write_checkpoint({"a": torch.from_numpy(noise(seed, 9000))}, folder / "a.pt"),
}


@contextmanager
def filled(folder: Path, left: int = 0) -> Iterator[None]:
    """Fill the file system up to so many bytes."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4 * KIB))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            file.truncate(max(0, file.tell() - left))
        yield
    finally:
        filler.unlink()


@contextmanager
def limited() -> Iterator[None]:
    """Let no file become larger than 2 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * KIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def failing() -> Iterator[None]:
    """Let the system say that the disk is full when a file is complete."""

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("molrecon.io.atomic.os.fsync", no_space)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {getattr(error, 'stderr', error)}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["small disk", "size limit", "system call"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Full]:
    """A folder, and what fills the disk that it lies on."""
    if request.param == "small disk":
        folder: Path = request.getfixturevalue("small_disk")
        (folder / "out").mkdir()
        return folder / "out", lambda: filled(folder)
    return tmp_path, limited if request.param == "size limit" else failing


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_output(kind: str, disk: tuple[Path, Full]) -> None:
    folder, full = disk
    write = WRITERS[kind]
    with full(), pytest.raises(OSError):
        write(folder, 0)
    assert not content(folder)
    write(folder, 0)
    before = content(folder)
    with full(), pytest.raises(OSError):
        write(folder, 1)
    assert content(folder) == before
    write(folder, 1)
    assert content(folder).keys() == before.keys() and content(folder) != before


def test_a_log_has_whole_rows(small_disk: Path) -> None:
    log = TrainingLog(small_disk, 0, False)
    with filled(small_disk), pytest.raises(OSError, match="No space left"):
        log.write(1, {"loss": 0.5})
    log.write(1, {"loss": 0.5})
    steps = 1
    with filled(small_disk), pytest.raises(OSError, match="No space left"):
        while steps < 10000:
            log.write(steps + 1, {"loss": 0.5})
            steps += 1
    log.write(steps + 1, {"loss": 0.25})
    assert [row["step"] for row in read_log(small_disk)] == [str(step) for step in range(1, steps + 2)]
    before = content(small_disk)
    with filled(small_disk), pytest.raises(OSError, match="No space left"):
        TrainingLog(small_disk, steps, False)
    assert content(small_disk) == before


class Wide(Task[nn.Linear]):
    def __init__(self) -> None:
        self.model = nn.Linear(1, 3000)

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        yield self.model(torch.ones(1, 1)).square().mean()


def test_a_training_goes_on_once_there_is_room(small_disk: Path) -> None:
    settings = TrainSettings(steps=6, warmup=1, checkpoint_every=2, log_every=2)
    with pytest.raises(OSError, match="No space left"), filled(small_disk, 0):
        list(train(Wide(), settings, small_disk / "a"))
    steps = train(Wide(), settings, small_disk / "b")
    for done in steps:
        if done == 2:
            break
    before = content(small_disk / "b")
    with filled(small_disk, 20 * KIB), pytest.raises(OSError, match="No space left"):
        list(steps)
    assert content(small_disk / "b") == before
    assert list(train(Wide(), settings, small_disk / "b")) == [3, 4, 5, 6]


def test_other_commands_say_so_as_well(small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, photograph, stack = (str(tmp_path / name) for name in ("own.safetensors", "p.png", "head.npy"))
    save(network(0), weights, {"data": "none"})
    write_image(photograph, np.full((33, 33), 128, np.uint8))
    np.save(stack, noise(0, 8, 40, 36))
    options = ["--model", "unet", "--steps", "2", "--batch", "1", "--rows", "8", "--size", "32", "--device", "cpu"]
    for command in (
        ["demo", "--out", str(small_disk / "demo"), "--model", weights],
        ["cs", "--image", photograph, "--out", str(small_disk / "a.png"), "--device", "cpu"],
        ["certify", weights, "--json", str(small_disk / "a.json"), "--device", "cpu"],
        ["train", stack, "--out", str(small_disk / "run"), *options],
    ):
        with filled(small_disk):
            assert main(command) == 4, command
        assert "No space left on device" in capsys.readouterr().err
        assert not any(content(small_disk).values())


@pytest.mark.parametrize("left", [0, 16, 60, 150])
def test_a_volume_that_does_not_fit(left: int, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sample = write_phantom(tmp_path / "head.h5", slices=2, coils=4, shape=(64, 60))
    save(network(0), tmp_path / "untrained.safetensors", {"data": "none"})
    out = small_disk / "out"
    command = ["reconstruct", str(sample), "--out", str(out), "--model", str(tmp_path / "untrained.safetensors")]
    out.mkdir()
    with filled(small_disk, left * KIB):
        assert main(command) == 4
    assert "OSError: [Errno 28] No space left" in capsys.readouterr().err
    lists = {name for name in content(out) if name.startswith("lists/")}
    assert set(content(out)) <= {"manifest.json", "index.html", "records/head.json", *lists}
    if left:
        (entry,) = json.loads((out / "manifest.json").read_text())["volumes"]
        assert entry["status"] == "failed" and entry["outputs"] == []
    assert main(command) == 0
    images = {name: data for name, data in content(out).items() if name.startswith("head.")}
    assert len(images) == 5
    with filled(small_disk, left * KIB):
        assert main([*command, "--noise-level", "0.1"]) == 4
    after = content(out)
    assert images.items() <= after.items()
    kept = {name for name in after if not name.startswith("lists/")}
    assert kept == {*images, "manifest.json", "index.html", "records/head.json", "records/head.webp"}
    if left:
        (entry,) = json.loads(after["manifest.json"])["volumes"]
        assert "are older, of " in entry["message"]
