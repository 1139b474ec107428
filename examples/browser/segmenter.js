// Segments images by words, with an export of `cliper export onnx` and onnxruntime-web.

import * as ort from "./onnxruntime-web/ort.wasm.min.mjs";
import { assignLabels, inputSize, toPixels } from "./image.js";
import { Tokenizer } from "./tokenizer.js";

const TEXTS = 64; // number of texts that are embedded together

export class Segmenter {
  // Load the export in a folder beside the page.
  static async load(folder) {
    ort.env.wasm.wasmPaths = new URL("./onnxruntime-web/", import.meta.url).href;
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
    const json = async (name) => {
      const response = await fetch(`${folder}/${name}.json`);
      if (!response.ok) throw new Error(`expected an export in the folder ${folder}, got no ${name}.json`);
      return response.json();
    };
    const graph = (name) => ort.InferenceSession.create(`${folder}/${name}.onnx`, { executionProviders: ["wasm"] });
    const segmenter = new Segmenter();
    [segmenter.config, segmenter.text, segmenter.image] = [await json("config"), await graph("text"), await graph("image")];
    const { start, end } = segmenter.config.text;
    segmenter.tokenizer = new Tokenizer(await json("tokenizer"), start, end);
    segmenter.embeddings = new Map(); // by name
    return segmenter;
  }

  // ImageData and class names -> the label of every pixel: 0 is background, i + 1 is class i.
  async segment(image, classes) {
    const { sizes, pixels, inputs, labels } = this.config;
    const foreground = await this.embed(classes);
    const background = await this.background(classes, foreground);
    const feeds = { foreground: this.matrix(foreground), background: this.matrix(background) };
    for (const [name, value] of Object.entries(inputs)) feeds[name] = new ort.Tensor("float32", [value], []);
    for (const [name, rule] of Object.entries(sizes)) {
      const size = inputSize(image.width, image.height, rule);
      feeds[name] = new ort.Tensor("float32", toPixels(image, size, pixels), [1, 3, ...size]);
    }
    const { class_maps: maps, refined_maps: refined } = await this.image.run(feeds);
    return assignLabels(maps, refined ?? maps, image.height, image.width, labels);
  }

  // The built-in background names that mean none of the classes, embedded.
  async background(classes, foreground) {
    const words = classes.join(" ").toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
    const taken = new Set(words.flatMap((word) => [word, word.replace(/s$/, ""), word.replace(/es$/, "")]));
    const { names, similarity } = this.config.background;
    const others = Object.keys(names).filter((name) => !names[name].some((form) => taken.has(form)));
    const cosine = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
    const embedded = await this.embed(others);
    return embedded.filter((one) => foreground.every((other) => cosine(one, other) < similarity));
  }

  // An embedding of length 1 for each name: the mean over the templates.
  async embed(names) {
    const { templates } = this.config.text;
    const missing = names.filter((name) => !this.embeddings.has(name));
    const texts = missing.flatMap((name) => templates.map((form) => form.split("{}").join(name)));
    const rows = [];
    for (let first = 0; first < texts.length; first += TEXTS) {
      rows.push(...(await this.embedTexts(texts.slice(first, first + TEXTS))));
    }
    missing.forEach((name, index) => {
      const own = rows.slice(index * templates.length, (index + 1) * templates.length);
      const sum = own.reduce((total, row) => total.map((value, i) => value + row[i]));
      const length = Math.hypot(...sum);
      this.embeddings.set(name, sum.map((value) => value / length));
    });
    return names.map((name) => this.embeddings.get(name));
  }

  async embedTexts(texts) {
    const ids = texts.map((text) => this.tokenizer.encode(text));
    const length = Math.max(...ids.map((row) => row.length));
    const limit = this.config.text.max_tokens;
    if (length > limit) throw new Error(`expected names of at most ${limit} tokens, got ${length}: shorten the class`);
    const padded = ids.flatMap((row) => [...row, ...Array(length - row.length).fill(0)]);
    const tokens = new ort.Tensor("int64", BigInt64Array.from(padded, BigInt), [ids.length, length]);
    const { embeddings } = await this.text.run({ tokens });
    const width = embeddings.dims[1];
    return ids.map((_, index) => embeddings.data.slice(index * width, (index + 1) * width));
  }

  matrix(rows) {
    const width = this.embeddings.values().next().value.length;
    const data = new Float32Array(rows.length * width);
    rows.forEach((row, index) => data.set(row, index * width));
    return new ort.Tensor("float32", data, [rows.length, width]);
  }
}
