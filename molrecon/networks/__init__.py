"""Networks: denoisers H on images, those with a certified Lipschitz constant and those without.

denoiser             what must a network offer, and how is a module of one's own used?
residual             the strictly monotone network: residual layers on a Haar pyramid
spectral             the strictly monotone network of plain convolutions
plain, unet          networks of which nothing is guaranteed
convex_potential, sll    which layers keep to a Lipschitz constant of 1?
clip                 the clip of these layers
lipschitz            how is the norm of a convolution bounded, and kept at most 1?
convolution          convolutions with their exact adjoints
paired               how does the adjoint to few channels fill the registers?
haar                 the pyramid of averages
initial              which filters does training start from?
guide                what guides a network besides its image?
tiling               how is a large image denoised in tiles, with the same result?
cached_function      what is computed once for the same parameters?
full_precision       how do convolutions keep all bits of float32?
"""

from molrecon.networks.denoiser import Denoiser
from molrecon.networks.plain import PlainNetwork
from molrecon.networks.residual import ResidualNetwork
from molrecon.networks.spectral import SpectralNetwork
from molrecon.networks.unet import UNet

__all__ = ["PlainNetwork", "ResidualNetwork", "Denoiser", "SpectralNetwork", "UNet"]
