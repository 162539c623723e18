"""Arrays whose axes stand in another order than the one expected: told by their sizes, with what mends them."""

from __future__ import annotations

from pathlib import Path

from molrecon.io.volume import UnreadableInput

__all__ = ["check_coil_axis"]

FEWEST_LINES = 32  # of an image, along either axis
MOST_COILS = 128  # elements of the largest receive arrays
FEW_LINES_COILS, FEW_LINES = 64, 64  # more coils than this with no more lines than that are not found either


def check_coil_axis(path: Path, shape: tuple[int, ...], name: str = "array") -> None:
    """Raise UnreadableInput where the axes of (..., coil, rows, cols) look like those of an array with coils last.

    They do when what would be the coils and rows (or the slices and coils) are as large as an image, the last axis is
    as small as a receive array, and the order expected makes no sense: fewer than 32 columns, or more coils than there
    are. Read that way a head of 256 x 256 in 8 coils is 256 coils of 256 x 8, whose maps take 64 GiB.

    Args:
        path: named in the error.
        shape: of 3 or 4 axes.
        name: what the array is called in the advice.
    """
    coils, rows, cols = shape[-3:]
    too_many = coils > (FEW_LINES_COILS if cols <= FEW_LINES else MOST_COILS)
    if not (cols < FEWEST_LINES or too_many) or coils < FEWEST_LINES or not cols < coils or cols > MOST_COILS:
        return
    if rows >= FEWEST_LINES:
        axes, target = "(rows, cols, coils)" if len(shape) == 3 else "(slices, rows, cols, coils)", len(shape) - 3
        mend = f"numpy.moveaxis({name}, -1, {target})"
    elif len(shape) == 4 and shape[0] >= FEWEST_LINES:
        axes, mend = "(rows, cols, slices, coils)", f"numpy.moveaxis({name}, (2, 3), (0, 1))"
    else:
        return
    expected = "(coil, rows, cols)" if len(shape) == 3 else "(slice, coil, rows, cols)"
    raise UnreadableInput(
        path,
        f"an array of shape {tuple(shape)}, which would be {coils} coils of {rows} x {cols}: its axes look like {axes},"
        " coils last",
        f"{expected}: {mend} puts them in this order",
    )
