"""Pages to look at, each one file that opens from a folder: NAME.html of a volume, index.html of a cohort."""
