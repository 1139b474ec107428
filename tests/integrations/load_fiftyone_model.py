"""Run by ``.venv-integrations``: load a model through FiftyOne's zoo, and put its labels on samples.

Arguments: the folder of the integration, and the image; both images of ``labels.npz`` are predictions, of it and of it
turned. There is no database: samples are not in a data set.
"""

import json
import shutil
import sys
from pathlib import Path

import fiftyone as fo
import fiftyone.core.models as fom
import fiftyone.zoo as foz
import numpy as np
from PIL import Image

source, photo = map(Path, sys.argv[1:])
zoo = Path("zoo").absolute()
shutil.copytree(source, zoo / "cliper-fiftyone")
fo.config.model_zoo_dir = str(zoo)

listed = [name for name in foz.list_zoo_models() if name.startswith("cliper/")]
model = foz.load_zoo_model("cliper/mini", classes="horse; grass: lawn, meadow", device="cpu")
assert isinstance(model, fom.Model)
pixels = np.asarray(Image.open(photo).convert("RGB"))
with model:
    one = model.predict(pixels)
    both = model.predict_all([pixels, pixels.transpose(1, 0, 2)])  # of two sizes
sample = fo.Sample(filepath=str(photo))
sample.add_labels(one, label_field="cliper")
assert isinstance(sample["cliper"], fo.Segmentation)
assert (sample["cliper"].mask == both[0].mask).all()
np.savez("labels.npz", *(label.mask for label in both))
targets = {str(value): name for value, name in model.mask_targets.items()}
result = {
    "models": listed,
    "media_type": model.media_type,
    "mask_targets": targets,
    "downloaded": foz.find_zoo_model("cliper/mini"),
}
print(json.dumps(result))
