"""The page as a program asks it, over loopback."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


def ask(address: str, path: str, **options: Any) -> tuple[int, str]:
    """Status and text of an answer."""
    request = urllib.request.Request(f"{address}/{path}", **options)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def post(address: str, path: str, body: Any) -> tuple[int, str]:
    """The same of a request with JSON, or with bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(address, path, data=data, headers={"Content-Type": "application/json"}, method="POST")


def config(address: str) -> dict[str, Any]:
    """What the browser is told of the page."""
    status, text = ask(address, "config")
    assert status == 200
    return json.loads(text)


def number_of(address: str, function: str) -> int:
    """What a function of the page is called in events."""
    return next(item["id"] for item in config(address)["dependencies"] if item["api_name"] == function)


def join(address: str, function: str, data: list[Any], session: str) -> tuple[int, str]:
    """Call a function of the page as the browser does; whether it was let into its line."""
    body = {"data": data, "fn_index": number_of(address, function), "session_hash": session}
    return post(address, "gradio_api/queue/join", {**body, "trigger_id": None, "event_data": None})


def messages(address: str, session: str) -> list[dict[str, Any]]:
    """What a session is told until all its calls have ended."""
    _, stream = ask(address, f"gradio_api/queue/data?session_hash={urllib.parse.quote(session)}")
    told = [json.loads(line.removeprefix("data:")) for line in stream.splitlines() if line.startswith("data:")]
    return [message for message in told if message["msg"].startswith("process")]


def call(address: str, function: str, data: list[Any], session: str) -> list[dict[str, Any]]:
    """The messages of a call that is let in."""
    status, text = join(address, function, data, session)
    assert status == 200, text
    return messages(address, session)
