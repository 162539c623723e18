"""Score networks: denoisers H whose Lipschitz constant is known."""

from molrecon.networks.base import ScoreNetwork
from molrecon.networks.plain import PlainNetwork
from molrecon.networks.residual import ResidualNetwork
from molrecon.networks.spectral import SpectralNetwork
from molrecon.networks.unet import UNet

__all__ = ["PlainNetwork", "ResidualNetwork", "ScoreNetwork", "SpectralNetwork", "UNet"]
