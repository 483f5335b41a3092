"""Where images come from: each source writes a dataset as arrays, once. No import here costs more than NumPy."""

from convolt.data.sources.arrays import Arrays
from convolt.data.sources.base import Contents, Source
from convolt.data.sources.digits import Digits
from convolt.data.sources.folder import Folder
from convolt.data.sources.masks import Masks
from convolt.data.sources.shapes import Shapes
from convolt.data.sources.torchvision import Torchvision
from convolt.data.sources.voc import VOC2012

__all__ = ["VOC2012", "Arrays", "Contents", "Digits", "Folder", "Masks", "Shapes", "Source", "Torchvision"]
