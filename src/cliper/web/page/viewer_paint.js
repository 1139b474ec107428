// Painting: the picture, and over it regions with their borders, or a heatmap. `state`, `canvas` and the controls are
// those of viewer.js.

// Dark to bright, each colour brighter than the one before; where a class is not, the picture stays.
const STOPS = [[20, 11, 80], [120, 28, 109], [200, 62, 77], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

function heatColour(value) {
  const at = (value / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((channel, i) => channel + (STOPS[low + 1][i] - channel) * (at - low));
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
