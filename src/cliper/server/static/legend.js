// The table of classes: colour, area, confidence, and why a class is off.

import { colour, css } from "./colours.js";
import { button, element, replaceChildren } from "./dom.js";
import { moveThreshold } from "./labels.js";

const MAX_HINT = 90; // a higher sensitivity would turn on what is not in the image; in percent

function percent(share) {
  return share > 0 && share < 0.001 ? "< 0.1 %" : (100 * share).toFixed(1) + " %";
}

// Why a class has no pixels and what would change that, in words; empty if it has some. base is
// the score threshold at sensitivity 0.5. The words are those of why_absent in cliper/result.py,
// but the page does not know which setting left a class out.
export function reason(confidence, area, score, base) {
  if (confidence === 0) {
    return "not among the most likely classes of the image (class_top, class_min_score)";
  }
  if (confidence > score) {
    const why = "other classes, or background, score higher everywhere";
    return area > 0 ? "" : why + "; fewer classes, or other words, may help";
  }
  let percents = 0;
  while (percents <= MAX_HINT && !(confidence > moveThreshold(base, percents / 100))) percents++;
  const turnsOn = `sensitivity ${(percents / 100).toFixed(2)} turns it on`;
  const hint = percents <= MAX_HINT ? turnsOn : "other words may help";
  return `below the threshold ${score.toFixed(2)}: ${confidence.toFixed(2)}; ${hint}`;
}

function cell(row, kind, ...content) {
  const made = row.insertCell();
  made.className = kind;
  made.append(...content);
  return made;
}

function classRow(body, item, index, scene, thresholds, actions) {
  const area = scene.refined.areas[index + 1];
  const why = reason(item.confidence, area, thresholds.score, thresholds.base);
  const row = body.insertRow();
  row.dataset.name = item.name;
  row.classList.toggle("off", why !== "");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = !actions.isHidden(item.name);
  box.setAttribute("aria-label", "show " + item.name);
  box.addEventListener("change", () => actions.hide(item.name, !box.checked));
  cell(row, "", box);
  const dot = element("span", "dot");
  dot.style.background = css(colour(index));
  const name = cell(row, "name", dot, item.name);
  if (why) name.append(element("span", "reason", why));
  cell(row, "number", percent(area));
  const bar = element("span", "bar");
  const filled = element("span", "");
  filled.style.width = 100 * Math.min(1, Math.max(0, item.confidence)) + "%";
  bar.append(filled);
  cell(row, "number", bar, Math.min(1, item.confidence).toFixed(2));
  cell(row, "", button("", "heatmap", "heatmap of " + item.name, () => actions.heat(index)));
}

// Fill the table.
export function showLegend(body, scene, thresholds, actions) {
  const filled = document.createElement("tbody");
  const areas = scene.refined.areas;
  const order = scene.classes.map((_, index) => index);
  order.sort((a, b) => areas[b + 1] - areas[a + 1] || a - b);
  for (const index of order) {
    classRow(filled, scene.classes[index], index, scene, thresholds, actions);
  }
  const rest = filled.insertRow();
  rest.className = "rest";
  cell(rest, "");
  cell(rest, "name", "background");
  cell(rest, "number", percent(areas[0]));
  cell(rest, "");
  cell(rest, "");
  replaceChildren(body, [...filled.rows]);
}
