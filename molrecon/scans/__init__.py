"""Scans on their way from a file to images: preparation, reconstruction, checks, outputs, cohorts, comparisons.

preparation          from a raw volume to k-space, coil maps, mask and noise level, on the grid
scan                 what did one scan measure: its images and what they share
reconstruction       from a raw volume to images, with a report on every slice
scan_reconstruction  the same for every image of a scan
kinds                which model for which scan, and how many planes it sees at a time
methods              methods by the names that commands use
settings             how are volumes reconstructed, and the hash of it
memory               how does a reconstruction fit into given memory?
data_checks          how well do the data fit model and image?
data_warnings        what is said about scans that should not be trusted?
outputs, sidecar     which files does a reconstruction leave, and what do they say?
quality_page         one picture that shows it
trajectories         the same for radial, spiral and other trajectories
page                 NAME.html, to look at: verdict, images, convergence, warnings, hashes
cohort, manifest     many volumes, and what became of each
parts                phase, coil maps and noise beside the image
exports              images as DICOM series and BIDS
series               several reconstructed volumes as one, and one of them again
info                 what is in a file, without reconstructing it?
comparison           methods side by side on undersampled data
comparison_report    the comparison as table and data
metrics              image metrics as fastMRI defines them
progress             the one progress bar
"""
