"""Which public data sets can be fetched by name: where their files are, what is stated about them, where they go.

Addresses and checksums are as the named pages state them; none is our own measurement. A file without a stated checksum
gets one when it is first downloaded, see `mambair.system.lock_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mambair.system.errors import RequestError
from mambair.system.suggestions import did_you_mean

DIV2K_PAGE = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
DIV2K_CHECKSUMS = "https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/datasets/div2k/checksums.tsv"
EDSR_PAGE = "https://github.com/limbee/NTIRE2017"
FLICKR2K_CHECKSUM = "https://github.com/Coloquinte/torchSR/blob/main/torchsr/datasets/flickr2k.py"
BENCHMARK_CHECKSUM = "https://github.com/Coloquinte/torchSR/blob/main/torchsr/datasets/benchmarks.py"
SWINIR_FILES = "https://raw.githubusercontent.com/JingyunLiang/SwinIR/33f616625268d08ba600f8db89388eec0328edb1/testsets"


@dataclass(frozen=True)
class RemoteFile:
    """One file of the web.

    Attributes:
        url: http or https.
        name: what it is called here: in the folder of downloads, and in the lock file.
        size, sha256, md5: bytes and digests, where a page states them.
        stated_at: that page; needed as soon as one of them is given.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    stated_at: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"url: must be http or https, got {self.url!r}")
        if (self.size or self.sha256 or self.md5) and not self.stated_at:
            raise ValueError(f"{self.name}: a size or checksum needs stated_at, the page that states it")

    @property
    def has_checksum(self) -> bool:
        """Whether a page states what its content is."""
        return bool(self.sha256 or self.md5)

    @property
    def is_pinned(self) -> bool:
        """Whether its content is fixed: by a checksum, or by an address that is not a branch of a repository."""
        of_repository = re.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/([^/]+)/", self.url)
        return self.has_checksum or of_repository is None or bool(re.fullmatch("[0-9a-f]{40}", of_repository[1]))


@dataclass(frozen=True)
class Part:
    """Images that come out of one file.

    Attributes:
        file: an archive, or an image.
        prefix: the folder within the archive; None if the file itself is the image.
        folder: where they go, below the root of all data sets.
        images: how many there are.
        scale: of low-quality images, 1 for all others.
    """

    file: RemoteFile
    prefix: str | None
    folder: str
    images: int
    scale: int = 1


@dataclass(frozen=True)
class RemoteDataset:
    """A data set, or why it cannot be fetched by a program.

    Attributes:
        name: on the command line.
        title: one line on what it is.
        page: where its terms are.
        by_hand: how to get what no address open to programs gives; all of it, if there are no parts.
    """

    name: str
    title: str
    page: str
    parts: tuple[Part, ...] = ()
    by_hand: str = ""


