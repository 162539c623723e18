"""Reconstructors: every method under one call, `model(kspace, A, noise_level) -> Solution`.

base                 what does the call check, and what does a method of one's own define?
learned              what do all methods around a denoiser have?
mol                  the equilibrium reconstructor, with its error bound
splitting            how is its equilibrium found, and differentiated?
deep_equilibrium     DE-GRAD and DE-PROX, equilibria without monotonicity
unrolled             what do unrolled methods share?
modl, admm_net, varnet   the unrolled methods
post_processing      one network on the zero-filled image
classical            zero-filled, CG-SENSE and L1-wavelet
conditioning         how are scale, noise level, phase and lambda of a scan found?
guiding              which images guide a network?
planes               how does a method of planes guide one of volumes?
forward_mode         how does a network change along a direction?
noise_amplification  how much of the noise is in each pixel of the image?
certificate          how does the certificate follow from Lip(H)?
robustness_bounds    how far can changed data or coil maps move the image?
defaults             default model, batch size and weights of the classical methods
"""
