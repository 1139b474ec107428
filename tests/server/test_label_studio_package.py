"""The package ``label-studio``, in an environment of its own, stores predictions of ``cliper serve`` and of files."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image
from server_process import Process

from cliper.formats import FormatOptions, ImageInfo, find_format
from cliper.formats.label_studio import labeling_config
from cliper.segmenter import Segmenter

pytestmark = [pytest.mark.full, pytest.mark.enable_socket]

BIN = Path(__file__).parents[2] / ".venv-label-studio" / "bin"
START = 600  # seconds for the first start, which makes the database: a minute of processor time
CLASSES = ["cat", "dog", "car", "tree"]

# By Label Studio's own reader: a list of rows of 0 and 1 for each brush mask.
DECODE = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
masks = json.load(sys.stdin)
shapes = [(mask["original_height"], mask["original_width"], 4) for mask in masks]
pixels = [decode_rle(mask["value"]["rle"]).reshape(shape) for mask, shape in zip(masks, shapes)]
print(json.dumps([(one[..., 3] > 0).astype(int).tolist() for one in pixels]))
"""


class LabelStudio(NamedTuple):
    """A running Label Studio: a client with a user's token, and the folder of uploaded images."""

    client: httpx.Client
    uploads: Path


@contextmanager
def running_label_studio(folder: Path) -> Iterator[LabelStudio]:
    """Label Studio with an empty database in a folder; it may ask servers on loopback addresses."""
    if not (BIN / "label-studio").is_file():
        pytest.skip("needs the package label-studio; make .venv-label-studio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = {"username": "a@example.org", "password": "secret-password", "user-token": "0123456789abcdef"}
    options = {"data-dir": folder, "port": port, "internal-host": "127.0.0.1", **user}
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",  # else connecting a backend is answered by 403, though it is connected
        **dict.fromkeys(("LATEST_VERSION_CHECK", "COLLECT_ANALYTICS"), "false"),
        **dict.fromkeys(("SENTRY_DSN", "FRONTEND_SENTRY_DSN"), ""),
    }
    command = [BIN / "label-studio", "start", "--no-browser", "--enable-legacy-api-token"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *(word for name, value in options.items() for word in (f"--{name}", str(value)))],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    headers = {"Authorization": f"Token {user['user-token']}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=START) as client:
            end = time.monotonic() + START
            up = False
            while not up:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < end, "it did not start"
                time.sleep(0.5)
                with suppress(httpx.TransportError):
                    up = client.get("/health").is_success
            yield LabelStudio(client, folder / "media" / "upload")
    finally:
        process.terminate()
        process.wait(timeout=60)


def created(answer: httpx.Response) -> Any:
    """The content of a response that must be 201."""
    assert answer.status_code == 201, answer.text
    return answer.json()


def new_project(label_studio: LabelStudio) -> int:
    """A project with our labelling configuration."""
    body = {"title": "photos", "label_config": labeling_config(CLASSES)}
    return int(created(label_studio.client.post("/api/projects", json=body))["id"])


def upload(label_studio: LabelStudio, project: int, name: str, data: bytes) -> Any:
    return created(label_studio.client.post(f"/api/projects/{project}/import", files={name: (name, data)}))


def assert_stored(label_studio: LabelStudio, project: int, labels: np.ndarray[Any, Any]) -> None:
    """The project has one prediction, whose masks are those of a label map of all classes."""
    (prediction,) = label_studio.client.get("/api/predictions", params={"project": project}).json()
    assert prediction["model_version"].startswith("tiny")
    decoded = subprocess.run(
        [BIN / "python", "-c", DECODE],
        input=json.dumps(prediction["result"]),
        capture_output=True,
        text=True,
        timeout=START,
        check=True,
    )
    names = [mask["value"]["brushlabels"] for mask in prediction["result"]]
    assert names == [[name] for name in CLASSES]
    for label, mask in enumerate(json.loads(decoded.stdout), start=1):
        assert np.array_equal(np.array(mask, bool), labels == label)


def check_server(label_studio: LabelStudio, model: Path, image: Image.Image) -> None:
    """What Label Studio stores when it asks for predictions is what the server answers to others."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    client, project = label_studio.client, new_project(label_studio)
    server = Process(model, "--label-studio-folder", str(label_studio.uploads))
    try:
        body = {"url": server.address, "project": project, "title": "cliper"}
        backend = created(client.post("/api/ml", json=body))["id"]
        assert client.get(f"/api/ml/{backend}").json()["readable_state"] == "Connected"
        upload(label_studio, project, "a.png", stream.getvalue())
        action = {"id": "retrieve_tasks_predictions", "project": project}
        everything = {"selectedItems": {"all": True, "excluded": []}}
        assert client.post("/api/dm/actions", params=action, json=everything).is_success
        body = {"image": base64.b64encode(stream.getvalue()).decode(), "classes": CLASSES, "output": "png"}
        segmented = httpx.post(f"{server.address}/v1/segment", json=body, timeout=START).json()
    finally:
        server.end()
    assert_stored(label_studio, project, np.asarray(Image.open(io.BytesIO(base64.b64decode(segmented["png"])))))


def check_file(label_studio: LabelStudio, segmenter: Segmenter, image: Image.Image, path: Path) -> None:
    """A file of the format is imported with its prediction."""
    project, result = new_project(label_studio), segmenter(image, CLASSES)
    find_format("label-studio").write(result, path, ImageInfo("a.png", *image.size), FormatOptions())
    assert upload(label_studio, project, path.name, path.read_bytes())["prediction_count"] == 1
    assert_stored(label_studio, project, result.labels)


def test_predictions_of_the_server_and_of_files_are_stored(
    clip_folder: Path, tiny: Segmenter, make_image: Callable[..., Image.Image], tmp_path: Path
) -> None:
    """One test, so that no second process makes the database again."""
    image = make_image(96, 64, 3)  # the tiny checkpoint finds all classes in it
    with running_label_studio(tmp_path) as label_studio:
        check_server(label_studio, clip_folder, image)
        check_file(label_studio, tiny, image, tmp_path / "a.label-studio.json")
