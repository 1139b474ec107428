// The page: input at the left, result at the right. The server is asked for class maps and for
// files; everything else happens here.

import { exportFile, getModels, segment, setToken, toBase64 } from "./api.js";
import { Chips } from "./chips.js";
import { colour, css } from "./colours.js";
import { element } from "./dom.js";
import { ImageStrip, listenForFiles } from "./images.js";
import { LabelMaps, decodeStack, moveThreshold } from "./labels.js";
import { showLegend } from "./legend.js";
import { Viewer } from "./viewer.js";

const MAX_SIDE = 1280; // of what is shown; files are of the image's own size
const MAX_VALUES = 40e6; // class values in memory: 4 bytes each

const $ = (selector) => document.querySelector(selector);
const state = {
  model: null,
  formats: [],
  base: { score: 0.5, background: 0.5 }, // thresholds at sensitivity 0.5
  history: [], // earlier {classes, background}
  running: false,
};

const viewer = new Viewer($("#result"));
const strip = new ImageStrip($("#strip"), { onSelect: showItem, onChange: enable, onError: fail });
const onWords = (key) => (before) => {
  state.history.push({ ...currentWords(), [key]: before });
  $("#undo").disabled = false;
};
const classes = new Chips($("#classes"), {
  colours: (_, index) => css(colour(index)),
  onChange: onWords("classes"),
});
const background = new Chips($("#background-words"), { onChange: onWords("background") });

function currentWords() {
  return { classes: classes.words, background: background.words, kind: $("#background").value };
}

function setWords(words) {
  classes.set(words.classes);
  background.set(words.background);
  $("#background").value = words.kind;
  $("#background-words").hidden = words.kind !== "own";
}

function say(text) {
  $("#status").textContent = text;
}

function fail(text) {
  $("#error").textContent = text;
  $("#error").hidden = !text;
}

function enable() {
  $("#run").disabled = state.running || !strip.items.length;
  $("#download-all").disabled = strip.items.filter((item) => item.response).length < 2;
}

function thresholds() {
  const s = Number($("#sensitivity").value);
  return {
    score: moveThreshold(state.base.score, s),
    background: moveThreshold(state.base.background, s),
  };
}

// --- asking -------------------------------------------------------------------------------------

function question() {
  const kind = $("#background").value;
  const words = kind === "own" ? background.words : [kind];
  return { classes: classes.words, background: words.length ? words : ["none"] };
}

async function run() {
  classes.add();
  background.add();
  if (!classes.words.length) {
    fail("name at least one class to find");
    $("#class-input").focus();
    return;
  }
  fail("");
  const asked = question();
  const words = JSON.stringify(asked);
  const items = [strip.selected, ...strip.items.filter((item) => item !== strip.selected)];
  const waiting = items.filter((item) => item.words !== words || item.state === "error");
  state.running = true;
  enable();
  for (const item of waiting) strip.setState(item, "waiting");
  let finished = 0;
  for (const item of waiting) {
    if (!strip.items.includes(item)) continue;
    say(`Segmenting ${item.name} (${finished + 1} of ${waiting.length}) ...`);
    if (await runOne(item, asked, words)) finished++;
    if (item === strip.selected) showItem(item);
  }
  state.running = false;
  enable();
  const failed = waiting.length - finished;
  say(failed ? `${failed} of ${waiting.length} images failed.` : doneText(items[0]));
  if (finished && window.matchMedia("(max-width: 800px)").matches) {
    $("#result").scrollIntoView({ behavior: "smooth", block: "start" });
  }
}

async function runOne(item, asked, words) {
  strip.setState(item, "running");
  try {
    const refiner = state.model.refiner || "none";
    const onWait = (seconds) => say(`The server is busy; asking again in ${seconds} s.`);
    item.response = await segment(item.file, { ...asked, refiner }, onWait);
    item.scene = null;
    item.words = words;
    strip.setState(item, "done");
    return true;
  } catch (error) {
    if (error.status === 401) login();
    strip.setState(item, "error", error.message);
    fail(`${item.name}: ${error.message}`);
    return false;
  }
}

