"""Moving a threshold on the page: new labels and a new image in headless Chromium, without the server.

    python benchmarks/page_threshold.py

The page's own modules at 640x480 with 20 classes, all of them on. Needs chromium, chromedriver and selenium. Goal: less
than 16 ms a move, one frame.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import statistics
import threading
from pathlib import Path
from typing import Any

from selenium import webdriver

import cliper.server
from machine import RESULTS, write_report

WIDTH, HEIGHT, CLASSES, MOVES, GOAL_MS = 640, 480, 20, 200, 16

SCRIPT = """
const [width, height, count, moves, done] = arguments;
Promise.all([import("/static/labels.js"), import("/static/viewer.js")]).then(([labels, view]) => {
  const size = 28 * 21;
  const stack = { count, width: 28, height: 21, data: new Float32Array(count * size), peaks: [] };
  for (let i = 0; i < stack.data.length; i++) stack.data[i] = Math.sin(i * i) ** 2;
  const sure = Array.from({ length: count }, (_, c) => 0.5 + c / (2 * count));
  const maps = new labels.LabelMaps(stack, sure, width, height, true);
  maps.update(0, 0.3);
  const viewer = new view.Viewer(document.querySelector("#result"));
  const classes = sure.map((confidence, c) => ({ name: "c" + c, confidence }));
  viewer.show({ bitmap: null, width, height, classes, refined: maps, fused: null });
  const times = [];
  for (let n = 0; n < moves; n++) {
    const start = performance.now();
    maps.update(0.4 + 0.3 * ((n % 10) / 10), 0.3 + 0.4 * (n / moves));
    viewer.relabel();
    times.push(performance.now() - start);
  }
  done(times);
});
"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    given = parser.parse_args()
    folder = Path(cliper.server.__file__).parent
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    with webdriver.Chrome(options=options, service=service) as driver:
        driver.get(f"http://127.0.0.1:{server.server_address[1]}/static/index.html")
        times = driver.execute_async_script(SCRIPT, WIDTH, HEIGHT, CLASSES, MOVES)
        browser = driver.capabilities["browserVersion"]
    server.shutdown()
    ordered = sorted(times)
    milliseconds = {
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(0.95 * len(ordered))], 2),
        "least": round(ordered[0], 2),
        "most": round(ordered[-1], 2),
    }
    report = {
        "image": [WIDTH, HEIGHT],
        "classes": CLASSES,
        "moves": MOVES,
        "chromium": browser,
        "milliseconds": milliseconds,
        "goal": GOAL_MS,
    }
    print(milliseconds)
    print(write_report("page_threshold", report, given.out))


if __name__ == "__main__":
    main()
