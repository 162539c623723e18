"""What is said about a scan or an image that should not be trusted: thresholds of the data checks, and advice.

The thresholds were set on scans known to be sound or broken: k-space of a real 8-coil head, coil images of a real
4-coil one, and phantom heads, with random and equispaced masks, 1 to 8 times, 6 to 24 central lines, by CG-SENSE and
the packaged models. The comments give the largest value of the sound ones and the smallest of the broken ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from molrecon.io import RawVolume
from molrecon.scans.data_checks import SliceChecks

# calibration_share over 1 / rows^2 + 1 / cols^2 of the region, with which it goes in sound scans.
# Sound: 0.8 (6 lines), 0.7 (10 and more). Broken: 1.1 to 2 for four fifths of the field of view, 7 for 0.7, 4.3 for
# maps 10 pixels off, over 100 for maps flipped.
CALIBRATION_LEAK = 1.5
OWN_RATIO, OWN_MARGIN = 1.5, 5e-4  # of given maps, against the data's own. Sound: 1.1. Broken: 1.6 for maps 25 mm away
SECOND_SET_ENERGY = 0.002  # sound: 0.0013 (8 lines), 1e-4 (12); broken: 0.006 for 0.7 fields of view, 0.025 for half
SECOND_SET_PIXELS = 0.5  # sound: 0.33 (8 lines), 0.04 (12); broken: 0.6 for half of the field of view
# On a trajectory. Sound: 0.006 (12 samples wide), 0.002 (24). Broken: 0.013 to 0.019 for an object of 1.3 views.
TRAJECTORY_SECOND_SET = 0.01
# Sound: 1.6, and up to 3.6 where the share is below 1.5e-4. Broken: 2.4 to 5.6, with shares of 9e-4 to 0.02.
LINE_RATIO, LINE_SHARE = 2.2, 3e-4
# Sound: 1.2 with data consistency, and more where noise is so small that the maps' rounding shows, with a share of at
# most 0.003. Broken: 2.4 to 15, with shares of 0.018 to 0.8.
RESIDUAL_SIGMAS, RESIDUAL_SHARE = 1.5, 0.004
ZERO_FILLED_RATIO = 1.1  # sound: 1.02 (fully sampled); U-Net on a brain: 1.8
BRIGHTNESS = 2.5  # sound: 2.1; broken: 2.7 to 4.5 for folded fields of view and maps upside down
BRIGHTNESS_GAIN = 1.8  # over zero-filling, which has bright fat and vessels as well; sound: 1.55; broken: 2.3
NOISE_SCAN_RATIO = 1.2  # of the noise scan to the data; wrong bandwidths are off by factors of 1.26 and more
# What the training of the packaged models draws from, `molrecon.simulation`; beyond it networks are held at its end.
TRAINED_NOISE, TRAINED_ACCELERATION, TRAINED_COILS = 0.05, 10.0, 32
NOISE_RATIO = 3.0  # sound: 1.05; broken: 10 for a noise level ten times wrong, 20 for coil images that were filtered


@final
@dataclass(frozen=True)
class DataWarning:
    """Something about a scan that its user should know before trusting the image.

    Attributes:
        slice: its index; None for the whole volume.
        check: its name, a few words.
        value, threshold: the number measured, and the largest that is not warned of; None for remarks of a reader.
        advice: a sentence or two on what it means and what to do.
    """

    slice: int | None
    check: str
    value: float | None
    threshold: float | None
    advice: str

    def __str__(self) -> str:
        """Return the warning as one line."""
        where = "" if self.slice is None else f"slice {self.slice}: "
        measured = "" if self.value is None else f" {self.value:.3g} (at most {self.threshold:.3g})"
        return f"{where}{self.check}{measured}: {self.advice}"


def slice_warnings(index: int, checks: SliceChecks, maps_given: bool) -> list[DataWarning]:
    """Return what the checks of a slice give reason to warn of.

    Args:
        index: of the slice.
        checks: from `check_slice`.
        maps_given: the maps come from elsewhere, not from this slice's calibration region.
    """
    warnings: list[DataWarning] = []

    def warn(check: str, value: float, threshold: float, advice: str) -> None:
        warnings.append(DataWarning(index, check, value, threshold, advice))

    c = checks
    # Maps from elsewhere have to fit about as well as those estimated from the data themselves.
    rows, cols = c.calibration_shape
    allowed = CALIBRATION_LEAK * (1 / rows**2 + 1 / cols**2) if rows and cols else math.nan
    if maps_given and math.isfinite(c.own_share):
        allowed = min(allowed, max(OWN_RATIO * c.own_share, c.own_share + OWN_MARGIN))
    if c.calibration_share > allowed:
        advice = "the coil maps do not explain the calibration data"
        advice += (
            ": are they of another slice, orientation or scan? Let them be estimated from this scan"
            if maps_given
            else ": the object may be larger than the field of view, or have moved; use two map sets, or scan again"
        )
        warn("calibration misfit", c.calibration_share, allowed, advice)
    if c.second_set_energy >= SECOND_SET_ENERGY or c.second_set_pixels >= SECOND_SET_PIXELS:
        by_energy = c.second_set_energy >= SECOND_SET_ENERGY
        warn(
            "second map set",
            c.second_set_energy if by_energy else c.second_set_pixels,
            SECOND_SET_ENERGY if by_energy else SECOND_SET_PIXELS,
            "the calibration data hold signal that one set of coil maps cannot explain: the object is larger than the"
            " field of view, or a central line is corrupted; "
            + ("use two map sets, or a larger field of view" if c.sets == 1 else "two map sets are used"),
        )
    if c.line_ratio > LINE_RATIO and c.line_share > LINE_SHARE:
        warn(
            "inconsistent line",
            c.line_ratio,
            LINE_RATIO,
            f"column {c.line_column} fits the others much less than its neighbours do, which motion, a spike or a wrong"
            " receiver gain can do; leave it out of the sampling mask",
        )
    unexplained = c.least_squares_sigmas > RESIDUAL_SIGMAS and c.least_squares_share > RESIDUAL_SHARE
    if unexplained:
        warn(
            "data not explained",
            c.least_squares_sigmas,
            RESIDUAL_SIGMAS,
            "no image explains the data with these coil maps to within the noise: check the maps, the field of view,"
            " motion, and the noise level",
        )
    elif c.residual_sigmas > RESIDUAL_SIGMAS and c.residual_share > RESIDUAL_SHARE:
        warn(
            "image residual",
            c.residual_sigmas,
            RESIDUAL_SIGMAS,
            "the image leaves more of the data unexplained than noise does, and other images do not; methods without"
            " data consistency (zero-filling, U-Net) do this on sound scans too: compare with cg-sense",
        )
    large = c.residual_sigmas > RESIDUAL_SIGMAS and c.residual_share > RESIDUAL_SHARE
    if large and c.residual_over_zero_filled > ZERO_FILLED_RATIO:
        warn(
            "farther than zero-filling",
            c.residual_over_zero_filled,
            ZERO_FILLED_RATIO,
            "the image is farther from the data than the zero-filled one is: do not use it",
        )
    if c.brightness > max(BRIGHTNESS, BRIGHTNESS_GAIN * c.zero_filled_brightness):
        warn(
            "bright pixels",
            c.brightness,
            max(BRIGHTNESS, BRIGHTNESS_GAIN * c.zero_filled_brightness),
            "some pixels are far brighter than the object: errors of the coil maps or noise have gathered there; look"
            " at the image before using it",
        )
    return warnings


def trajectory_warnings(second_set_energy: float, sets: int) -> list[DataWarning]:
    """Return a warning where one set of maps cannot explain the calibration data of a trajectory.

    Args:
        second_set_energy: share of their energy that a second set explains, see `MapSets`.
        sets: of maps in use.
    """
    if not second_set_energy >= TRAJECTORY_SECOND_SET:
        return []
    advice = (
        "the calibration data hold signal that one set of coil maps cannot explain: the object is larger than the field"
        " of view, or the coils moved; "
        + (
            "one set is used, since a second one rarely helps on trajectories (--map-sets 2 to try); reconstruct a"
            " larger field of view"
            if sets == 1
            else "two sets are used"
        )
    )
    return [DataWarning(None, "second map set", second_set_energy, TRAJECTORY_SECOND_SET, advice)]


def noise_warnings(
    noise_level: float, estimates: Mapping[str, float], estimated: bool, rounding: float = 0.0
) -> list[DataWarning]:
    """Return a warning where ways of finding the noise level disagree.

    Args:
        noise_level: the one in use.
        estimates: by name, in the same units, see `PreparedVolume`; each but the outer readout can be too high.
        estimated: whether noise_level is one of them, or was given.
        rounding: of the data; levels below it are not told apart.
    """
    noise_level = max(noise_level, rounding)
    levels = {name: max(level, rounding) for name, level in estimates.items() if math.isfinite(level)}
    if not levels:
        return []
    listed = ", ".join(f"{name} {level:.3g}" for name, level in levels.items())
    low, high = min(levels.values()), max(levels.values())
    if estimated and (scan := levels.pop("noise scan", None)) is not None and levels:
        data = levels.get("outer readout", min(levels.values()))
        if (ratio := _ratio(scan, data)) > NOISE_SCAN_RATIO:
            advice = (
                f"the noise scan says {scan:.3g} and the data {data:.3g}, which is used: the converter may have written"
                " a wrong bandwidth or dwell time"
            )
            return [DataWarning(None, "noise scan", ratio, NOISE_SCAN_RATIO, advice)]
    if estimated:
        centre, edge = levels.get("null space", math.nan), levels.get("periphery", math.nan)
        readout = levels.get("outer readout", math.nan)
        ratios = [centre / edge if edge > 0 else math.nan, _ratio(readout, min(centre, edge))]
        ratio = max((value for value in ratios if math.isfinite(value)), default=math.nan)
        if ratio > NOISE_RATIO:
            advice = (
                f"estimates of the noise level disagree ({listed}) and {noise_level:.3g} is used: k-space may have been"
                " filtered, interpolated or padded, or hold interference; give the noise level (--noise-level) if you"
                " know it"
            )
            return [DataWarning(None, "noise estimates", ratio, NOISE_RATIO, advice)]
        return []
    ratio = noise_level / high if noise_level > high else low / noise_level if noise_level > 0 else math.inf
    if ratio > NOISE_RATIO:
        size = "above" if noise_level > high else "below"
        advice = (
            f"the noise level given, {noise_level:.3g}, is far {size} what the data show ({listed}): it is the standard"
            " deviation of complex samples in the units of kspace; leave it out to have it estimated"
        )
        return [DataWarning(None, "noise level", ratio, NOISE_RATIO, advice)]
    return []


def training_warnings(
    volume: RawVolume, relative_noise: float, *, sets: int = 1, phase: bool = False, planes: bool = True
) -> list[DataWarning]:
    """Return in what a scan is of a kind that the packaged models were not trained for, or hardly.

    A certificate holds for every scan; what a network has learned does not. Classical methods need none of this.

    Args:
        volume: the scan.
        relative_noise: the noise level over the intensity of the image, the largest of the slices.
        sets: of coil maps in use.
        phase: the phase of the image is used.
        planes: the model sees planes; one of volumes was trained on scans undersampled along both axes.
    """
    mask, warnings = volume.sampling_mask, []
    left = int(volume.attributes.get("padding_left") or 0)
    right = int(volume.attributes.get("padding_right") or mask.shape[-1])
    fewest = min(int(one[..., left:right].sum()) or one.size for one in mask)  # a slice without data has no rate
    acceleration = mask[0][..., left:right].size / fewest

    def warn(check: str, value: float | None, threshold: float | None, kind: str) -> None:
        advice = f"the packaged models were {kind}: compare the image with cg-sense and l1-wavelet before using it"
        warnings.append(DataWarning(None, check, value, threshold, advice))

    if relative_noise > TRAINED_NOISE:
        warn("more noise than trained for", relative_noise, TRAINED_NOISE, "trained with less noise")
    if acceleration > TRAINED_ACCELERATION:
        warn("more undersampled than trained for", acceleration, TRAINED_ACCELERATION, "trained with more samples")
    if volume.n_coils > TRAINED_COILS:
        warn("more coils than trained for", volume.n_coils, TRAINED_COILS, "trained with fewer coils")
    if volume.trajectory is not None:
        warn("trajectory", None, None, "trained on Cartesian scans alone, not on radial or spiral ones")
    elif planes and mask.shape[1] > 1 and not mask.all():
        kind = "trained on scans undersampled along columns, and hardly or not at all on such ones"
        warn("undersampled along both axes (3D)", None, None, kind)
    if sets > 1:
        warn("several sets of coil maps", None, None, "hardly trained with more than one set")
    if phase:
        warn("phase of the image", None, None, "chosen and judged by magnitudes, not by the phase of their images")
    return warnings


def remark_warnings(volume: RawVolume) -> list[DataWarning]:
    """Return what the reader of the file remarked."""
    return [DataWarning(None, "remark", None, None, remark) for remark in volume.remarks]


def _ratio(one: float, other: float) -> float:
    """Return the larger over the smaller of two levels; NaN where one is unknown."""
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.nan
    return max(one, other) / min(one, other) if min(one, other) > 0 else math.inf
