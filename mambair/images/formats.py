"""Formats by content and by ending: which are read, which need an extra, which are only named."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

from PIL import Image, features

from mambair.images.reasons import UnsupportedKindError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".webp", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".tga", ".icb", ".vda", ".vst", ".qoi", ".dds", ".ico", ".psd", ".pcx", ".apng"),
    *(".heic", ".heif", ".hif", ".jxl"),
)
"""Endings of the files that are taken from a folder."""

_READ = (
    *("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "PPM", "GIF", "AVIF", "JPEG2000", "TGA", "QOI", "DDS", "ICO", "PSD"),
    *("PCX", "HEIF", "JXL"),
)  # Pillow's names of them

# Pillow's names of the formats that it reads with the help of another package: the package, and our extra
EXTRAS = {"HEIF": ("pillow_heif", "heif"), "JXL": ("pillow_jxl", "jxl")}

_CAMERA_RAW = "raw data of a camera"
_KNOWN_ENDINGS = {
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".svg": "SVG, a vector format",
    **dict.fromkeys((".eps", ".ps", ".ai"), "PostScript"),
    ".pdf": "PDF",
    ".xcf": "a GIMP project",
    ".psb": "a large Photoshop document",
    ".kra": "a Krita project",
    ".ora": "an OpenRaster project",
    **dict.fromkeys((".sgi", ".rgb", ".rgba", ".bw"), "SGI"),
    ".ras": "Sun raster",
    ".xbm": "X bitmap",
    ".xpm": "X pixmap",
    ".im": "IFUNC image",
    ".icns": "an Apple icon",
    ".cur": "a Windows cursor",
    **dict.fromkeys((".wmf", ".emf"), "a Windows metafile"),
    **dict.fromkeys((".fli", ".flc"), "an Autodesk animation"),
    **dict.fromkeys((".dpx", ".cin"), "film scans (DPX)"),
    **dict.fromkeys((".ktx", ".ktx2"), "textures (KTX)"),
    **dict.fromkeys((".h5", ".hdf", ".hdf5"), "HDF5"),
    ".pcd": "Kodak Photo CD",
    ".djvu": "DjVu",
    ".jls": "JPEG-LS",
    ".pam": "PAM",
    ".pfm": "PFM",
    ".jxr": "JPEG XR",
    **dict.fromkeys((".fits", ".fit"), "FITS"),
    ".dcm": "DICOM",
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"), "a video"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "an archive"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".raf", ".orf", ".rw2"), _CAMERA_RAW),
    **dict.fromkeys((".pef", ".srw", ".rwl", ".x3f", ".3fr", ".iiq", ".kdc", ".mrw", ".erf"), _CAMERA_RAW),
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"),
    b"crx ": _CAMERA_RAW,
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V "), "a video"),
}
_BMP_HEADERS = b"\x0c\x28\x34\x38\x40\x6c\x7c"  # the sizes they have
# what a file begins with; upper case: Pillow's name of a format that is read
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff\xf7", "JPEG-LS"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"II\*\0\x10\0\0\0CR", _CAMERA_RAW),
    (rb"(II[\x2a\x2b]\0|MM\0[\x2a\x2b])", "TIFF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"BM", "BMP"),
    (rb"[" + re.escape(_BMP_HEADERS) + rb"]\0\0\0.{8}\x01\0", "DIB"),
    (rb"P[1-6]\s|P[1-6]#", "PPM"),
    (rb"GIF8[79]a", "GIF"),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (rb"\0\0\x01\0", "ICO"),
    (rb"qoif", "QOI"),
    (rb"DDS ", "DDS"),
    (rb"8BPS\0\x01", "PSD"),
    (rb"8BPS\0\x02", "a large Photoshop document"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?(RADIANCE|RGBE)", "Radiance HDR"),
    (rb"P[Ff]\s", "PFM"),
    (rb"P7\s", "PAM"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"gimp xcf", "a GIMP project"),
    (rb"SIMPLE  =", "FITS"),
    (rb".{128}DICM", "DICOM"),
    (rb"II\xbc\x01", "JPEG XR"),
    (rb"IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb", _CAMERA_RAW),
    (rb"\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (rb"\0\0\x02\0\x01", "a Windows cursor"),
    (rb"icns", "an Apple icon"),
    (rb"AT&TFORM", "DjVu"),
    (rb"PK\x03\x04", "an archive, or a document that is one"),
    (rb"(?i:\s*(<\?xml[^>]*>\s*)?(<!--.{,200}?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg)", "SVG, a vector format"),
    (rb"(?i:\s*<(!DOCTYPE )?html)", "a web page"),
    (rb"#!", "a script"),
    (rb"\x01\xda[\0\x01][\x01\x02]", "SGI"),
    (rb"\x59\xa6\x6a\x95", "Sun raster"),
    (rb"#define \S+_width ", "X bitmap"),
    (rb"/\* XPM \*/", "X pixmap"),
    (rb"Image type:", "IFUNC image"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile"),
    (rb"SDPX|XPDS", "film scans (DPX)"),
    (rb"\xabKTX", "textures (KTX)"),
    (rb"\x89HDF\r\n", "HDF5"),
    (rb"RIFF....AVI |\x1a\x45\xdf\xa3|\0\0\x01[\xb3\xba]", "a video"),
    (rb"\x1f\x8b\x08|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar", "an archive"),
)
_NO_IMAGES = ("a video", "an archive", "an archive, or a document that is one", "a web page", "a script")
_PATTERNS = tuple((re.compile(pattern, re.S), name) for pattern, name in _BEGINNINGS)
_TGA_ENDINGS = (".tga", ".icb", ".vda", ".vst")
_DNG_VERSION = 50706


def recognised(data: bytes, suffix: str) -> str:
    """Find the format of a file: by its content, and by its ending only where the content bears no mark (TGA).

    Args:
        data: the content.
        suffix: the ending in lower case, with its dot; may be empty.

    Returns:
        Pillow's name of the format.

    Raises:
        UnsupportedKindError: it is none that is read; the message names the format if it is known.
    """
    name = _by_content(data) or (
        "TGA" if suffix in _TGA_ENDINGS or data[-18:].startswith(b"TRUEVISION-XFILE") else None
    )
    if name is None:
        raise UnsupportedKindError("is not an image of a known format")
    if name == "TIFF" and _KNOWN_ENDINGS.get(suffix) == _CAMERA_RAW:
        name = _CAMERA_RAW  # its first TIFF picture is a preview
    if name in EXTRAS:
        _load_extra(name)
    if name == "AVIF" and not features.check("avif"):
        raise UnsupportedKindError("is AVIF, which this installation of Pillow cannot read; install a Pillow that can")
    if name in _NO_IMAGES:
        raise UnsupportedKindError(f"is not an image but {name}")
    if name not in _READ:
        raise UnsupportedKindError(f"is {name}, which is not supported; convert it to PNG or TIFF")
    return name


def _by_content(data: bytes) -> str | None:
    Image.init()
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256)
        brands = [data[8:12], *(data[place : place + 4] for place in range(16, length, 4))]
        names = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        # "mif1" is said of both by way of a general brand
        return "AVIF" if "AVIF" in names else next(iter(names), None)
    return next((name for pattern, name in _PATTERNS if pattern.match(data[:4096])), None)


def refuse_camera_raw(tags: Mapping[int, object]) -> None:
    """Refuse a TIFF that is a camera's negative, whose first picture is a preview.

    Raises:
        UnsupportedKindError: it is one.
    """
    if _DNG_VERSION in tags:
        raise UnsupportedKindError(f"is {_CAMERA_RAW} (DNG), which is not supported; convert it to PNG or TIFF")


def _load_extra(name: str) -> None:
    package, extra = EXTRAS[name]
    if name in Image.OPEN:
        return
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UnsupportedKindError(
            f"is {name}, which is read with {package.replace('_', '-')}: pip install 'mambair[{extra}]' ({error})"
        ) from None
    if name == "HEIF":
        module.register_heif_opener()


def passed_over_text(endings: Mapping[str, int]) -> str:
    """Say in one line how many files were not taken as images, and of which endings.

    Args:
        endings: how many files have each ending (lower case, with its dot; empty for none).
    """
    most_first = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {_described(ending)}" for ending, count in most_first]
    total = sum(endings.values())
    return f"{total} file{'s' * (total != 1)} passed over, by ending: {', '.join(parts)}"


def _described(ending: str) -> str:
    if not ending:
        return "without an ending"
    name = _KNOWN_ENDINGS.get(ending)
    return f"{ending} ({name}, not supported)" if name else ending