function doneText(item) {
  const response = item?.response;
  if (!response) return "";
  const refiner = response.refiner ? ` with ${response.refiner}` : "";
  return `Done: ${response.model}${refiner}, ${response.seconds.toFixed(1)} s.`;
}

// --- showing ------------------------------------------------------------------------------------

// An image before there is a result for it.
function plainScene(bitmap) {
  const fit = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * fit));
  const height = Math.max(1, Math.round(bitmap.height * fit));
  return { bitmap, width, height, classes: [], refined: null, fused: null };
}

function makeScene(item) {
  const { response } = item;
  const count = response.classes.length;
  const fit = Math.min(
    1,
    MAX_SIDE / Math.max(response.width, response.height),
    Math.sqrt(MAX_VALUES / (2 * count * response.width * response.height))
  );
  const width = Math.max(1, Math.round(response.width * fit));
  const height = Math.max(1, Math.round(response.height * fit));
  const { normalize } = response.thresholds;
  const refined = decodeStack(response.maps.refined);
  const fused = response.maps.fused && decodeStack(response.maps.fused);
  const confidence = response.classes.map((one) => one.confidence);
  return {
    bitmap: item.bitmap,
    width,
    height,
    classes: response.classes,
    refined: new LabelMaps(refined, confidence, width, height, normalize),
    fused: fused && new LabelMaps(fused, fused.peaks, width, height, normalize),
  };
}

function showItem(item) {
  const shown = item?.response;
  $(".stage canvas").hidden = !(shown || item?.bitmap);
  $(".empty").hidden = !$(".stage canvas").hidden;
  $(".details").hidden = !shown;
  $("#compare").hidden = !shown?.maps.fused;
  $("#notes").replaceChildren(...(shown?.notes || []).map((note) => element("li", "", note)));
  if (item?.error) fail(`${item.name}: ${item.error}`);
  if (!shown) {
    viewer.show(item?.bitmap ? plainScene(item.bitmap) : null);
    $(".stage canvas").setAttribute("aria-label", "Image, without a result");
    return;
  }
  item.scene ??= makeScene(item);
  relabel(item.scene);
  viewer.show(item.scene);
}

// Labels again, at other thresholds. No request.
function relabel(scene) {
  const { score, background } = thresholds();
  scene.refined.update(score, background);
  if (scene.fused && viewer.compare) scene.fused.update(score, background);
  showLegend($("#legend"), scene, { score, base: state.base.score }, {
    isHidden: (name) => viewer.hidden.has(name),
    hide: (name, off) => {
      viewer.hidden[off ? "add" : "delete"](name);
      viewer.relabel();
    },
    heat: (index) => {
      viewer.heatClass = index;
      setMode("heat");
    },
  });
  const found = scene.classes.filter((_, index) => scene.refined.areas[index + 1] > 0);
  const names = found.map((item) => item.name).join(", ") || "nothing";
  $(".stage canvas").setAttribute("aria-label", "Result: " + names + " found");
}

function onThresholds() {
  const { score, background } = thresholds();
  $("#sensitivity-value").textContent = Number($("#sensitivity").value).toFixed(2);
  $("#score").value = score;
  $("#pixel").value = background;
  $("#score-value").textContent = score.toFixed(2);
  $("#pixel-value").textContent = background.toFixed(2);
  const scene = strip.selected?.scene;
  if (!scene) return;
  relabel(scene);
  viewer.relabel();
}

function setBase({ score_threshold: score, background_threshold: background, sensitivity = 0.5 }) {
  state.base = { score, background };
  $("#sensitivity").value = sensitivity;
  onThresholds();
}

function setMode(mode) {
  viewer.mode = mode;
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  viewer.draw();
}

// --- files --------------------------------------------------------------------------------------

