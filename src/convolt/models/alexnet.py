"""AlexNet."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from convolt.errors import UserError
from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_image_size, output_size
from convolt.models.heads import DenseHead, make_head_pool
from convolt.models.init import initialize
from convolt.models.stems import SMALL_IMAGE, resolve_stem

POOLED = 6
"""Side of the feature maps that the ImageNet head takes."""

SMALLEST_IMAGE = {"imagenet": 63, "small": 15}


class AlexNet(nn.Sequential):
    """Conv, AF, LRN, pool, 5x5, AF, LRN, pool, three times 3x3, AF, pool; two hidden dense layers and the classes.

    The first convolution is 11x11 stride 4 ("imagenet") or 3x3 ("small"), each pool a 3x3 max pool of stride 2. The
    default widths are torchvision's (Krizhevsky 2014, https://arxiv.org/abs/1404.5997). The paper's (Krizhevsky et al.
    2012) are (96, 256, 384, 384, 256) with `groups=2`, LRN, and dropout after the hidden layers.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: "auto" is none.
        activation: Name of the activation.
        init: Initial weights; "auto" is PyTorch's.
        widths: Channels of the five convolutions.
        hidden: Width of the two hidden dense layers; None for 1024 below 64x64 images and 4096 from there on.
        groups: Groups of the second, fourth and fifth convolution.
        local_response_norm: Whether the first two convolutions are followed by local response normalization (LRN).
        stem: "imagenet", "small" or "auto", by the image size.
        head: "imagenet" averages the last feature maps to 6x6, "flatten" takes them unchanged; "auto" is "imagenet"
            where they are 6x6 or larger.
        dropout: Dropout of the hidden dense layers.
        dropout_first: Whether dropout stands before each hidden layer (torchvision) rather than after it.

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
        widths: Sequence[int] = (64, 192, 384, 256, 256),
        hidden: int | None = None,
        groups: int = 1,
        local_response_norm: bool = False,
        stem: str = "auto",
        head: str = "auto",
        dropout: float = 0.5,
        dropout_first: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 5:
            raise UserError(f"model.widths has {len(widths)} numbers: AlexNet has five convolutions")
        stem = resolve_stem(stem, image_size, ("auto", "imagenet", "small"))
        check_image_size(f"AlexNet with the {stem} stem", image_size, SMALLEST_IMAGE[stem])
        batchnorm = batchnorm.resolve("AlexNet", auto="none")
        if hidden is None:
            hidden = 1024 if image_size < SMALL_IMAGE else 4096

        conv = partial(ConvBlock, bias=True, batchnorm=batchnorm, activation=activation)
        first, second, third, fourth, fifth = widths

        def norm() -> list[nn.Module]:
            # The paper's alpha of 1e-4 weighs each of the five squares, PyTorch's their mean.
            return [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)] if local_response_norm else []

        kernel_size, stride, padding = (11, 4, 2) if stem == "imagenet" else (3, 1, 1)
        self.stem = conv(in_channels, first, kernel_size, stride=stride, padding=padding)
        self.stages = nn.Sequential(
            nn.Sequential(*norm(), nn.MaxPool2d(3, 2)),
            nn.Sequential(conv(first, second, 5, groups=groups), *norm(), nn.MaxPool2d(3, 2)),
            nn.Sequential(
                conv(second, third, 3),
                conv(third, fourth, 3, groups=groups),
                conv(fourth, fifth, 3, groups=groups),
                nn.MaxPool2d(3, 2),
            ),
        )
        size = output_size(image_size, kernel_size, stride, padding)
        for _ in range(3):
            size = output_size(size, 3, 2)
        self.pool, size = make_head_pool(head, size, POOLED)
        self.head = DenseHead(
            fifth * size**2,
            (hidden, hidden),
            num_classes,
            activation=activation,
            dropout=dropout,
            dropout_first=dropout_first,
        )
        initialize(self, init)