def _div2k(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(f"{DIV2K_PAGE}{name}", name, size, sha256, stated_at=DIV2K_CHECKSUMS)


DIV2K_TRAIN = _div2k(
    "DIV2K_train_HR.zip", 3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"
)
DIV2K_VALID = _div2k(
    "DIV2K_valid_HR.zip", 448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"
)
DIV2K_TRAIN_LR = {
    2: _div2k(
        "DIV2K_train_LR_bicubic_X2.zip", 925390592, "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850"
    ),
    3: _div2k(
        "DIV2K_train_LR_bicubic_X3.zip", 427847282, "ad5c8e5507e2765823d3c2c5bd0934842efcd487c5370604c224090898b3163a"
    ),
    4: _div2k(
        "DIV2K_train_LR_bicubic_X4.zip", 246914039, "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a"
    ),
}
DIV2K_VALID_LR = {
    2: _div2k(
        "DIV2K_valid_LR_bicubic_X2.zip", 117763600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"
    ),
    3: _div2k(
        "DIV2K_valid_LR_bicubic_X3.zip", 54513392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"
    ),
    4: _div2k(
        "DIV2K_valid_LR_bicubic_X4.zip", 31505881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"
    ),
}
FLICKR2K = RemoteFile(
    "https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar",
    "Flickr2K.tar",
    md5="5d3f39443d5e9489bff8963f8f26cb03",
    stated_at=FLICKR2K_CHECKSUM,
)
BENCHMARK = RemoteFile(
    "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
    "benchmark.tar",
    md5="4ace41d33c2384b97e6b320cd0afd6ba",
    stated_at=BENCHMARK_CHECKSUM,
)
BSDS500 = RemoteFile(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz", "BSR_bsds500.tgz"
)
LIVE1_NAMES = (
    *("bikes", "building2", "buildings", "caps", "carnivaldolls", "cemetry", "churchandcapitol", "coinsinfountain"),
    *("dancers", "flowersonih35", "house", "lighthouse2", "lighthouse3", "manfishing", "monarch", "ocean"),
    *("paintedhouse", "parrots", "plane", "rapids", "sailing1", "sailing2", "sailing3", "sailing4"),
    *("statue", "stream", "studentsculpture", "woman", "womanhat"),
)
REALSRSET_NAMES = (
    *("Lincoln", "building", "butterfly", "butterfly2", "chip", "comic1", "comic2", "comic3", "computer", "dog"),
    *("dped_crop00061", "foreman", "frog", "oldphoto2", "oldphoto3", "oldphoto6", "painting", "pattern", "ppt3"),
    "tiger",
)


def _reductions(files: dict[int, RemoteFile], inside: str, folder: str, images: int) -> list[Part]:
    return [Part(file, f"{inside}/X{scale}", f"{folder}/X{scale}", images, scale) for scale, file in files.items()]


def _benchmark(name: str, images: int, title: str) -> RemoteDataset:
    parts = [Part(BENCHMARK, f"benchmark/{name}/HR", f"{name}/HR", images)]
    parts += _reductions(
        dict.fromkeys((2, 3, 4), BENCHMARK), f"benchmark/{name}/LR_bicubic", f"{name}/LR_bicubic", images
    )
    return RemoteDataset(name, title, EDSR_PAGE, tuple(parts))


def _single_images(folder: str, base: str, names: Iterable[str]) -> tuple[Part, ...]:
    return tuple(Part(RemoteFile(f"{base}/{name}", f"{folder}/{name}"), None, folder, 1) for name in names)


def _flickr2k(folder_hr: str, folder_lr: str) -> list[Part]:
    reductions = _reductions(dict.fromkeys((2, 3, 4), FLICKR2K), "Flickr2K/Flickr2K_LR_bicubic", folder_lr, 2650)
    return [Part(FLICKR2K, "Flickr2K/Flickr2K_HR", folder_hr, 2650), *reductions]


DATASETS: dict[str, RemoteDataset] = {
    dataset.name: dataset
    for dataset in (
        RemoteDataset(
            "DIV2K",
            "800 training and 100 validation images of 2K, with bicubic reductions",
            DIV2K_PAGE,
            (
                Part(DIV2K_TRAIN, "DIV2K_train_HR", "DIV2K/DIV2K_train_HR", 800),
                Part(DIV2K_VALID, "DIV2K_valid_HR", "DIV2K/DIV2K_valid_HR", 100),
                *_reductions(DIV2K_TRAIN_LR, "DIV2K_train_LR_bicubic", "DIV2K/DIV2K_train_LR_bicubic", 800),
                *_reductions(DIV2K_VALID_LR, "DIV2K_valid_LR_bicubic", "DIV2K/DIV2K_valid_LR_bicubic", 100),
            ),
        ),
        RemoteDataset(
            "Flickr2K",
            "2650 training images of 2K, with bicubic reductions",
            EDSR_PAGE,
            tuple(_flickr2k("Flickr2K/HR", "Flickr2K/LR_bicubic")),
        ),
        RemoteDataset(
            "DF2K",
            "DIV2K's training images and Flickr2K in one folder, for classic super-resolution",
            f"{DIV2K_PAGE} and {EDSR_PAGE}",
            (
                Part(DIV2K_TRAIN, "DIV2K_train_HR", "DF2K/HR", 800),
                *_reductions(DIV2K_TRAIN_LR, "DIV2K_train_LR_bicubic", "DF2K/LR_bicubic", 800),
                *_flickr2k("DF2K/HR", "DF2K/LR_bicubic"),
            ),
        ),
        RemoteDataset(
            "BSD400",
            "the 400 training and test images of BSDS500: what denoising trains on (its validation images are B100)",
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
            (
                Part(BSDS500, "BSR/BSDS500/data/images/train", "BSD400/HQ", 200),
                Part(BSDS500, "BSR/BSDS500/data/images/test", "BSD400/HQ", 200),
            ),
        ),
        RemoteDataset(
            "DFWB",
            "DIV2K, Flickr2K and BSD400 (and WED, by hand) in one folder, for denoising and JPEG",
            f"{DIV2K_PAGE} and {EDSR_PAGE}",
            (
                Part(DIV2K_TRAIN, "DIV2K_train_HR", "DFWB/HQ", 800),
                Part(FLICKR2K, "Flickr2K/Flickr2K_HR", "DFWB/HQ", 2650),
                Part(BSDS500, "BSR/BSDS500/data/images/train", "DFWB/HQ", 200),
                Part(BSDS500, "BSR/BSDS500/data/images/test", "DFWB/HQ", 200),
            ),
            by_hand="WED is a RAR archive: fetch it from https://ece.uwaterloo.ca/~k29ma/exploration/ and put the 4744 "
            "files of pristine_images/ to DFWB/HQ",
        ),
        RemoteDataset(
            "WED",
            "Waterloo Exploration Database: 4744 training images for denoising and JPEG",
            "https://ece.uwaterloo.ca/~k29ma/exploration/",
            by_hand="it is a RAR archive: fetch it from its page, unpack pristine_images/ to WED/HQ",
        ),
        _benchmark("Set5", 5, "5 test images of super-resolution, with bicubic reductions"),
        _benchmark("Set14", 14, "14 test images of super-resolution, with bicubic reductions"),
        _benchmark("B100", 100, "100 test images of super-resolution (BSDS500's validation images), with reductions"),
        _benchmark("Urban100", 100, "100 test images of buildings, with bicubic reductions; also for denoising"),
        RemoteDataset(
            "Manga109",
            "109 pages of manga, test images of super-resolution",
            "http://www.manga109.org/en/download.html",
            by_hand="its authors give it on request: ask there, and put the 109 test pages to Manga109/HR",
        ),
        RemoteDataset(
            "CBSD68",
            "68 test images of colour denoising",
            "https://github.com/clausmichele/CBSD68-dataset",
            _single_images(
                "CBSD68/HQ",
                "https://raw.githubusercontent.com/clausmichele/CBSD68-dataset/master/CBSD68/original_png",
                (f"{number:04d}.png" for number in range(68)),
            ),
        ),
        RemoteDataset(
            "Kodak24",
            "24 test images of colour denoising",
            "https://r0k.us/graphics/kodak/",
            _single_images(
                "Kodak24/HQ",
                "https://r0k.us/graphics/kodak/kodak",
                (f"kodim{number:02d}.png" for number in range(1, 25)),
            ),
        ),
        RemoteDataset(
            "McMaster",
            "18 test images of colour denoising",
            "https://www4.comp.polyu.edu.hk/~cslzhang/CDM_Dataset.htm",
            _single_images("McMaster/HQ", f"{SWINIR_FILES}/McMaster", (f"{number}.tif" for number in range(1, 19))),
        ),
        RemoteDataset(
            "Classic5",
            "5 grey test images of JPEG artefact removal",
            "https://github.com/JingyunLiang/SwinIR",
            _single_images(
                "Classic5/HQ",
                f"{SWINIR_FILES}/classic5",
                (f"{name}.bmp" for name in ("baboon", "barbara", "boats", "lena", "peppers")),
            ),
        ),
        RemoteDataset(
            "LIVE1",
            "29 grey test images of JPEG artefact removal",
            "https://live.ece.utexas.edu/research/Quality/subjective.htm",
            _single_images(
                "LIVE1/HQ",
                "https://raw.githubusercontent.com/jiaxi-jiang/FBCNN/main/testsets/LIVE1_gray",
                (f"{name}.png" for name in LIVE1_NAMES),
            ),
        ),
        RemoteDataset(
            "RealSRSet",
            "20 real images of low quality, without ground truth",
            "https://github.com/JingyunLiang/SwinIR",
            _single_images(
                "RealSRSet", f"{SWINIR_FILES}/RealSRSet+5images", (f"{name}.png" for name in REALSRSET_NAMES)
            ),
        ),
    )
}

_SUPER_RESOLUTION = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# the test sets of each suite, for downloads and for `mambair benchmark`; how a suite is measured: evaluation/suites.py
SUITES: dict[str, tuple[str, ...]] = {
    "classic-sr": _SUPER_RESOLUTION,
    "light-sr": _SUPER_RESOLUTION,
    "color-dn": ("CBSD68", "Kodak24", "McMaster", "Urban100"),
    "gray-car": ("Classic5", "LIVE1"),
    "real": ("RealSRSet",),
}
SUITE_ALIASES = {"sr": "classic-sr", "dn": "color-dn", "car": "gray-car"}


def suite_name(name: str) -> str:
    """The name of a suite in full: ``sr`` is ``classic-sr``; capitals do not matter. Other names are returned as is."""
    return SUITE_ALIASES.get(name.lower(), name.lower() if name.lower() in SUITES else name)


def datasets_of(names: Iterable[str]) -> list[RemoteDataset]:
    """The data sets of names and suites, each once, in the order given; capitals do not matter.

    Raises:
        RequestError: naming every unknown one.
    """
    by_name = {name.lower(): name for name in DATASETS}
    chosen: dict[str, RemoteDataset] = {}
    unknown = []
    for name in names:
        members = SUITES.get(suite_name(name)) or [by_name.get(name.lower(), "")]
        if not members[0]:
            unknown.append(name)
        chosen.update({member: DATASETS[member] for member in members if member})
    if unknown:
        near = did_you_mean(unknown[0], [*DATASETS, *SUITES])
        there = f"there are {', '.join(DATASETS)} and the suites {', '.join(SUITES)}"
        raise RequestError(f"unknown data set {', '.join(unknown)}{near}; {there}")
    return list(chosen.values())
