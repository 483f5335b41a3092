"""Odd image files: every format and mode that Pillow writes, whole and damaged, and files of other kinds.

python tests/odd_images.py FOLDER [COUNT]      writes them all, or so many of them, drawn at random
"""

import io
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

MODES = (
    "1",
    "L",
    "LA",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "I;16B",
    "F",
    "PA",
    "La",
    "RGBa",
)
FORMATS = {
    "png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "ppm": "PPM",
    "jp2": "JPEG2000", "avif": "AVIF", "tga": "TGA", "ico": "ICO", "icns": "ICNS", "pcx": "PCX", "sgi": "SGI",
    "dds": "DDS", "im": "IM", "msp": "MSP", "xbm": "XBM", "qoi": "QOI", "dib": "DIB", "eps": "EPS", "pdf": "PDF",
    "blp": "BLP", "spi": "SPIDER", "palm": "PALM", "mpo": "MPO",
}  # fmt: skip
SIZES = ((1, 1), (1, 300), (257, 1), (33, 21))
TIFF = ("raw", "tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate", "group3", "group4", "zstd", "lzma", "webp")


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return an image of a mode."""
    width, height = size
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode in ("I;16", "I;16B"):
        order = "<u2" if mode == "I;16" else ">u2"
        return Image.frombytes(mode, size, (values[..., 0].astype(order) * 250).astype(order).tobytes())
    if mode == "I":
        return Image.fromarray(values[..., 0].astype(np.int32) * 250)
    if mode == "F":
        return Image.fromarray(values[..., 0].astype(np.float32) / 255)
    if mode in ("PA", "La", "RGBa"):
        return Image.fromarray(values).convert({"PA": "LA", "La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode in ("LAB", "HSV", "YCbCr", "CMYK"):
        return Image.frombytes(mode, size, values[..., : len(Image.new(mode, (1, 1)).getbands())].tobytes())
    return Image.fromarray(values).convert("RGB" if mode == "1" else mode if mode != "P" else "RGB").convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes | None:
    """Return an image as a file; None where Pillow does not write such ones."""
    file = io.BytesIO()
    try:
        image.save(file, format=kind, **options)
    except Exception:  # encoders raise whatever they like
        return None
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, color: int, rows: bytes, *extra: bytes, after: bytes = b"") -> bytes:
    """Return a PNG file; rows have their filter bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + after + chunk(b"IEND", b"")


def rows(values: np.ndarray) -> bytes:
    """Return rows of a PNG file without filters: of values (H, W, ...), uint8 or uint16."""
    stored = values.astype(">u2") if values.dtype == np.uint16 else values
    return b"".join(b"\0" + row.tobytes() for row in stored)


def whole(sizes: tuple[tuple[int, int], ...] = SIZES) -> Iterator[tuple[str, bytes]]:
    """Yield whole files: every format and mode that Pillow writes, of each size."""
    for ending, kind in FORMATS.items():
        for mode in MODES:
            for size in sizes if kind != "ICNS" else SIZES[-1:] if mode == "RGBA" else ():  # those take long
                data = saved(picture(mode, size), kind)
                if data is not None:
                    yield f"{mode.replace(';', '')}_{size[0]}x{size[1]}.{ending}", data
    for compression in TIFF:
        for mode in ("1", "L", "RGB", "CMYK"):
            data = saved(picture(mode, (64, 48)), "TIFF", compression=compression)
            if data is not None:
                yield f"{mode}_{compression}.tif", data


