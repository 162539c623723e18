"""Compressed sensing of photographs and brain images by the published test protocol.

    python examples/cs_benchmark.py --published [--set set11|bsd68|bsd68_cropped|brain50] [--ratio R] [--json FILE]
    python examples/cs_benchmark.py [--model NAME_OR_FILE ...] [--set ...] [--ratio R] [--json FILE]

--published runs the authors' ISTA-Net+ weights, and prints how far the scores are from those they have; without it the
given imagers run, or all packaged ones. DATA (--data, or MOLRECON_DATA) is the folder of data_scripts/prepare_cs.py.
The JSON holds "psnr" (dB) and "ssim", means over the images, or, of several runs, the list "results" of such objects.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from molrecon.io.images import read_image
from molrecon.sensing.assembly import names
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.published_ista import load_published_imager, load_published_mri
from molrecon.sensing.ratios import MEASUREMENTS
from molrecon.sensing.training import benchmark_images, image_score, mean_score
from molrecon.weights import available_models, load
from operators import PartialFourier

PHOTOGRAPHS = ("set11", "bsd68", "bsd68_cropped")
BRAINS = "brain50"
# What the published weights reach: PSNR in dB, SSIM.
PUBLISHED = {
    ("set11", 10): (26.49, 0.8036),
    ("set11", 25): (32.44, 0.9237),
    ("set11", 30): (33.70, 0.9382),
    ("set11", 40): (36.02, 0.9579),
    ("bsd68", 10): (25.30, 0.7001),
    ("bsd68", 25): (29.31, 0.8507),
    ("bsd68_cropped", 10): (25.14, 0.6959),
    ("bsd68_cropped", 30): (30.24, 0.8775),
    ("brain50", 10): (34.63, 0.9035),
    ("brain50", 20): (38.70, 0.9484),
    ("brain50", 30): (40.97, 0.9639),
    ("brain50", 40): (42.65, 0.9729),
    ("brain50", 50): (44.12, 0.9792),
}

Result = dict[str, str | int | float]


def brain_score(folder: Path, ratio: int) -> tuple[float, float]:
    """Return mean PSNR and SSIM of the published CS-MRI model on the 50 brain images, taken as real."""
    model, mask = load_published_mri(folder / "published" / "ista_net_plus", ratio)
    operator = PartialFourier(mask, real=True)
    scores = []
    with torch.no_grad():
        for path in sorted((folder / "mri" / "brain50_png").glob("*.png")):
            image = read_image(path)
            restored = model(operator(torch.from_numpy(image)[None].float() / 255), operator)
            scores.append(image_score(image, restored[0]))
    return float(np.mean([s[0] for s in scores])), float(np.mean([s[1] for s in scores]))


def published(folder: Path, sets: list[str], ratio: int | None) -> Iterator[Result]:
    """Yield the scores of the published weights, by default where their numbers are known."""
    cells = [cell for cell in PUBLISHED if cell[0] in sets and ratio in (None, cell[1])]
    if ratio is not None:
        cells = [(name, ratio) for name in sets]
    for name, percent in cells:
        if name == BRAINS:
            psnr, ssim = brain_score(folder, percent)
        else:
            imager = load_published_imager(folder / "published" / "ista_net_plus", percent)
            psnr, ssim = mean_score(imager, benchmark_images(folder, name))
        yield {"model": "published ISTA-Net+", "set": name, "ratio": percent, "psnr": psnr, "ssim": ssim}


def ours(folder: Path, models: list[str], sets: list[str], ratio: int | None) -> Iterator[Result]:
    """Yield the scores of imagers of ours, those of another sampling ratio left out."""
    for model in models:
        imager = load(model, BlockImager)
        percent = sampling_ratio(imager)
        if ratio in (None, percent):
            for name in sets:
                psnr, ssim = mean_score(imager, benchmark_images(folder, name))
                host, data_step = names(imager.model)
                yield {
                    "model": model,
                    "host": host,
                    "data_step": data_step,
                    "parameters": sum(parameter.numel() for parameter in imager.parameters()),
                    "set": name,
                    "ratio": percent,
                    "psnr": psnr,
                    "ssim": ssim,
                }


def sampling_ratio(imager: BlockImager) -> int:
    """Return the ratio in percent that an imager was trained for."""
    return next(ratio for ratio, count in MEASUREMENTS.items() if count == len(imager.phi))


def line(result: Result) -> str:
    """Return a result as a line of the table; of published weights with the distance from their known scores."""
    cell = f"{result['model']!s:32} {result['set']!s:14} {result['ratio']:>3} %"
    text = f"{cell} {result['psnr']:8.3f} {result['ssim']:8.5f}"
    known = PUBLISHED.get((str(result["set"]), int(result["ratio"])))
    if result["model"] != "published ISTA-Net+" or known is None:
        return text
    return f"{text}   {float(result['psnr']) - known[0]:+.3f} {float(result['ssim']) - known[1]:+.5f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"))
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--model", action="append", default=[], metavar="NAME_OR_FILE")
    parser.add_argument("--set", choices=(*PHOTOGRAPHS, BRAINS))
    parser.add_argument("--ratio", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.data is None:
        parser.error("--data is missing and MOLRECON_DATA is not set, expected the data folder")
    torch.set_num_threads(arguments.threads)
    if arguments.published:
        sets = [arguments.set] if arguments.set else [*PHOTOGRAPHS, BRAINS]
        results = published(arguments.data, sets, arguments.ratio)
    else:
        sets = [arguments.set] if arguments.set else ["set11", "bsd68"]
        results = ours(arguments.data, arguments.model or available_models(BlockImager), sets, arguments.ratio)
    print(f"{'model':32} {'set':14} ratio     PSNR     SSIM")
    done = []
    for result in results:
        done.append(result)
        print(line(result), flush=True)
    if not done:
        sys.exit("cs_benchmark: nothing to run, expected a packaged imager or --model of this ratio")
    if arguments.json:
        content = done[0] if len(done) == 1 else {"results": done}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
