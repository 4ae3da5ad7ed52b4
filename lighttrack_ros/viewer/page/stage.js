// The picture and what is drawn over it: boxes, states, fading trails.

import { colourOf, nameOf } from "./colours.js";

const TRAIL = 3; // seconds
const DASHES = { tracking: [], uncertain: [12, 5], lost: [4, 5] };

export class Stage {
  // element: holds the canvas; onShown(number): called when a picture is on the screen
  constructor(element, canvas, onShown) {
    this.element = element;
    this.canvas = canvas;
    this.onShown = onShown;
    this.shown = null; // {head, bitmap}
    this.next = null; // {head, jpeg}: the newest that came while another was decoded
    this.busy = false;
    this.frozen = false;
    this.trails = new Map();
    this.onLayout = () => {};
    new ResizeObserver(() => this.#layout()).observe(element);
    this.#layout();
  }

  // The connection is a new one: its pictures are counted anew.
  restart() {
    this.next = null;
    this.#follow([]);
  }

  put(head, jpeg) {
    this.#follow(head.targets);
    this.next = { head, jpeg };
    if (!this.busy) this.#decode();
  }

  // While somebody draws, the picture stands still; the newer ones are acknowledged and not shown.
  freeze(on) {
    this.frozen = on;
  }

  get size() {
    return this.shown ? [this.shown.head.width, this.shown.head.height] : [0, 0];
  }

  // From a pointer event to pixels of the camera's image.
  toImage(event) {
    const frame = this.element.getBoundingClientRect();
    const [left, top, scale] = this.fit;
    return [(event.clientX - frame.left - left) / scale, (event.clientY - frame.top - top) / scale];
  }

  // From pixels of the camera's image to the stage's: left, top, width, height.
  toStage([x, y, width, height]) {
    const [left, top, scale] = this.fit;
    return [left + x * scale, top + y * scale, width * scale, height * scale];
  }

  async #decode() {
    this.busy = true;
    while (this.next) {
      const { head, jpeg } = this.next;
      this.next = null;
      let bitmap = null;
      try {
        bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      } catch {
        // A damaged picture: the next one comes soon.
      }
      await new Promise(requestAnimationFrame);
      if (bitmap && !this.frozen) {
        this.shown?.bitmap.close();
        this.shown = { head, bitmap };
        this.#layout();
      } else bitmap?.close();
      this.onShown(head);
    }
    this.busy = false;
  }

  #follow(targets) {
    const now = performance.now() / 1000;
    const ids = new Set(targets.map((target) => target.id));
    for (const id of this.trails.keys()) if (!ids.has(id)) this.trails.delete(id);
    for (const { id, box, state } of targets) {
      const trail = this.trails.get(id) ?? [];
      this.trails.set(id, trail);
      while (trail.length && now - trail[0].time > TRAIL) trail.shift();
      if (state !== "lost") trail.push({ time: now, x: box[0] + box[2] / 2, y: box[1] + box[3] / 2 });
    }
  }

  #layout() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const ratio = devicePixelRatio || 1;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
    }
    const [imageWidth, imageHeight] = this.shown ? this.size : [width, height];
    const scale = Math.min(width / imageWidth, height / imageHeight) || 1;
    this.fit = [(width - imageWidth * scale) / 2, (height - imageHeight * scale) / 2, scale];
    this.#draw(ratio);
    this.onLayout();
  }

  #draw(ratio) {
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.shown) return;
    const { head, bitmap } = this.shown;
    context.drawImage(bitmap, ...this.toStage([0, 0, head.width, head.height]));
    for (const target of head.targets) {
      this.#drawTrail(context, target.id);
      context.globalAlpha = head.told ? 1 : 0.5; // of an earlier picture: paler
      this.#drawTarget(context, target);
      context.globalAlpha = 1;
    }
    const data = this.element.dataset;
    data.number = head.number;
    data.stamp = head.stamp;
    data.targets = JSON.stringify(head.targets);
  }

  #drawTrail(context, id) {
    const trail = this.trails.get(id) ?? [];
    const now = performance.now() / 1000;
    context.strokeStyle = colourOf(id);
    context.lineWidth = 2;
    context.setLineDash([]);
    for (let index = 1; index < trail.length; index++) {
      context.globalAlpha = Math.max(0, 0.8 * (1 - (now - trail[index].time) / TRAIL));
      context.beginPath();
      for (const { x, y } of [trail[index - 1], trail[index]]) context.lineTo(...this.toStage([x, y, 0, 0]));
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  #drawTarget(context, { id, state, box, confidence }) {
    const colour = colourOf(id);
    const [left, top, width, height] = this.toStage(box);
    for (const [line, style] of [[4, "rgb(0 0 0 / 55%)"], [2, colour]]) {
      context.lineWidth = line;
      context.strokeStyle = style;
      context.setLineDash(DASHES[state] ?? []);
      context.strokeRect(left, top, width, height);
    }
    context.setLineDash([]);
    const text = `${nameOf(id)} ${state} ${(confidence ?? 0).toFixed(2)}`;
    context.font = "600 12px system-ui, sans-serif";
    const plate = context.measureText(text).width + 12;
    const x = Math.max(0, Math.min(left - 1, this.element.clientWidth - plate));
    const y = top >= 22 ? top - 22 : Math.min(top + height + 2, this.element.clientHeight - 20);
    context.fillStyle = colour;
    context.fillRect(x, y, plate, 20);
    context.fillStyle = "#0b0f14";
    context.fillText(text, x + 6, y + 14);
    context.fillRect(x, y + 17, plate * (confidence ?? 0), 3);
  }
}
