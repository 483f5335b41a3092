"""Networks of convolutions alone: All-CNN and Network in Network."""

from functools import partial

from torch import nn

from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_image_size
from convolt.models.heads import ConvHead
from convolt.models.init import initialize


class AllCNN(nn.Sequential):
    """Dropout, 3x3, 3x3, 3x3 stride 2, dropout, the same twice as wide, 3x3 without padding, 1x1, 1x1 to the classes.

    All-CNN-C of Springenberg et al. 2015, https://arxiv.org/abs/1412.6806; each convolution but the last has BN and AF.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 9 or more.
        batchnorm: "auto" is none.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal.
        width: Channels of the first three convolutions.
        input_dropout: Dropout of the images.
        dropout: Dropout after each convolution of stride 2.

    Raises:
        UserError: When the images are too small or an option is none of these.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        batchnorm: BatchNorm = AS_PUBLISHED,
        activation: str = "relu",
        init: str = "auto",
        width: int = 96,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_image_size("All-CNN", image_size, 9)
        batchnorm = batchnorm.resolve("All-CNN", auto="none")

        conv = partial(ConvBlock, bias=True, batchnorm=batchnorm, activation=activation)

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            convs = conv(inputs, outputs, 3), conv(outputs, outputs, 3), conv(outputs, outputs, 3, stride=2)
            return nn.Sequential(*convs, nn.Dropout(dropout))

        self.stages = nn.Sequential(
            nn.Dropout(input_dropout),
            stage(in_channels, width),
            stage(width, 2 * width),
            nn.Sequential(conv(2 * width, 2 * width, 3, padding=0), conv(2 * width, 2 * width, 1)),
        )
        self.head = ConvHead(2 * width, num_classes)
        initialize(self, init, convolution="kaiming_normal")


class NetworkInNetwork(nn.Sequential):
    """5x5, 1x1, 1x1, 3x3 max pool, dropout; 5x5, 1x1, 1x1, 3x3 average pool, dropout; 3x3, 1x1, 1x1 to the classes.

    Lin et al. 2014, https://arxiv.org/abs/1312.4400, with the widths of its CIFAR-10 network; the pools have stride 2,
    each convolution but the last has BN and AF.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 4 or more.
        batchnorm: "auto" is none.
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal.
        dropout: Dropout after each pool.

    Raises:
        UserError: When the images are too small or an option is none of these.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        batchnorm: BatchNorm = AS_PUBLISHED,
        activation: str = "relu",
        init: str = "auto",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_image_size("Network in Network", image_size, 4)
        batchnorm = batchnorm.resolve("Network in Network", auto="none")
        conv = partial(ConvBlock, bias=True, batchnorm=batchnorm, activation=activation)
        self.stages = nn.Sequential(
            nn.Sequential(
                conv(in_channels, 192, 5),
                conv(192, 160, 1),
                conv(160, 96, 1),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                nn.Dropout(dropout),
            ),
            nn.Sequential(
                conv(96, 192, 5),
                conv(192, 192, 1),
                conv(192, 192, 1),
                nn.AvgPool2d(3, 2, ceil_mode=True),
                nn.Dropout(dropout),
            ),
            nn.Sequential(conv(192, 192, 3), conv(192, 192, 1)),
        )
        self.head = ConvHead(192, num_classes)
        initialize(self, init, convolution="kaiming_normal")
