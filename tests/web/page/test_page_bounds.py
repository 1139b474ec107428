"""How much Gradio keeps for those who never come back: files on the disk, and answers in memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from starlette.formparsers import MultiPartException

from cliper.web.page import closed
from cliper.web.page import uploads as module
from cliper.web.page.build import build
from cliper.web.page.limits import Limits
from cliper.web.page.sessions import Sessions
from cliper.web.page.uploads import Uploads

SCOPE = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=bound")]}


def aged(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The clock is ahead: what is written now is that old."""
    now = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: now() + seconds)


def test_files_go_when_they_are_old(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Uploads(uploads, Limits(seconds=100))
    (uploads / "hash").mkdir()
    (uploads / "hash" / "a.png").write_bytes(b"x" * 2**17)
    (uploads / "tmpcut").write_bytes(b"x")
    os.utime(uploads / "tmpcut", (0, 0))  # as files that are copied, such as the example, say when they were made
    assert held.sweep() == 2**17 + 2**16
    aged(monkeypatch, 200)
    assert held.sweep() == 2**17 + 2**16, "Gradio removes them first, and forgets them"
    aged(monkeypatch, 700)
    assert held.sweep() == 0
    held.sweep()  # a folder is as old as its last change
    assert list(uploads.rglob("*")) in ([], [uploads / "hash"])
    assert uploads.is_dir()


def test_what_is_old_is_swept_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "_OFTEN", 0.001)
    swept: list[str] = []

    async def watch() -> None:
        sweeping = asyncio.create_task(closed._sweeping(lambda: swept.append("a"), lambda: swept.append("b")))
        while len(swept) < 4:
            await asyncio.sleep(0.001)
        sweeping.cancel()

    asyncio.run(asyncio.wait_for(watch(), 60))
    assert swept[:4] == ["a", "b", "a", "b"]


def test_no_upload_where_too_much_lies(uploads: Path) -> None:
    held = Uploads(uploads, Limits(upload_megabytes=1, disk_megabytes=3))

    async def free() -> list[bool]:
        async with held.place() as first, held.place() as second, held.place() as third:
            return [first, second, third]

    assert asyncio.run(free()) == [True, True, False], "those that are coming count"
    (uploads / "a").write_bytes(b"x" * 2**20)
    assert asyncio.run(free()) == [True, False, False]
    for number in range(32):
        (uploads / f"empty{number}").touch()
    assert asyncio.run(free()) == [False] * 3, "many small files are a burden, too"


def taken(uploads: Path, pieces: list[bytes], *, after: str | None = None) -> int:
    """Bytes that come through of an upload."""
    given = iter(pieces)

    async def receive() -> Any:
        piece = next(given, None)
        return {"type": after} if piece is None else {"type": "http.request", "body": piece, "more_body": True}

    async def take() -> int:
        bounded = Uploads(uploads, Limits(upload_megabytes=1)).bounded(SCOPE, receive)
        return sum([len((await bounded())["body"]) for _ in range(len(pieces) + (after is not None))])

    return asyncio.run(take())


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_one_file_in_a_request(uploads: Path, chunk: int) -> None:
    one, two = b"--bound\r\n\r\nxx--boun\r\n--bound--", b"--bound\r\n\r\nx\r\n--bound\r\n\r\ny\r\n--bound--"
    cut = [[body[at : at + chunk] for at in range(0, len(body), chunk)] for body in (one, two)]
    assert taken(uploads, cut[0]) == len(one)
    with pytest.raises(MultiPartException, match="one file"):
        taken(uploads, cut[1])


def test_an_upload_that_is_too_large_or_does_not_end(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(uploads, [b"x" * 2**20]) == 2**20
    with pytest.raises(MultiPartException, match="maximum allowed size"):
        taken(uploads, [b"x" * 2**20] * 2)
    with pytest.raises(MultiPartException, match="a part of it"):
        taken(uploads, [b"x"], after="http.disconnect")
    monkeypatch.setattr(module, "PATIENCE", 0.05)

    async def silent() -> Any:
        await asyncio.sleep(60)

    with pytest.raises(MultiPartException, match="and then nothing"):
        asyncio.run(asyncio.wait_for(Uploads(uploads, Limits()).bounded(SCOPE, silent)(), 30))


@pytest.fixture
def queue(make_actions: Any) -> Any:
    """The page's queue, and its sessions of which at most 2 are unheard, with 3 messages each."""
    page = build(make_actions())
    return page._queue, Sessions(page, Limits(unfetched=3, unheard=2))


def join(queue: Any, name: str) -> None:
    """As Gradio does."""
    queue.pending_messages_per_session.setdefault(name, asyncio.Queue()).put_nowait("told")
    queue.pending_event_ids_session.setdefault(name, set()).add("event")


def test_who_does_not_fetch_answers_gets_no_more(queue: Any) -> None:
    kept, sessions = queue

    async def ask() -> list[bool]:
        admitted = []
        for _ in range(4):
            admitted.append(await sessions.admit("one"))
            join(kept, "one")
        kept.pending_messages_per_session["one"].get_nowait()
        kept.pending_messages_per_session["one"].get_nowait()
        return [*admitted, await sessions.admit("one"), await sessions.admit("two")]

    assert asyncio.run(ask()) == [True, True, True, False, True, True]


def test_sessions_that_nobody_fetches_from_are_forgotten(queue: Any) -> None:
    kept, sessions = queue

    async def ask() -> list[str]:
        with sessions.listening("heard"):
            for name in ("heard", "old", "again", "new", "again", "newest"):
                assert await sessions.admit(name)
                join(kept, name)
            assert await sessions.admit("last")
        return list(kept.pending_messages_per_session)

    assert asyncio.run(ask()) == ["heard", "again", "newest"]
    assert set(kept.pending_event_ids_session) == {"heard", "again", "newest"}
    assert (sessions.known("again"), sessions.known("old")) == (True, False)


def test_there_is_an_end_to_sessions(queue: Any) -> None:
    kept, sessions = queue
    kept.pending_messages_per_session.max_size = 2

    async def ask() -> list[bool]:
        for name in ("one", "two"):
            assert await sessions.admit(name)
            join(kept, name)
        return [await sessions.admit("three"), await sessions.admit("two")]

    assert asyncio.run(ask()) == [False, True], "Gradio would forget one whose event waits, and stop"
