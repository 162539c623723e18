"""What a run is to do with each input, the same in every process, and what becomes of an input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.exports import NO_EXPORTS, Exports
from molrecon.scans.manifest import Entry
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource


@final
@dataclass(frozen=True)
class Item:
    """An input, and the name of its outputs."""

    path: Path
    name: str


@final
@dataclass(frozen=True, eq=False)
class Recipe:
    """What is the same for all volumes of a run, in every process; all of it can be pickled.

    Attributes:
        source: of the model, from `load_method`.
        settings: with the device of this process.
        settings_sha256: of the settings and the model's.
        out: the folder, which is there; None: nothing is written.
        resume: see `reconstruct_cohort`.
        folders: False: nothing that is written names a folder, see `WithoutFolders`.
        exports: what is written beside the ordinary outputs.
    """

    source: ModelSource
    settings: Settings
    settings_sha256: str
    out: Path | None
    resume: bool = False
    folders: bool = True
    exports: Exports = NO_EXPORTS

    def outputs_sha256(self, item: Item) -> str:
        """Return the hash of all but input and weights that the outputs of an item depend on."""
        exported = self.exports.settings_sha256(item.name, self.settings_sha256)
        return self.settings.parts.outputs_sha256(exported)

    @property
    def exports_phase(self) -> bool:
        """Whether a BIDS data set gets the phase of every image too."""
        return "phase" in self.settings.parts.images

    @property
    def shown_source(self) -> ModelSource:
        """The source as the outputs name it."""
        return self.source if self.folders else replace(self.source, name=Path(self.source.name).name)


@final
@dataclass(frozen=True)
class Outcome:
    """What became of an item: its entry, and its record where the disk took none."""

    name: str
    entry: Entry
    unwritten: dict[str, Any] | None


Execute = Callable[[Reconstructor, Recipe, Sequence[Item]], Iterator[Outcome]]
"""How items are carried out, here or elsewhere: yields what becomes of each, in any order."""
