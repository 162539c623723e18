"""Sparse codes, inpainting, and networks whose layers descend, with their training."""
