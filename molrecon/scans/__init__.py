"""Scans on their way from a file to images: preparation, reconstruction, checks, outputs, cohorts, comparisons.

scan                 all that one scan measured: its images, and what they share
preparation          from a raw volume to k-space, coil maps, mask and noise level
trajectories         the same for radial, spiral and other trajectories
reconstruction       from a raw volume to images, with a report on every slice
scan_reconstruction  the same for every image of a scan, and its files
kinds                which model for which scan, and how many planes it sees at a time
methods              methods by the names that commands use
settings             how volumes are reconstructed, and the hash of it
memory               a reconstruction inside a given amount of memory
data_checks          how well the data fit model and image: numbers
data_warnings        how well the data fit model and image: thresholds and advice
outputs, sidecar     the files that a reconstruction leaves, and the JSON that describes it
quality_page         one picture that shows it
page                 NAME.html, to look at: verdict, images, convergence, warnings, hashes
parts                phase, coil maps and noise beside the image
exports              images as DICOM series and BIDS
cohort, manifest     many volumes, and what became of each
series               several reconstructed volumes as one, and one of them again
info                 what is in a file, without reconstructing it
comparison           methods side by side on undersampled data
comparison_report    the comparison as table and data
metrics              image metrics as fastMRI defines them
progress             the one progress bar
"""
