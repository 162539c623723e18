"""Many volumes into one folder.

run              reconstruct_cohort: names, list, records and manifest, whichever processes do the work
recipe           what a run is to do with each volume
one_volume       the work on one volume, in any process
earlier_run      outputs that are there already, and whether they may be kept
messages         how well a volume went, in one line
parallel         several processes, each with the model on a device of its own; workers: how they survive being killed
dask_cluster     the same on a Dask cluster; needs the extra dask
worklist         inputs listed in a file, and the part of them that a shard takes
without_folders  what is written and logged, without the names of folders
"""

from __future__ import annotations

from molrecon.scans.cohort.run import check_outputs, model_files, reconstruct_cohort, reconstruct_file

__all__ = ["check_outputs", "model_files", "reconstruct_cohort", "reconstruct_file"]
