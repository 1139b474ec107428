"""A video of the segmented frames of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cliper.batch.merge import ImageOutputs
from cliper.files import atomic_write
from cliper.formats import draw_overlay, read_label_png
from cliper.runner.run import Run
from cliper.runner.sources import VideoSource

__all__ = ["write_overlay_video"]


def write_overlay_video(run: Run, labels_index: int, classes: tuple[str, ...]) -> Path:
    """Write ``overlay.mp4`` (H.264): the frames of the run's video, each region in its class's colour.

    The video is read once more; ``labels_index`` is that of the format ``labels``. Raises InputError if the video
    cannot be read any more, or a label map is damaged.
    """
    import av
    from PIL import Image

    source = run.source
    assert isinstance(source, VideoSource)
    outputs = {output.info.id: output for output in ImageOutputs(run, labels_index)}
    path = run.run_dir.folder / "overlay.mp4"
    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = None
        for item in source.items():
            assert isinstance(item.data, np.ndarray)
            frame = Image.fromarray(item.data)
            output = outputs.get(item.number)
            if output is not None:
                with output.reading():
                    frame = draw_overlay(frame, read_label_png(output.path), classes, legend=False)
            if stream is None:
                stream = container.add_stream("libx264", rate=source.rate or 25)
                # H.264 with colours at half the resolution needs even sides.
                stream.width, stream.height = (side + side % 2 for side in frame.size)
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "18"}
                stream.thread_count = 1  # the same bytes each time
            if frame.size != (stream.width, stream.height):
                frame = frame.crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        if stream is not None:
            container.mux(stream.encode(None))
    return path
