"""Lay out the natural images of the compressive-sensing tests and trainings.

Where from (no licence is stated with the images; use them for research):

  cs/set11            11 grey images             https://github.com/jianzhangcs/ISTA-Net-PyTorch  (data/Set11)
  cs/bsd68            68 grey, 481 x 321         https://github.com/cszn/DnCNN                    (testsets/BSD68)
  cs/bsd68_cropped    68 colour, 480 x 288       https://github.com/jianzhangcs/COAST
  cs/train400         400 grey, 180 x 180        https://github.com/cszn/DnCNN                    (.../data/Train400)
  cs/t91              91 colour                  https://github.com/tegg89/SRCNN-Tensorflow       (Train)

git clone these into one folder and run: python data_scripts/prepare_cs.py --source FOLDER --out DATA
With --sets set11 bsd68 only those are laid out. The images come from the Berkeley segmentation data set (Martin et al.,
ICCV 2001), the 91-image set (Yang et al., IEEE TIP 2010), and the standard test images.

--blocks also writes cs/t91_blocks_33.npy, (88912, 1089) uint8: the blocks on which ISTA-Net+ and COAST were trained,
rebuilt from the 91 images. (examples/train_cs.py builds them itself.) The initialisation matrices made from them equal
the published ones to 1e-12; where DATA/published/ista_net_plus holds those, the script checks it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common
from molrecon.io import atomic_path
from molrecon.io.matlab import read_matrix
from molrecon.sensing.training import initialisation_matrix, second_moment, training_blocks

SETS = ("set11", "bsd68", "bsd68_cropped", "t91", "train400")
BLOCKS = "cs/t91_blocks_33.npy"
BLOCKS_SHA256 = "45c177a88d20b8fa331e2ab146b848301563421436c63c6dce7e95320cae2bc2"  # of the numbers
LARGEST_DIFFERENCE = 1e-10  # between an initialisation matrix of ours and the published one
PUBLISHED = "published/ista_net_plus"


def prepare_blocks(out: Path) -> common.Report:
    """Write the training blocks, unless they are there, once they are known to be the right ones.

    Raises:
        FileNotFoundError: no images in cs/t91.
    """
    target, report = out / BLOCKS, common.Report()
    blocks = training_blocks(out)
    digest = common.bytes_sha256(blocks.tobytes())
    if digest != BLOCKS_SHA256:
        report.corrupt.append(f"{BLOCKS} (the blocks have sha256 {digest}, expected {BLOCKS_SHA256})")
        return report
    published = sorted((out / PUBLISHED).glob("phi_0_*_1089.mat"))
    moment = second_moment(blocks) if published else np.zeros(0)
    for path in published:
        ratio = path.name.split("_")[2]
        expected = read_matrix(path.with_name(f"Initialization_Matrix_{ratio}.mat"), "Qinit")
        found_matrix = initialisation_matrix(read_matrix(path, "phi"), moment)
        difference = float(np.abs(found_matrix - expected).max())
        if difference > LARGEST_DIFFERENCE:
            found = f"the initialisation matrix of {ratio} % differs by {difference:.1e} from the published one"
            report.corrupt.append(f"{BLOCKS} ({found}, expected {LARGEST_DIFFERENCE:.0e} at most)")
            return report
    if target.is_file() and np.array_equal(np.load(target, allow_pickle=False), blocks):
        return common.Report(kept=[BLOCKS])
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.save(file, blocks)
    return common.Report(placed=[BLOCKS])


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser = common.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="which sets (default: all)")
    parser.add_argument("--blocks", action="store_true", help="write the training blocks too (97 MB)")
    options = parser.parse_args(arguments)
    try:
        table = common.read_checksums(common.CHECKSUMS / "cs.sha256")
        wanted = {name: digest for name, digest in table.items() if name.split("/")[1] in options.sets}
        reports = [common.lay_out(options.source, options.out, wanted)]
        if options.blocks and reports[0].complete:
            reports.append(prepare_blocks(options.out))
    except (common.Unusable, FileNotFoundError) as error:
        parser.error(str(error))
    return common.finish("compressive sensing", reports, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
