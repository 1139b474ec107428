// Labels from class maps, exactly as cliper.ops.labels computes them: upsample, weigh, normalise,
// threshold, argmax. Pure functions and one class; runs in a browser and in node.

// Decode a MapStack of the API: {count, height, width, data (float32, class by class), peaks}.
export function decodeStack(stack) {
  const bytes = Uint8Array.from(atob(stack.data), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const count = stack.low.length;
  const size = stack.height * stack.width;
  const data = new Float32Array(count * size);
  for (let c = 0; c < count; c++) {
    const low = Math.fround(stack.low[c]);
    const spread = Math.fround(Math.fround(stack.high[c]) - low);
    for (let i = c * size; i < (c + 1) * size; i++) {
      data[i] = low + spread * Math.fround(view.getUint16(2 * i, true) / 65535);
    }
  }
  return { count, height: stack.height, width: stack.width, data, peaks: stack.high };
}

// A threshold t moved by the sensitivity s (0 to 1; 0.5 leaves it as it is).
export function moveThreshold(t, s) {
  if (t === 0) return 0; // background competes with the classes
  return s <= 0.5 ? 1 - 2 * s * (1 - t) : Math.max(0.001, 2 * t * (1 - s));
}

// Source positions of a bilinear resize without aligned corners.
function positions(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const weight = new Float32Array(to);
  const scale = Math.fround(from / to);
  for (let i = 0; i < to; i++) {
    const at = Math.max(0, Math.fround(scale * (i + 0.5) - 0.5));
    low[i] = Math.min(Math.floor(at), from - 1);
    high[i] = Math.min(low[i] + 1, from - 1);
    weight[i] = at - low[i];
  }
  return { low, high, weight };
}

export class LabelMaps {
  // stack: refined class maps, from decodeStack. confidence: one number for each class.
  // width, height: of the label map.
  constructor(stack, confidence, width, height, normalize) {
    Object.assign(this, { stack, confidence, width, height, normalize });
    this.scores = new Array(stack.count).fill(null);
    this.on = new Set();
    this.best = new Float32Array(width * height);
    this.winner = new Uint16Array(width * height);
    this.labels = new Uint16Array(width * height);
    this.areas = new Float64Array(stack.count + 1); // shares; 0 is background
    this.x = positions(stack.width, width);
    this.y = positions(stack.height, height);
  }

  // The values of a class that are compared, computed when they are needed first.
  score(c) {
    if (!this.scores[c]) this.scores[c] = this.#upsample(c);
    return this.scores[c];
  }

  #upsample(c) {
    const { stack, width, height, x, y } = this;
    const first = c * stack.width * stack.height;
    const map = stack.data.subarray(first, first + stack.width * stack.height);
    const out = new Float32Array(width * height);
    let top = -Infinity;
    for (let row = 0, i = 0; row < height; row++) {
      const above = y.low[row] * stack.width;
      const below = y.high[row] * stack.width;
      const v = y.weight[row];
      for (let column = 0; column < width; column++, i++) {
        const l = x.low[column];
        const r = x.high[column];
        const h = x.weight[column];
        const upper = map[above + l] * (1 - h) + map[above + r] * h;
        const lower = map[below + l] * (1 - h) + map[below + r] * h;
        out[i] = upper * (1 - v) + lower * v;
        if (out[i] > top) top = out[i];
      }
    }
    const weight = this.confidence[c] / (top + 1e-5);
    let low = Infinity;
    let high = -Infinity;
    for (let i = 0; i < out.length; i++) {
      out[i] *= weight;
      if (out[i] < low) low = out[i];
      if (out[i] > high) high = out[i];
    }
    if (this.normalize) {
      const range = high - low + 1e-6;
      for (let i = 0; i < out.length; i++) out[i] = (out[i] - low) / range;
    }
    return out;
  }

  // Compute labels and areas: 0 is background, c + 1 is class c.
  update(scoreThreshold, backgroundThreshold) {
    const threshold = Math.fround(scoreThreshold);
    const on = new Set();
    for (let c = 0; c < this.stack.count; c++) if (this.confidence[c] > threshold) on.add(c);
    this.#remove([...this.on].filter((c) => !on.has(c)), on);
    for (const c of on) if (!this.on.has(c)) this.#add(c);
    this.on = on;
    const { best, winner, labels } = this;
    const counts = new Int32Array(this.stack.count + 1);
    const limit = Math.fround(backgroundThreshold);
    for (let i = 0; i < labels.length; i++) {
      const b = best[i];
      const label = limit > 0 ? (b < limit ? 0 : winner[i]) : (1 - b) ** 2 >= b ? 0 : winner[i];
      labels[i] = label;
      counts[label]++;
    }
    for (let c = 0; c < counts.length; c++) this.areas[c] = counts[c] / labels.length;
    return labels;
  }

  // On a tie the first class wins, as in argmax.
  #add(c) {
    const values = this.score(c);
    const { best, winner } = this;
    for (let i = 0; i < values.length; i++) {
      const v = values[i];
      if (v > best[i] || (v === best[i] && v > 0 && c + 1 < winner[i])) {
        best[i] = v;
        winner[i] = c + 1;
      }
    }
  }

  #remove(gone, on) {
    if (!gone.length) return;
    const isGone = new Uint8Array(this.stack.count + 1);
    for (const c of gone) isGone[c + 1] = 1;
    const rest = [...this.on].filter((c) => on.has(c)).sort((a, b) => a - b);
    const { best, winner } = this;
    for (let i = 0; i < winner.length; i++) {
      if (!isGone[winner[i]]) continue;
      best[i] = 0;
      winner[i] = 0;
      for (const c of rest) {
        const v = this.scores[c][i];
        if (v > best[i]) {
          best[i] = v;
          winner[i] = c + 1;
        }
      }
    }
  }
}
