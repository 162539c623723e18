"""Sparse coding: the problems are what they say, and a short training helps and resumes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molrecon.descent.lista import ALISTA, LISTA, SupportSelection
from molrecon.descent.sparse import nmse_by_layer
from molrecon.descent.sparse_problems import (
    TEST,
    VALIDATION,
    BernoulliGaussian,
    Patches,
    draw_patches,
    gaussian_dictionary,
    image_split,
    overcomplete_dct,
    patch_dictionary,
    stream,
    texture_images,
)
from molrecon.descent.sparse_training import CODING_SETTINGS, SparseCodingTask, coding_score
from molrecon.training.loop import train
from operators import Dense

SHORT = replace(CODING_SETTINGS, steps=60, decay_start=40, checkpoint_every=20, log_every=20)


def test_the_benchmark_is_what_it_says() -> None:
    dictionary = gaussian_dictionary(50, 100)
    torch.testing.assert_close(dictionary.norm(dim=0), torch.ones(100))
    clean, noisy = BernoulliGaussian(dictionary), BernoulliGaussian(dictionary, snr_db=20)
    codes, measurements = clean.draw(2000, stream(0, TEST))
    again, disturbed = noisy.draw(2000, stream(0, TEST))
    assert torch.equal(codes, again) and torch.equal(measurements, codes @ dictionary.T)
    assert float((codes != 0).double().mean()) == pytest.approx(0.1, rel=0.03)
    assert float(codes[codes != 0].std()) == pytest.approx(1, rel=0.03)
    power = measurements.square().mean() / (disturbed - measurements).square().mean()
    assert 10 * float(power.log10()) == pytest.approx(20, abs=0.1)
    others = [stream(0, VALIDATION), stream(1, TEST), np.random.default_rng([0, TEST]), np.random.default_rng([0, 3])]
    assert all(not torch.equal(clean.draw(4000, rng)[0], codes) for rng in others)


def test_dictionary_of_cosines() -> None:
    square = overcomplete_dct(4, 4)
    torch.testing.assert_close(square.T @ square, torch.eye(15, dtype=torch.float64))
    over = patch_dictionary()
    assert over.shape == (64, 143) and float(over.sum(0).abs().max()) < 1e-5
    assert int(torch.linalg.matrix_rank(over.double(), atol=1e-5)) == 63  # all patches without their mean
    with pytest.raises(ValueError, match="overcomplete_dct: got side 8 and 7 atoms an axis"):
        overcomplete_dct(8, 7)


def test_patches_and_their_optima() -> None:
    train_images, *others = image_split(None)
    assert len(train_images) == 4 and all(image.dtype == np.uint8 for image in (*train_images, *others[0], *others[1]))
    assert len(texture_images()) == 3
    patches = draw_patches(train_images, 20, stream(0, VALIDATION))
    torch.testing.assert_close(patches.norm(dim=1), torch.ones(20))
    assert float(patches.mean(1).abs().max()) < 1e-6
    assert torch.equal(patches, draw_patches(train_images, 20, stream(0, VALIDATION)))
    problem = Patches(patches, patch_dictionary())
    correlation = (patches - problem.codes @ problem.dictionary.T) @ problem.dictionary
    assert float(correlation.abs().max()) == pytest.approx(0.1, abs=1e-5)
    codes, measurements = problem.draw(7, stream(0, TEST))
    assert codes.shape == (7, 143) and measurements.shape == (7, 64)


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA is not set: no train400")
def test_images_of_the_data_folder() -> None:
    found = image_split(Path(os.environ["MOLRECON_DATA"]))
    assert [len(images) for images in found] == [360, 40, 68]


def test_training_gains_and_resumes(tmp_path: Path) -> None:
    problem = BernoulliGaussian(gaussian_dictionary(25, 50))
    validate = coding_score(problem, 64, stream(0, VALIDATION))
    models = []
    for folder, runs in (("at once", (60,)), ("in two", (40, 60))):
        for steps in runs:
            model = ALISTA(problem.dictionary, 4, selection=SupportSelection())
            before = validate(model)
            task = SparseCodingTask(model, problem, batch=32)
            for done in train(task, SHORT, tmp_path / folder, validate):
                assert model.n_layers == min(4, 1 + int(4 * (done - 1) / 36)) or done % 20 == 0
                if done == steps:
                    break
        models.append(model)
    assert validate(models[0]) > before + 2
    assert all(torch.equal(x, y) for x, y in zip(models[0].parameters(), models[1].parameters(), strict=True))
    codes, measurements = problem.draw(200, stream(0, TEST))
    pooled, _ = nmse_by_layer(models[0].stages(measurements, Dense(problem.dictionary)), codes, 4)
    assert (np.diff(pooled) < 0).all()


def test_new_layers_start_as_the_last_one() -> None:
    problem = BernoulliGaussian(gaussian_dictionary(10, 20))
    model = LISTA(problem.dictionary, 4)
    task = SparseCodingTask(model, problem, growth=1.0)
    with torch.no_grad():
        model.log_threshold[0] = 0.0
    task.begin(0, 2)
    assert model.n_layers == 1
    task.begin(1, 2)
    assert model.n_layers == 3 and model.log_threshold[:3].tolist() == [0.0] * 3 and model.log_threshold[3] != 0
    task.end()
    assert model.n_layers == 4
