"""Scans of several kinds, and models of several kinds.

accelerated  along which axes a scan was undersampled, and how much each frame
choice       which model reconstructs a series of images, how many planes at a time, and why
joint        all planes of a 3D scan, or one slice at all times, as one problem
"""

from __future__ import annotations
