"""Test-time augmentation by mirroring: the mean of the logits of an image and of its mirror image."""

from torch import Tensor, nn


class MirrorAveraged(nn.Module):
    """Averages a network's logits over images (B, C, H, W) and their mirror images.

    Args:
        network: Images to logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, K, ...)."""
        return average_mirrored(self.network, images)


def average_mirrored(network: nn.Module, images: Tensor) -> Tensor:
    """Return (B, K) or (B, K, H, W), the mean of the logits of (B, C, H, W) and of their mirror images.

    Logits of pixels are mirrored back. The images themselves come last, so that hooks in the network see
    its activations for them.
    """
    mirrored: Tensor = network(images.flip(3))
    logits: Tensor = ((mirrored.flip(3) if mirrored.dim() == 4 else mirrored) + network(images)) / 2
    return logits
