// The connection to the viewer: one WebSocket, made again when it breaks.

const FIRST_PAUSE = 300, LONGEST_PAUSE = 3000; // milliseconds
const CLOSED_TOKEN = 4401, CLOSED_FULL = 4429;
const PATIENCE = 70000; // milliseconds for an answer

export class Link {
  // handlers: picture(head, jpeg), status(values), events(list), state(name, words)
  constructor(token, handlers) {
    this.token = token;
    this.handlers = handlers;
    this.requests = new Map();
    this.request = 0;
    this.pause = FIRST_PAUSE;
    this.#connect();
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => {
      this.send({ type: "watch", on: !document.hidden });
      if (!document.hidden) this.#hurry();
    });
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  // Resolves with the answer {ok, words, ...}; never rejects.
  ask(order) {
    if (!this.isOpen) return Promise.resolve({ ok: false, words: "not connected" });
    const request = ++this.request;
    return new Promise((resolve) => {
      this.requests.set(request, resolve);
      setTimeout(() => this.#answer({ request, ok: false, words: "no answer came" }), PATIENCE);
      this.send({ ...order, request });
    });
  }

  retry(token) {
    this.token = token;
    this.#connect();
  }

  #connect() {
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/link`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      this.send({ type: "hello", token: this.token });
      if (document.hidden) this.send({ type: "watch", on: false });
    };
    socket.onmessage = (message) => this.#receive(message.data);
    socket.onclose = (closed) => {
      if (this.socket === socket) this.#closed(closed);
    };
  }

  #receive(data) {
    this.pause = FIRST_PAUSE;
    if (data instanceof ArrayBuffer) {
      const length = new DataView(data).getUint32(0, true);
      const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      this.handlers.picture(head, new Uint8Array(data, 4 + length));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "answer") this.#answer(message);
    else if (message.type === "events") this.handlers.events(message.events);
    else if (message.type === "status") {
      this.handlers.state("open", "connected");
      this.handlers.status(message.values);
    }
  }

  #answer(answer) {
    const resolve = this.requests.get(answer.request);
    this.requests.delete(answer.request);
    resolve?.(answer);
  }

  #closed(closed) {
    for (const request of [...this.requests.keys()]) {
      this.#answer({ request, ok: false, words: "the connection broke" });
    }
    if (closed.code === CLOSED_TOKEN) {
      this.handlers.state("refused", "token wanted");
      return;
    }
    this.handlers.state("broken", closed.code === CLOSED_FULL ? closed.reason : "no connection, trying again");
    this.timer = setTimeout(() => this.#connect(), this.pause);
    this.pause = Math.min(1.6 * this.pause, LONGEST_PAUSE);
  }

  #hurry() {
    if (this.socket.readyState === WebSocket.CLOSED) {
      this.pause = FIRST_PAUSE;
      this.#connect();
    }
  }
}
