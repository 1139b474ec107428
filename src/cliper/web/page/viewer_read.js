// Pictures from the server as numbers. A browser refuses a canvas that is too large, some by leaving it empty: the server
// sends none that is.

function sheet(width, height) {
  const made = document.createElement("canvas");
  made.width = width;
  made.height = height;
  return made;
}

async function bitmap(uri) {
  return createImageBitmap(await (await fetch(uri)).blob(), { colorSpaceConversion: "none" });
}

// The values of a grey picture: {width, height, values}.
async function grey(uri) {
  const image = await bitmap(uri);
  const { width, height } = image;
  const pen = sheet(width, height).getContext("2d", { willReadFrequently: true });
  if (!pen) throw new Error("no memory for a picture of " + width + " x " + height + " pixels");
  pen.drawImage(image, 0, 0);
  image.close();
  const rgba = pen.getImageData(0, 0, width, height).data;
  const values = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) values[i] = rgba[4 * i];
  return { width, height, values };
}

async function readLabels(uri) {
  return uri && (await grey(uri)).values;
}

// The class maps, one after the other, from the sheets that they lie on side by side. One sheet at a time: each takes
// four bytes a pixel while it is read.
async function readHeat(heat) {
  if (!heat) return heat;
  const { width, height, columns, rows } = heat;
  const count = heat.peaks.length;
  const values = new Uint8Array(count * width * height);
  for (let first = 0; first < count; first += columns * rows) {
    const from = await grey(heat.sheets[first / (columns * rows)]);
    for (let index = first; index < Math.min(count, first + columns * rows); index++) {
      const left = ((index - first) % columns) * width;
      const top = Math.floor((index - first) / columns) * height;
      for (let y = 0; y < height; y++) {
        const at = (top + y) * from.width + left;
        values.set(from.values.subarray(at, at + width), (index * height + y) * width);
      }
    }
  }
  return { ...heat, values };
}
