"""One file on its way through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mambair.folders.file_locks import Claim
from mambair.folders.finish import Finishing
from mambair.folders.plan import Job
from mambair.images.files import DecodedImage, ImageSpec
from mambair.inference.restorer import TileStats


@dataclass
class Item:
    """What is known of a file while it is read, restored and written.

    Attributes:
        job: what is to be done.
        claim: on the result, if there is a manifest.
        cost: bytes of memory that are set aside for it.
        image: the input, until it is restored.
        source: what the manifest says of the input.
        notes: what reading and the format of the result dropped.
        finishing: what becomes of the network's rows, until they are written.
        stats: how it was restored.
        seconds: of each stage.
        settled: whether it is done with, one way or another.
    """

    job: Job
    claim: Claim | None
    cost: int = 0
    image: DecodedImage | None = None
    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    finishing: Finishing | None = None
    stats: TileStats = field(default_factory=TileStats)
    seconds: dict[str, float] = field(default_factory=dict)
    settled: bool = False

    def entries(self, spec: ImageSpec) -> dict[str, object]:
        """What the manifest says of a result."""
        assert self.finishing is not None
        height, width = self.finishing.pixels.shape[:2]
        seconds = {f"{stage}_seconds": round(taken, 3) for stage, taken in self.seconds.items()}
        return {
            "size": [width, height],
            "output_size": [spec.width, spec.height],
            "seconds": round(sum(self.seconds.values()), 3),
            **seconds,
            "tile": self.stats.tile,
            "overlap": self.stats.overlap,
            "tiles": self.stats.tiles,
            "tiles_redone_in_float32": self.stats.redone,
            **({"notes": list(self.notes)} if self.notes else {}),
            **({} if self.finishing.needs_network else {"network": False}),
        }
