"""How much one visitor may ask for, and how much is kept."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The page's limits. They bound what one request takes of time and memory, and all visitors together of memory.

    Args:
        megapixels: of a picture; larger ones are refused before they are decoded.
        upload_megabytes: of a file.
        disk_megabytes: of all files together, uploaded and to be downloaded; a small one counts as 64 KB.
        classes: and background words, each; at most 255, since labels travel in 8 bits.
        texts: that classes are recognised by, and background words, each: synonyms count.
        letters: of one class or background word, with its synonyms.
        sizes: smallest and largest short side of the resized picture, in pixels.
        labelling: megapixels of a picture times classes: what giving each pixel its class costs.
        patches: of the resized picture; it bounds memory, and the number of sliding windows.
        waiting: pictures that may wait to be segmented; whoever comes later is told so.
        waiting_files: the same for downloads that are to be made.
        waiting_quick: the same for all that runs no network, such as thresholds that were moved.
        unfetched: events of a session that wait, and messages about them that it has not fetched.
        unheard: sessions that do not fetch their messages at the moment; those with the oldest events are forgotten.
        results: results that are kept, of all visitors together, for thresholds and downloads.
        result_megabytes: the same, in memory. The newest result is kept whatever its size.
        seconds: how long a result is kept after its last use.
        sessions: browser tabs of which Gradio remembers what they show, with the picture as it is shown.
        embeddings: of texts that visitors typed; those used last are kept. 20,000 are 40 MB at a width of 512.
        models: segmenters that are kept loaded, besides the one named on the command line.
    """

    megapixels: float = 32.0
    upload_megabytes: int = 64
    disk_megabytes: int = 4096
    classes: int = 100
    texts: int = 200
    letters: int = 300
    sizes: tuple[int, int] = (112, 672)
    labelling: float = 1000.0
    patches: int = 4096
    waiting: int = 16
    waiting_files: int = 64
    waiting_quick: int = 256
    unfetched: int = 32
    unheard: int = 64
    results: int = 32
    result_megabytes: int = 1024
    seconds: float = 3600.0
    sessions: int = 200
    embeddings: int = 20_000
    models: int = 1
