"""Solvers: conjugate gradients, fixed points with their implicit gradients, and the solution that every one returns."""
