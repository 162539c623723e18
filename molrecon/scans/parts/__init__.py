"""What is written beside the image on request: its phase, the coil maps, the noise in it.

Parts        what is asked for, and the files that hold it
noise_maps   how much noise is in each pixel of an image as it is delivered
"""

from __future__ import annotations

from molrecon.scans.parts.wanted import IMAGES, KEPT, PLAIN, Parts

__all__ = ["IMAGES", "KEPT", "PLAIN", "Parts"]
