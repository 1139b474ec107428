// New elements of the page. Texts are put into it as text, never as markup.

export function element(tag, kind, text = "") {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

export function button(kind, text, label, onClick) {
  const made = element("button", kind, text);
  made.type = "button";
  made.ariaLabel = label;
  made.addEventListener("click", onClick);
  return made;
}

// Replace the children of an element. The focus stays where it was, by the name of its element.
export function replaceChildren(parent, children) {
  const active = document.activeElement;
  const focused = parent.contains(active) ? active.ariaLabel : "";
  parent.replaceChildren(...children);
  const named = focused ? [...parent.querySelectorAll("[aria-label]")] : [];
  named.find((one) => one.ariaLabel === focused)?.focus();
}
