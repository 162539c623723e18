"""What can be trained and with which settings, as the command's help names it: help needs no torch."""

from __future__ import annotations

# Of molrecon.training.train_settings.TrainSettings
STEPS = 4000
LEARNING_RATE = 2e-3
SEED = 0
EMA = 0.998
CLIP = 1.0
CHECKPOINT_EVERY = 500

# The models of molrecon.training.models.build
DESCRIPTIONS = {
    "mol": "MOL, strictly monotone residual network",
    "mol-penalised": "MOL, plain network of 5 layers with a Lipschitz penalty, approximately monotone",
    "modl": "MoDL, plain network of 5 layers, unrolled with shared weights",
    "admm-net": "ADMM-Net, plain network of 5 layers, unrolled with shared weights",
    "varnet": "Variational network, plain network of 5 layers, unrolled gradient steps with shared weights",
    "unet": "U-Net of 3 levels on the zero-filled image, no data consistency",
    "de-grad": "DE-GRAD, plain network of 5 layers, deep equilibrium of a gradient step, nothing guaranteed",
    "de-prox": "DE-PROX, plain network of 5 layers, deep equilibrium of a proximal gradient step, nothing guaranteed",
}

# The losses of molrecon.training.losses
DEFAULT_LOSS = "log-mse"
LOSS_NAMES = (DEFAULT_LOSS, "mse", "magnitude-mse", "l1", "magnitude-l1", "ssim", "ssim-l1")
