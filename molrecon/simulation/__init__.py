"""Simulation: anatomy, coils, phase, noise and sampling of scans, and the problems that training takes."""
