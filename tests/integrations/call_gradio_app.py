"""Run by ``.venv-integrations``: start the app of a Space, and call it by Gradio's client.

Arguments: the app, and the image. The names and areas of the masks are printed for two lists of words.
"""

import json
import runpy
import sys

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

demo = runpy.run_path(sys.argv[1])["demo"]
_, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
client = Client(address, verbose=False)
result = {}
client.predict(handle_file(sys.argv[2]), api_name="/encode")
for words in ("horse; grass", "horse; submarine"):
    value, absent = client.predict(words, "auto", 0.5, api_name="/segment")
    areas = {}
    for one in value["annotations"]:
        mask = np.asarray(Image.open(one["image"]))
        areas[one["label"]] = float((mask[..., 3] > 0).mean())
    result[words] = [areas, absent]
try:
    client.predict(" ; ", "auto", 0.5, api_name="/segment")
except Exception as error:
    result["error"] = str(error)
demo.close()
print(json.dumps(result))
