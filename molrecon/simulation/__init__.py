"""Simulation: anatomy, coils, phase, noise and sampling of scans, and the problems that training takes.

problem              what does training take: a measurement with its answer
stream               how are problems made while training runs?
strips, volumes      how are images, volumes and image series acquired?
calibrated           which maps do the volumes and series have?
scan                 a fully sampled scan of a real image, and its strips
images               which images are scanned?
anatomy              a head of analytic tissues
coils, fields        receive coils and their maps
phase, contrast, noise   phase, contrast and noise of real scans
filters              what do scanners lay over k-space?
sampling             masks and partial Fourier
sample, phantom      the sample scan, and a phantom, in the fastMRI format
fastmri_file         how is a simulated scan written as a fastMRI file?
"""
