"""Training of unrolled networks for compressed sensing: blocks, batches, the loop, its scores."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molrecon.io.images import read_image, write_image
from molrecon.io.matlab import read_matrix
from molrecon.sensing import training as cs
from molrecon.sensing.assembly import assemble
from molrecon.sensing.block_batches import BlockBatches, drawn_blocks
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.published_ista import load_published_imager, load_published_ista, load_published_mri
from molrecon.training.loop import train
from operators import PartialFourier, orthonormal_matrix

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no published weights or images here")


def smooth_blocks(count: int) -> np.ndarray:
    y, x = np.mgrid[:33, :33]
    rng = np.random.default_rng(0)
    waves = [np.cos(x * a + y * b + c) for a, b, c in rng.uniform(0, 0.4, (count, 3))]
    return np.uint8(127 * (1 + np.array(waves))).reshape(count, -1)


def imager(seed: int = 0) -> BlockImager:
    phi = orthonormal_matrix(200, 1089, seed=1)
    start = cs.initialisation_matrix(phi.numpy(), cs.second_moment(smooth_blocks(300)))
    return BlockImager(
        assemble("ista-net-plus", "gin", n_stages=1, seed=seed), phi.float(), torch.from_numpy(start).float()
    )


def test_training_blocks_are_all_orientations_on_the_grid(tmp_path: Path) -> None:
    image = np.arange(34 * 54, dtype=np.uint16).reshape(34, 54).astype(np.uint8)
    folder = tmp_path / "cs" / "t91"
    folder.mkdir(parents=True)
    write_image(folder / "t1.bmp", image)
    blocks = cs.training_blocks(tmp_path)
    assert blocks.shape == (8 * 1 * 2, 1089) and blocks.dtype == np.uint8
    expected = {
        np.ascontiguousarray(part).tobytes() for part in (image[:33, :33], image[:33, 20:53], image.T[:33, :33])
    }
    assert expected <= {block.tobytes() for block in blocks}
    assert len({block.tobytes() for block in blocks}) == len(blocks)
    with pytest.raises(FileNotFoundError, match="train400"):
        cs.validation_images(tmp_path)


def test_initialisation_is_least_squares() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (500, 1089), np.uint8)
    phi = orthonormal_matrix(20, 1089, seed=0).numpy()
    x = blocks.T.astype(np.float64)
    expected = np.linalg.lstsq((phi @ x).T, x.T, rcond=None)[0].T
    found = cs.initialisation_matrix(phi, cs.second_moment(blocks))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(phi @ found, np.eye(20), atol=1e-9)


def test_sensing_matrices(tmp_path: Path) -> None:
    phi = cs.sensing_matrix(tmp_path, 50)
    assert phi.shape == (545, 1089)
    np.testing.assert_array_equal(phi, cs.sensing_matrix(tmp_path, 50))
    with pytest.raises(FileNotFoundError, match="phi_0_10_1089"):
        cs.sensing_matrix(tmp_path, 10)
    with pytest.raises(ValueError, match="ratio 7, expected one of 10, 20"):
        cs.sensing_matrix(tmp_path, 7)


def test_training_learns_and_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    blocks = smooth_blocks(24)
    settings = replace(cs.IMAGING_SETTINGS, steps=8, warmup=1, learning_rate=3e-3, checkpoint_every=4)
    scores: list[float] = []

    def validate(trained: BlockImager) -> float:
        scores.append(cs.mean_score(trained, [blocks[0].reshape(33, 33)])[0])
        return scores[-1]

    def run(trained: BlockImager, name: str) -> Iterator[int]:
        return train(cs.ImagingTask(trained, BlockBatches(blocks, 8, 4)), settings, tmp_path / name, validate)

    whole, stopped = imager(), imager()
    validate(whole)
    assert list(run(whole, "a")) == list(range(1, 9))
    assert not whole.model.training and scores[-1] > scores[0] + 2
    for done in run(stopped, "b"):
        if done == 5:
            break
    again = imager(seed=9)
    assert next(iter(run(again, "b"))) == 5
    for _ in run(again, "b"):
        pass
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0, msg=key)


def test_parts_of_a_batch_add_up() -> None:
    blocks = torch.from_numpy(smooth_blocks(8)).float() / 255
    model = imager().train()
    whole = float(cs.block_loss(model, blocks).detach())
    parts = [float(cs.block_loss(model, part).detach()) for part in blocks.split(4)]
    assert whole == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_an_epoch_takes_every_block_once() -> None:
    epoch = np.concatenate([drawn_blocks(12, 3, 5, step) for step in range(4)])
    assert sorted(epoch) == list(range(12))
    assert list(epoch[:3]) != list(drawn_blocks(12, 3, 5, 4))


def test_image_score_is_the_published_one() -> None:
    reference = np.full((40, 40), 100, np.uint8)
    restored = torch.full((40, 40), 110 / 255, dtype=torch.float64)
    psnr, ssim = cs.image_score(reference, restored)
    assert psnr == pytest.approx(20 * math.log10(25.5)) and 0 < ssim < 1
    assert cs.image_score(np.full((40, 40), 255, np.uint8), restored + 7)[1] == 1


@needs_data
@pytest.mark.parametrize(
    ("ratio", "index", "psnr", "ssim"), [(10, 8, 30.486, 0.83095), (25, 3, 33.692, 0.93511), (40, 9, 36.131, 0.96574)]
)
def test_published_weights_reach_their_scores(ratio: int, index: int, psnr: float, ssim: float) -> None:
    # One image each of runs of examples/cs_benchmark.py whose means are the published ones.
    folder = Path(str(DATA))
    imager = load_published_imager(folder / "published" / "ista_net_plus", ratio)
    found = cs.mean_score(imager, cs.benchmark_images(folder, "set11")[index : index + 1])
    assert found[0] == pytest.approx(psnr, abs=2e-3) and found[1] == pytest.approx(ssim, abs=1e-4)


@needs_data
def test_published_mri_weights_reach_their_scores() -> None:
    folder = Path(str(DATA))
    model, mask = load_published_mri(folder / "published" / "ista_net_plus", 20)
    operator = PartialFourier(mask, real=True)
    image = read_image(folder / "mri" / "brain50_png" / "brain_test_08.png")
    with torch.no_grad():
        restored = model(operator(torch.from_numpy(image)[None].float() / 255), operator)[0]
    psnr, ssim = cs.image_score(image, restored)
    assert psnr == pytest.approx(37.596, abs=2e-3) and ssim == pytest.approx(0.95571, abs=1e-4)


@needs_data
def test_published_weights_with_the_gradient_are_the_same_function() -> None:
    folder = Path(str(DATA)) / "published" / "ista_net_plus"
    gdm, gin = (load_published_ista(folder / "cs_ratio_25.pkl", step).eval() for step in ("gdm", "gin"))
    phi = torch.from_numpy(cs.sensing_matrix(Path(str(DATA)), 25)).float()
    problem = BlockImager(gdm, phi).block_problem(torch.rand(1, 272, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        torch.testing.assert_close(gin(*problem), gdm(*problem))


@needs_data
def test_published_matrices_are_orthonormal_and_consistent() -> None:
    folder = Path(str(DATA)) / "published" / "ista_net_plus"
    phi = cs.sensing_matrix(Path(str(DATA)), 25)
    np.testing.assert_allclose(phi @ phi.T, np.eye(272), atol=1e-12)
    np.testing.assert_allclose(
        phi @ read_matrix(folder / "Initialization_Matrix_25.mat", "Qinit"), np.eye(272), atol=1e-10
    )


def test_other_files_are_not_published_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="phi_0_25_1089"):
        load_published_imager(tmp_path, 25)
    for name in ("phi_0_25_1089.mat", "cs_ratio_25.pkl"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected a MATLAB file with phi"):
        load_published_imager(tmp_path, 25)
    with pytest.raises(ValueError, match="not published ISTA-Net"):
        load_published_ista(tmp_path / "cs_ratio_25.pkl")
