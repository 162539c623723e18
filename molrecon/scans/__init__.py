"""Scans on their way from a file to images: preparation, reconstruction, checks, outputs, cohorts, comparisons."""
