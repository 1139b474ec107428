"""The package ``label-studio``, in an environment of its own, asks ``cliper serve`` for predictions and stores them."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image
from server_process import Process

from cliper.formats.label_studio import labeling_config

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


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """Label Studio with an empty database, which may ask servers on loopback addresses."""
    if not (BIN / "label-studio").is_file():
        pytest.skip("needs the package label-studio; make .venv-label-studio")
    folder = tmp_path_factory.mktemp("label-studio")
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
            while not is_up(client):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < end, "it did not start"
                time.sleep(0.5)
            yield LabelStudio(client, folder / "media" / "upload")
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def created(answer: httpx.Response) -> Any:
    """The content of a response that must be 201."""
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_predictions_are_stored_as_the_masks_of_the_server(
    label_studio: LabelStudio, clip_folder: Path, make_image: Callable[..., Image.Image]
) -> None:
    client = label_studio.client
    stream = io.BytesIO()
    make_image(96, 64, 3).save(stream, "PNG")  # the tiny checkpoint finds all classes in it
    image_file = stream.getvalue()
    server = Process(clip_folder, "--label-studio-folder", str(label_studio.uploads))
    try:
        project = created(
            client.post("/api/projects", json={"title": "photos", "label_config": labeling_config(CLASSES)})
        )["id"]
        backend = created(client.post("/api/ml", json={"url": server.address, "project": project, "title": "cliper"}))
        assert client.get(f"/api/ml/{backend['id']}").json()["readable_state"] == "Connected"
        created(client.post(f"/api/projects/{project}/import", files={"a.png": ("a.png", image_file, "image/png")}))
        action = {"id": "retrieve_tasks_predictions", "project": project}
        everything = {"selectedItems": {"all": True, "excluded": []}}
        assert client.post("/api/dm/actions", params=action, json=everything).is_success
        (prediction,) = client.get("/api/predictions", params={"project": project}).json()
        body = {"image": base64.b64encode(image_file).decode(), "classes": CLASSES, "output": "png"}
        expected = httpx.post(f"{server.address}/v1/segment", json=body, timeout=START).json()
    finally:
        server.end()
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(expected["png"]))))
    assert prediction["model_version"].startswith("tiny, cliper ")
    decoded = subprocess.run(
        [BIN / "python", "-c", DECODE],
        input=json.dumps(prediction["result"]),
        capture_output=True,
        text=True,
        timeout=START,
        check=True,
    )
    masks = dict(
        zip((mask["value"]["brushlabels"][0] for mask in prediction["result"]), json.loads(decoded.stdout), strict=True)
    )
    found = {CLASSES[label - 1]: labels == label for label in np.unique(labels[labels > 0])}
    assert found.keys() == masks.keys() == set(CLASSES)
    for name, mask in masks.items():
        assert np.array_equal(np.array(mask, bool), found[name])