def special() -> Iterator[tuple[str, bytes]]:
    """Yield files with something unusual in them."""
    plain, palette = picture("RGB", (24, 16)), picture("P", (24, 16))
    frames = [picture("P", (24, 16)), picture("RGB", (24, 16)).rotate(180).convert("P")]
    for ending, kind in (
        ("gif", "GIF"),
        ("png", "PNG"),
        ("webp", "WEBP"),
        ("tif", "TIFF"),
        ("avif", "AVIF"),
        ("mpo", "MPO"),
    ):
        images = [frame.convert("RGB") for frame in frames] if kind != "GIF" else frames
        yield f"frames.{ending}", saved(images[0], kind, save_all=True, append_images=images[1:]) or b""
    for name, transparency in (("number", 3), ("bytes", bytes(range(256)))):
        yield f"clear_{name}.png", saved(palette, "PNG", transparency=transparency) or b""
    yield "clear.gif", saved(palette, "GIF", transparency=3) or b""
    yield "clear_color.png", saved(plain, "PNG", transparency=(1, 2, 3)) or b""
    for orientation in (*range(10), "x", 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"), ("avif", "AVIF")):
            yield f"orientation_{orientation}.{ending}", saved(plain, kind, exif=exif) or b"\0"
    for number, exif_data in enumerate(
        (b"Exif\0\0garbage", b"", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    ):
        for ending, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("avif", "AVIF")):
            yield f"exif_{number}.{ending}", saved(plain, kind, exif=exif_data) or b"\0"
    for ending, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
        yield f"profile.{ending}", saved(plain, kind, icc_profile=b"no profile" * 20) or b"\0"
    pixels = rows(np.asarray(plain))
    bomb = b"note\0\0" + zlib.compress(b"x" * 20_000_000)
    yield "text_bomb.png", png(24, 16, 8, 2, pixels, chunk(b"zTXt", bomb))
    yield "text_bomb_after.png", png(24, 16, 8, 2, pixels, after=chunk(b"zTXt", bomb))
    yield "text_large.png", png(24, 16, 8, 2, pixels, chunk(b"iTXt", b"x\0\0\0\0\0" + b"y" * 3_000_000))
    yield "text_bad.png", png(24, 16, 8, 2, pixels, chunk(b"zTXt", b"x\0\0nonsense"), chunk(b"tIME", b""))
    yield "checksum.png", png(24, 16, 8, 2, pixels, chunk(b"tEXt", b"a\0b")[:-1] + b"?")
    yield "frames_bad.png", png(24, 16, 8, 2, pixels, chunk(b"acTL", b"\0"))
    deep = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 16).astype(np.uint16)
    color = np.stack([deep] * 3, 2)
    yield "deep.png", png(8, 8, 16, 0, rows(deep))
    yield "deep_clear.png", png(8, 8, 16, 0, rows(deep), chunk(b"tRNS", struct.pack(">H", 16)))
    yield "deep_alpha.png", png(8, 8, 16, 4, rows(np.stack([deep, deep * 64], 2)))
    yield "deep_color.png", png(8, 8, 16, 2, rows(color), chunk(b"tRNS", struct.pack(">HHH", 16, 16, 16)))
    yield "deep_color_alpha.png", png(8, 8, 16, 6, rows(np.dstack([color, deep * 64])))
    yield "deep.pgm", b"P5\n2 2\n4095\n" + np.array([0, 1000, 2000, 4095], ">u2").tobytes()
    for values, name in (
        (np.array([[np.nan, 1]]), "nan"),
        (np.array([[0, 300]]), "large"),
        (np.array([[-1, np.inf]]), "inf"),
    ):
        yield f"float_{name}.tif", saved(Image.fromarray(values.astype(np.float32)), "TIFF") or b""
    yield "negative.tif", saved(Image.fromarray(np.array([[-5, 70000]], np.int32)), "TIFF") or b""
    sizes = [(16, 16), (32, 32), (256, 256)]
    yield "sizes.ico", saved(picture("RGBA", (256, 256)), "ICO", sizes=sizes) or b""
    yield "progressive.jpg", saved(plain, "JPEG", progressive=True) or b""
    yield "cmyk_inverted.jpg", saved(picture("CMYK", (24, 16)), "JPEG", quality=90) or b""


