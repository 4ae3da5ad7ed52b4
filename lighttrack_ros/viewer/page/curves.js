// Two live curves of the last seconds, one line a target.

import { colourOf } from "./colours.js";

const SPAN = 20; // seconds
const HEAD = 16; // CSS pixels above the curve, for its figures

export class Curve {
  // top: the value at the upper edge; 0 takes what there is. unit: behind the newest value
  constructor(canvas, top, unit, digits) {
    Object.assign(this, { canvas, top, unit, digits });
    this.lines = new Map();
  }

  add(id, value) {
    if (value === null || value === undefined) return;
    const line = this.lines.get(id) ?? [];
    this.lines.set(id, line);
    line.push({ time: performance.now() / 1000, value });
  }

  draw() {
    const now = performance.now() / 1000;
    for (const [id, line] of this.lines) {
      while (line.length && now - line[0].time > SPAN) line.shift();
      if (!line.length) this.lines.delete(id);
    }
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const ink = getComputedStyle(this.canvas).color;
    const values = [...this.lines.values()].flat().map((point) => point.value);
    const top = this.top || Math.max(10, 1.2 * Math.max(0, ...values));
    context.strokeStyle = ink;
    context.globalAlpha = 0.2;
    const level = (share) => HEAD + (height - 1 - HEAD) * (1 - share);
    for (const share of [0, 0.5, 1]) {
      context.beginPath();
      context.moveTo(0, level(share));
      context.lineTo(width, level(share));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    const newest = [];
    for (const [id, line] of this.lines) {
      context.strokeStyle = colourOf(id);
      context.beginPath();
      for (const { time, value } of line) {
        context.lineTo(width * (1 - (now - time) / SPAN), level(Math.min(1, value / top)));
      }
      context.stroke();
      newest.push(line.at(-1).value.toFixed(this.digits) + this.unit);
    }
    context.fillStyle = ink;
    context.font = "11px system-ui, sans-serif";
    context.fillText(top.toFixed(this.top ? 1 : 0) + this.unit, 3, 11);
    if (newest.length) this.canvas.dataset.newest = newest.join(", ");
    else delete this.canvas.dataset.newest;
    context.textAlign = "right";
    context.fillText(newest.join("  "), width - 3, 11);
    context.textAlign = "left";
  }
}
