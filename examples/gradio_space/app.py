"""A Gradio app for a Hugging Face Space: an image and words give masks. Run it here: ``python app.py``."""

import os

import gradio as gr

import cliper

MODEL, REFINER = os.environ.get("MODEL", "mini"), os.environ.get("REFINER") or None
segmenter = cliper.Segmenter.from_pretrained(MODEL, REFINER)


def encode(image):
    """Run the networks on an image once; other words need no network on it again."""
    return None if image is None else segmenter.encode_image(image)


def segment(encoded, classes, background, sensitivity):
    """The image, and a mask and a name for each class that was found."""
    if encoded is None:
        raise gr.Error("Choose an image first.")
    try:
        result = segmenter(encoded, classes, background or "none").relabel(sensitivity=sensitivity)
    except cliper.CliperError as error:
        raise gr.Error(str(error)) from None
    found = [(result.mask(name), name) for name in result.boxes]
    missing = "\n".join(f"- **{name}**: {reason}" for name, reason in result.absent.items())
    return (result.image, found), missing


with gr.Blocks(title="CLIPer") as demo:
    gr.Markdown("# CLIPer\nOpen-vocabulary semantic segmentation without training: give an image and any words.")
    encoded = gr.State()
    with gr.Row():
        with gr.Column():
            photo = gr.Image(type="pil", label="Image", value=str(cliper.example_photo()))
            words = gr.Textbox("horse; grass", label="Classes", info="Between semicolons: horse; person: man, woman")
            rest = gr.Textbox("auto", label="Background", info="auto, none, or what else there is: sky; wall")
            more = gr.Slider(0, 1, 0.5, label="Sensitivity")
            button = gr.Button("Segment", variant="primary")
        with gr.Column():
            masks = gr.AnnotatedImage(label="Masks")
            absent = gr.Markdown()
    inputs, outputs = [encoded, words, rest, more], [masks, absent]
    gr.on([button.click, words.submit, rest.submit, more.release], segment, inputs, outputs, api_name="segment")
    new_photo = gr.on([demo.load, photo.change], encode, photo, encoded, api_name="encode")
    new_photo.then(segment, inputs, outputs, api_visibility="private")

if __name__ == "__main__":
    demo.launch()
