"""Inpainting with GLOW-Prox against biharmonic and total-variation fills: tables, picture, distances layer by layer.

    python examples/inpainting.py [--out FOLDER] [--model NAME_OR_FILE ...]

The images are the 20 test faces of the 100 that ship with scikit-image, 24 x 24 pixels of which the middle 9 x 9 are
unknown; nothing is downloaded. `--images FOLDER` takes the test part of a folder such as CelebA-HQ's instead, with
`--size` and `--colour` as in training (`examples/train_inpainting.py`). Models whose cards have the same name are seeds
of one: the tables then have mean and spread (standard deviation).

PSNR and SSIM are of the networks' images as they are, known pixels included, and of the hole alone; the fills keep the
known pixels. The second table is the PSNR of the whole image with noise of standard deviation 0.05 on the known pixels,
with a random half of all pixels unknown, of photographs that show no faces, and with 10 % of noise after every layer
but the last. The third has the mean ratios `|y_l - y*| / |y_{l-1} - y*|` of the layers, y* the image without a hole,
and the share of all images and layers in which the distance falls, without and with that noise.

OUT gets inpainting.png and inpainting_layers.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from molrecon.descent.descent_checks import DescentCheck, LayerNoise, check_descent, layer_distances
from molrecon.descent.glow_prox import GlowProx
from molrecon.descent.inpainting import biharmonic_fill, inpainting_score, tv_fill
from molrecon.descent.inpainting_problems import (
    FACE_SIZE,
    InpaintingBatch,
    evaluation_batches,
    folder_images,
    photograph_patches,
    shipped_faces,
)
from molrecon.weights import available_models, load, load_card

Fill = Callable[[InpaintingBatch], Tensor]

LAYER_NOISE = LayerNoise(0.1)
NOISE_LEVEL = 0.05
SHOWN = 6  # images in the picture
MEASURED, BIHARMONIC, TOTAL_VARIATION = "measured", "biharmonic", "total variation"
CLASSICAL: dict[str, list[Fill]] = {
    MEASURED: [lambda batch: batch.measurements],
    BIHARMONIC: [lambda batch: biharmonic_fill(batch.measurements, batch.operator)],
    TOTAL_VARIATION: [lambda batch: tv_fill(batch.measurements, batch.operator)],
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images; default: scikit-image's faces")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the images of a folder")
    parser.add_argument("--colour", action="store_true", help="of the images of a folder; default: grey")
    parser.add_argument("--model", nargs="+", default=available_models(GlowProx), help="default: the packaged ones")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    return parser.parse_args(argv)


def load_models(names: Sequence[str]) -> dict[str, list[GlowProx]]:
    """Return the models by the names on their cards."""
    models: dict[str, list[GlowProx]] = {}
    for name in names:
        models.setdefault(load_card(name).get("name", name), []).append(load(name, GlowProx))
    return models


def stages(model: GlowProx, batch: InpaintingBatch, noise: LayerNoise | None) -> list[Tensor]:
    """Return the images of all layers; layer noise is the same at every call."""
    disturb = None if noise is None else noise.disturb(torch.Generator().manual_seed(0))
    return list(model.stages(batch.measurements, batch.operator, disturb=disturb))


def methods(models: dict[str, list[GlowProx]], noise: LayerNoise | None = None) -> dict[str, list[Fill]]:
    """Return a function for every seed of every network."""

    def method(model: GlowProx) -> Fill:
        return lambda batch: stages(model, batch, noise)[-1]

    return {name: [method(model) for model in seeds] for name, seeds in models.items()}


def scores(seeds: list[Fill], batch: InpaintingBatch) -> np.ndarray:
    """Return (seed, 4): PSNR, SSIM, and both of the hole."""
    known = batch.operator.known
    return np.array([astuple(inpainting_score(batch.images, method(batch), known)) for method in seeds])


def cell(values: np.ndarray, digits: int) -> str:
    """Return the mean, and the spread where there are several seeds."""
    spread = f" ± {np.std(values):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def print_table(columns: Sequence[str], rows: dict[str, list[str]]) -> None:
    """Print a table in markdown."""
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def print_scores(models: dict[str, list[GlowProx]], batch: InpaintingBatch) -> None:
    """Print the first table."""
    rows = {}
    for name, seeds in (CLASSICAL | methods(models)).items():
        results = scores(seeds, batch)
        rows[name] = [cell(results[:, k], (2, 3, 2, 3)[k]) for k in range(4)]
    print_table(["method", "PSNR, dB", "SSIM", "PSNR of the hole, dB", "SSIM of the hole"], rows)


def print_robustness(models: dict[str, list[GlowProx]], batches: dict[str, InpaintingBatch], clean: str) -> None:
    """Print the second table."""
    quiet, noisy = CLASSICAL | methods(models), methods(models, LAYER_NOISE)
    rows = {}
    for name, seeds in quiet.items():
        rows[name] = [cell(scores(seeds, batch)[:, 0], 2) for batch in batches.values()]
        rows[name].append(cell(scores(noisy[name], batches[clean])[:, 0], 2) if name in noisy else "")
    print_table(["PSNR, dB", *batches, "layer noise"], rows)


def print_descent(models: dict[str, list[GlowProx]], batch: InpaintingBatch) -> None:
    """Print the third table."""

    def check(model: GlowProx, noise: LayerNoise | None) -> DescentCheck:
        return check_descent(stages(model, batch, noise), batch.measurements, batch.images)

    rows = {}
    for name, seeds in models.items():
        results = [check(model, None) for model in seeds]
        disturbed = [check(model, LAYER_NOISE).samples_descending for model in seeds]
        shares = np.array([one.samples_descending for one in results])
        ratios = np.array([one.mean_ratios for one in results])
        rows[name] = [" ".join(f"{ratio:.2f}" for ratio in ratios.mean(0))]
        rows[name] += [cell(100 * shares, 1), cell(100 * np.array(disturbed), 1)]
    print_table(["ratios", "layers 1 to L", "descents, %", "descents with layer noise, %"], rows)


def draw_images(models: dict[str, list[GlowProx]], batch: InpaintingBatch, path: Path) -> None:
    """Write the picture: an image a row, a method a column."""
    pictures = {"image": batch.images} | {
        name: seeds[0](batch) for name, seeds in (CLASSICAL | methods(models)).items()
    }
    count = min(SHOWN, len(batch.images))
    figure = Figure(figsize=(1.5 * len(pictures), 1.5 * count + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(count, len(pictures), squeeze=False)
    for column, (name, images) in enumerate(pictures.items()):
        axes[0, column].set_title(name.replace(" ", "\n", 1), fontsize=8)
        for row in range(count):
            image = images[row].clamp(0, 1).numpy()
            shown = image if image.ndim == 2 else np.moveaxis(image, 0, -1)
            axes[row, column].imshow(shown, cmap="gray", vmin=0, vmax=1)
            axes[row, column].axis("off")
    figure.savefig(path, dpi=110)


def draw_layers(models: dict[str, list[GlowProx]], batch: InpaintingBatch, path: Path) -> None:
    """Write the figure of the mean distance to the image after each layer, dashed with layer noise."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    size = batch.images.flatten(1).norm(dim=1, keepdim=True)
    for index, (name, seeds) in enumerate(models.items()):
        for noise, style in ((None, "o-"), (LAYER_NOISE, "x--")):
            outputs = [stages(model, batch, noise) for model in seeds]
            results = [layer_distances(ys, batch.measurements, batch.images) / size for ys in outputs]
            means = torch.stack(results).mean(1).numpy()
            spread = means.std(0) if len(seeds) > 1 else None
            axes.errorbar(
                range(means.shape[1]), means.mean(0), spread, fmt=style, color=f"C{index}", capsize=2,
                label=None if noise else name,
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("layer (dashed: noise after every layer but the last)")
    axes.set_ylabel("mean of |y - image| / |image|")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; write the figures."""
    arguments = parse(argv)
    shipped = arguments.images is None
    size = FACE_SIZE if shipped else arguments.size
    images = shipped_faces() if shipped else folder_images(arguments.images, size, colour=arguments.colour)
    models = load_models(arguments.model)
    clean = "as in training"
    batches = {
        clean: evaluation_batches(images.test, size)[0],
        "noise on known pixels": evaluation_batches(images.test, size, noise_level=NOISE_LEVEL)[0],
        "random half": evaluation_batches(images.test, size, ("random",))[0],
    }
    if images.test.ndim == 3:
        patches = photograph_patches(len(images.test), size, np.random.default_rng(0))
        batches["no faces"] = evaluation_batches(patches, size)[0]
    print_scores(models, batches[clean])
    print_robustness(models, batches, clean)
    print_descent(models, batches[clean])
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        draw_images(models, batches[clean], arguments.out / "inpainting.png")
        draw_layers(models, batches[clean], arguments.out / "inpainting_layers.png")


if __name__ == "__main__":
    main()
