"""LeNet-5."""

from functools import partial

from torch import nn

from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_choice, check_image_size
from convolt.models.heads import DenseHead
from convolt.models.init import initialize

SMALLEST_IMAGE = 16


class LeNet(nn.Sequential):
    """Conv 6 5x5, AF, pool, conv 16 5x5, AF, pool, dense 120, 84, classes; convolutions without padding.

    LeCun et al. 1998, "Gradient-based learning applied to document recognition". ReLU and max pooling are today's form
    and the defaults; `activation="tanh", pooling="avg"` is closer to the paper, whose partial connections and
    trained subsampling nobody uses any more. With batch norm the two convolutions have it, the dense layers not.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 16 or more.
        batchnorm: "auto" is none.
        activation: Name of the activation.
        init: Initial weights; "auto" is PyTorch's.
        pooling: "max" or "avg", 2x2.
        dropout: Dropout after each hidden dense layer.

    Raises:
        UserError: When an option is none of these or the images are too small.
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
        pooling: str = "max",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_image_size("LeNet", image_size, SMALLEST_IMAGE)
        check_choice("pooling", pooling, ("max", "avg"))
        batchnorm = batchnorm.resolve("LeNet", auto="none")
        conv = partial(ConvBlock, padding=0, bias=True, batchnorm=batchnorm, activation=activation)
        pool = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d
        self.stages = nn.Sequential(
            nn.Sequential(conv(in_channels, 6, 5), pool(2)), nn.Sequential(conv(6, 16, 5), pool(2))
        )
        size = ((image_size - 4) // 2 - 4) // 2
        self.head = DenseHead(16 * size**2, (120, 84), num_classes, activation=activation, dropout=dropout)
        initialize(self, init)
