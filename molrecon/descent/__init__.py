"""Sparse codes, inpainting, and networks whose layers descend, with their training.

sparse               ISTA, FISTA and the error of codes
lista                learned ISTA
sparse_problems, sparse_training     what LISTA is trained on, and how
inpainting           inpainting without training, and its scores
glow_prox            inpainting by unrolled proximal flows
glow                 the invertible network in them
inpainting_problems, inpainting_training     what it is trained on, and how
constraints          what is asked of layers, and does a network do it?
training             how are layers trained to descend?
multipliers          the multipliers of those constraints
problems             what is a descent training given?
descent_checks       do the layers of a network descend?
"""
