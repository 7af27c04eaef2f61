"""`thumbnail`: the small JPEG that a model is shown of a picture."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

SIDE = 512  # pixels: the size to which OpenAI shrinks a picture of low detail
_SMALLEST = 32  # pixels of a side: models refuse smaller pictures, and placeholders are such
_MOST_PIXELS = 25_000_000  # 75 MB once decoded
_QUALITY = 80
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_WEBP = (b"RIFF", b"WEBP")

HEAD = 12  # bytes that tell what a file is


class NotAPicture(Exception):
    """The bytes cannot be shown: another type, damaged, or an unusual size."""


def is_picture(head: bytes | bytearray) -> bool:
    """Whether a file that begins with these bytes (HEAD or more) is a JPEG, PNG, WebP or GIF."""
    webp = head[:4] == _WEBP[0] and head[8:HEAD] == _WEBP[1]
    return webp or head.startswith(_SIGNATURES)


def thumbnail(content: bytes) -> bytes:
    """A JPEG of at most SIDE pixels to a side, about 40 kB, without metadata.

    The first frame of an animation; transparency becomes white. Pictures are made small here since
    catalogues have photos of 2,000 pixels: 30 of them would be 15 MB a call, and most servers of
    open models take them in full, at up to 5,000 tokens each. A JPEG takes 20 ms, a PNG of 4
    megapixels 0.5 s. Raises NotAPicture.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise NotAPicture("too many pixels")
            return _jpeg(_small(opened))
    except NotAPicture:
        raise
    except Exception as error:  # a decoder of foreign bytes raises anything
        raise NotAPicture("it cannot be decoded") from error


def _small(picture: "Image.Image") -> "Image.Image":
    from PIL import ImageOps

    if picture.mode in ("1", "P"):  # pixels of a palette cannot be mixed
        picture = picture.convert("RGBA")
    picture.thumbnail((SIDE, SIDE))  # of a JPEG, only a fraction is decoded
    upright = ImageOps.exif_transpose(picture)
    if min(upright.size) < _SMALLEST:
        raise NotAPicture("too few pixels")
    return upright


def _jpeg(picture: "Image.Image") -> bytes:
    from PIL import Image

    seen = picture.convert("RGBA")
    shown = Image.new("RGB", seen.size, "white")
    shown.paste(seen, mask=seen)
    written = io.BytesIO()
    shown.save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()
