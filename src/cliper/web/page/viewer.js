// The result: picture, regions, heatmaps, comparing, reading off, the legend. All of it happens here; the server is
// asked only for labels at other thresholds and for files. Put together with viewer_read.js and viewer_paint.js.
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

async function update() {
  const turn = ++state.turn;
  const scene = props.scene;
  const view = props.value;
  if (!scene || !view) return;
  try {
    let next = state.scene;
    if (!next || next.name !== scene.name) next = await readScene(scene);
    const [refined, fused] = await Promise.all([readLabels(view.labels), readLabels(view.fused)]);
    if (turn !== state.turn) return; // a later update is on its way
    if (next !== state.scene) begin(next);
    state.view = { ...view, grey: { refined, fused } };
    layers();
    legend();
    draw();
    note(next.heat.fused ? "" :
      "No refiner was chosen: this is early-layer fusion itself, there is nothing to compare it with.");
  } catch (error) {
    if (turn === state.turn) note("This browser could not read the result: " + error.message, "error");
  }
}

async function readScene(scene) {
  const picture = await bitmap(scene.picture);
  const refined = await readHeat(scene.heat.refined);
  return { ...scene, picture, heat: { refined, fused: await readHeat(scene.heat.fused) } };
}

function note(text, kind = "") {
  find(".note").textContent = text;
  find(".note").dataset.kind = kind;
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
  tip.hidden = true;
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
    const { scene, view } = state; // files are of what is shown, whatever has been set since
    const off = scene.classes.map((_, index) => index).filter((i) => state.off.has(scene.classes[i].name));
    const { score, threshold } = view;
    const what = button.dataset.what;
    trigger("download", { name: scene.name, score, threshold, what, opacity: Number(opacity.value) / 100, off });
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
