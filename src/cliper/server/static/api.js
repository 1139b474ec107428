// Requests to the server. Addresses are relative, so that the page works below any path of a proxy.

const TOKEN = "cliper-token";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

// Send a request; a busy server (429) is asked again after the time that it names.
async function send(path, options, onWait = () => {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers, ...(token ? { Authorization: "Bearer " + token } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "the server does not answer; is it still running?");
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    if (response.status !== 429) {
      throw new ApiError(response.status, told.error || "the server answered " + response.status);
    }
    const seconds = Math.max(1, Number(response.headers.get("Retry-After")) || 1);
    onWait(seconds);
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
}

export async function getModels() {
  return (await send("v1/models", {})).json();
}

// Class maps of an image file: the response of POST /v1/segment with output maps.
export async function segment(file, { classes, background, refiner }, onWait) {
  const form = new FormData();
  form.append("image", file, "image");
  for (const name of classes) form.append("classes", name);
  for (const name of background) form.append("background", name);
  form.append("refiner", refiner);
  form.append("output", "maps");
  return (await send("v1/segment", { method: "POST", body: form }, onWait)).json();
}

// A file in one of the package's formats: {blob, name}.
export async function exportFile(request) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(request);
  const response = await send("v1/export", { method: "POST", headers, body });
  const disposition = response.headers.get("Content-Disposition") || "";
  const name = (disposition.match(/filename="(.*)"/) || [])[1] || "result";
  return { blob: await response.blob(), name };
}

export async function toBase64(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}
