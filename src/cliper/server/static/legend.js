// The table of classes: colour, area, confidence, and why a class is off.

import { colour, css } from "./colours.js";

function percent(share) {
  return share > 0 && share < 0.001 ? "< 0.1 %" : (100 * share).toFixed(1) + " %";
}

// Why a class has no pixels, in words; empty if it has some.
export function reason(confidence, area, score, background) {
  if (!(confidence > score)) {
    return `below the threshold ${score.toFixed(2)}: ${confidence.toFixed(2)}`;
  }
  if (area > 0) return "";
  return background > 0
    ? `no pixel above the background threshold ${background.toFixed(2)}, or other classes are surer`
    : "background or other classes are surer everywhere";
}

function cell(row, kind, ...content) {
  const made = row.insertCell();
  made.className = kind;
  made.append(...content);
  return made;
}

function element(tag, kind, text = "") {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

function classRow(body, item, index, scene, thresholds, actions) {
  const area = scene.refined.areas[index + 1];
  const why = reason(item.confidence, area, thresholds.score, thresholds.background);
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
  const heat = element("button", "", "heatmap");
  heat.type = "button";
  heat.setAttribute("aria-label", "heatmap of " + item.name);
  heat.addEventListener("click", () => actions.heat(index));
  cell(row, "", heat);
}

// Fill the table; on the way the focus stays where it was.
export function showLegend(body, scene, thresholds, actions) {
  const label = document.activeElement?.getAttribute("aria-label");
  const inside = body.contains(document.activeElement);
  body.replaceChildren();
  const areas = scene.refined.areas;
  const order = scene.classes.map((_, index) => index);
  order.sort((a, b) => areas[b + 1] - areas[a + 1] || a - b);
  for (const index of order) {
    classRow(body, scene.classes[index], index, scene, thresholds, actions);
  }
  const rest = body.insertRow();
  rest.className = "rest";
  cell(rest, "");
  cell(rest, "name", "background");
  cell(rest, "number", percent(areas[0]));
  cell(rest, "");
  cell(rest, "");
  if (inside) {
    [...body.querySelectorAll("[aria-label]")]
      .find((one) => one.getAttribute("aria-label") === label)
      ?.focus();
  }
}