def huge() -> Iterator[tuple[str, bytes]]:
    """Yield files whose headers declare very many pixels, and large ones that are whole."""
    for side in (11_000, 20_000, 60_000, 2**31 - 1):
        yield f"bomb_{side}.png", png(side, side, 8, 2, b"\0" * 100)
        yield (
            f"bomb_{side}.bmp",
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 154, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            + b"\0" * 100,
        )
        yield f"bomb_{side}.ppm", f"P6\n{side} {side}\n255\n".encode() + b"\0" * 100
        yield f"bomb_{side}.pgm", f"P5\n{side} {side}\n65535\n".encode() + b"\0" * 100
        yield f"bomb_{side}.pfm", f"Pf\n{side} {side}\n-1.0\n".encode() + b"\0" * 100
        yield f"bomb_{side}.qoi", b"qoif" + struct.pack(">IIBB", side, side, 4, 0) + b"\xfe" * 100
        if side < 2**16:
            yield (
                f"bomb_{side}.gif",
                b"GIF89a"
                + struct.pack("<HHBBB", side, side, 0x80, 0, 0)
                + b"\0" * 6
                + b","
                + struct.pack("<HHHHB", 0, 0, side, side, 0)
                + b"\x02\x02\x4c\x01\0;",
            )
            yield (
                f"bomb_{side}.tga",
                struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, side, side, 32, 0) + b"\xff" * 100,
            )
            data = bytearray(saved(picture("RGB", (16, 16)), "JPEG") or b"")
            place = data.index(b"\xff\xc0") + 5
            data[place : place + 4] = struct.pack(">HH", side, side)
            yield f"bomb_{side}.jpg", bytes(data)
    black = zlib.compress(b"\0" * (9_000 * 4 + 1) * 9_000, 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 8, 6, 0, 0, 0))
    for number in range(4):
        yield f"large_{number}.png", b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", black) + chunk(b"IEND", b"")
    icon = png(13_000, 13_000, 1, 0, b"\0" * (13_000 // 8 + 1) * 13_000)
    yield "icon.ico", struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(icon), 22) + icon
    large = Image.new("RGB", (7_000, 6_000), "red")
    for ending, options in (
        ("webp", {"method": 0}),
        ("jp2", {}),
        ("avif", {"speed": 10}),
        ("jpg", {"progressive": True}),
        ("tif", {"compression": "tiff_lzw"}),
    ):
        yield f"large.{ending}", saved(large, FORMATS[ending], **options) or b"\0"


def foreign() -> Iterator[tuple[str, bytes]]:
    """Yield files that are no images, or images that Pillow can only recognize."""
    yield "empty.png", b""
    yield "zeros.jpg", b"\0" * 5_000
    yield "text.jpg", b"not an image\n" * 50
    yield "page.png", b"<!DOCTYPE html><html><body>404</body></html>"
    yield "drawing.svg.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "archive.png", b"PK\x03\x04" + b"\0" * 200
    yield "loop.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n%%EOF\n"
    yield "data.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100
    yield "data.grib", b"GRIB\0\0\0\x01" + b"\0" * 100
    yield "data.bufr", b"BUFR" + b"\0" * 100
    yield (
        "picture.wmf",
        b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 100, 100, 1440) + b"\0" * 4 + b"\x01\0\t\0" + b"\0" * 100,
    )
    yield "picture.emf", b"\x01\0\0\0" + struct.pack("<I8i", 108, 0, 0, 9, 9, 0, 0, 99, 99) + b" EMF" + b"\0" * 100
    yield "film.mpg", b"\x00\x00\x01\xb3" + b"\x10\x01\x00" + b"\0" * 100
    card = "".join(
        f"{text:<80}"
        for text in (
            "SIMPLE  =                    T",
            "BITPIX  =                   16",
            "NAXIS   =                    2",
            "NAXIS1  =                    8",
            "NAXIS2  =                    8",
            "END",
        )
    )
    yield "stars.fits", f"{card:<2880}".encode() + b"\0\x01" * 64
    yield (
        "drawing.xpm",
        b'/* XPM */\nstatic char * x[] = {\n"2 2 2 1",\n"a c #000000",\n"b c #FFFFFF",\n"ab",\n"ba"};\n',
    )
    yield "wrong_ending.jpg", saved(picture("RGBA", (9, 9)), "PNG") or b""
    yield "wrong_ending.png", saved(picture("RGB", (9, 9)), "JPEG") or b""
    yield "wrong_ending.tif", saved(picture("P", (9, 9)), "GIF") or b""


def damaged(whole_files: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield files cut off at several places, with flipped bits, and with zeros or other bytes in their midst."""
    chance = random.Random(0)
    for name, data in whole_files:
        stem, _, ending = name.rpartition(".")
        for part in (0.1, 0.5, 0.9, 0.99):
            yield f"{stem}_cut{part}.{ending}", data[: int(len(data) * part)]
        for number in range(4):
            flipped = bytearray(data)
            for _ in range(1 + 3 * number):
                flipped[chance.randrange(min(len(data), 400 if number % 2 else len(data)))] ^= 1 << chance.randrange(8)
            yield f"{stem}_flip{number}.{ending}", bytes(flipped)
        half = len(data) // 2
        yield f"{stem}_zeros.{ending}", data[:half] + bytes(min(64, len(data) - half)) + data[half + 64 :]
        yield f"{stem}_noise.{ending}", data[:half] + chance.randbytes(64) + data[half + 64 :]


def everything(*, small: bool = False) -> list[tuple[str, bytes]]:
    """Return all files.

    Args:
        small: Leave out all sizes but one, and what declares very many pixels.
    """
    files = list(whole(SIZES[-1:] if small else SIZES))
    one_of_each = {name.rpartition(".")[2]: (name, data) for name, data in files if "33x21" in name}
    tiffs = [(name, data) for name, data in files if name.endswith(".tif") and "x" not in name]
    files += [*special(), *foreign(), *damaged([*one_of_each.values(), *tiffs[::3]])]
    return files if small else [*files, *huge()]


def write(folder: Path, files: list[tuple[str, bytes]]) -> list[Path]:
    """Write files, numbered, and a folder that is named as an image."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}_{name}" for number, (name, _) in enumerate(files)]
    for path, (_, data) in zip(paths, files, strict=True):
        path.write_bytes(data)
    (folder / "folder.png").mkdir(exist_ok=True)
    return paths


if __name__ == "__main__":
    ImageFile.MAXBLOCK = 1 << 24
    made = everything()
    if len(sys.argv) > 2:
        made = random.Random(0).sample(made, int(sys.argv[2]))
    print(f"{len(write(Path(sys.argv[1]), made))} files")
