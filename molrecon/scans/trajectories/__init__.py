"""Scans whose samples lie on a trajectory: radial, spiral and others in two dimensions.

samples       where the samples lie, their weights, and the operator
calibration   the centre of k-space on the grid, for the coil maps
preparation   from a raw volume to what every method needs
checks        how well the data of a slice fit
"""
