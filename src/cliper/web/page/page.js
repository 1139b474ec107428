// A picture that is pasted anywhere on the page goes where an uploaded one goes.
document.addEventListener("paste", (event) => {
  const files = [...((event.clipboardData || {}).files || [])].filter((file) => file.type.startsWith("image/"));
  const input = document.querySelector("#picture input[type=file]");
  if (!files.length || !input) return;
  event.preventDefault();
  const pasted = new DataTransfer();
  pasted.items.add(files[0]);
  input.files = pasted.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
