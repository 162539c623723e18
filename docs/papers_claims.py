"""What the three papers that this package follows claim, and what was found here: the numbers are those of the results.

docs/results_tables.py puts the tables on the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Claims = Sequence[tuple[str, str, str]]  # claim, verdict, why

REPRODUCED, NOT_REPRODUCED = "reproduced", "**not reproduced**"
PARTLY, NOT_SETTLED = "in part", "**not settled** at this budget"


class Results:
    """Looks up printed cells.

    Args:
        stored: returns the content of examples/results/FILE.json.
        text_of: prints a cell in its column.
    """

    def __init__(self, stored: Callable[[str], Any], text_of: Callable[[Any, dict[str, Any]], str]) -> None:
        self._stored, self._text_of = stored, text_of

    def cell(self, name: str, column: str | int, *row: str) -> str:
        """Return a cell of the table FILE/TABLE as it is printed, without bold.

        Args:
            name: FILE/TABLE.
            column: its title, or its number where several share one.
            row: the first cells of the row.

        Raises:
            LookupError: no such row or column, or several.
        """
        file, key = name.split("/")
        table = self._stored(file)[key]
        titles = [one["title"] for one in table["columns"]]
        numbers = [column] if isinstance(column, int) else [i for i, title in enumerate(titles) if title == column]
        rows = [cells for cells in table["rows"] if tuple(map(str, cells[: len(row)])) == row]
        if len(numbers) != 1 or len(rows) != 1:
            raise LookupError(
                f"{name}: {len(rows)} rows {row} and {len(numbers)} columns {column!r}, expected one each"
            )
        return self._text_of(rows[0][numbers[0]], table["columns"][numbers[0]]).replace("**", "")


def gradient_informed(results: Results) -> Claims:
    """Return the claims of "Listen to your gradients", Pattern Recognition Letters 192, 2025: those of its abstract."""

    def gain(host: str, ratio: str) -> str:
        return results.cell("compressed_sensing/gain", "Set11: `gin - gdm`, dB", host, ratio)

    def clipped(ratio: str, steps: str) -> str:
        return results.cell("compressed_sensing/longer", "Set11: `gin - gdm`, dB", ratio, "1e-3", steps)

    scans = results.cell("compressed_sensing/multi_coil_varied", "all", "`gin - gdm`")
    small, middle, large = "ISTA-Net+, 0.34 M", "COAST, 1.12 M", "DPC-DUN without gates, 1.39 M"
    tuned = "ISTA-Net+, 300 steps from the authors' weights"
    return [
        (
            "GIN ahead of GDM on Set11 and BSD68, from 50 % down to 10 %, in three hosts",
            PARTLY,
            f"with clipped gradients, on Set11: {clipped('30 %', '400')} dB at 30 %, {clipped('10 %', '400')} at 10 %"
            f" after 400 steps of 16 blocks, but at 30 % {clipped('30 %', '800')} after 800 and"
            f" {clipped('30 %', '1400')} after 1400; on multi-coil scans {scans} after 300. Without, after 200 steps:"
            f" {gain(small, '50 %')} at 50 %, {gain(small, '30 %')} at 30 %, but {gain(small, '10 %')} at 10 %."
            " From the authors' weights, trained on 800 times as many blocks as our"
            f" longest pair, {gain(tuned, '25 %')} at 25 % and {gain(tuned, '10 %')} at 10 %: it learns faster, and"
            " does not end higher so far",
        ),
        (
            "the larger the network, the larger the gain",
            NOT_SETTLED,
            f"at 30 %: {gain(small, '30 %')} dB in ISTA-Net+, {gain(middle, '30 %')} in COAST, but"
            f" {gain(large, '30 %')} in DPC-DUN, the largest (one seed)",
        ),
    ]


def monotone_operator_learning(results: Results) -> Claims:
    """Return the claims of Pramanik, Zimmerman, Jacob, IEEE TCI 9, 2023 (arXiv 2206.04797)."""

    def memory(row: str) -> str:
        return results.cell("memory/training_step", "50", row)

    def lead(method: str) -> str:
        return results.cell("compare_methods/scores", "lead over BART l1, mean of families, dB", method)

    def worst(method: str) -> str:
        return results.cell("compare_methods/scores", "8 coils, worst case of 5 %, dB", method)

    def attacked(column: str, method: str) -> str:
        return results.cell("robustness/guided", column, method)

    def certificate(row: str, column: str) -> str:
        return results.cell("certificates/certify", column, row)

    strict, ours, theirs = "`mol-brain-2d` (strict)", "`mol-penalised-brain-2d`", "published MOL weights"
    default = "`mol-guided-2d`"
    lipschitz, starts = "Lipschitz constant: promised / largest seen", "five starts, largest distance"
    series = "`mol-perfusion-2dt`: hearts, moving and in perfusion, rough phase, estimated maps, k-t 8x"
    by_frame, over_time = (
        results.cell("volumes/scores", column, series) for column in ("packaged 2D model, slice by slice", "MOL")
    )
    return [
        (
            "training memory that does not grow with the iterations, about ten times less than unrolling",
            REPRODUCED,
            f"a step at 50 iterations: {memory('equilibrium, 224 x 224')} MB, unrolled"
            f" {memory('unrolled (MoDL), 224 x 224')}",
        ),
        (
            "a unique equilibrium, and convergence to it: strict constraint on every layer",
            REPRODUCED,
            f"Lipschitz constant promised / largest seen: {certificate(lipschitz, strict)};"
            f" violations: {certificate('violations', strict)}",
        ),
        (
            "the same with a penalty on the local Lipschitz constant",
            NOT_REPRODUCED,
            f"{certificate(lipschitz, ours)} here, {certificate(lipschitz, theirs)} in the authors' weights; five"
            f" starts still end at one image, to {certificate(starts, ours)} and {certificate(starts, theirs)}",
        ),
        (
            "image quality of unrolled networks",
            PARTLY,
            f"at equal training, mean lead over BART: strict {lead('MOL strict')} dB, penalised"
            f" {lead('MOL penalised')}, MoDL {lead('MoDL, 10 unrolls')}, ADMM-Net"
            f" {lead('ADMM-Net, 10 unrolls')}; 1,000 steps, one seed",
        ),
        (
            "more robust in the worst case than unrolled networks",
            PARTLY,
            f"5 % of the data, at equal training: strict {worst('MOL strict')} dB, MoDL {worst('MoDL, 10 unrolls')},"
            f" penalised {worst('MOL penalised')}. At equal clean PSNR: the default model"
            f" {attacked('0 %', default)} → {attacked('worst 5 %', default)} with its guide held,"
            f" {attacked('worst 5 %', f'{default}, through its guide')} through it, ADMM-Net"
            f" {attacked('0 %', '`admm-net-2d`')} → {attacked('worst 5 %', '`admm-net-2d`')}. Only strict ones have a"
            " bound that is known in advance",
        ),
        (
            "volumes and series at quality out of reach of unrolling",
            NOT_SETTLED,
            f"the memory is there, {memory('equilibrium, 12 x 48 x 48')} MB for"
            f" {memory('unrolled (MoDL), 12 x 48 x 48')}, and a series gains from time ({over_time} dB, frame by frame"
            f" {by_frame}), but no unrolled network"
            " of equal memory was trained beside it",
        ),
    ]


def stochastic_descent(results: Results) -> Claims:
    """Return the claims of Hadou, NaderiAlizadeh, Ribeiro, IEEE TSP 72, 2024 (arXiv 2312.15788)."""

    def arm(column: str, name: str) -> str:
        return results.cell("sparse_coding/arms", column, name)

    def fill(column: str, name: str) -> str:
        return results.cell("inpainting/scores", column, name)

    def images(table: str, column: str, name: str) -> str:
        return results.cell(f"descent_arms/{table}", column, name)

    def both(look_up: Callable[[str, str], str], column: str) -> str:
        return f"{look_up(column, 'constrained')}, without constraints {look_up(column, 'unconstrained')}"

    return [
        (
            "every layer descends on average, on unseen problems too",
            REPRODUCED,
            f"layers that descend: {both(arm, 'layers that descend')}",
        ),
        (
            "robust to noise between the layers, where standard unrolling is brittle",
            REPRODUCED,
            f"NMSE without noise and at layer noise 0.2: {arm('unseen', 'constrained')} and"
            f" {arm('layer noise 0.2', 'constrained')} dB, without constraints {arm('unseen', 'unconstrained')} and"
            f" {arm('layer noise 0.2', 'unconstrained')}",
        ),
        (
            "robust to perturbed inputs, and to inputs from elsewhere",
            NOT_REPRODUCED,
            f"NMSE at 30 % noise: {both(arm, 'noise 30 %')} dB; on textures: {both(arm, 'textures')}",
        ),
        (
            "no worse on clean data",
            NOT_REPRODUCED,
            f"NMSE: {both(arm, 'unseen')} dB; the spread over three seeds is as large",
        ),
        (
            "the same in networks that reconstruct images",
            PARTLY,
            "5 % a layer, as asked for, is reached with no seed. On scans"
            f" {images('scans', 'layers that descend', 'constrained-noise')} of the layers descend with constraints and"
            f" layer noise, without both {images('scans', 'layers that descend', 'unconstrained')}; PSNR"
            f" {images('scans', 'unseen', 'constrained-noise')} and {images('scans', 'unseen', 'unconstrained')} dB,"
            f" with noise alone {images('scans', 'unseen', 'unconstrained-noise')}. On blocks at layer noise 0.2:"
            f" {images('blocks', 'layer noise 0.2', 'constrained-noise')},"
            f" {images('blocks', 'layer noise 0.2', 'unconstrained')} and"
            f" {images('blocks', 'layer noise 0.2', 'unconstrained-noise')} dB: it is the noise in training that helps",
        ),
        (
            "GLOW-Prox inpainting: layers that descend, and robust ones",
            PARTLY,
            f"all layers descend ({both(fill, 'descents, %')} %); with layer noise {both(fill, 'layer noise 0.1')} dB,"
            f" on other images {both(fill, 'photographs, no faces')} dB. Faces of 24 x 24 pixels, not of 64 x 64",
        ),
    ]


PAPERS: Sequence[tuple[str, Callable[[Results], Claims]]] = (
    ("Monotone operator learning (IEEE TCI 2023)", monotone_operator_learning),
    ("Gradient-informed networks (Pattern Recognition Letters 2025; its abstract)", gradient_informed),
    ("Stochastic unrolled networks (IEEE TSP 2024)", stochastic_descent),
)


def rows(results: Results) -> list[tuple[str, str, str]]:
    """Return the claims of all papers as rows of one table, each paper's under its title."""
    found = []
    for title, claims in PAPERS:
        found.append((f"**{title}**", "", ""))
        found += claims(results)
    return found
