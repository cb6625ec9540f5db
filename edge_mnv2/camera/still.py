"""Still pictures to RGB, for every command by one policy.

The decoder is Pillow, not OpenCV, because OpenCV fills a JPEG that was cut short with grey and calls it read, cannot
read a TIFF with an orientation, has GIF and AVIF only in its newest releases (boards get 4.6 from apt), and writes its
complaints to file descriptor 2. Pillow gives the same pixels for a whole JPEG (both use libjpeg-turbo), and comes by
apt or wheel on every board, 32-bit ones too.

Policy
- grey and 1-bit: the value in all three channels; palette: looked up;
- alpha, a palette's too: laid over white, as a viewer shows it;
- 16 bits a channel: the high byte;
- CMYK, YCbCr: converted by formula; embedded colour profiles are not applied;
- EXIF orientation: applied, whatever the format;
- several frames (GIF, WebP, APNG, MPO, multi-page TIFF): the first;
- 32-bit integer and float samples: refused, because the file does not say what is white.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Union

import numpy as np

from edge_mnv2.camera import content
from edge_mnv2.errors import SourceError

if TYPE_CHECKING:
    from PIL import Image

# EPS is left out on purpose: Pillow would start Ghostscript on a file of unknown origin.
_FORMATS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "PPM": "PpmImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "MPO": "MpoImagePlugin",
    "AVIF": "AvifImagePlugin",
}
_ORIENTATION = 0x0112


def read_still(path: Union[Path, str]) -> np.ndarray:
    """The picture in file `path` as RGB uint8 HxWx3, upright, by the policy above.

    Content decides, not the extension. Raises SourceError, whose message names the file, for everything that is not a
    whole, readable picture.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(f"{path} is a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{path} is not a regular file")
        with path.open("rb") as file:
            return _decode(path, file)
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{path}: file not found") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL inside the name
        raise SourceError(f"{str(path)!r} cannot be read: {error}") from error


def list_stills(folder: Union[Path, str]) -> list[Path]:
    """Files below `folder` that are pictures or claim to be, in natural order (`2.jpg` before `10.jpg`).

    Hidden entries are skipped, and so are files that neither look like a picture or clip nor have the extension of one.
    A damaged picture, or a clip, is listed: reading it gives the error that its user should see.
    Raises SourceError where the folder cannot be read.
    """
    folder = Path(folder)
    files: list[Path] = []
    try:
        for here, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(here, name) for name in names if not name.startswith(".") and _listed(Path(here, name))]
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror or error}") from error
    return sorted(files, key=lambda path: [_natural(part) for part in path.relative_to(folder).parts])


def _raise(error: OSError) -> None:
    raise error


def _natural(name: str) -> tuple:
    # Text and numbers alternate, so that equal positions always hold equal types.
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(int(part) if position % 2 else part for position, part in enumerate(parts)), name


def _listed(path: Path) -> bool:
    if path.suffix.lower() in content.PICTURE_SUFFIXES | content.CLIP_SUFFIXES:
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return content.kind(file.read(content.HEAD_BYTES)) in ("picture", "heic", "clip")
    except OSError:
        return False


def _decode(path: Path, file: IO[bytes]) -> np.ndarray:
    what = content.kind(file.read(content.HEAD_BYTES))
    if what == "empty":
        raise SourceError(f"{path} is empty (0 bytes)")
    if what == "heic":
        raise SourceError(f"{path} is a HEIC picture, which cannot be read here", hint="convert it to JPEG")
    if what == "clip":
        raise SourceError(f"{path} is a video, not a picture", hint=f"edge-mnv2 run --source {path}")
    if what in ("text", "html"):
        raise SourceError(f"{path} is not a picture: it holds {'a web page' if what == 'html' else 'text'}")
    if what is None:
        raise SourceError(f"{path} is not a picture that can be read")
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and very large pictures; what matters raises.
        warnings.simplefilter("ignore")
        try:
            return _rgb(path, _opened(file))
        except SourceError:
            raise
        except Exception as error:
            # Damaged files raise nearly anything in a decoder (SyntaxError, struct.error, IndexError, ...).
            reason = str(error).replace(repr(file), "it").strip() or type(error).__name__
            raise SourceError(f"{path} is damaged or cut short: {reason}") from error


def _opened(file: IO[bytes]) -> Image.Image:
    from PIL import Image, PngImagePlugin

    known = []
    for name, module in _FORMATS.items():
        try:
            importlib.import_module(f"PIL.{module}")
        except ImportError:  # AVIF came late
            continue
        known += [name] if name in Image.OPEN else []
    file.seek(0)
    image = Image.open(file, formats=known)
    if isinstance(image, PngImagePlugin.PngImageFile):
        # Decoding alone does not look at the checksums of the pixel data.
        image.verify()
        file.seek(0)
        image = Image.open(file, formats=known)
    return image


def _rgb(path: Path, image: Image.Image) -> np.ndarray:
    from PIL import Image

    image.load()
    try:
        # Pillow turns a TIFF by itself, and only its newer versions take the tag away then.
        orientation = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata do not spoil the picture
        orientation = 1
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)
        return _upright(np.repeat(grey[:, :, np.newaxis], 3, axis=2), orientation)
    if image.mode in ("I", "F"):
        raise SourceError(
            f"{path} has 32-bit samples, and the file does not say which value is white",
            hint="convert it to 8 or 16 bits",
        )
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return _upright(np.array(image if image.mode == "RGB" else image.convert("RGB")), orientation)


def _upright(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Undo EXIF orientation 2 to 8 (Exif 2.32, tag 274); any other value means upright."""
    turned = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.swapaxes(0, 1),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(pixels),
    }.get(orientation if isinstance(orientation, int) else 1, lambda: pixels)()
    return np.ascontiguousarray(turned)
