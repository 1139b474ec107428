"""Run by ``.venv-integrations``: annotate a task by CVAT's loader and driver, with a server's answers in memory.

Arguments: the function's file, the image, the path for the masks that would be uploaded (``.npz``), and the command
line's parameters of the function. The label ids of the uploaded shapes are printed, for masks, polygons and a
threshold.
"""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from cvat_cli._internal.common import FunctionLoader
from cvat_cli._internal.parsers import parse_function_parameter
from cvat_sdk import models
from cvat_sdk.auto_annotation import DetectionFunctionSpec, annotate_task, driver
from cvat_sdk.masks import decode_mask
from PIL import Image

file, path, out, *parameters = sys.argv[1:]
function = FunctionLoader(None, Path(file), dict(map(parse_function_parameter, parameters))).load()
assert isinstance(function.spec, DetectionFunctionSpec)
image = Image.open(path)


def uploaded(kind: str, **options: object) -> list[models.LabeledShapeRequest]:
    """The shapes that the driver uploads for a task with one image, whose labels have ids from 101."""
    labels = [
        models.Label(id=100 + one.id, name=one.name, type=kind, attributes=[], sublabels=[])
        for one in function.spec.labels
    ]
    sample = SimpleNamespace(frame_name="a.png", frame_index=7, media=SimpleNamespace(load_image=lambda: image))
    task = SimpleNamespace(labels=labels, samples=[sample])
    client = mock.MagicMock(logger=logging.getLogger())
    with mock.patch.object(driver, "TaskDataset", return_value=task):
        annotate_task(client, 1, function, **options)
    (call,) = client.tasks.api.partial_update_annotations.call_args_list
    shapes = call.kwargs["patched_labeled_data_request"].shapes
    assert all((one.frame, one.source) == (7, "auto") for one in shapes)
    return shapes


masks, polygons = uploaded("mask"), uploaded("polygon", conv_mask_to_poly=True)
width, height = image.size
bitmaps = [decode_mask(one.points, image_width=width, image_height=height) for one in masks]
np.savez(out, masks=np.array(bitmaps), labels=[one.label_id - 100 for one in masks])
result = {
    "names": [one.name for one in function.spec.labels],
    "polygons": [[one.label_id - 100, one.points] for one in polygons],
    "sure": sorted({one.label_id - 100 for one in uploaded("mask", conf_threshold=0.6)}),
}
print(json.dumps(result))
