// The box that somebody draws: by mouse, finger or pen, by a click and its handles, or by keys.

const THRESHOLD = 6; // CSS pixels from which a press is a drag
const SMALLEST = 3; // pixels of the camera's image

export class Selection {
  // handlers: begin(), end(), send(box, head), propose(x, y, head) -> promise of a box or null, changed(box)
  constructor(stage, elements, handlers) {
    this.stage = stage;
    this.elements = elements;
    this.handlers = handlers;
    this.box = null; // left, top, width, height in pixels of the camera's image
    this.head = null; // of the picture that it is drawn on
    this.drag = null;
    const { area, box } = elements;
    area.addEventListener("pointerdown", (event) => this.#down(event));
    area.addEventListener("pointermove", (event) => this.#move(event));
    area.addEventListener("pointerup", (event) => this.#up(event));
    area.addEventListener("pointercancel", () => this.cancel());
    area.addEventListener("lostpointercapture", () => this.drag && this.cancel());
    box.addEventListener("keydown", (event) => this.#key(event));
    elements.send.addEventListener("click", () => this.send());
    elements.cancel.addEventListener("click", () => this.cancel());
    stage.onLayout = () => this.#show();
  }

  // A box in the middle, for the keyboard.
  begin() {
    if (!this.stage.shown) return;
    this.#freeze();
    const [width, height] = this.stage.size;
    const side = Math.round(Math.min(width, height) / 6);
    this.#set([Math.round((width - side) / 2), Math.round((height - side) / 2), side, side]);
    this.elements.box.focus();
  }

  send() {
    if (!this.box) return;
    const [box, head] = [this.box, this.head];
    this.cancel();
    this.handlers.send(box, head);
  }

  cancel() {
    this.box = this.drag = null;
    this.#show();
    if (!this.head) return;
    this.head = null;
    this.stage.freeze(false);
    this.handlers.end();
  }

  #freeze() {
    if (this.head) return;
    this.head = this.stage.shown.head;
    this.since = performance.now();
    this.stage.freeze(true);
    this.handlers.begin();
  }

  #down(event) {
    if (event.target.closest("button") || !event.isPrimary || event.button || !this.stage.shown) return;
    event.preventDefault();
    this.elements.area.setPointerCapture(event.pointerId);
    const handle = this.box && event.target.dataset.handle;
    const inside = this.box && event.target === this.elements.box;
    if (!handle && !inside && this.box) this.cancel();
    this.#freeze();
    const at = this.stage.toImage(event);
    this.drag = { at, client: [event.clientX, event.clientY], box: this.box, handle, inside, far: false };
  }

  #move(event) {
    const drag = this.drag;
    if (!drag || !event.isPrimary) return;
    const away = Math.hypot(event.clientX - drag.client[0], event.clientY - drag.client[1]);
    drag.far ||= away > THRESHOLD;
    if (!drag.far) return;
    const [x, y] = this.stage.toImage(event);
    const [dx, dy] = [x - drag.at[0], y - drag.at[1]];
    if (drag.handle) this.#set(resized(drag.box, drag.handle, dx, dy));
    else if (drag.inside) this.#set([drag.box[0] + dx, drag.box[1] + dy, drag.box[2], drag.box[3]]);
    else this.#set([Math.min(x, drag.at[0]), Math.min(y, drag.at[1]), Math.abs(dx), Math.abs(dy)]);
  }

  #up(event) {
    const drag = this.drag;
    if (!drag || !event.isPrimary) return;
    this.drag = null;
    if (drag.handle || drag.inside) {
      this.elements.box.focus();
      return;
    }
    if (!drag.far) this.#propose(drag.at);
    else if (this.box && this.box[2] >= SMALLEST && this.box[3] >= SMALLEST) this.send();
    else this.cancel();
  }

  async #propose([x, y]) {
    const [width, height] = this.stage.size;
    if (x < 0 || y < 0 || x >= width || y >= height) {
      this.cancel();
      return;
    }
    const head = this.head;
    const box = await this.handlers.propose(x, y, head);
    if (this.head !== head || this.box || this.drag) return; // something else was begun meanwhile
    if (!box) {
      this.cancel();
      return;
    }
    this.#set(box);
    this.elements.box.focus();
  }

  #key(event) {
    const step = event.repeat ? 4 : 1;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const move = moves[event.key];
    if (move) {
      const [x, y, width, height] = this.box;
      const [dx, dy] = move;
      if (event.shiftKey) this.#set([x, y, Math.max(SMALLEST, width + dx), Math.max(SMALLEST, height + dy)]);
      else this.#set([x + dx, y + dy, width, height]);
    } else if (event.key === "Enter") this.send();
    else if (event.key === "Escape") this.cancel();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #set(box) {
    const [width, height] = this.stage.size;
    // It stays in the picture.
    const [left, top] = [Math.max(0, Math.min(box[0], width - SMALLEST)), Math.max(0, Math.min(box[1], height - SMALLEST))];
    const right = Math.min(width, box[0] + box[2]), bottom = Math.min(height, box[1] + box[3]);
    this.box = [left, top, Math.max(0, right - left), Math.max(0, bottom - top)];
    this.#show();
    this.handlers.changed(this.box);
  }

  #show() {
    const { box, confirm, area } = this.elements;
    box.hidden = !this.box;
    confirm.hidden = !this.box || Boolean(this.drag);
    if (!this.box) return;
    const [left, top, width, height] = this.stage.toStage(this.box);
    place(box, left, top);
    box.style.width = `${width}px`;
    box.style.height = `${height}px`;
    const [x, y, columns, rows] = this.box.map(Math.round);
    box.setAttribute("aria-label", `Box: left ${x}, top ${y}, width ${columns}, height ${rows} pixels`);
    const below = top + height + 8 + 44 < area.clientHeight ? top + height + 8 : Math.max(4, top - 52);
    place(confirm, Math.max(4, Math.min(left, area.clientWidth - 170)), below);
  }
}

function resized([x, y, width, height], handle, dx, dy) {
  let [left, top, right, bottom] = [x, y, x + width, y + height];
  if (handle.includes("w")) left = Math.min(left + dx, right - SMALLEST);
  if (handle.includes("e")) right = Math.max(right + dx, left + SMALLEST);
  if (handle.includes("n")) top = Math.min(top + dy, bottom - SMALLEST);
  if (handle.includes("s")) bottom = Math.max(bottom + dy, top + SMALLEST);
  return [left, top, right - left, bottom - top];
}

function place(element, left, top) {
  element.style.left = `${left}px`;
  element.style.top = `${top}px`;
}
