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
- several frames (GIF, WebP, APNG, multi-page TIFF): the first, which is said once; MPO: the first, the photograph;
- 32-bit integer and float samples: refused, because the file does not say what is white;
- a damaged picture is refused, also where its decoder would fill in what is missing;
- a picture that needs more memory than is free is refused before it is decoded.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import re
import stat
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Optional, Union

import numpy as np

from edge_mnv2.camera import content, jpeg
from edge_mnv2.errors import SourceError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

log = logging.getLogger(__name__)

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
_WHITE = 0x0106
"""TIFF 6.0, PhotometricInterpretation: 0 where 0 is white."""
_SURELY_FREE = 64 << 20
_SHARE_OF_FREE = 0.75
_STRIP_PIXELS = 1 << 20
_LARGE = 4_000_000
"""Pixels from which on a JPEG is decoded smaller."""
_SPARE = 2.5
"""How much larger than needed it still is then, so that the one resize that follows sees the same details."""
_FILLER = 256
_said: list[Path] = []
_SILENT_S = 2.0
_MOST_PROBLEMS = 10
_NO_DISK = (Path("/proc"), Path("/sys"))
"""Of the kernel's own: no pictures are looked for there by whoever names `/`."""


class TooManyPixels(SourceError):
    """A picture that is larger than its reader takes."""


