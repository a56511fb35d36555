// Spectrograms on a canvas: grey PNGs from Python become coloured pictures with seconds and hertz.
// Shared by the page of `soundsight serve` and by the file that `soundsight report` writes.

const MAGMA = [
  "000004", "0a0822", "1d1147", "36106b", "51127c", "6a1c81", "832681", "9c2e7f", "b73779",
  "d0416f", "e75263", "f56b5c", "fc8961", "fea772", "fec488", "fde2a3", "fcfdbf",
].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

function table(stops) {
  const colours = new Uint8Array(768);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (stops.length - 1);
    const first = Math.min(Math.floor(place), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      const mixed = stops[first][c] + (place - first) * (stops[first + 1][c] - stops[first][c]);
      colours[3 * level + c] = Math.round(mixed);
    }
  }
  return colours;
}

export const SOUND = table(MAGMA);
export const GREY = table([[0, 0, 0], [150, 150, 150]]);
export const HEAT = table([[120, 20, 0], [213, 94, 0], [255, 176, 40], [255, 244, 190]]);

/** Read a grey PNG: {width, height, levels}, one byte a pixel, row by row from the top. */
export async function readGrey(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const levels = new Uint8Array(canvas.width * canvas.height);
  for (let i = 0; i < levels.length; i++) levels[i] = rgba[4 * i];
  return { width: canvas.width, height: canvas.height, levels };
}

/** A canvas of a grey picture in colours; with `fade` low levels are transparent. */
export function colour(grey, colours, fade = false) {
  const canvas = document.createElement("canvas");
  canvas.width = grey.width;
  canvas.height = grey.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(grey.width, grey.height);
  for (let i = 0; i < grey.levels.length; i++) {
    const level = grey.levels[i];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = colours[3 * level + c];
    image.data[4 * i + 3] = fade ? Math.min(235, Math.max(0, 1.8 * (level - 45))) : 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Round distances of marks on a time axis: about one mark every `apart` pixels. */
export function timeStep(seconds, width, apart = 70) {
  const least = (seconds * apart) / Math.max(width, 1);
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
  return steps.find((step) => step >= least) ?? 7200;
}

/** Seconds as text: 2.5, or 1:05 from a minute on. */
export function clock(seconds, digits = 0) {
  if (seconds < 60) return seconds.toFixed(digits);
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/**
 * Draw a spectrogram with axes, as sharp as the screen allows.
 *
 * @param canvas   Its CSS size decides; its pixels are set here.
 * @param view     {sound: grey, seconds: what sound spans, duration, ticks: [{label, position}],
 *                  heat: null or {grey, start, seconds, end}, gutter, foot, from: left edge, 0 if left out}
 */
export function drawSound(canvas, view) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const { gutter, foot, duration, from = 0 } = view;
  const inner = { width: width - gutter, height: height - foot };
  const x = (seconds) => gutter + ((seconds - from) / duration) * inner.width;
  context.save();
  context.beginPath();
  context.rect(gutter, 0, inner.width, inner.height);
  context.clip();
  context.fillStyle = view.heat ? "#000" : "#000004";
  context.fillRect(gutter, 0, inner.width, inner.height);
  context.imageSmoothingQuality = "high";
  const sound = colour(view.sound, view.heat ? GREY : SOUND);
  context.drawImage(sound, x(0), 0, (view.seconds / duration) * inner.width, inner.height);
  if (view.heat) {
    const { grey, start, seconds, end } = view.heat;
    context.beginPath();
    context.rect(x(start), 0, x(end) - x(start), inner.height);
    context.clip();
    context.drawImage(colour(grey, HEAT, true), x(start), 0, x(start + seconds) - x(start), inner.height);
  }
  context.restore();
  axes(context, view, inner, x);
}

function axes(context, view, inner, x) {
  const style = getComputedStyle(context.canvas);
  context.fillStyle = style.color;
  context.strokeStyle = style.color;
  context.font = `11px ${style.fontFamily}`;
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const { label, position } of view.ticks) {
    const y = Math.min(Math.max((1 - position) * inner.height, 6), inner.height - 6);
    context.fillText(label, view.gutter - 7, y);
    line(context, view.gutter - 4, (1 - position) * inner.height, view.gutter, (1 - position) * inner.height);
  }
  context.textBaseline = "top";
  context.fillText("Hz", view.gutter - 7, inner.height + 7);
  const step = timeStep(view.duration, inner.width);
  const digits = step < 1 ? 1 : 0;
  const from = view.from ?? 0;
  const right = view.gutter + inner.width;
  for (let time = Math.ceil(from / step - 1e-6) * step; time <= from + view.duration + 1e-6; time += step) {
    const last = time + step > from + view.duration + 1e-6;
    const text = clock(time, digits) + (last ? (time < 60 ? " s" : " min") : "");
    const half = context.measureText(text).width / 2;
    line(context, x(time), inner.height, x(time), inner.height + 4);
    context.textAlign = "center";
    context.fillText(text, Math.min(Math.max(x(time), view.gutter + half + 3), right - half), inner.height + 7);
  }
}

function line(context, x1, y1, x2, y2) {
  context.globalAlpha = 0.6;
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
  context.globalAlpha = 1;
}
