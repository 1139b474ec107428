// The result: picture, regions, heatmaps, comparing, reading off, the legend. All of it happens here; the server is
// asked only for labels at other thresholds and for files.
// props: scene (what stays while thresholds move), value (labels and areas), file ({path, name} to save).
// Names of classes are only ever put into the page as text, never as markup.
const root = element.querySelector(".cliper-viewer");
const find = (selector) => root.querySelector(selector);
const canvas = find("canvas");
const context = canvas.getContext("2d");
const stage = find(".stage");
const tip = find(".tip");
const divider = find(".divider");
const opacity = find(".opacity input");
const compare = find(".compare input");
const heatClass = find(".heat-class");

const state = { mode: "labels", off: new Set(), split: 0.5, turn: 0, scene: null, view: null };

// Dark to bright, each colour brighter than the one before; where a class is not, the picture stays.
const STOPS = [[20, 11, 80], [120, 28, 109], [200, 62, 77], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

function heatColour(value) {
  const at = (value / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((channel, i) => channel + (STOPS[low + 1][i] - channel) * (at - low));
}

function sheet(width, height) {
  const made = document.createElement("canvas");
  made.width = width;
  made.height = height;
  return made;
}

async function bitmap(uri) {
  return createImageBitmap(await (await fetch(uri)).blob(), { colorSpaceConversion: "none" });
}

// The values of a grey picture.
async function values(uri) {
  const image = await bitmap(uri);
  const made = sheet(image.width, image.height);
  const pen = made.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const rgba = pen.getImageData(0, 0, image.width, image.height).data;
  const grey = new Uint8Array(image.width * image.height);
  for (let i = 0; i < grey.length; i++) grey[i] = rgba[4 * i];
  return grey;
}

async function readHeat(heat) {
  return heat && { ...heat, values: await values(heat.maps) };
}

async function update() {
  const turn = ++state.turn;
  const scene = props.scene;
  const view = props.value;
  if (!scene || !view) return;
  let next = state.scene;
  if (!next || next.source !== scene.picture || next.heatSource !== scene.heat.refined.maps) {
    const [picture, refined, fused] = await Promise.all([
      bitmap(scene.picture), readHeat(scene.heat.refined), readHeat(scene.heat.fused),
    ]);
    next = { ...scene, source: scene.picture, heatSource: scene.heat.refined.maps, picture, heat: { refined, fused } };
  }
  const [refined, fused] = await Promise.all([values(view.labels), view.fused ? values(view.fused) : null]);
  if (turn !== state.turn) return; // a later update is on its way
  if (next !== state.scene) begin(next);
  state.view = { ...view, grey: { refined, fused } };
  layers();
  legend();
  draw();
}

function begin(scene) {
  const chosen = heatClass.value;
  state.scene = scene;
  canvas.width = scene.width;
  canvas.height = scene.height;
  canvas.hidden = false;
  find(".empty").hidden = true;
  find(".legend").hidden = false;
  find(".files").hidden = false;
  heatClass.replaceChildren(...scene.classes.map((item, index) => new Option(item.name, String(index))));
  heatClass.value = chosen && Number(chosen) < scene.classes.length ? chosen : "0";
  const names = new Set(scene.classes.map((item) => item.name));
  state.off = new Set([...state.off].filter((name) => names.has(name)));
  compare.disabled = !scene.heat.fused;
  if (compare.disabled) compare.checked = false;
  find(".note").textContent = scene.heat.fused ? "" :
    "No refiner was chosen: this is early-layer fusion itself, there is nothing to compare it with.";
  tip.hidden = true;
}

// Regions and borders of both stages as pictures, in the colours of the classes that are on.
function layers() {
  const { scene, view } = state;
  const colours = scene.classes.map((item) => {
    const rgb = parseInt(item.colour.slice(1), 16);
    return state.off.has(item.name) ? null : [rgb >> 16, (rgb >> 8) & 255, rgb & 255];
  });
  view.layers = {};
  for (const [side, grey] of Object.entries(view.grey)) {
    if (grey) view.layers[side] = { fill: fill(scene, grey, colours), edge: edge(scene, grey, colours) };
  }
}

function fill(scene, grey, colours) {
  const made = sheet(scene.width, scene.height);
  const pen = made.getContext("2d");
  const image = pen.createImageData(scene.width, scene.height);
  const data = image.data;
  for (let i = 0; i < grey.length; i++) {
    const colour = grey[i] ? colours[grey[i] - 1] : null;
    if (!colour) continue;
    data[4 * i] = colour[0];
    data[4 * i + 1] = colour[1];
    data[4 * i + 2] = colour[2];
    data[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return made;
}

function edge(scene, grey, colours) {
  const { width, height } = scene;
  const made = sheet(width, height);
  const pen = made.getContext("2d");
  const image = pen.createImageData(width, height);
  const seen = (i) => (grey[i] && colours[grey[i] - 1] ? grey[i] : 0);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const here = seen(i);
      if ((x + 1 < width && seen(i + 1) !== here) || (y + 1 < height && seen(i + width) !== here)) {
        image.data.fill(255, 4 * i, 4 * i + 4);
      }
    }
  }
  pen.putImageData(image, 0, 0);
  return made;
}

function heatLayer(heat, index) {
  const made = sheet(heat.width, heat.height);
  const pen = made.getContext("2d");
  const image = pen.createImageData(heat.width, heat.height);
  const first = index * heat.width * heat.height;
  for (let i = 0; i < heat.width * heat.height; i++) {
    const value = heat.values[first + i];
    const [red, green, blue] = heatColour(value);
    image.data.set([red, green, blue, Math.min(255, 40 + value * 1.6)], 4 * i);
  }
  pen.putImageData(image, 0, 0);
  return made;
}

function paint(side) {
  const { scene, view } = state;
  const strength = Number(opacity.value) / 100;
  if (state.mode === "heat") {
    context.globalAlpha = Math.min(1, strength * 1.4);
    context.imageSmoothingQuality = "high";
    context.drawImage(heatLayer(scene.heat[side], Number(heatClass.value)), 0, 0, scene.width, scene.height);
  } else {
    context.globalAlpha = strength;
    context.drawImage(view.layers[side].fill, 0, 0);
    context.globalAlpha = strength > 0 ? 0.85 : 0;
    context.drawImage(view.layers[side].edge, 0, 0);
  }
  context.globalAlpha = 1;
}

function draw() {
  const { scene, view } = state;
  if (!scene || !view) return;
  const both = compare.checked && scene.heat.fused;
  context.drawImage(scene.picture, 0, 0, scene.width, scene.height);
  if (both) {
    const cut = Math.round(scene.width * state.split);
    half(0, cut, "fused");
    half(cut, scene.width - cut, "refined");
  } else {
    paint("refined");
  }
  divider.style.left = 100 * state.split + "%";
  divider.setAttribute("aria-valuenow", String(Math.round(100 * state.split)));
  for (const part of [divider, ...root.querySelectorAll(".side")]) part.hidden = !both;
  heatClass.hidden = state.mode !== "heat";
  for (const button of root.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
  }
  root.dataset.drawn = String(Number(root.dataset.drawn) + 1);
}

function half(left, width, side) {
  context.save();
  context.beginPath();
  context.rect(left, 0, width, state.scene.height);
  context.clip();
  paint(side);
  context.restore();
}

function percent(share) {
  return share > 0 && share < 0.001 ? "< 0.1 %" : (100 * share).toFixed(1) + " %";
}

function cell(row, text, kind) {
  const made = row.insertCell();
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function legend() {
  const { scene, view } = state;
  const body = find(".legend tbody");
  body.replaceChildren();
  const order = scene.classes.map((_, index) => index).sort((a, b) => view.areas[b] - view.areas[a] || a - b);
  for (const index of order) {
    const item = scene.classes[index];
    const row = body.insertRow();
    row.dataset.name = item.name;
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !state.off.has(item.name);
    box.setAttribute("aria-label", "show " + item.name);
    box.addEventListener("change", () => {
      if (box.checked) state.off.delete(item.name);
      else state.off.add(item.name);
      row.classList.toggle("off", !box.checked);
      layers();
      draw();
    });
    row.classList.toggle("off", !box.checked);
    row.classList.toggle("nowhere", !(view.areas[index] > 0));
    row.insertCell().append(box);
    const name = row.insertCell();
    const dot = document.createElement("span");
    dot.className = "dot";
    dot.style.background = item.colour;
    const word = document.createElement("span");
    word.textContent = item.name;
    name.className = "name";
    name.append(dot, word);
    cell(row, percent(view.areas[index]), "number");
    const sure = item.confidence > view.score;
    cell(row, item.confidence.toFixed(2), "number").title = sure ? "" : "not above the class threshold: off";
    row.classList.toggle("unsure", !sure);
    const heat = document.createElement("button");
    heat.type = "button";
    heat.textContent = "heatmap";
    heat.setAttribute("aria-label", "heatmap of " + item.name);
    heat.addEventListener("click", () => {
      state.mode = "heat";
      heatClass.value = String(index);
      draw();
    });
    row.insertCell().append(heat);
  }
  const rest = body.insertRow();
  rest.className = "rest";
  cell(rest, "");
  cell(rest, "background");
  cell(rest, percent(view.background), "number");
  cell(rest, "");
  cell(rest, "");
}

// What lies below the pointer.
function reading(x, y) {
  const { scene, view } = state;
  const side = compare.checked && scene.heat.fused && x < state.split * scene.width ? "fused" : "refined";
  if (state.mode === "heat") {
    const heat = scene.heat[side];
    const index = Number(heatClass.value);
    const column = Math.min(heat.width - 1, Math.floor((x / scene.width) * heat.width));
    const row = Math.min(heat.height - 1, Math.floor((y / scene.height) * heat.height));
    const value = heat.values[(index * heat.height + row) * heat.width + column] / 255;
    return scene.classes[index].name + " " + (value * heat.peaks[index]).toFixed(2);
  }
  const label = view.grey[side][y * scene.width + x];
  return label ? scene.classes[label - 1].name : "background";
}

function point(event) {
  if (!state.scene || !state.view) return;
  const frame = canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - frame.left) / frame.width) * canvas.width);
  const y = Math.floor(((event.clientY - frame.top) / frame.height) * canvas.height);
  if (x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) {
    tip.hidden = true;
    return;
  }
  tip.textContent = reading(x, y);
  tip.hidden = false;
  const place = stage.getBoundingClientRect();
  const left = event.clientX - place.left;
  tip.style.left = Math.max(4, Math.min(left + 14, place.width - tip.offsetWidth - 4)) + "px";
  tip.style.top = Math.max(4, event.clientY - place.top - tip.offsetHeight - 10) + "px";
}

