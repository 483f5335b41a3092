"""GoogLeNet."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from convolt.models.blocks import AS_PUBLISHED, BatchNorm, ConvBlock, check_choice, output_size
from convolt.models.heads import PooledHead
from convolt.models.inception import AUXILIARY_WEIGHT, GOOGLENET, AuxiliaryHead, apply_inceptions, make_inceptions
from convolt.models.init import initialize
from convolt.models.stems import resolve_stem


class GoogLeNet(nn.Module):
    """A stem, nine inception blocks (2, pool, 5, pool, 2), global average pooling, dropout and a dense layer.

    Szegedy et al. 2015, https://arxiv.org/abs/1409.4842. The stem is 7x7 stride 2, pool, 1x1, 3x3, pool ("imagenet")
    or 3x3, 1x1, 3x3 ("small"), which gives 32x32 images about the paper's feature maps (32, 16, 8 beside 28, 14, 7).

    In training, a network with auxiliary heads gives `(logits, logits after 4a, logits after 4d)`.

    Args:
        in_channels: Channels of the images.
        num_classes: Width of the logits.
        image_size: Side of the images; it decides the stem.
        batchnorm: "auto" is `auto_batchnorm`.
        activation: Name of the activation.
        init: Initial weights; "auto" is torchvision's (normal with deviation 0.01) with batch norm and Xavier-uniform
            without it, where such small weights do not learn.
        stem: "imagenet", "small" or "auto", by the image size.
        auxiliary: Whether there are auxiliary heads.
        dropout: Dropout before the dense layer.
        auxiliary_dropout: Dropout in the auxiliary heads.
        form: "paper", or "torchvision": 3x3 in place of 5x5 and a 2x2 last pool.
        auto_batchnorm: The placement that "auto" stands for.

    Raises:
        UserError: When an option is none of these.
    """

    auxiliary_weight = AUXILIARY_WEIGHT

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        batchnorm: BatchNorm = AS_PUBLISHED,
        activation: str = "relu",
        init: str = "auto",
        stem: str = "auto",
        auxiliary: bool = True,
        dropout: float = 0.4,
        auxiliary_dropout: float = 0.7,
        form: str = "paper",
        auto_batchnorm: str = "none",
    ) -> None:
        super().__init__()
        check_choice("form", form, ("paper", "torchvision"))
        stem = resolve_stem(stem, image_size, ("auto", "imagenet", "small"))
        batchnorm = batchnorm.resolve("GoogLeNet", auto=auto_batchnorm)

        options: dict[str, Any] = {"batchnorm": batchnorm, "activation": activation}
        conv: Callable[..., nn.Module] = partial(ConvBlock, **options)
        pool = partial(nn.MaxPool2d, stride=2, ceil_mode=True)
        size = image_size
        if stem == "imagenet":
            self.stem = nn.Sequential(
                conv(in_channels, 64, 7, stride=2), pool(3), conv(64, 64, 1), conv(64, 192, 3), pool(3)
            )
            size = output_size(output_size(output_size(size, 7, 2, 3), 3, 2, ceil=True), 3, 2, ceil=True)
        else:
            self.stem = nn.Sequential(conv(in_channels, 64, 3), conv(64, 64, 1), conv(64, 192, 3))
        size = output_size(size, 3, 2, ceil=True)
        make_head = partial(AuxiliaryHead, size=size, num_classes=num_classes, dropout=auxiliary_dropout, **options)
        self.stages, self.auxiliary, channels = make_inceptions(
            192,
            GOOGLENET,
            {"4a": pool(3), "5a": pool(3 if form == "paper" else 2)},
            make_head if auxiliary else None,
            **options,
            five=5 if form == "paper" else 3,
        )
        self.head = PooledHead(channels, num_classes, dropout)
        scheme = "xavier_uniform" if batchnorm.placement == "none" else "truncated_normal"
        initialize(self, init, convolution=scheme, dense=scheme)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, in_channels, H, W) to logits (N, num_classes), in training in a tuple with the auxiliary heads'."""
        if not (self.training and self.auxiliary):
            logits: Tensor = self.head(self.stages(self.stem(images)))
            return logits
        x, auxiliary = apply_inceptions(self.stages, self.auxiliary, self.stem(images))
        return (self.head(x), *auxiliary)
