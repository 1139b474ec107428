// The result on a canvas: image, labels or heatmap over it, comparison, zoom and pan, reading.

import { colour, heatColour } from "./colours.js";

const MAX_ZOOM = 16;

function makeCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function littleEndian([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

export class Viewer {
  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.tip = root.querySelector(".tip");
    this.scene = null;
    this.mode = "labels"; // labels, heat or image
    this.heatClass = 0;
    this.opacity = 0.55;
    this.compare = false;
    this.split = 0.5;
    this.hidden = new Set(); // names
    this.view = { zoom: 1, x: 0, y: 0 };
    this.#listen();
  }

  // scene: {bitmap, width, height, classes, refined, fused}; the last two are LabelMaps or null:
  // before a result there are none, and without a refiner nothing to compare.
  show(scene) {
    if (scene !== this.scene) {
      this.view = { zoom: 1, x: 0, y: 0 };
      this.tip.hidden = true;
    }
    this.scene = scene;
    if (!scene) return;
    this.canvas.width = scene.width;
    this.canvas.height = scene.height;
    this.heatClass = Math.max(0, Math.min(this.heatClass, scene.classes.length - 1));
    this.relabel();
  }

  // Paint the layers again after labels, or the classes that are shown, have changed.
  relabel() {
    const { scene } = this;
    if (!scene) return;
    if (!scene.refined) {
      this.draw();
      return;
    }
    scene.layers = { refined: this.#layers(scene.refined) };
    if (scene.fused) scene.layers.fused = this.#layers(scene.fused);
    this.draw();
  }

  #layers(maps) {
    const { width, height } = this.scene;
    const palette = new Uint32Array(this.scene.classes.length + 1);
    this.scene.classes.forEach((item, index) => {
      if (!this.hidden.has(item.name)) palette[index + 1] = littleEndian(colour(index));
    });
    const fill = new ImageData(width, height);
    const edge = new ImageData(width, height);
    const filled = new Uint32Array(fill.data.buffer);
    const edged = new Uint32Array(edge.data.buffer);
    const labels = maps.labels;
    for (let i = 0; i < labels.length; i++) filled[i] = palette[labels[i]];
    for (let row = 0, i = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i++) {
        const here = filled[i];
        const right = column + 1 < width && filled[i + 1] !== here;
        if (right || (row + 1 < height && filled[i + width] !== here)) edged[i] = 0xffffffff;
      }
    }
    return [fill, edge].map((data) => {
      const layer = makeCanvas(width, height);
      layer.getContext("2d").putImageData(data, 0, 0);
      return layer;
    });
  }

  #heatLayer(maps) {
    const { stack } = maps;
    const layer = makeCanvas(stack.width, stack.height);
    const image = new ImageData(stack.width, stack.height);
    const first = this.heatClass * stack.width * stack.height;
    const peak = stack.peaks[this.heatClass] || 1;
    for (let i = 0; i < stack.width * stack.height; i++) {
      const value = stack.data[first + i] / peak;
      const [red, green, blue] = heatColour(value);
      image.data.set([red, green, blue, Math.min(255, 40 + value * 400)], 4 * i);
    }
    layer.getContext("2d").putImageData(image, 0, 0);
    return layer;
  }

  get comparing() {
    return this.compare && this.scene !== null && this.scene.fused !== null;
  }

  draw() {
    const { scene, context, canvas, view } = this;
    if (!scene) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#888";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(view.zoom, 0, 0, view.zoom, -view.x * view.zoom, -view.y * view.zoom);
    context.imageSmoothingEnabled = view.zoom < 4;
    if (scene.bitmap) context.drawImage(scene.bitmap, 0, 0, scene.width, scene.height);
    if (this.comparing) {
      const cut = view.x + (canvas.width * this.split) / view.zoom;
      this.#paintPart(scene.fused, scene.layers.fused, 0, cut);
      this.#paintPart(scene.refined, scene.layers.refined, cut, scene.width - cut);
      context.fillStyle = "#fff";
      context.fillRect(cut - 1 / view.zoom, 0, 2 / view.zoom, scene.height);
    } else if (scene.refined) {
      this.#paint(scene.refined, scene.layers.refined);
    }
    this.root.dataset.drawn = String(Number(this.root.dataset.drawn || 0) + 1);
  }

  #paintPart(maps, layers, left, width) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(left, 0, width, this.scene.height);
    this.context.clip();
    this.#paint(maps, layers);
    this.context.restore();
  }

  #paint(maps, layers) {
    const { context, scene } = this;
    if (this.mode === "heat") {
      context.globalAlpha = Math.min(1, this.opacity * 1.5);
      context.drawImage(this.#heatLayer(maps), 0, 0, scene.width, scene.height);
    } else if (this.mode === "labels") {
      context.globalAlpha = this.opacity;
      context.drawImage(layers[0], 0, 0);
      context.globalAlpha = this.opacity > 0 ? 0.85 : 0;
      context.drawImage(layers[1], 0, 0);
    }
    context.globalAlpha = 1;
  }

  // What is at a position of the canvas, in words.
  read(x, y) {
    const { scene, view } = this;
    if (!scene.refined) return null;
    const column = Math.floor(view.x + x / view.zoom);
    const row = Math.floor(view.y + y / view.zoom);
    if (column < 0 || row < 0 || column >= scene.width || row >= scene.height) return null;
    const left = this.comparing && x < this.split * this.canvas.width;
    const maps = left ? scene.fused : scene.refined;
    const heat = this.mode === "heat";
    const index = heat ? this.heatClass : maps.labels[row * scene.width + column] - 1;
    if (index < 0 || (!heat && this.hidden.has(scene.classes[index].name))) {
      return "background";
    }
    if (!heat) return scene.classes[index].name;
    const { stack } = maps;
    const near = Math.floor((row / scene.height) * stack.height) * stack.width;
    const cell = near + Math.floor((column / scene.width) * stack.width);
    const value = stack.data[index * stack.width * stack.height + cell];
    return scene.classes[index].name + " " + Math.min(1, value).toFixed(2);
  }

  // Zoom by a factor around a position of the canvas (default: its centre).
  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const { view } = this;
    const next = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
    view.x += x / view.zoom - x / next;
    view.y += y / view.zoom - y / next;
    view.zoom = next;
    this.pan(0, 0);
  }

  pan(x, y) {
    const { view, canvas } = this;
    const limit = (value, size) => Math.min(Math.max(0, value), size - size / view.zoom);
    view.x = limit(view.x + x / view.zoom, canvas.width);
    view.y = limit(view.y + y / view.zoom, canvas.height);
    canvas.classList.toggle("zoomed", view.zoom > 1);
    this.draw();
  }

  #position(event) {
    const box = this.canvas.getBoundingClientRect();
    const factor = this.canvas.width / box.width;
    return [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor, factor];
  }

  #showTip(event) {
    const [x, y] = this.#position(event);
    const text = this.scene && this.read(x, y);
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.textContent = text;
    const stage = this.tip.parentElement.getBoundingClientRect();
    const left = Math.min(event.clientX - stage.left + 14, stage.width - this.tip.offsetWidth - 4);
    const top = event.clientY - stage.top - this.tip.offsetHeight - 10;
    this.tip.style.left = Math.max(4, left) + "px";
    this.tip.style.top = Math.max(4, top) + "px";
  }

  #listen() {
    const { canvas } = this;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      last = this.#position(event);
      if (this.view.zoom > 1) canvas.setPointerCapture(event.pointerId);
      this.#showTip(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = this.#position(event);
      if (last && event.buttons && this.view.zoom > 1) {
        this.pan(last[0] - x, last[1] - y);
        last = [x, y];
      }
      this.#showTip(event);
    });
    canvas.addEventListener("pointerup", () => (last = null));
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.tip.hidden = true; // a finger leaves what it read
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && this.view.zoom === 1) return; // the page scrolls
        event.preventDefault();
        const [x, y] = this.#position(event);
        this.zoom(Math.exp(-event.deltaY / 300), x, y);
      },
      { passive: false }
    );
    canvas.addEventListener("keydown", (event) => {
      const step = canvas.width / 10;
      const actions = {
        "+": () => this.zoom(1.5),
        "-": () => this.zoom(1 / 1.5),
        "0": () => this.zoom(0),
        ArrowLeft: () => this.pan(-step, 0),
        ArrowRight: () => this.pan(step, 0),
        ArrowUp: () => this.pan(0, -step),
        ArrowDown: () => this.pan(0, step),
      };
      const action = actions[event.key === "=" ? "+" : event.key];
      if (!action || event.ctrlKey || event.metaKey) return;
      if (event.key.startsWith("Arrow") && this.view.zoom === 1) return;
      event.preventDefault();
      action();
    });
  }
}
