"""Which compressed-sensing imager is meant by a name and a sampling ratio."""

from __future__ import annotations

from pathlib import Path

from molrecon.sensing.imager import BlockImager
from molrecon.sensing.published_ista import load_published_imager
from molrecon.sensing.ratios import MEASUREMENTS
from molrecon.weights import available_models, load


def find_imager(name_or_path: str | Path, ratio: int) -> BlockImager:
    """Return the imager of a sampling ratio in percent, in evaluation mode.

    Args:
        name_or_path: a packaged imager's name with or without its ratio at the end, a file written by `save`, or
            published ISTA-Net+ weights (`cs_ratio_R.pkl`, with the matrices beside it).
        ratio: one of `MEASUREMENTS`.

    Raises:
        FileNotFoundError: no such imager, or none of this ratio.
        ValueError: the file is something else, or an imager of another ratio.
    """
    if Path(name_or_path).suffix == ".pkl":
        expected = Path(name_or_path).with_name(f"cs_ratio_{ratio}.pkl")
        if Path(name_or_path) != expected:
            raise ValueError(f"{name_or_path}: not the weights for {ratio} %, expected {expected}")
        return load_published_imager(expected.parent, ratio)
    of_ratio, packaged = f"{name_or_path}-{ratio}", available_models(BlockImager)
    try:
        imager = load(of_ratio if of_ratio in packaged else name_or_path, BlockImager)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name_or_path}: neither a file nor a packaged imager for {ratio} %, expected one of {', '.join(packaged)}"
        ) from error
    if len(imager.phi) != MEASUREMENTS[ratio]:
        raise ValueError(f"{name_or_path}: takes {len(imager.phi)} numbers a block, expected {MEASUREMENTS[ratio]}")
    return imager
