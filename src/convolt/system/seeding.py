"""One seed, many independent streams of random numbers."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream of random numbers is for."""

    ORDER = 0
    AUGMENTATION = 1
    NETWORK = 2


def generator(seed: int, epoch: int, stream: Stream, *more: int) -> np.random.Generator:
    """Make the generator of one stream in one epoch; the same everywhere for the same arguments.

    Args:
        seed: The run's seed, 0 or more.
        epoch: Epoch, from 0.
        stream: What the numbers are for.
        more: Further coordinates, such as the place of a transform in its list.
    """
    return np.random.default_rng([seed, epoch, int(stream), *more])


def torch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of PyTorch's global generators (dropout and the like) in one epoch of one process."""
    return int(generator(seed, epoch, Stream.NETWORK, *([rank] if rank else [])).integers(2**63))
