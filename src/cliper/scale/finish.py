"""What is made of all pictures, once each of them is done or has failed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cliper.errors import ImageError, InputError
from cliper.formats import Format, ImageInfo, ImageOutput, read_label_png
from cliper.scale.folder import set_run_files
from cliper.scale.items import Item
from cliper.scale.job import Job
from cliper.scale.manifest import Manifest, Record
from cliper.scale.places import Place
from cliper.scale.run import Run

__all__ = ["finish"]

OVERLAY_VIDEO = "overlay.mp4"

# Pictures' files that are looked at together to find those that are damaged.
_TOGETHER = 256


def finish(run: Run, folder: Path, *, overlay_video: bool = False) -> list[Path]:
    """Make the files that are about all pictures and put the manifest in order.

    Files of that kind that an earlier run has made, and this one has not, are removed.

    Args:
        run: whose pictures are done.
        folder: of this machine, with the manifest; the run's folder, unless that is far away.
        overlay_video: whether to write the frames of a video with their labels; needs the format ``labels``.

    Returns:
        The files, the manifest first.

    Raises:
        OutputError: one cannot be written.
        InputError: a picture's file has gone or is damaged. In the manifest the picture has failed then, and is done
            again when the run goes on.
    """
    paths: list[Path] = []
    for index, format in enumerate(run.job.found_formats()):
        if format.merge is not None:
            parts = _Parts(run.manifest, run.place, folder, index)
            try:
                paths += format.merge(parts, folder, run.job.names, run.job.options)
            except (InputError, ImageError):
                if not parts.missing:
                    _mark_damaged(run, parts, format)
                raise
    if overlay_video:
        paths.append(_overlay_video(run, folder))
    set_run_files(folder, run.place, [path.relative_to(folder).as_posix() for path in paths])
    run.manifest.finish()
    return [run.manifest.path, *paths]


class _Parts:
    """The files of one format of all pictures that were done, in the order of the run; read anew each time."""

    def __init__(self, manifest: Manifest, place: Place, folder: Path, index: int) -> None:
        self._manifest, self._place, self._folder, self._index = manifest, place, folder, index
        self.missing = False
        """Whether one could not be fetched."""

    def __iter__(self) -> Iterator[ImageOutput]:
        for number, record in self._manifest.records():
            if record.is_done:
                picture = ImageInfo(record.input, record.width, record.height, number)
                name = record.outputs[self._index]
                path = self._folder / name
                if self._place.local is None and not path.exists():
                    try:
                        self._place.download(name, path)
                    except InputError as error:
                        self.missing = True
                        self._manifest.add(number, Record.damaged(record.input, error))
                        raise
                yield ImageOutput(picture, path)


def _mark_damaged(run: Run, parts: _Parts, format: Format) -> None:
    """Find the pictures whose files cannot be used, a few at a time, then one by one."""
    damaged = []
    rest = iter(parts)
    with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
        while some := list(islice(rest, _TOGETHER)):
            if _problem(run.job, format, some, folder) is not None:
                found = ((part, _problem(run.job, format, [part], folder)) for part in some)
                damaged += [(part.info, problem) for part, problem in found if problem is not None]
    for picture, problem in damaged:
        run.manifest.add(picture.id, Record.damaged(picture.name, problem))


def _problem(job: Job, format: Format, parts: Sequence[ImageOutput], folder: str) -> Exception | None:
    assert format.merge is not None
    try:
        format.merge(parts, Path(folder), job.names, job.options)
    except (InputError, ImageError) as error:
        return error
    return None


def _overlay_video(run: Run, folder: Path) -> Path:
    from cliper.scale.videos import VideoSource, write_overlay_video

    assert isinstance(run.source, VideoSource)
    parts = iter(_Parts(run.manifest, run.place, folder, run.job.formats.index("labels")))
    part = next(parts, None)

    def labels_of(item: Item) -> Any:
        nonlocal part
        while part is not None and part.info.id < item.number:
            part = next(parts, None)
        if part is None or part.info.id > item.number:
            return None
        try:
            return read_label_png(part.path)
        except (InputError, ImageError) as error:
            run.manifest.add(part.info.id, Record.damaged(part.info.name, error))
            raise

    path = folder / OVERLAY_VIDEO
    write_overlay_video(path, run.source, labels_of, run.job.names)
    return path
