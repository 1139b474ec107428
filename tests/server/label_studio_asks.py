"""A project of Label Studio, and how it asks for predictions."""

from __future__ import annotations

import base64
from typing import Any

CONFIG = """<View>
  <Header value="Where is what?"/>
  <Image name="photo" value="$picture"/>
  <RectangleLabels name="box" toName="photo"><Label value="car"/></RectangleLabels>
  <BrushLabels name="brush" toName="photo">
    <Label value="cat" background="red"/>
    <Label value="dog" alias="canine"/>
  </BrushLabels>
</View>"""


def data_address(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def predict(service: Any, *addresses: Any, config: str = CONFIG, **more: Any) -> Any:
    tasks = [{"id": number, "data": {"picture": address}} for number, address in enumerate(addresses)]
    return service.client.post("/predict", json={"tasks": tasks, "label_config": config, "project": "1.1", **more})
