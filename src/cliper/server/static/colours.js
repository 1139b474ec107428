// Colours of classes: bright, and told apart by people who are colour-blind (Okabe and Ito, with
// lighter and darker variants after the first eight).

const BASE = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66],
  [213, 94, 0], [204, 121, 167], [0, 114, 178], [150, 90, 210],
];

export function colour(index) {
  const round = Math.floor(index / BASE.length) % 3;
  const mix = [0, 0.45, -0.4][round];
  return BASE[index % BASE.length].map((channel) =>
    Math.round(mix >= 0 ? channel + (255 - channel) * mix : channel * (1 + mix))
  );
}

export function css(rgb) {
  return "rgb(" + rgb.join(" ") + ")";
}

// Dark to bright, each colour brighter than the one before.
const HEAT = [
  [20, 11, 80], [120, 28, 109], [200, 62, 77], [245, 125, 21], [250, 193, 39], [252, 255, 164],
];

export function heatColour(value) {
  const at = Math.min(1, Math.max(0, value)) * (HEAT.length - 1);
  const low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low].map((channel, i) => channel + (HEAT[low + 1][i] - channel) * (at - low));
}
