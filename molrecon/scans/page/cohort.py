"""index.html: all volumes of a folder on one page, from their records."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from molrecon.io import write_atomically
from molrecon.scans.manifest import FAILED, INCOMPLETE, NOT_CONVERGED, OK, STATUSES, UNREADABLE
from molrecon.scans.page.distributions import draw_distributions
from molrecon.scans.page.document import is_page, render
from molrecon.scans.page.figures import FEWEST, OUTLIER_Z, QUANTITIES, short
from molrecon.scans.page.pictures import thumbnail
from molrecon.scans.page.rows import NOT_DONE, Row, make_rows, thumbnail_path
from molrecon.scans.page.verdict import Verdict
from molrecon.scans.reconstruction import Reconstruction

INDEX = "index.html"
THUMBNAIL_SIZE = 64  # pixels
MOST_THUMBNAILS = 500  # more would make the page slow to open
CERTIFIED = (
    "Certified: every slice of the volume lies within its error bound of the one solution of the method's equation, and"
    " that is proved, not estimated."
)
NOT_CERTIFIED = (
    "No bound says that an image shows the anatomy as it is: with motion, wrong coil maps or lost signal the equation"
    " itself is wrong. Look at the warnings and at the images."
)

log = logging.getLogger(__name__)


def write_index(folder: Path, content: Mapping[str, Any]) -> Verdict:
    """Write FOLDER/index.html, and return its verdict.

    Args:
        folder: of the outputs.
        content: from `manifest.write_manifest`.

    Raises:
        ValueError: a page of another program is in its place.
        OSError: it cannot be written.
    """
    path = folder / INDEX
    if path.exists() and not is_page(path):
        raise ValueError(f"{path}: is there and no page of molrecon, expected another folder, or that it be moved away")
    count = len(content["volumes"]) + len(content["missing"])
    rows = make_rows(folder, content, thumbnails=count <= MOST_THUMBNAILS)
    write_atomically(path, cohort_page(rows, content).encode())
    return judge(rows)


def write_thumbnail(folder: Path, name: str, result: Reconstruction) -> None:
    """Write the middle slice of a volume (of a series its first frame), small, beside its record. Raises OSError."""
    volume = result.image.reshape(-1, *result.image.shape[-3:])[0]  # of contrasts, frames or both
    image, spacing = volume[len(volume) // 2], result.voxel_size or (1.0, 1.0, 1.0)
    aspect = (image.shape[0] * spacing[0]) / (image.shape[1] * spacing[1])
    path = thumbnail_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, thumbnail(image, THUMBNAIL_SIZE, aspect), durable=False)


def cohort_page(rows: Sequence[Row], content: Mapping[str, Any]) -> str:
    """Return the page as HTML: verdict, table, distributions, what the images were made with.

    It names outputs and nothing else that records say in free text, other than why a volume failed, unless folders were
    not to be named. The folder itself has no name on it.

    Args:
        rows: from `make_rows`.
        content: the manifest.
    """
    choices = [
        ("", "All", len(rows)),
        ("bad", "Failed or not converged", sum(row.level == "bad" for row in rows)),
        ("warned", "Warnings", sum(row.warned > 0 for row in rows)),
        ("outlier", "Outliers", sum(bool(row.z) for row in rows)),
        ("certified", "Certified", sum(row.certified for row in rows)),
        ("waiting", "Not done", sum(row.status == NOT_DONE for row in rows)),
    ]
    variables: dict[str, Any] = {
        "title": "Reconstructed volumes",
        "verdict": judge(rows),
        "choices": [choice for choice in choices if choice[2] or not choice[0]],
        "rows": rows,
        "quantities": QUANTITIES,
        "short": short,
        "thumbnails": any(row.thumbnail for row in rows),
        "histograms": draw_distributions(rows),
        "outlier_z": OUTLIER_Z,
        "fewest": FEWEST,
        "provenance": _provenance(content),
    }
    return render("cohort.html", "cohort.js", variables, {})


def judge(rows: Sequence[Row]) -> Verdict:
    """Return the first lines of the page: how many volumes are certified, and how many are not, and why."""
    n, certified = len(rows), sum(row.certified for row in rows)
    statuses = Counter(row.status for row in rows)
    recognised = sum(statuses[status] for status in (*STATUSES, NOT_DONE))
    counts = [
        (statuses[OK] - certified, "without a certificate"),
        (statuses[NOT_CONVERGED], "not converged"),
        (statuses[INCOMPLETE], "incomplete"),
        (statuses[UNREADABLE], "unreadable"),
        (statuses[FAILED], "failed"),
        (n - recognised, "unknown"),
        (statuses[NOT_DONE], "not done yet"),
        (warned := sum(row.warned > 0 for row in rows), "with warnings about the data"),
    ]
    phrases = [f"{certified} of {n} volumes certified", *(f"{count} {words}" for count, words in counts if count)]
    levels = {row.level for row in rows}
    return Verdict(
        "bad" if "bad" in levels else "caution" if "caution" in levels or warned else "good",
        f"{'; '.join(phrases)}." if rows else "No volumes.",
        [CERTIFIED] if certified else [],
        [NOT_CERTIFIED],
    )


def _provenance(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of what the volumes were made with; no paths."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for record in content["volumes"]:
        model = record.get("model")
        if isinstance(model, Mapping):
            name = PurePath(str(model.get("name")).replace("\\", "/")).name
            weights, settings = model.get("weights_sha256") or "none", record.get("settings_sha256") or "unknown"
            counts[name, str(weights), str(settings)] += 1
    rows = [
        (f"{count} volume{'' if count == 1 else 's'}", f"model {name}, weights sha256 {weights}, settings {settings}")
        for (name, weights, settings), count in counts.most_common()
    ]
    rows.append(("page", f"written {content['written']}; molrecon {content['versions'].get('molrecon', 'unknown')}"))
    return rows
