"""One image file to pixels, with errors that name the file. Damage that Pillow would pass over is found here.

What is done with the kinds of images: an orientation that the camera noted is applied; of an animation the first frame
is read; transparency is dropped, as torchvision's ``ImageFolder`` does, so hidden colours show; 16 bits are scaled to
8. A flipped bit is found in PNG, which has checksums; JPEG and most others have none, and show the damage.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lightning_lab.runs.errors import InputError

#: What a file may hold, whatever its suffix says. Not all that Pillow knows: it hands PostScript to another program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
#: How a picture is turned upright, by the number in its EXIF data.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def one_limit_of_size() -> Iterator[None]:
    """Refuse every image above Pillow's limit, of which it only warns up to twice the limit.

    Around all of the decoding, not in `decode_image`: Python's filters of warnings are those of the whole process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of damaged notes in an image whose pixels can be read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


# Caches hold what this makes of a file: with a change of it, raise _FORMAT in cache.py.
def decode_image(path: Path, channels: int, image_size: int) -> tuple[np.ndarray, bool]:
    """Decode one image file.

    Args:
        path: The file.
        channels: 3 for colour, 1 for grey.
        image_size: Height and width; another size is resized (bilinear).

    Returns:
        Pixels (image_size, image_size, channels) uint8, and whether the image was resized.

    Raises:
        InputError: If the file cannot be read as an image, or has too many pixels.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.format == "PNG":
                file.verify()  # decoding does not compare the checksums
        with Image.open(path, formats=_FORMATS) as file:
            file.load()
            image = _eight_bits(_upright(file)).convert("RGB" if channels == 3 else "L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = re.search(r"(\d+) pixels", str(error))
        raise InputError(
            f"{path} has {size[1] if size else 'too many'} pixels, at most {Image.MAX_IMAGE_PIXELS} are read. "
            "Scale it down or remove it."
        ) from error
    except Exception as error:  # Pillow raises a dozen types here, depending on which byte is bad
        # Pillow's own message for a file of another kind repeats the path and nothing more.
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise InputError(f"{path} cannot be read as an image: {reason}. Repair or remove it.") from error
    odd = image.size != (image_size, image_size)
    if odd:
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels), odd


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose, which also writes the EXIF data anew, and fails where they are damaged.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, OSError, LookupError, TypeError):
        return image  # the notes are damaged, the pixels are not
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are fractions, of which nothing says what is white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip them to white, not scale them
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels are {values.min()} to {values.max()}; save it with 8 or 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the path stands in the message already
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
