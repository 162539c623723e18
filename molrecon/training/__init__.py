"""Training: the one loop, its tasks, losses and data.

loop                 how is anything trained: schedule, averages, checkpoints, resuming
task                 what does a training of one's own define?
train_settings       how long and how fast?
reconstruction_task  how are reconstructors trained?
models               which reconstructors can be trained by name?
losses               (image, reference) -> scalar
self_supervised      how does one train without references?
lipschitz_penalty    how is a free network held to a Lipschitz constant?
fastmri_folder       problems from folders of fastMRI files
fastmri_files, fastmri_slices    reading those files, slice by slice
image_stacks         problems from stacks of images
checkpoints, log     what does a training write?
fingerprint          may a training go on from this checkpoint?
processes            several processes, one model
step_memory          how much memory does a step take?
defaults             what can be trained, with which settings
"""
