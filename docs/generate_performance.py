"""Write the tables of docs/performance.md and other pages from benchmarks/results.

``python docs/generate_performance.py`` writes the pages; with ``--check`` it fails if one of them is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cliper

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> dict[str, Any]:
    """A report of ``benchmarks/results``."""
    data: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return data


def source(name: str, report: dict[str, Any]) -> str:
    """The source of a table's numbers, in one line."""
    made = report["provenance"]
    machine = made["machine"]
    return (
        f"Measured {made['date']} on {machine['processor']}, {machine['torch_threads']} threads, float32, torch "
        f"{made['versions']['torch']}: [{name}.json](../benchmarks/results/{name}.json)."
    )


def start_up() -> str:
    """Seconds of a whole process of ``cliper segment``, with and without cached text embeddings."""
    warm, cold = read("start_up"), read("start_up_cold")
    lines = ["| whole process, median seconds | words in the cache | words not in the cache |", "| --- | --- | --- |"]
    names = {"cliper": "cliper", "baseline": "cliper when it imported transformers", "import torch": "`import torch`"}
    for name, words in names.items():
        cells = " | ".join(f"{report['seconds'][name]['median']:.2f}" for report in (warm, cold))
        lines.append(f"| {words} | {cells} |")
    lines.append(f"| ratio, pair by pair | {warm['ratio']['median']:.2f} | {cold['ratio']['median']:.2f} |")
    shared = " Other work ran on the machine." if warm["shared_machine"] or cold["shared_machine"] else ""
    text = f"The line `loading ...` appears after {warm['first_line_seconds']['median']:.2f} s (median).{shared}"
    return "\n".join([*lines, "", f"{text} {source('start_up', warm)}"])


def clip_stage() -> str:
    """Seconds and memory, compared with the published way."""
    name = "clip_stage_vit-b16"
    report = read(name)
    settings = report["settings"]
    lines = [
        f"| {settings['shape']}, {settings['height']}x{settings['width']}, {settings['foreground']} + "
        f"{settings['background']} texts | seconds | memory above the model |",
        "| --- | --- | --- |",
    ]
    for way, seconds in report["seconds"].items():
        lines.append(f"| {way} | {seconds['median']:.2f} | {report['peak_bytes_above_start'][way] / 2**20:.0f} MiB |")
    text = " ".join(
        f"{way} / cliper, pair by pair: median {ratio['median']:.2f} (from {ratio['min']:.2f} to {ratio['max']:.2f})."
        for way, ratio in report["ratio"].items()
    )
    return "\n".join([*lines, "", f"{text} {source(name, report)}"])


