"""Score networks: denoisers H whose Lipschitz constant is known."""

from molrecon.networks.denoiser import Denoiser
from molrecon.networks.plain import PlainNetwork
from molrecon.networks.residual import ResidualNetwork
from molrecon.networks.spectral import SpectralNetwork
from molrecon.networks.unet import UNet

__all__ = ["PlainNetwork", "ResidualNetwork", "Denoiser", "SpectralNetwork", "UNet"]