def read_still(
    path: Union[Path, str], least_side: Optional[int] = None, most_pixels: Optional[int] = None
) -> np.ndarray:
    """The picture in file `path` as RGB uint8 HxWx3, upright, by the policy above.

    `least_side`: whoever uses the picture needs a shorter side of so many pixels only; a large JPEG is then decoded at
    a half, a quarter or an eighth of its size, for a fraction of time and memory. `most_pixels`: a larger one is
    refused (TooManyPixels) before it is decoded.
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
            return _decode(path, file, least_side, most_pixels)
    except SourceError:
        raise
    except FileNotFoundError:
        address = re.match(r"[a-z][a-z0-9+.-]+:/", str(path))
        hint = "`run --source` takes addresses" if address else None
        raise SourceError(f"{path}: file not found", hint=hint) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL inside the name
        raise SourceError(f"{str(path)!r} cannot be read: {error}") from error


def _log_problem(problem: str) -> None:
    log.warning("%s", problem)


def list_stills(folder: Union[Path, str], report: Callable[[str], object] = _log_problem) -> list[Path]:
    """Files below `folder` that are pictures or claim to be, in natural order (`2.jpg` before `10.jpg`).

    Hidden entries are skipped, and so are files that neither look like a picture or clip nor have the extension of one.
    A damaged picture, or a clip, is listed: reading it gives the error that its user should see. `report` is called
    with a sentence for each folder below that cannot be read, or is a link and therefore not followed; from the tenth
    on with one for all of them. A search that takes long is said.
    Raises SourceError where `folder` itself cannot be read.
    """
    folder = Path(folder)
    files: list[Path] = []
    say_at: float = time.monotonic() + _SILENT_S
    looked_at = problems = 0

    def passed(problem: str) -> None:
        nonlocal problems
        problems += 1
        if problems < _MOST_PROBLEMS:
            report(problem)

    def unreadable(error: OSError) -> None:
        if Path(str(error.filename)) == folder:
            raise SourceError(f"{folder} cannot be listed: {error.strerror or error}") from error
        passed(f"{error.filename} cannot be listed: {error.strerror or error}")

    for here, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(here, name) not in _NO_DISK]
        for link in (Path(here, name) for name in folders if Path(here, name).is_symlink()):
            passed(f"{link} is a link to a folder, which is not followed: name that folder itself")
        for path in (Path(here, name) for name in names if not name.startswith(".")):
            looked_at += 1
            if _listed(path):
                files.append(path)
            if time.monotonic() > say_at:
                say_at = math.inf
                log.warning("looking for pictures below %s: %d of %d files so far", folder, len(files), looked_at)
    if problems >= _MOST_PROBLEMS:
        more = problems - _MOST_PROBLEMS + 1
        report(f"{more} more folders below {folder} cannot be listed or are links, which are not followed")
    return sorted(files, key=lambda path: [natural(part) for part in path.relative_to(folder).parts])


def natural(name: str) -> tuple:
    """By this key `2.jpg` comes before `10.jpg`."""
    # Text and numbers alternate, so that equal positions always hold equal types.
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(int(part) if position % 2 else part for position, part in enumerate(parts)), name


def _listed(path: Path) -> bool:
    if path.suffix.lower() in content.PICTURE_SUFFIXES | content.CLIP_SUFFIXES:
        return True
    try:
        status = path.stat()
        # What the kernel writes as it is read has no size, and reading it may take forever.
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        with path.open("rb") as file:
            return content.kind(file.read(content.HEAD_BYTES)) in ("picture", "heic", "clip")
    except OSError:
        return False


def _decode(path: Path, file: IO[bytes], least_side: Optional[int], most_pixels: Optional[int]) -> np.ndarray:
    what = content.kind(file.read(content.HEAD_BYTES))
    if what == "empty":
        raise SourceError(f"{path} is empty (0 bytes)")
    if what == "heic":
        raise SourceError(f"{path} is a HEIC picture, which cannot be read here", hint="convert it to JPEG")
    if what == "clip":
        pictures = f"take pictures out of it: ffmpeg -i {path.name} -r 2 {path.stem}_%03d.jpg"
        raise SourceError(f"{path} is a video, not a picture", hint=f"edge-mnv2 run --source {path}, or {pictures}")
    if what in ("text", "html"):
        raise SourceError(f"{path} is not a picture: it holds {'a web page' if what == 'html' else 'text'}")
    if what is None:
        raise SourceError(f"{path} is not a picture that can be read")
    with warnings.catch_warnings():
        # Pillow warns about odd metadata; what matters raises.
        warnings.simplefilter("ignore")
        try:
            image = _opened(file)
            if least_side is not None and image.format in ("JPEG", "MPO") and image.width * image.height > _LARGE:
                side = math.ceil(_SPARE * least_side)
                image.draft(None, (side, side))
            if most_pixels is not None and image.width * image.height > most_pixels:
                shown = f"{image.width}x{image.height} pixels, of at most {most_pixels // 10**6} million"
                raise TooManyPixels(f"{path} has {shown}", hint="make the picture smaller")
            _check_memory(path, image)
            damage = _load(image, file)
            if damage is not None:
                raise SourceError(f"{path} is damaged: {damage}")
            pixels = _rgb(path, image)
            if most_pixels is None:
                _say_first(path, image)
            return pixels
        except SourceError:
            raise
        except MemoryError:
            raise SourceError(f"{path} does not fit into the memory that is free") from None
        except Exception as error:
            # Damaged files raise nearly anything in a decoder (SyntaxError, struct.error, IndexError, ...).
            reason = str(error).replace(repr(file), "it").strip() or type(error).__name__
            raise SourceError(f"{path} is damaged or cut short: {reason}") from error


def _say_first(path: Path, image: ImageFile.ImageFile) -> None:
    """Of the first picture with several frames in this process: no others of it are seen."""
    if _said or image.format == "MPO":
        return
    with contextlib.suppress(Exception):  # it looks at the later frames, which nobody asked for
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1:
            _said.append(path)
            hint = f"; `ffmpeg -i {path.name} {path.stem}.mp4` makes a clip" if image.format in ("GIF", "PNG") else ""
            log.warning("%s has %d frames: of such pictures only the first is seen%s", path, frames, hint)


def _opened(file: IO[bytes]) -> ImageFile.ImageFile:
    """The file as the one format of `_FORMATS` that it is in; unlike `Image.open`, without a limit of its own."""
    from PIL import Image, PngImagePlugin

    file.seek(0)
    prefix = file.read(16)
    for name, module in _FORMATS.items():
        try:
            importlib.import_module(f"PIL.{module}")
        except ImportError:  # AVIF came late
            continue
        factory, accept = Image.OPEN.get(name, (None, None))
        # A text is Pillow's reason to refuse.
        if factory is None or (accept is not None and (not (answer := accept(prefix)) or isinstance(answer, str))):
            continue
        file.seek(0)
        try:
            image: ImageFile.ImageFile = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            if str(error) == "unknown pixel mode":
                raise SourceError(
                    f"{file.name} has a kind of samples that cannot be read here", hint="convert it to PNG"
                ) from None
            continue
        if isinstance(image, PngImagePlugin.PngImageFile):
            # Decoding alone does not look at the checksums of the pixel data.
            image.verify()
            file.seek(0)
            image = factory(file, "")
        return image
    raise ValueError("no picture format fits its first bytes")


def _check_memory(path: Path, image: Image.Image) -> None:
    """Refuse, before it is decoded, what would fill the memory: raises SourceError."""
    width, height = image.size
    # Pillow stores three channels in four bytes; beside it stands the array of the result.
    needed = width * height * (len(image.getbands()) if len(image.getbands()) in (1, 4) else 4) + width * height * 3
    if needed < _SURELY_FREE:
        return
    from edge_mnv2.board.cpus import MemoryReader
    from edge_mnv2.board.sysroot import Sysroot

    free = MemoryReader(Sysroot("/")).read().available
    if free is not None and needed >> 20 > free * _SHARE_OF_FREE:
        raise SourceError(
            f"{path} has {width}x{height} pixels, which need {needed >> 20} MB of memory; {free} MB are free",
            hint="make the picture smaller",
        )


def _load(image: ImageFile.ImageFile, file: IO[bytes]) -> Optional[str]:
    """Decode, and say what is damaged; None for a whole picture."""
    if image.format in ("JPEG", "MPO"):
        file.seek(0)
        return jpeg.decode_checked(image, file.read())
    if image.format in ("WEBP", "JPEG2000", "AVIF", "GIF"):
        # What a power cut leaves of a file that has its full length. Compressed data never end so.
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _FILLER))
        if size > 4 * _FILLER and not any(file.read(_FILLER)):
            return "it ends in zeros"
    image.load()
    return None


def _rgb(path: Path, image: ImageFile.ImageFile) -> np.ndarray:
    try:
        # Pillow turns a TIFF by itself, and only its newer versions take the tag away then.
        orientation = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata do not spoil the picture
        orientation = 1
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not deep:
        raise SourceError(
            f"{path} has 32-bit samples, and the file does not say which value is white",
            hint="convert it to 8 or 16 bits",
        )
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    # In strips: converting the whole at once would hold three copies of it.
    rows = max(1, _STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(height, top + rows)))
        pixels[top : top + rows] = _deep_rgb(strip) if deep else _plain_rgb(strip)
    if deep and image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_WHITE) == 0:
        # Pillow does that for 8 bits.
        np.bitwise_not(pixels, out=pixels)
    return _upright(pixels, orientation)


def _deep_rgb(image: Image.Image) -> np.ndarray:
    return (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)[:, :, np.newaxis]


def _plain_rgb(image: Image.Image) -> np.ndarray:
    from PIL import Image

    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


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
