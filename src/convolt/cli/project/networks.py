"""Networks of your own: each is a `torch.nn.Module` that returns logits; `conf/model/` names them."""

from torch import nn


class SmallNet(nn.Sequential):
    """Three convolutions, each with batch norm and ReLU, then the mean over the image and one dense layer.

    Convolt hands over those of its keys that the constructor takes: `in_channels`, `num_classes`, `image_size`,
    `batchnorm`, `activation`, `init`. What else stands on the page, here the width, is the network's own.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits.
        width: Channels of the first convolution; each further one has twice as many.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        layers: list[nn.Module] = []
        for channels in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            in_channels = channels
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
