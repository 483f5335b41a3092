"""Fully convolutional networks on VGG16, which label every pixel."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convolt.errors import UserError
from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_choice
from convolt.models.init import initialize
from convolt.models.pretrained import load_vgg16
from convolt.models.vgg import WIDTHS, vgg_stages

LAYERS = (2, 2, 3, 3, 3)
COARSEST = 2 ** len(LAYERS)
"""Pixels of the image to one of the last feature maps."""

SMALL_IMAGE = 128
"""Images narrower than this get the small form where settings are null: a quarter of the widths, a small head."""


class FCN(nn.Module):
    """VGG16 with its dense layers as convolutions, scores of the classes at one to three strides, upsampled and added.

    Long, Shelhamer and Darrell 2015, https://arxiv.org/abs/1411.4038. Instead of the paper's border of 100 pixels the
    head keeps the size of its maps, and images are padded by 0 to a multiple of 32 and the logits cropped.

    Args:
        in_channels: Channels of the images.
        num_classes: Classes of a pixel, the background included.
        image_size: Side of the images.
        batchnorm: "auto" is `auto_batchnorm`; every convolution of VGG16 has it, the head has none.
        activation: Name of the activation.
        init: Initial weights of VGG16 and the head; "auto" is Kaiming-normal (fan out). Scores start at zero.
        stride: 32, 16 or 8: the finest stride whose scores are used.
        upsampling: "learned" (transposed convolutions that start as bilinear interpolation) or "interpolation".
        pretrained: ImageNet's weights for VGG16: false, true (torchvision's, downloaded once) or the path of a file
            with their state dict. The head takes those of the dense layers where it has their size.
        width: Factor of all widths of VGG16, above 0; None for 0.25 below 128x128 images and 1 from there on.
        hidden: Width of the head's two layers; None for 256 below 128x128 images and 4096 from there on.
        head_kernel: Side of the head's first convolution, odd; None for 3 below 128x128 images and 7 from there on.
        dropout: Dropout after each of the head's two layers.
        auto_batchnorm: The placement that "auto" stands for.

    Raises:
        UserError: When an option is none of these, or the weights cannot be had or do not fit.
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
        stride: int = 8,
        upsampling: str = "learned",
        pretrained: bool | str = False,
        width: float | None = None,
        hidden: int | None = None,
        head_kernel: int | None = None,
        dropout: float = 0.5,
        auto_batchnorm: str = "before",
    ) -> None:
        super().__init__()
        check_choice("upsampling", upsampling, ("learned", "interpolation"))
        check_choice("stride", str(stride), ("32", "16", "8"))
        small = image_size < SMALL_IMAGE
        width = (0.25 if small else 1.0) if width is None else width
        hidden = hidden or (256 if small else 4096)
        head_kernel = head_kernel or (3 if small else 7)
        if head_kernel % 2 == 0:
            raise UserError(f"model.head_kernel={head_kernel} must be odd, so that the maps keep their size")
        if width <= 0:
            raise UserError(f"model.width={width} must be greater than 0")
        batchnorm = batchnorm.resolve("FCN", auto=auto_batchnorm)
        plain = BatchNorm("none")
        widths = [max(1, round(width * channels)) for channels in WIDTHS]
        self.image_size = image_size
        self.padding = -image_size % COARSEST
        self.stages = vgg_stages(in_channels, LAYERS, batchnorm=batchnorm, activation=activation, widths=widths)
        self.head = nn.Sequential(
            OrderedDict(
                conv6=ConvBlock(widths[-1], hidden, head_kernel, batchnorm=plain, activation=activation),
                dropout6=nn.Dropout(dropout),
                conv7=ConvBlock(hidden, hidden, 1, batchnorm=plain, activation=activation),
                dropout7=nn.Dropout(dropout),
            )
        )
        # From coarse to fine: what scores the maps of a stride, and what brings the sum to the next stride.
        inputs = {32: hidden, 16: widths[3], 8: widths[2]}
        strides = [each for each in inputs if each >= stride]
        self.scores = nn.ModuleList(nn.Conv2d(inputs[each], num_classes, 1) for each in strides)
        factors = [2] * (len(strides) - 1) + [stride]
        learned = upsampling == "learned"
        self.upsamplings = nn.ModuleList(make_upsampling(num_classes, factor, learned=learned) for factor in factors)
        initialize(self, init, convolution="kaiming_normal_fan_out")
        for score in self.scores:
            nn.init.zeros_(score.weight)  # type: ignore[arg-type]
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]
        if pretrained:
            load_vgg16(self.stages, self.head, pretrained, batchnorm)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, image_size, image_size) to logits (N, num_classes, image_size, image_size)."""
        maps = [F.pad(images, (0, self.padding, 0, self.padding)) if self.padding else images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        logits: Tensor = self.upsamplings[0](self.scores[0](self.head(maps[-1])))
        finer = list(zip(self.scores, self.upsamplings, strict=True))[1:]
        for skip, (score, upsampling) in zip((maps[-2], maps[-3]), finer, strict=False):
            logits = upsampling(logits + score(skip))
        return logits[:, :, : self.image_size, : self.image_size] if self.padding else logits


def make_upsampling(channels: int, factor: int, *, learned: bool) -> nn.Module:
    """Make a module that enlarges maps by a whole factor: (N, C, H, W) to (N, C, factor * H, factor * W).

    Args:
        channels: C.
        factor: An even number.
        learned: A transposed convolution that starts as bilinear interpolation, or this interpolation itself.
    """
    if not learned:
        return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
    conv = nn.ConvTranspose2d(channels, channels, 2 * factor, factor, factor // 2, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        diagonal = torch.arange(channels)
        conv.weight[diagonal, diagonal] = bilinear_kernel(factor)
    return nn.Sequential(OrderedDict(conv=conv))


def bilinear_kernel(factor: int) -> Tensor:
    """Return (2 factor, 2 factor): the weights with which a transposed convolution of that stride interpolates."""
    away = (torch.arange(2 * factor) - (factor - 0.5)).abs()
    line = 1 - away / factor
    return line[:, None] * line
