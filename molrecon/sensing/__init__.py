"""Compressed sensing of photographs: unrolled stages with GDM or GIN, their hosts, and their training.

photographs          how is one photograph measured, reconstructed and scored?
imager               a model together with the matrices that it was trained for
find_imager          which imager is meant by a name and a ratio?
stage                what is one stage, and how are stages unrolled?
gradient             how does a stage learn about the measurements: GDM or GIN
equilibrium_stage    the fixed point of one stage
ista_net_plus, coast, dpc_dun    the hosts
assembly             hosts and data steps by name
alignment            how well do stages agree with the measurements?
block_batches        which blocks does a step see?
training             training on the published blocks
random_sensing       training for every matrix and ratio
published_ista       the authors' own weights
ratios               the sampling ratios
"""
