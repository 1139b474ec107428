// Images as the graph takes them, and class maps as labels. Planes are Float32Array, row by row.

// Weights of a resize from `old` to `count` pixels: for each new pixel its first old pixel and the weights from there
// on. The kernel is widened where the image shrinks, so that every old pixel counts, as in Pillow.
function taps(old, count, kernel, support) {
  const scale = old / count;
  const width = Math.max(scale, 1);
  return Array.from({ length: count }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support * width + 0.5));
    const last = Math.min(old, Math.floor(center + support * width + 0.5));
    const weights = [];
    for (let i = first; i < last; i++) weights.push(kernel((i - center + 0.5) / width));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

const bilinear = (x) => Math.max(0, 1 - Math.abs(x));

// A plane [rows, columns] resized to [height, width]; `finish` is applied to each value after each of both directions.
function resizePlane(plane, rows, columns, height, width, kernel, support, finish) {
  const wide = new Float32Array(rows * width);
  taps(columns, width, kernel, support).forEach(({ first, weights }, x) => {
    for (let y = 0; y < rows; y++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * plane[y * columns + first + i];
      wide[y * width + x] = finish(sum);
    }
  });
  const out = new Float32Array(height * width);
  taps(rows, height, kernel, support).forEach(({ first, weights }, y) => {
    for (let i = 0; i < weights.length; i++) {
      const row = wide.subarray((first + i) * width, (first + i + 1) * width);
      for (let x = 0; x < width; x++) out[y * width + x] += weights[i] * row[x];
    }
    for (let x = 0; x < width; x++) out[y * width + x] = finish(out[y * width + x]);
  });
  return out;
}

// (height, width) of the graph's input for an image.
export function inputSize(width, height, { patch_size: patch, short_side: side, max_patches: limit, shape }) {
  if (shape) return shape;
  const scale = side / Math.min(width, height);
  const shrink = Math.min(1, Math.sqrt(limit / ((width * scale * height * scale) / (patch * patch))));
  return [height, width].map((length) => Math.max(1, Math.floor(((length * scale) / patch) * shrink + 0.5)) * patch);
}

// ImageData -> normalised pixels [3, height, width].
export function toPixels(image, [height, width], { mean, std }) {
  const pixels = new Float32Array(3 * height * width);
  const round = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));
  for (let channel = 0; channel < 3; channel++) {
    const plane = new Float32Array(image.width * image.height);
    for (let i = 0; i < plane.length; i++) plane[i] = image.data[4 * i + channel];
    const resized = resizePlane(plane, image.height, image.width, height, width, bicubic, 2, round);
    resized.forEach((value, i) => {
      pixels[channel * height * width + i] = (value / 255 - mean[channel]) / std[channel];
    });
  }
  return pixels;
}

// Class maps before and after refinement (the same without a refiner), each { data, dims: [C, h, w] } -> the label of
// every pixel: 0 is background, i + 1 is class i.
export function assignLabels(maps, refined, height, width, settings) {
  const [classes, rows, columns] = refined.dims;
  const plane = ({ data, dims }, index) => data.subarray(index * dims[1] * dims[2], (index + 1) * dims[1] * dims[2]);
  const highest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
  const best = new Float32Array(height * width);
  const labels = new Uint8Array(height * width);
  for (let index = 0; index < classes; index++) {
    const confidence = (highest(plane(maps, index)) + highest(plane(refined, index))) / 2;
    if (confidence <= settings.score_threshold) continue;
    const scores = resizePlane(plane(refined, index), rows, columns, height, width, bilinear, 1, (value) => value);
    const factor = confidence / (highest(scores) + 1e-5);
    const low = settings.normalize ? scores.reduce((a, b) => Math.min(a, b), Infinity) * factor : 0;
    const range = settings.normalize ? highest(scores) * factor - low + 1e-6 : 1;
    scores.forEach((value, i) => {
      const score = (value * factor - low) / range;
      if (score > best[i]) [best[i], labels[i]] = [score, index + 1];
    });
  }
  const threshold = settings.background_threshold;
  return labels.map((label, i) => ((threshold ? best[i] < threshold : (1 - best[i]) ** 2 >= best[i]) ? 0 : label));
}
