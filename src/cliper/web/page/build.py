"""The page: what stands where, and what happens when."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from cliper.examples import EXAMPLE_CLASSES, example_photo
from cliper.settings import RECIPES
from cliper.web.page import components
from cliper.web.page.actions import Actions, Form, one_line
from cliper.web.page.components import chips, held, status, viewer
from cliper.web.page.form import AUTO, LABELS, NONE, OWN, size_range
from cliper.web.page.lines import FILES, NETWORKS, QUICK
from cliper.web.page.models import Offer
from cliper.web.page.view import colours

__all__ = ["build"]

_HEAD = """# CLIPer
Give a picture and any words, get a label map."""

# What went wrong before is over; what else is said stays (see status.js).
_FINE = {"kind": "fine", "text": ""}

# Said by the browser: the line is there before the server has answered, and when it does not.
_WAITING = '() => ({kind: "busy", text: "waiting for its turn ..."})'
# Gradio has then said so in words of its own beside it, which are taken back: one message is enough.
_REFUSED = """async () => {
  await new Promise((drawn) => setTimeout(drawn));
  for (const close of document.querySelectorAll(".toast-body.error .toast-close")) close.click();
  return {kind: "error", text: "the server did not take it, too many may be waiting; try again soon"};
}"""

_FREQUENCY = 300  # seconds between two looks at what was uploaded


def build(actions: Actions) -> gr.Blocks:
    """The page, not yet served."""
    limits, models = actions.limits, actions.models
    start = models.start.settings
    least, largest = size_range(start, limits)
    with gr.Blocks(
        title="CLIPer",
        analytics_enabled=False,
        delete_cache=(_FREQUENCY, round(limits.seconds)),
        fill_width=False,
    ) as page:
        # Names of the visitor's result, and of the one on display. The browser holds them: what Gradio holds for a
        # session goes when there are many, and after a time that no use prolongs.
        name, shown = held(), held()
        gr.Markdown(_HEAD, elem_classes="cliper-head")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = components.picture(label="Picture", buttons=[], height=300, elem_id="picture")
                example = gr.Button("Take the example: horses", size="sm", elem_id="example")
                classes = chips("Classes", "type a class, press Enter", [], colours(limits.classes), elem_id="classes")
                background = gr.Radio(
                    [AUTO, NONE, OWN],
                    value=AUTO,
                    label="Background",
                    info="What competes with the classes, and is not one of them.",
                    elem_id="background",
                )
                words = chips("Background words", "wall; sky", [], [], visible=False, elem_id="words")
                with gr.Accordion("Model and settings", open=False, elem_id="settings"):
                    model = gr.Dropdown(_choices(models.models()), value=models.start_model, label="Model")
                    refiner = gr.Dropdown(
                        _choices(models.refiners()),
                        value=models.start_refiner,
                        label="Refiner",
                        info="Sharpens the maps: self by CLIP's own patches, the others by models of their own.",
                    )
                    recipe = gr.Dropdown(
                        [item for item in RECIPES if item in ("conference", "preprint", start.recipe)],
                        value=start.recipe,
                        label=LABELS["recipe"],
                        info="Published version of the method.",
                    )
                    size = gr.Slider(
                        least,
                        largest,
                        value=start.size,
                        step=1,
                        label=LABELS["size"],
                        info="Short side of the resized picture, in pixels.",
                    )
                    window = gr.Slider(
                        0,
                        largest,
                        value=start.window,
                        step=112,
                        label=LABELS["window"],
                        info="Side of the sliding windows in pixels; 0 for none.",
                    )
                run = gr.Button("Segment", variant="primary", size="lg", elem_id="run")
                line = status()
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    score = gr.Slider(
                        0,
                        1,
                        value=start.score_threshold,
                        step=0.01,
                        label=LABELS["score_threshold"],
                        info="Classes not above this confidence are off; one above 1 stays on.",
                        elem_id="score",
                    )
                    threshold = gr.Slider(
                        0,
                        1,
                        value=start.background_threshold,
                        step=0.01,
                        label=LABELS["background_threshold"],
                        info="Pixels below this are background; 0 lets background compete.",
                        elem_id="threshold",
                    )
                result = viewer()

        thresholds = [score, threshold]
        filled = [picture, classes, background, words, model, refiner, recipe, size, window, *thresholds]

        def segment(*values: Any) -> Iterator[tuple[dict[str, str], Any]]:
            *given, old = values
            names = ("picture", "classes", "background", "words", "model", "refiner", "recipe", "size", "window")
            form = dict(zip((*names, "score", "background_threshold"), given, strict=True))
            form["picture"] = form["picture"].get("path") if isinstance(form["picture"], dict) else None
            yield from actions.segment(Form(**form), old)

        def show(new: Any, old: Any, *at: Any) -> tuple[Any, Any, Any]:
            if not new:
                return gr.skip(), gr.skip(), gr.skip()
            try:
                if new == old:
                    return _FINE, gr.HTML(value=actions.move(new, *at)), gr.skip()
                scene, labels = actions.scene(new, *at)
            except Exception as error:
                return _error(error), gr.skip(), gr.skip()
            return _FINE, gr.HTML(value=labels, scene=scene), new

        def download(event: gr.EventData) -> tuple[Any, Any]:
            try:
                path = actions.download(dict(event._data or {}))
            except Exception as error:
                return _error(error), gr.skip()
            # The turn makes two files of one name differ, so that the browser saves the second, too.
            file = {"path": str(path), "name": path.name, "turn": secrets.token_hex(4)}
            return _FINE, gr.HTML(file=file)

        def suit(chosen: str) -> tuple[Any, ...]:
            try:
                best = actions.models.settings(chosen)
            except Exception as error:
                return (_error(error), *(gr.skip() for _ in range(5)))
            return _FINE, best.recipe, best.size, best.window, best.score_threshold, best.background_threshold

        def take_example() -> tuple[str, list[str]]:
            # A copy among the uploads: a visitor learns nothing of where the package lies.
            return save_file_to_cache(example_photo(), cache_dir=picture.GRADIO_CACHE), [EXAMPLE_CLASSES]

        # Values arrive as they were sent: Gradio would decode the picture, and answer a bad value in its own words.
        own = {"api_visibility": "private", "preprocess": False}
        hidden = {**own, "show_progress": "hidden"}
        quick = {**hidden, "concurrency_limit": 4, "concurrency_id": QUICK}
        files = {**hidden, "concurrency_limit": 1, "concurrency_id": FILES}
        run.click(None, None, line, js=_WAITING, api_visibility="private")
        segmenting = run.click(
            segment,
            [*filled, name],
            [line, name],
            concurrency_limit=1,
            concurrency_id=NETWORKS,
            show_progress="full",
            show_progress_on=line,
            **own,
        )
        # A threshold changes in many ways (dragged, typed, reset, with the model), so it is the change that is heard.
        showing = gr.on(
            [part.change for part in (name, *thresholds)],
            show,
            [name, shown, *thresholds],
            [line, result, shown],
            trigger_mode="always_last",
            **quick,
        )
        others = [
            result.download(download, None, [line, result], **files),
            model.input(suit, model, [line, recipe, size, window, *thresholds], **quick),
            example.click(take_example, None, [picture, classes], **quick),
            background.input(lambda choice: gr.HTML(visible=choice == OWN), background, words, **quick),
        ]
        for asked in (segmenting, showing, *others):
            asked.failure(None, None, line, js=_REFUSED, api_visibility="private")
        page.queue(max_size=None, default_concurrency_limit=1, api_open=False)  # Lines says how many wait
    return page


def _choices(offers: list[Offer]) -> list[tuple[str, str]]:
    return [(offer.label, offer.name) for offer in offers]


def _error(error: Exception) -> Any:
    return {"kind": "error", "text": one_line(error)}
