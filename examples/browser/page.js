// The page: an image and words to a label map, drawn over the image.

import { Segmenter } from "./segmenter.js";

const COLORS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000"];
const [file, words, run, status, legend, canvas] = ["file", "words", "run", "status", "legend", "canvas"].map((id) =>
  document.getElementById(id),
);
const context = canvas.getContext("2d", { willReadFrequently: true });
const seconds = (since) => ((performance.now() - since) / 1000).toFixed(2);

let segmenter;
let image;

async function load() {
  const started = performance.now();
  segmenter = await Segmenter.load("export");
  status.textContent = `Model loaded in ${seconds(started)} s.`;
  run.disabled = !image;
}

async function open() {
  const bitmap = await createImageBitmap(file.files[0], { colorSpaceConversion: "none" });
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  context.fillStyle = "white"; // behind what is transparent, as in the package
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  image = context.getImageData(0, 0, canvas.width, canvas.height);
  run.disabled = !segmenter;
}

async function segment() {
  const classes = words.value.split(";").map((word) => word.trim()).filter(Boolean);
  if (!classes.length) throw new Error('name the classes, such as "dog; grass"');
  if (classes.length > 255) throw new Error(`expected at most 255 classes, got ${classes.length}`);
  const started = performance.now();
  const labels = await segmenter.segment(image, classes);
  draw(labels, classes);
  status.textContent = `Segmented in ${seconds(started)} s.`;
  globalThis.result = { labels, width: image.width, height: image.height, seconds: Number(seconds(started)) };
}

function draw(labels, classes) {
  const shown = new ImageData(new Uint8ClampedArray(image.data), image.width, image.height);
  const colors = classes.map((_, i) => COLORS[i % COLORS.length].match(/\w\w/g).map((part) => parseInt(part, 16)));
  labels.forEach((label, i) => {
    for (let c = 0; label && c < 3; c++) shown.data[4 * i + c] = (shown.data[4 * i + c] + colors[label - 1][c]) / 2;
  });
  context.putImageData(shown, 0, 0);
  legend.replaceChildren(
    ...classes.map((name, i) => {
      const item = document.createElement("span");
      item.textContent = name;
      item.style.background = COLORS[i % COLORS.length];
      return item;
    }),
  );
}

// Run an action of the page; the status shows its error.
async function show(action) {
  run.disabled = true;
  if (segmenter) status.textContent = status.textContent.replace(/^Failed.*/s, "");
  try {
    await action();
  } catch (error) {
    status.textContent = `Failed: ${error.message}`;
  }
  run.disabled = !(segmenter && image);
}

file.addEventListener("change", () => show(open));
run.addEventListener("click", () => {
  status.textContent = "Segmenting ...";
  file.disabled = true; // the labels are drawn over the image that was segmented
  show(segment).then(() => (file.disabled = false));
});
show(load);
