"""Reconstructors: every method under one call, `model(kspace, A, noise_level) -> Solution`."""
