"""Simulated measurements of real images: contrast, place, phase, coils, noise, sampling, and problems to train on."""
