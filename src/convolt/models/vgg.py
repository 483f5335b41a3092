"""VGG."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from convolt.errors import UserError
from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_image_size
from convolt.models.heads import DenseHead, make_head_pool
from convolt.models.init import initialize
from convolt.models.stems import SMALL_IMAGE

WIDTHS = (64, 128, 256, 512, 512)
POOLED = 7
"""Side of the feature maps that the ImageNet head takes."""


def vgg_stages(
    in_channels: int, layers: Sequence[int], widths: Sequence[int] = WIDTHS, **options: Any
) -> nn.Sequential:
    """Make VGG's stages of 3x3 convolutions, each ended by a 2x2 max pool.

    (N, in_channels, H, W) to (N, widths[-1], H / 2^s, W / 2^s) with s stages.

    Args:
        in_channels: Channels of the images.
        layers: Convolutions of each stage.
        widths: Channels of each stage.
        options: `batchnorm` and `activation` of each `ConvBlock`.
    """
    stages = nn.Sequential()
    for count, width in zip(layers, widths, strict=True):
        stage = nn.Sequential()
        for _ in range(count):
            stage.append(ConvBlock(in_channels, width, 3, bias=True, **options))
            in_channels = width
        stages.append(stage.append(nn.MaxPool2d(2)))
    return stages


class VGG(nn.Sequential):
    """Five stages of 3x3 convolutions, each ended by a 2x2 max pool, then two hidden dense layers and the classes.

    Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; 32 or more.
        batchnorm: "auto" is `auto_batchnorm`; every convolution has it (and has a bias all the same).
        activation: Name of the activation.
        init: Initial weights; "auto" is Kaiming-normal (fan out), dense layers normal with deviation 0.01.
        layers: Convolutions of each stage; (1, 1, 2, 2, 2) is VGG11, (2, 2, 2, 2, 2) 13, (2, 2, 3, 3, 3) 16 and
            (2, 2, 4, 4, 4) 19.
        head: "imagenet" averages the last feature maps to 7x7, "flatten" takes them unchanged; "auto" is
            "imagenet" from 224x224 images on.
        hidden: Width of the two hidden dense layers; None for 512 below 64x64 images and 4096 from there on.
        dropout: Dropout after each hidden dense layer.
        auto_batchnorm: The placement that "auto" stands for.
        dense_batchnorm: Whether the hidden dense layers have batch norm too.

    Raises:
        UserError: When an option is none of these, the stages are not five or the images are too small.
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
        layers: Sequence[int] = (2, 2, 3, 3, 3),
        head: str = "auto",
        hidden: int | None = None,
        dropout: float = 0.5,
        auto_batchnorm: str = "none",
        dense_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        if len(layers) != len(WIDTHS):
            raise UserError(f"model.layers has {len(layers)} numbers: VGG has five stages")
        check_image_size("VGG", image_size, 2 ** len(layers))
        batchnorm = batchnorm.resolve("VGG", auto=auto_batchnorm)
        if hidden is None:
            hidden = 512 if image_size < SMALL_IMAGE else 4096
        self.stages = vgg_stages(in_channels, layers, batchnorm=batchnorm, activation=activation)
        self.pool, size = make_head_pool(head, image_size // 2 ** len(layers), POOLED)
        self.head = DenseHead(
            WIDTHS[-1] * size**2,
            (hidden, hidden),
            num_classes,
            activation=activation,
            dropout=dropout,
            batchnorm=batchnorm if dense_batchnorm else None,
        )
        initialize(self, init, convolution="kaiming_normal_fan_out", dense="normal")
