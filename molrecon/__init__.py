"""Deep-equilibrium MRI reconstruction with certificates: monotone operator learning and what it is compared with."""

__version__ = "0.1.0"
