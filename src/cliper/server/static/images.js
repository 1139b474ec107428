// The images of the page: chosen, dropped or pasted, shown as a strip of thumbnails.

import { button, element, replaceChildren } from "./dom.js";

const STATES = { idle: "", waiting: "waits", running: "runs", done: "", error: "error" };

export class ImageStrip {
  // onSelect(item), onChange(): after images were added or removed; onError(message).
  constructor(list, { onSelect, onChange, onError }) {
    Object.assign(this, { list, onSelect, onChange, onError });
    this.items = []; // {file, name, bitmap, state, error, response, words}
    this.selected = null;
  }

  async add(files) {
    const images = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
    if (images.length < files.length) this.onError("only image files can be used");
    for (const file of images) {
      // A browser may not know a format that the server reads; then only the result is shown.
      const bitmap = await createImageBitmap(file).catch(() => null);
      const name = this.#freeName(file.name || "image.png");
      const item = { file, name, bitmap, state: "idle", error: "", response: null, words: "" };
      this.items.push(item);
      this.select(item);
    }
    this.onChange();
  }

  // Exported files are named after the images, so two images of one name are told apart.
  #freeName(name) {
    const dot = name.lastIndexOf(".") < 1 ? name.length : name.lastIndexOf(".");
    const stemOf = (item) => item.name.replace(/\.[^.]*$/, "").toLowerCase();
    const stems = new Set(this.items.map(stemOf));
    let stem = name.slice(0, dot);
    for (let number = 2; stems.has(stem.toLowerCase()); number++) {
      stem = name.slice(0, dot) + "-" + number;
    }
    return stem + name.slice(dot);
  }

  select(item) {
    this.selected = item;
    this.show();
    this.onSelect(item);
  }

  remove(item) {
    const index = this.items.indexOf(item);
    this.items.splice(index, 1);
    item.bitmap?.close();
    if (this.selected === item) this.select(this.items[index] || this.items.at(-1) || null);
    this.show();
    this.onChange();
  }

  setState(item, state, error = "") {
    item.state = state;
    item.error = error;
    this.show();
  }

  show() {
    replaceChildren(this.list, this.items.map((item) => this.#thumb(item)));
  }

  #thumb(item) {
    const entry = document.createElement("li");
    const thumb = button("thumb", "", item.name, () => this.select(item));
    thumb.dataset.state = item.state;
    thumb.title = item.error || item.name;
    if (item === this.selected) thumb.ariaCurrent = "true";
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 152;
    if (item.bitmap) {
      const { width, height } = item.bitmap;
      const side = Math.min(width, height);
      const [left, top] = [(width - side) / 2, (height - side) / 2];
      canvas.getContext("2d").drawImage(item.bitmap, left, top, side, side, 0, 0, 152, 152);
    }
    thumb.append(canvas, element("span", "state", STATES[item.state]));
    const remove = () => this.remove(item);
    entry.append(thumb, button("remove", "\u00d7", "remove image " + item.name, remove));
    return entry;
  }
}

// Files that a person drops on an element, pastes anywhere, or picks with an input.
export function listenForFiles(drop, input, add) {
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (name === "drop" && event.dataTransfer.files.length) add([...event.dataTransfer.files]);
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (files.length) add(files);
  });
}