function slide(event) {
  const frame = canvas.getBoundingClientRect();
  state.split = Math.max(0, Math.min(1, (event.clientX - frame.left) / frame.width));
  draw();
}

canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);
canvas.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") tip.hidden = true; // a finger that was lifted leaves what it read
});
divider.addEventListener("pointerdown", (event) => {
  divider.setPointerCapture(event.pointerId);
  event.preventDefault();
});
divider.addEventListener("pointermove", (event) => {
  if (divider.hasPointerCapture(event.pointerId)) slide(event);
});
divider.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
  if (!step) return;
  event.preventDefault();
  state.split = Math.max(0, Math.min(1, state.split + step));
  draw();
});
for (const button of root.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => {
    state.mode = button.dataset.mode;
    draw();
  });
}
for (const control of [opacity, compare, heatClass]) control.addEventListener("input", draw);
for (const button of root.querySelectorAll("[data-what]")) {
  button.addEventListener("click", () => {
    const off = state.scene.classes.map((_, index) => index).filter((i) => state.off.has(state.scene.classes[i].name));
    trigger("download", { what: button.dataset.what, opacity: Number(opacity.value) / 100, off });
  });
}

watch(["value", "scene"], update);
watch("file", () => {
  if (!props.file) return;
  const link = document.createElement("a");
  const base = ((window.gradio_config || {}).root || window.location.origin).replace(/\/$/, "");
  link.href = base + "/gradio_api/file=" + props.file.path.split("/").map(encodeURIComponent).join("/");
  link.download = props.file.name;
  document.body.append(link);
  link.click();
  link.remove();
});
update();
