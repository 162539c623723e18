"""Inpainting problems: splits without leaks, masks, noise, folders; and a short training."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from molrecon.descent.glow_prox import GlowProx
from molrecon.descent.inpainting_problems import (
    FACE_SIZE,
    ImageSplit,
    centre_mask,
    crop,
    draw_masks,
    evaluation_batches,
    folder_images,
    inpainting_batch,
    photograph_patches,
    shipped_faces,
    split_images,
)
from molrecon.io.images import write_image
from molrecon.training.loop import train
from molrecon.training.train_settings import TrainSettings


def parts(split: ImageSplit) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


def test_shipped_images_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    faces = shipped_faces()
    assert [len(part) for part in parts(faces)] == [70, 10, 20]
    assert faces.train.shape[1:] == (25, 25)
    assert faces.train.dtype == np.uint8
    assert faces.train.max() == 255
    everything = np.concatenate(parts(faces)).reshape(100, -1)
    assert len(np.unique(everything, axis=0)) == 100  # no image is in two parts
    assert np.corrcoef(everything - everything.mean(1, keepdims=True))[~np.eye(100, dtype=bool)].max() < 0.9
    assert np.array_equal(shipped_faces().test, faces.test)
    patches = photograph_patches(5, FACE_SIZE, np.random.default_rng(0))
    assert patches.shape == (5, 24, 24)
    assert all(patch.std() > 7 for patch in patches)


def test_masks() -> None:
    hole = np.argwhere(~centre_mask(64))
    assert (hole.min(0).tolist(), hole.max(0).tolist(), len(hole)) == ([20, 20], [43, 43], 24 * 24)
    assert (~centre_mask(FACE_SIZE)).sum() == 9 * 9
    random = draw_masks("random", 50, 24, np.random.default_rng(0), share=0.3)
    assert random.mean() == pytest.approx(0.3, abs=0.02)
    both = draw_masks("both", 50, 24, np.random.default_rng(0))
    centred = (both == centre_mask(24)).all((1, 2))
    assert 10 < centred.sum() < 40
    with pytest.raises(ValueError, match="masks 'border', expected 'centre', 'random' or 'both'"):
        draw_masks("border", 1, 8, np.random.default_rng(0))  # type: ignore[arg-type]


def test_batches() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), np.uint8)
    batch = inpainting_batch(images, centre_mask(16)[None], noise_level=0.1, rng=np.random.default_rng(1))
    known = batch.operator.known.expand(batch.images.shape)
    assert torch.equal(batch.images, torch.from_numpy(images) / 255)
    assert not bool(batch.measurements[~known].any())
    assert float((batch.measurements - batch.images)[known].std()) == pytest.approx(0.1, rel=0.05)
    moved = batch.to("meta")
    assert all(tensor.is_meta for tensor in (moved.images, moved.measurements, moved.operator.known))
    assert not batch.operator.known.is_meta
    with pytest.raises(ValueError, match="noise and no rng"):
        inpainting_batch(images, centre_mask(16)[None], noise_level=0.1)
    one, same = (evaluation_batches(images[:, 0], 8, ("centre", "random"), noise_level=0.1) for _ in range(2))
    for first, second in zip(one, same, strict=True):
        assert torch.equal(first.measurements, second.measurements)
        assert torch.equal(first.images, torch.from_numpy(images[:, 0, :8, :8]) / 255)


def test_crops() -> None:
    images = np.arange(3 * 25).reshape(3, 5, 5)
    windows = crop(images, 4, np.random.default_rng(0))
    allowed = [
        [
            window[:, ::flip]
            for window in (image[:4, :4], image[1:, :4], image[:4, 1:], image[1:, 1:])
            for flip in (1, -1)
        ]
        for image in images
    ]
    assert all(any(np.array_equal(w, a) for a in options) for w, options in zip(windows, allowed, strict=True))
    with pytest.raises(ValueError, match="expected at least 6 rows and columns"):
        crop(images, 6)


def test_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(10):
        shape = (20 + k, 31, 3) if k % 2 else (20, 24)
        write_image(tmp_path / f"{k}.png", rng.integers(0, 256, shape).astype(np.uint8))
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    colour, grey = folder_images(tmp_path, 16, colour=True), folder_images(tmp_path, 16, colour=False)
    assert [part.shape for part in parts(colour)] == [(7, 3, 16, 16), (1, 3, 16, 16), (2, 3, 16, 16)]
    assert [part.shape for part in parts(grey)] == [(7, 16, 16), (1, 16, 16), (2, 16, 16)]
    assert len(np.unique(np.concatenate(parts(grey)).reshape(10, -1), axis=0)) == 10
    (tmp_path / "3.png").unlink()
    with pytest.raises(ValueError, match="9 images, expected at least 10"):
        folder_images(tmp_path, 16)
    with pytest.raises(ValueError, match="9 images, expected at least 10"):
        split_images(np.zeros((9, 4, 4)))


def test_training(tmp_path: Path) -> None:
    pytest.importorskip("cooper")
    pytest.importorskip("normflows")
    from molrecon.descent.constraints import Descent
    from molrecon.descent.inpainting_training import InpaintingProblem
    from molrecon.descent.training import DescentTask

    faces = shipped_faces()
    model = GlowProx(n_layers=2, levels=2, blocks=1, features=8)
    problem = InpaintingProblem(model, faces.train, FACE_SIZE, batch=8)
    first, again = (problem.draw(3, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.measurements, again.measurements)
    start, outputs = problem.layers(first, None)
    assert torch.equal(start, first.operator(first.images))
    assert len(outputs) == 2
    assert torch.equal(problem.reference(first), first.images)
    assert float(problem.final_loss(2 * first.images, first)) == pytest.approx(1)
    [validation] = evaluation_batches(faces.validation, FACE_SIZE)

    def loss() -> float:
        with torch.no_grad():
            return float(problem.final_loss(problem.layers(validation, None)[1][-1], validation))

    before = loss()
    settings = TrainSettings(steps=15, learning_rate=1e-2, warmup=5, ema=0, checkpoint_every=15, log_every=15)
    task = DescentTask(problem, Descent(0.05))
    assert list(train(task, settings, tmp_path, task.validator([validation])))[-1] == 15
    assert loss() < 0.7 * before
