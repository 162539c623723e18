"""`molrecon cs`: compressed sensing of a photograph."""

from __future__ import annotations

import argparse
from pathlib import Path

from molrecon.command.shared.arguments import add_device
from molrecon.command.shared.exit_codes import EXIT_OK
from molrecon.command.shared.messages import tell, usage
from molrecon.sensing.ratios import DEFAULT_IMAGER, MEASUREMENTS

HELP = "compressed sensing of a photograph, simulated and reconstructed"
DESCRIPTION = (
    "Measure a grey or colour image by simulation, 33 x 33 blocks by random numbers, every colour channel apart;"
    " reconstruct it from the measurements alone, save it, and print PSNR and SSIM."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--image", required=True, metavar="FILE", help="8-bit image: PNG, TIFF, BMP, JPEG, ...")
    parser.add_argument(
        "--ratio",
        type=int,
        choices=tuple(MEASUREMENTS),
        default=25,
        help="measured numbers over pixels, in percent (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_IMAGER,
        metavar="NAME",
        help="packaged imager, safetensors file that examples/train_cs.py wrote, or published ISTA-Net+ weights"
        " (cs_ratio_R.pkl) (default: %(default)s, for 10, 25 and 50 %%)",
    )
    parser.add_argument("--out", metavar="FILE", help="image to write (default: IMAGE-RATIO.png in this folder)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well; - prints them to stdout only")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Measure the image, reconstruct it, write it, and print its scores."""
    from molrecon.command.shared.inputs import chosen_device, protect, weights_files
    from molrecon.io.images import check_suffix, read_image, write_image
    from molrecon.sensing.find_imager import find_imager
    from molrecon.sensing.photographs import sense_photograph

    device = chosen_device(args)
    out = Path(args.out or f"{Path(args.image).stem}-{args.ratio}.png")
    protect([args.json, out], [args.image, *weights_files(args.model)])
    image = read_image(args.image)
    with usage():
        check_suffix(out)
        imager = find_imager(args.model, args.ratio).to(device)
        result = sense_photograph(image, imager)
        write_image(out, result.image)
    content = {"image": args.image, "out": str(out), "ratio": args.ratio, "model": args.model}
    content.update(psnr=result.psnr, ssim=result.ssim, pixels=image.size, measurements=result.measurements)
    rows, cols = image.shape[:2]
    kind = "grey" if image.ndim == 2 else "colour"
    measured = f"{rows} x {cols} {kind}, {result.measurements} numbers measured of {image.size}"
    tell(args, content, f"{measured}\nPSNR {result.psnr:.2f} dB, SSIM {result.ssim:.4f}: {out}")
    return EXIT_OK
