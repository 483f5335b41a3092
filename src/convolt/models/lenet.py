"""LeNet-5."""

from torch import Tensor, nn

from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_choice, check_image_size, output_size
from convolt.models.heads import DenseHead
from convolt.models.init import initialize

SMALLEST_IMAGE = 16


class LeNet(nn.Module):
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
        batchnorm = batchnorm.settle("LeNet", auto="none")
        stages = []
        size = image_size
        for inputs, outputs in ((in_channels, 6), (6, 16)):
            conv = ConvBlock(inputs, outputs, 5, padding=0, bias=True, batchnorm=batchnorm, activation=activation)
            stages.append(nn.Sequential(conv, nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)))
            size = output_size(size, 5) // 2
        self.stages = nn.Sequential(*stages)
        self.head = DenseHead(16 * size**2, (120, 84), num_classes, activation=activation, dropout=dropout)
        initialize(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, image_size, image_size) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.stages(images))
        return logits