async function download(items) {
  const format = state.formats.find((one) => one.name === $("#format").value);
  const { score, background } = thresholds();
  const first = items[0].response;
  const same = items.filter((item) => item.words === items[0].words);
  if (same.length < items.length) {
    fail("the images have results for different words; segment them again first");
    return;
  }
  fail("");
  say("Writing the files ...");
  try {
    const images = await Promise.all(items.map((item) => exportImage(item, format)));
    const { blob, name } = await exportFile({
      format: format.name,
      classes: first.classes.map((one) => one.name),
      thresholds: {
        score_threshold: score,
        background_threshold: background,
        normalize: first.thresholds.normalize,
      },
      images,
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`Saved ${name}.`);
  } catch (error) {
    if (error.status === 401) login();
    say("");
    fail("download: " + error.message);
  }
}

async function exportImage(item, format) {
  const { width, height, maps, classes: found } = item.response;
  const hidden = found.filter((one) => viewer.hidden.has(one.name)).map((one) => one.label);
  const image = format.needs_image ? { image: await toBase64(item.file) } : {};
  return { name: item.name, width, height, maps, hidden, ...image };
}

// --- start --------------------------------------------------------------------------------------

const login = () => $("#login").showModal();

async function start() {
  let described;
  try {
    described = await getModels();
  } catch (error) {
    if (error.status === 401) login();
    else fail(error.message);
    return;
  }
  state.model = described.models[0];
  state.formats = described.formats;
  const refiner = state.model.refiner ? ` with ${state.model.refiner}` : "";
  $("#model").textContent = `Model: ${state.model.name}${refiner}.`;
  $("#format").replaceChildren(
    ...state.formats.map((one) => new Option(`${one.name}: ${one.summary}`, one.name))
  );
  setBase(state.model.settings);
  if (!strip.items.length) {
    const photo = await (await fetch("static/example.jpg")).blob();
    await strip.add([new File([photo], "example.jpg", { type: "image/jpeg" })]);
    const { classes: words, background: others } = described.example;
    const own = !["auto", "none"].includes(others[0]);
    setWords({ classes: words, background: own ? others : [], kind: own ? "own" : others[0] });
  }
  say("Press Segment to see what the model finds.");
  enable();
}

$("#run").addEventListener("click", run);
$("#pick").addEventListener("click", () => $("#files").click());
listenForFiles($("#drop"), $("#files"), (files) => {
  fail("");
  strip.add(files);
});
$("#undo").addEventListener("click", () => {
  setWords(state.history.pop());
  $("#undo").disabled = !state.history.length;
  say("Took the last change of words back.");
});
$("#background").addEventListener("change", () => {
  $("#background-words").hidden = $("#background").value !== "own";
});
$("#sensitivity").addEventListener("input", onThresholds);
for (const id of ["#score", "#pixel"]) {
  $(id).addEventListener("input", () => {
    const [score, background] = [$("#score").value, $("#pixel").value].map(Number);
    setBase({ score_threshold: score, background_threshold: background });
  });
}
$("#reset").addEventListener("click", () => setBase(state.model.settings));
$("#opacity").addEventListener("input", () => {
  viewer.opacity = Number($("#opacity").value) / 100;
  viewer.draw();
});
$("#compare-on").addEventListener("change", () => {
  viewer.compare = $("#compare-on").checked;
  $("#split-label").hidden = !viewer.compare;
  onThresholds();
});
$("#split").addEventListener("input", () => {
  viewer.split = Number($("#split").value) / 100;
  viewer.draw();
});
for (const button of document.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => setMode(button.dataset.mode));
}
$("#zoom-in").addEventListener("click", () => viewer.zoom(1.5));
$("#zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
$("#zoom-reset").addEventListener("click", () => viewer.zoom(0));
$("#download-one").addEventListener("click", () => download([strip.selected]));
$("#download-all").addEventListener("click", () =>
  download(strip.items.filter((item) => item.response))
);
$("#login").addEventListener("close", () => {
  setToken($("#token").value);
  $("#token").value = "";
  $("#login-text").textContent = "The token was refused. Enter another one."; // seen if it is asked for again
  start();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("#run").click();
});
start();
