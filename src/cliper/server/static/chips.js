// Words as chips: Enter, a comma, a semicolon or leaving the field adds; Backspace in the empty
// field removes the last.

import { button, element } from "./dom.js";

export class Chips {
  // onChange(before, after) is called for changes that a person makes.
  constructor(box, { colours = () => null, onChange }) {
    this.list = box.querySelector(".list");
    this.input = box.querySelector("input");
    this.words = [];
    this.colours = colours;
    this.onChange = onChange;
    box.addEventListener("click", (event) => {
      if (!event.target.closest("button")) this.input.focus();
    });
    this.input.addEventListener("keydown", (event) => this.#onKey(event));
    this.input.addEventListener("input", () => {
      if (/[,;\n]/.test(this.input.value) && !this.input.value.includes(":")) this.add();
    });
    this.input.addEventListener("paste", () => setTimeout(() => this.add()));
    this.input.addEventListener("blur", () => this.add());
  }

  #onKey(event) {
    if (event.isComposing) return;
    if (event.key === "Enter") {
      event.preventDefault();
      this.add();
    } else if (event.key === "Backspace" && !this.input.value && this.words.length) {
      this.change(this.words.slice(0, -1));
    }
  }

  // Take what was typed. "person: man, woman" is one class with two words.
  add() {
    const typed = this.input.value.includes(":")
      ? this.input.value.split(/[;\n]/)
      : this.input.value.split(/[,;\n]/);
    this.input.value = "";
    const fresh = typed.map((word) => word.trim()).filter(Boolean);
    const known = new Set(this.words.map((word) => word.toLowerCase()));
    const added = fresh.filter((word) => {
      const key = word.toLowerCase();
      return !known.has(key) && known.add(key);
    });
    if (added.length) this.change([...this.words, ...added]);
  }

  change(words) {
    const before = this.words;
    this.set(words);
    this.onChange(before, words);
  }

  set(words) {
    this.words = words;
    this.show();
  }

  show() {
    this.list.replaceChildren(...this.words.map((word, index) => this.#chip(word, index)));
  }

  #chip(word, index) {
    const chip = document.createElement("li");
    const colour = this.colours(word, index);
    if (colour) {
      const dot = element("span", "dot");
      dot.style.background = colour;
      chip.append(dot);
    }
    const remove = button("", "\u00d7", "remove " + word, () => {
      this.change(this.words.filter((_, other) => other !== index));
      this.input.focus();
    });
    chip.append(element("span", "word", word), remove);
    return chip;
  }
}
