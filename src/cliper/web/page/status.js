// One line: value is {kind: "busy" | "done" | "error", text}, or {kind: "fine"}: an error that it shows is over.
const line = element.querySelector("p");
function show() {
  const status = props.value || {};
  if (status.kind === "fine" && line.dataset.kind !== "error") return;
  line.dataset.kind = status.kind || "";
  line.textContent = status.text || "";
}
watch("value", show);
show();
