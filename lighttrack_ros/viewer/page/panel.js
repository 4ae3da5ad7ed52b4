// What stands beside the picture: targets, figures, lost and found, settings.

import { colourOf, nameOf } from "./colours.js";

const WORDS = { started: "is followed", lost: "lost", found: "found again", ended: "ended", note: "" };
const MOST_EVENTS = 200;

const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function dot(id) {
  const made = element("span", { class: "dot", "aria-hidden": "true" });
  made.style.background = colourOf(id);
  return made;
}

export class Panel {
  // remove(id): forget one target
  constructor(remove) {
    this.remove = remove;
    this.lostAt = new Map();
    this.drawn = "";
  }

  showTargets(targets) {
    const text = (target) => `${target.state} ${(target.confidence ?? 0).toFixed(2)}`;
    const ids = JSON.stringify(targets.map((target) => target.id));
    if (ids !== this.drawn) {
      // The rows stay while the targets do: a button that is made anew loses a press or the focus.
      this.drawn = ids;
      this.words = new Map();
      const rows = targets.map((target) => {
        const forget = element("button", { type: "button", "aria-label": `Forget ${nameOf(target.id)}` }, "×");
        forget.addEventListener("click", () => this.remove(target.id));
        const words = element("span", { class: "state" });
        this.words.set(target.id, words);
        return element("li", {}, dot(target.id), element("b", {}, nameOf(target.id)), words, forget);
      });
      $("targets").replaceChildren(...(rows.length ? rows : [element("li", { class: "small" }, "none")]));
    }
    for (const target of targets) {
      const words = this.words.get(target.id);
      words.textContent = text(target);
      words.dataset.state = target.state;
    }
  }

  addEvents(events) {
    const list = $("events");
    for (const event of events) {
      const time = new Date(1000 * event.time);
      let words = event.kind === "note" ? event.words : `${nameOf(event.id)} ${WORDS[event.kind] ?? event.kind}`;
      if (event.kind === "lost") this.lostAt.set(event.id, event.time);
      if (event.kind === "found" && this.lostAt.has(event.id)) {
        words += ` after ${(event.time - this.lostAt.get(event.id)).toFixed(1)} s`;
      }
      if (event.kind === "ended" && event.words) words += `: ${event.words}`;
      const clock = element("time", { datetime: time.toISOString() }, time.toLocaleTimeString([], { hour12: false }));
      list.prepend(element("li", { "data-kind": event.kind }, clock, event.kind === "note" ? "" : dot(event.id), words));
      this.newest = words;
    }
    while (list.children.length > MOST_EVENTS) list.lastChild.remove();
    // Of what happened before the page was opened nothing is said aloud.
    if (events.length && Date.now() / 1000 - events.at(-1).time < 5) $("voice").textContent = this.newest;
  }

  forgetEvents() {
    $("events").replaceChildren();
  }

  showStatus(status) {
    $("subject").textContent = status.subject ?? "";
    document.title = status.subject ? `${status.subject} - LightTrack` : "LightTrack";
    $("play").hidden = !("playing" in status);
    $("play").textContent = status.playing ? "Pause" : "Play";
    $("play").setAttribute("aria-pressed", String(Boolean(status.playing)));
    $("enabled-label").hidden = !("enabled" in status);
    if ("enabled" in status) $("enabled").checked = status.enabled;
    $("more-label").hidden = !("enabled" in status); // a film has one target
    $("camera-label").hidden = !("image_topics" in status);
    offer($("model"), status.models, status.model);
    offer($("backend"), status.backends, status.backend);
    offer($("image_topic"), status.image_topics, status.image_topic);
    for (const name of ["settings", "reset"]) $(name).inert = status.connected === false;
  }

  showFigures(figures) {
    const rows = Object.entries(figures).filter(([, value]) => value !== undefined && value !== null && value !== "");
    $("figures").replaceChildren(
      ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]),
    );
  }
}

// A list to choose from, left alone while somebody chooses.
function offer(select, values = [], chosen = "") {
  const all = chosen && !values.includes(chosen) ? [chosen, ...values] : values;
  const key = JSON.stringify([all, chosen]);
  if (select.dataset.key === key) return;
  if (select.matches(":focus")) return;
  select.dataset.key = key;
  select.replaceChildren(...all.map((value) => element("option", { value }, value)));
  select.value = chosen;
}
