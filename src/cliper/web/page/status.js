// One line: value is {kind: "busy" | "done" | "error", text}.
const line = element.querySelector("p");
function show() {
  const status = props.value || {};
  line.dataset.kind = status.kind || "";
  line.textContent = status.text || "";
}
watch("value", show);
show();