def voc_attention() -> str:
    """mIoU of each attention."""
    report = read("voc_attention")
    lines = [
        "| last-layer attention | voc21, best of 8 thresholds | voc21, recommended | voc20 |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in report["miou"].items():
        lines.append(f"| {name} | {row['voc21_best']:.3f} | {row['voc21_at_recommended']:.3f} | {row['voc20']:.3f} |")
    text = f"mIoU, {report['images']} images of VOC 2012 val, no refiner, first version of the bundled checkpoint."
    return "\n".join([*lines, "", f"{text} {source('voc_attention', report)}"])


def compensation() -> str:
    """Seconds, memory and errors of fine-grained compensation: a table by stage, and one of all implementations."""
    report = read("compensation")
    lines = [
        "| | published way | cliper | ratio | cliper, bfloat16 |",
        "| --- | --- | --- | --- | --- |",
    ]
    others = [
        "| | VAE, s | UNet, s | chain, s | total, s | peak, GiB | attention maps, error | refined maps, error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, result in report["models"].items():
        rows, more = compensation_rows(model.upper().replace("SD", "SD "), result)
        lines, others = lines + rows, others + more
    settings = report["settings"]
    differences = [result["largest_difference"] for result in report["models"].values()]
    worst = [f"{max(d[way] for d in differences):.0e}" for way in ("ours", "bfloat16") if way in differences[0]]
    height, width = settings["image"]
    text = (
        f"Random weights of the real shapes, an image of {width}x{height}, {settings['classes']} classes, the best of "
        f"{settings['repeats']} runs of each stage. Largest difference of the refined maps from the published way's: "
        f"{', in bfloat16 '.join(worst)}."
    )
    if len(others) > 2:
        note = (
            "Each implementation in a process of its own, in the same run. Errors are the median and the 90th "
            "percentile of the absolute distance from float64, as multiples of the published way's. The chain of "
            "torch.compile and OpenVINO is cliper's."
        )
        lines += ["", *others, "", note]
    return "\n".join([*lines, "", f"{text} {source('compensation', report)}"])


def compensation_rows(title: str, result: dict[str, Any]) -> tuple[list[str], list[str]]:
    """A row for each stage and one for memory; and a row for each implementation whose error was measured."""
    stages = {
        "vae": "VAE encoder, s",
        "unet": "UNet, s",
        "chain": "chain, s",
        "chain from maps": "chain from given maps, s",
        "total": "image and maps to refined maps, s",
    }
    ways = {
        "published": "published way",
        "ours": "cliper",
        "baseline": "cliper at an earlier revision",
        "bfloat16": "cliper, bfloat16",
        "torch_compile": "torch.compile",
        "openvino": "OpenVINO",
        "openvino_bfloat16": "OpenVINO, bfloat16",
    }
    old, new, half = ({"seconds": {}} | result.get(way, {}) for way in ("published", "ours", "bfloat16"))
    rows = []
    for stage, words in stages.items():
        first = "chain" if stage == "chain from maps" else stage
        values = (old["seconds"].get(first), new["seconds"].get(stage), result["ratio"][stage])
        values += (half["seconds"].get(stage),)
        cells = " | ".join("" if value is None else f"{value:.2f}" for value in values)
        rows.append(f"| {title}: {words} | {cells} |")
    peaks = (old.get("peak_gib"), new.get("peak_gib"), result["ratio"]["memory"], half.get("peak_gib"))
    cells = " | ".join("" if value is None else f"{value:.2f}" for value in peaks)
    rows.append(f"| {title}: peak memory, GiB | {cells} |")
    more = []
    for way, words in ways.items():
        row = result.get(way, {})
        if "reason" in row:
            more.append(f"| {title}: {words} | not measured: {row['reason'].replace('|', ' ')} | | | | | | |")
        elif "error" in row:
            values = [*(row["seconds"][stage] for stage in ("vae", "unet", "chain", "total")), row["peak_gib"]]
            cells = [f"{value:.2f}" for value in values]
            cells += [f"{e['median_ratio']:.3g}, {e['p90_ratio']:.3g}" for e in row["error"].values()]
            more.append(f"| {title}: {words} | {' | '.join(cells)} |")
    return rows, more


def batch_throughput() -> str:
    """Images per second, processors and memory of each way to process many images."""
    few, many = read("batch_throughput"), read("batch_throughput_2000")
    names = {
        "before": "`cliper batch` of commit d063567",
        "local": "`cliper batch`",
        "threads": "`cliper batch`, decoding in threads without limits",
    }
    lines = [
        "| | images/s | relative to d063567 | start, s | processors | peak memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way, name in names.items():
        row = few["ways"][way]
        ratio = row["images_per_second"] / few["ways"]["before"]["images_per_second"]
        memory = ", ".join(f"{size} MiB {when}" for when, size in row["peak_memory_mib"].items())
        lines.append(
            f"| {name} | {row['images_per_second']:.2f} | {ratio:.2f} | {row['start_seconds']:.1f} | "
            f"{row['processors_used']:.2f} | {memory} |"
        )
    peaks = ", ".join(f"{size} MiB {when}" for when, size in many["ways"]["local"]["peak_memory_mib"].items())
    local = few["ways"]["local"]
    text = (
        f"First version of the bundled checkpoint at size {few['size']}, where the other steps count most; 10 classes, "
        "no refiner; files: label map and overlay; memory: of all processes. "
        f"{local['images']} images, rates: median of {len(local['rounds'])} rounds in turns. {few['same_pixels']:.2%} "
        "of pixels have the labels of d063567; images are resized to other sizes since then. "
        f"`cliper batch` on {many['ways']['local']['images']:,} images at size {many['size']}: {peaks} "
        "([batch_throughput_2000.json](../benchmarks/results/batch_throughput_2000.json))."
    )
    return "\n".join([*lines, "", f"{text} {source('batch_throughput', few)}"])


def service_load() -> str:
    """Requests per second, seconds and memory of the service, with one client and with many."""
    report = read("service_load")
    lines = [
        "| | clients | requests | requests/s | p50, s | p99, s | 429, retried | other errors | memory, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way, row in report["ways"].items():
        seconds, memory, errors = row["seconds"], row["memory_mib"], sum(row["other_errors"].values())
        lines.append(
            f"| {way} | {row['clients']} | {row['requests']} | {row['requests_per_second']:.1f} | "
            f"{seconds['p50']:.2f} | {seconds['p99']:.2f} | {row['refused_429']} | {errors} | "
            f"{memory['after a tenth']:.0f}, {memory['at the end']:.0f} |"
        )
    width, height = report["image"]
    if "latency" in report:
        lines += ["", "| one client | before | now | ratio | wanted |", "| --- | --- | --- | --- | --- |"]
        for title, row in report["latency"].items():
            before, now = row.get("before"), row["now"]
            ratio = "" if before is None else f"{now / before:.2f}"
            earlier = "" if before is None else f"{before:.3f} {row['unit']}"
            lines.append(f"| {title} | {earlier} | {now:.3f} {row['unit']} | {ratio} | {row['goal']} |")
    text = (
        f"Bundled checkpoint, images of {width}x{height} at size {report['settings']['size']}, a queue of "
        f"{report['ways']['many clients']['queue']}; seconds: of accepted requests; memory: of the server, after a "
        "tenth of the requests and at the end."
    )
    return "\n".join([*lines, "", f"{text} {source('service_load', report)}"])


def encode_once() -> str:
    """Seconds of the first and the second question about an image, and of a threshold on the page."""
    report, page = read("encode_once"), read("page_threshold")
    lines = [
        "| refiner | first question, s | second, s | ratio, wanted | encoded image |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in report["refiners"].items():
        lines.append(
            f"| {name} | {row['first_seconds']:.2f} | {row['second_seconds']:.3f} | {row['ratio']:.0f}, "
            f"{row['goal']:.0f} | {row['encoded_mib']:.0f} MiB |"
        )
    moves, (width, height) = page["milliseconds"], page["image"]
    text = (
        f"A move of the page's threshold at {width}x{height} with {page['classes']} classes takes "
        f"{moves['median']:.1f} ms in headless Chromium (median of {page['moves']}; 95th percentile {moves['p95']:.1f} "
        f"ms; wanted: {page['goal']} ms)."
    )
    return "\n".join([*lines, "", f"{text} {source('encode_once', report)}"])


def self_refiner() -> str:
    """mIoU with ``refiner="self"`` and without."""
    report = read("self_refiner")
    chosen = next(c for c in report["chosen_on"]["candidates"] if c["candidate"] == report["best"])
    lines = [
        "| | voc21 | voc20 |",
        "| --- | --- | --- |",
    ]
    for half, without, own in (
        ("chosen on", report["chosen_on"]["without"], chosen),
        ("reported on", report["reported_on"]["without"], report["reported_on"]["best"]),
    ):
        count = report[half.replace(" ", "_")]["images"]
        lines.append(f"| {half} {count} images: no refiner | {without['voc21']:.3f} | {without['voc20']:.3f} |")
        lines.append(f"| {half} {count} images: self | {own['voc21']:.3f} | {own['voc20']:.3f} |")
    layer, side, mean_weight, inverse_temperature = report["best"]
    text = (
        f"mIoU with the first version of the bundled checkpoint at its recommended settings; layer {layer} of 12, "
        f"{side} pixels, mean weight {mean_weight}, inverse temperature {inverse_temperature:g}."
    )
    return "\n".join([*lines, "", f"{text} {source('self_refiner', report)}"])


def tuning() -> str:
    """mIoU of the given settings and of those that cliper tune chose."""
    report = read("tune")
    lines = [
        "| refiner | images drawn | cross-validation: before | after | the other images: before | after | change |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for refiner, trials in report["trials"].items():
        for number, trial in enumerate(trials, start=1):
            folds, others = trial["cross_validation"], trial["others"]
            before, after = (others[when]["miou"] for when in ("before", "after"))
            kept = "" if trial["improved"] else " (given settings kept)"
            lines.append(
                f"| {refiner} | draw {number} of {len(trials)}{kept} | {folds['before']:.1f} | {folds['after']:.1f} | "
                f"{before:.1f} | {after:.1f} | {after - before:+.1f} |"
            )
    first = next(iter(report["trials"].values()))[0]
    seconds = max(trial["search_seconds"] for trials in report["trials"].values() for trial in trials)
    text = (
        f"`{report['model']}`, {report['count']} images of VOC 2012 val drawn at random, each class in at least one, "
        f"and {first['others']['images']} other images; VOC's 20 names, background `auto`; mIoU (voc21) in percent. "
        f"The search took at most {seconds:.0f} s. {source('tune', report)}"
    )
    return "\n".join([text, "", *lines])


def costs() -> str:
    """Seconds and memory by model and refiner."""
    clip, refined, once = read("clip_stage_vit-b16"), read("compensation"), read("encode_once")
    own = once["refiners"]["self"]
    memory = clip["peak_bytes_above_start"]["cliper"] / 2**20
    lines = [
        "| | seconds an image | peak memory | source |",
        "| --- | --- | --- | --- |",
        f"| `mini`, refiner `self`, new words | {own['first_seconds']:.1f} | | {link('encode_once')} |",
        f"| the same image again, other new words | {own['second_seconds']:.2f} | | {link('encode_once')} |",
        f"| `ViT-B/16`, no refiner | {clip['seconds']['cliper']['median']:.1f} | {memory:.0f} MiB above the model | "
        f"{link('clip_stage_vit-b16')} |",
    ]
    for alias, model in refined["models"].items():
        ours = model["ours"]
        cells = f"{ours['seconds']['total']:.1f} | {ours['peak_gib']:.1f} GiB"
        lines.append(f"| refiner `{alias}` alone | {cells} | {link('compensation')} |")
    return "\n".join([*lines, "", "Two cores of a processor, float32; random weights except for `mini`."])


def link(name: str) -> str:
    """To a file of results."""
    return f"[{name}.json](../benchmarks/results/{name}.json)"


def published() -> str:
    """The published table, from the presets."""
    names = [n for n in cliper.presets() if not n.endswith("-preprint") and n.startswith("vit-")]
    benchmarks = list(dict.fromkeys(n.split("/")[1].removesuffix("-windows") for n in names))
    lines = [
        "| published mIoU | refined / not | with windows |",
        "| --- | --- | --- |",
    ]
    for model in ("vit-b-16", "vit-l-14"):
        for benchmark in benchmarks:
            cells = []
            for suffix in ("", "-windows"):
                values = cliper.load_preset(f"{model}/{benchmark}{suffix}").published
                cells.append(f"{values['miou']} / {values['miou_unrefined']}")
            lines.append(f"| {model}/{benchmark} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def summary() -> str:
    """Five rows for the README."""
    clip, many, load, own = (
        read(n) for n in ("clip_stage_vit-b16", "batch_throughput", "service_load", "self_refiner")
    )
    sharpen = read("compensation")["models"]["sd2.1"]
    way = next(iter(clip["ratio"]))
    batch, client = many["ways"]["local"], load["ways"]["one client"]
    without, refined = own["reported_on"]["without"], own["reported_on"]["best"]
    rows = [
        (
            "CLIP stage, ViT-B/16 at 336x448",
            f"{clip['seconds']['cliper']['median']:.2f} s, {clip['ratio'][way]['median']:.1f} times as fast as the "
            "published way",
        ),
        (
            "Compensation with Stable Diffusion 2.1",
            f"{sharpen['ours']['seconds']['total']:.1f} s, {sharpen['ratio']['total']:.1f} times as fast; memory "
            f"{sharpen['ours']['peak_gib']:.1f} GiB instead of {sharpen['published']['peak_gib']:.1f} GiB",
        ),
        (
            "`cliper batch`, first version of the bundled checkpoint at 224",
            f"{batch['images_per_second']:.1f} images per second",
        ),
        (
            "`cliper serve`, one client, bundled checkpoint at 112",
            f"{client['requests_per_second']:.1f} requests per second, median {client['seconds']['p50']:.2f} s",
        ),
        (
            "`--refiner self`, 75 VOC images, first version of the bundled checkpoint",
            f"mIoU (voc21) {without['voc21']:.3f} without, {refined['voc21']:.3f} with",
        ),
    ]
    return "\n".join(
        ["| measured on two CPU cores, float32 | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]
    )


def exports() -> str:
    """Size, agreement with the package and seconds of each precision and runtime."""
    report = read("export")
    lines = [
        "| weights | image graph, MB | text graph, MB | runtime | seconds per image | same labels, mean | lowest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = {"cliper": "the package", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    for precision, row in report["precisions"].items():
        for way, name in names.items():
            one = row[way]
            shares = f"{one['agreement']:.3%} | {one['lowest_agreement']:.3%}" if way != "cliper" else "|"
            lines.append(
                f"| {precision} | {row['image_mb']} | {row['text_mb']} | {name} | {one['seconds']:.2f} | {shares} |"
            )
    text = (
        f"{report['images']} photos, {report['words'].count(';') + 1} classes, the bundled checkpoint; seconds from "
        "pixels to class maps, median, the three taking turns in one process."
    )
    return "\n".join([*lines, "", f"{text} {source('export', report)}"])


def large_images() -> str:
    """Seconds and memory of a raster in tiles."""
    report = read("large_image")
    names = {"tif": "GeoTIFF of labels", "gpkg": "GeoPackage of polygons"}
    lines = [
        "| output | tiles | seconds for class maps | seconds in all | peak memory | of which before the first tile |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, run in report["runs"].items():
        memory = " | ".join(f"{run[key] / 2**20:.0f} MiB" for key in ("peak_memory", "start_memory"))
        lines.append(
            f"| {names[name]} | {run['tiles']} | {run['tile_seconds']:.0f} | {run['seconds']:.0f} | {memory} |"
        )
    side = f"{report['side']:,}"
    text = (
        f"{side} x {side} pixels ({report['file_bytes'] / 1e6:.0f} MB of GeoTIFF), {len(report['classes'])} classes, "
        f"`--tile {report['tile']} --tile-overlap {report['overlap']}`, the bundled checkpoint without refiner."
    )
    return "\n".join([*lines, "", f"{text} {source('large_image', report)}"])


PAGES = {
    "docs/performance.md": {
        "start_up": start_up,
        "clip_stage": clip_stage,
        "compensation": compensation,
        "batch_throughput": batch_throughput,
        "service_load": service_load,
        "encode_once": encode_once,
        "self_refiner": self_refiner,
        "voc_attention": voc_attention,
        "published": published,
    },
    "docs/tuning.md": {"tuning": tuning},
    "docs/choosing.md": {"costs": costs},
    "docs/export.md": {"export": exports},
    "docs/large-images.md": {"large_images": large_images},
    "README.md": {"summary": summary},
}


def filled(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The text of a page with all tables regenerated."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in tables.items():
        table = make()
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{page}: expected one table {name}, found {count}")
    return text


def write_pages(pages: Mapping[str, Mapping[str, Callable[[], str]]]) -> None:
    """Write the tables of pages, or with ``--check`` fail if one is out of date."""
    for page, tables in pages.items():
        path, new = ROOT / page, filled(page, tables)
        if "--check" not in sys.argv[1:]:
            path.write_text(new, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != new:
            raise SystemExit(f"{page}: its tables differ from benchmarks/results; run docs/{Path(sys.argv[0]).name}")


if __name__ == "__main__":
    write_pages(PAGES)
