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
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common

SETS = ("set11", "bsd68", "bsd68_cropped", "t91", "train400")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser = common.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="which sets (default: all)")
    options = parser.parse_args(arguments)
    try:
        table = common.read_checksums(common.CHECKSUMS / "cs.sha256")
        wanted = {name: digest for name, digest in table.items() if name.split("/")[1] in options.sets}
        report = common.lay_out(options.source, options.out, wanted)
    except common.Unusable as error:
        parser.error(str(error))
    return common.finish("compressive sensing", [report], __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
