// Words as chips: Enter, a semicolon or leaving the field adds one, Backspace in the empty field takes the last away.
// props: value (list of texts), label, hint, colours (list of "#rrggbb", or empty for chips without a colour).
// Texts are only ever put into the page as text, never as markup.
const box = element.querySelector(".box");
const list = element.querySelector(".list");
const input = element.querySelector("input");
element.querySelector(".title").textContent = props.label || "";
input.placeholder = props.hint || "";
input.setAttribute("aria-label", props.label || "");

const words = () => (Array.isArray(props.value) ? props.value.map(String) : []);

function show() {
  list.replaceChildren();
  words().forEach((word, index) => {
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.setAttribute("role", "listitem");
    const colour = (props.colours || [])[index];
    if (colour) {
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.background = colour;
      chip.append(dot);
    }
    const text = document.createElement("span");
    text.className = "word";
    text.textContent = word;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "\u00d7";
    remove.setAttribute("aria-label", "remove " + word);
    remove.addEventListener("click", () => set(words().filter((_, other) => other !== index)));
    chip.append(text, remove);
    list.append(chip);
  });
}

function set(next) {
  props.value = next;
  show();
}

function add() {
  const typed = input.value.split(/[;\n]/).map((word) => word.trim()).filter(Boolean);
  input.value = "";
  if (typed.length) set([...words(), ...typed]);
}

input.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter") {
    event.preventDefault();
    add();
  } else if (event.key === "Backspace" && !input.value && words().length) {
    set(words().slice(0, -1));
  }
});
input.addEventListener("input", () => {
  if (input.value.includes(";")) add();
});
input.addEventListener("blur", add);
box.addEventListener("click", (event) => {
  if (event.target === box || event.target === list) input.focus();
});
watch("value", show);
show();
