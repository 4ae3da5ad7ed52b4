// The page: picture, selection, panel and connection put together.

import { Curve } from "./curves.js";
import { Link } from "./link.js";
import { Panel } from "./panel.js";
import { Selection } from "./selection.js";
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);

let status = {};
let trip = null, kilobytes = 0; // of the newest picture
const times = []; // of the pictures shown lately, seconds

const panel = new Panel((id) => order({ type: "remove", target_id: id }));
const curves = { confidence: new Curve($("confidence"), 1, "", 2), latency: new Curve($("latency"), 0, " ms", 1) };

const stage = new Stage($("stage"), $("picture"), (head) => {
  link.send({ type: "seen", number: head.number });
  times.push(performance.now() / 1000);
  panel.showTargets(head.targets);
  showHint();
});

const selection = new Selection(
  stage,
  { area: $("stage"), box: $("selection"), confirm: $("confirm"), send: $("send"), cancel: $("cancel") },
  {
    begin: () => link.send({ type: "hold", on: true }),
    end: () => link.send({ type: "hold", on: false }),
    changed: () => {},
    send: track,
    propose: async (x, y, head) => {
      const answer = await link.ask({ type: "propose", number: head.number, x, y });
      if (!answer.ok) tell(answer.words, true);
      return answer.ok ? answer.box : null;
    },
  },
);

const link = new Link(location.hash.slice(1), {
  picture: (head, jpeg) => {
    trip = head.trip;
    kilobytes = jpeg.length / 1000;
    for (const target of head.targets) {
      curves.confidence.add(target.id, target.confidence);
      curves.latency.add(target.id, target.latency);
    }
    stage.put(head, jpeg);
  },
  status: (values) => {
    status = values;
    panel.showStatus(values);
    showHint();
  },
  events: (events) => panel.addEvents(events),
  state: (name, words) => {
    if (name === "broken" && $("connection").dataset.state !== "broken") {
      stage.restart();
      panel.forgetEvents();
    }
    $("connection").dataset.state = name;
    $("connection").textContent = words;
    $("gate").hidden = name !== "refused";
    if (name === "refused") $("token").focus();
  },
});
async function track(box, head) {
  const name = $("name").value.trim() || nameFor(box, head.targets);
  $("name").value = "";
  const rounded = box.map((side) => Math.round(10 * side) / 10);
  const answer = await link.ask({ type: "track", stamp: head.stamp, box: rounded, target_id: name });
  if (answer.words) tell(answer.words, !answer.ok);
}

// The target that is meant: another one if one more is wanted, else the one that there is, or the nearest of them.
function nameFor([x, y, width, height], targets) {
  if (!$("more").checked && targets.length) {
    const away = ({ box }) => Math.hypot(box[0] + box[2] / 2 - x - width / 2, box[1] + box[3] / 2 - y - height / 2);
    return targets.reduce((nearest, target) => (away(target) < away(nearest) ? target : nearest)).id;
  }
  const taken = new Set(targets.map((target) => target.id));
  let number = 1;
  while (taken.has(String(number))) number += 1;
  return String(number);
}

async function order(message) {
  const answer = await link.ask(message);
  if (answer.words) tell(answer.words, !answer.ok);
  return answer;
}

let silence = 0;
function tell(words, bad) {
  $("message").textContent = words;
  $("message").dataset.bad = bad;
  $("message").hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => { $("message").hidden = true; }, bad ? 8000 : 4000);
}

function showHint() {
  const words = status.message || status.picture_error || (stage.shown ? "" : "waiting for pictures");
  $("hint").textContent = words;
  $("hint").hidden = !words;
}

$("box").addEventListener("click", () => selection.begin());
$("reset").addEventListener("click", () => order({ type: "reset" }));
$("play").addEventListener("click", () => order({ type: "play", on: !status.playing }));
$("enabled").addEventListener("change", async (event) => {
  const answer = await order({ type: "enable", on: event.target.checked });
  if (!answer.ok) event.target.checked = !event.target.checked;
});
$("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  const [model, backend, image_topic] = ["model", "backend", "image_topic"].map((name) => $(name).value);
  document.activeElement?.blur();
  tell("changing, this may take a while", false);
  order({ type: "configure", model, backend, image_topic });
});
$("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  // Somebody may paste the whole address.
  const token = $("token").value.trim().split("#").at(-1);
  history.replaceState(null, "", `#${token}`);
  link.retry(token);
});

addEventListener("keydown", (event) => {
  if (event.target.closest?.("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    b: () => selection.begin(),
    r: () => $("reset").click(),
    p: () => $("play").hidden || $("play").click(),
    Escape: () => selection.cancel(),
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

setInterval(() => {
  const now = performance.now() / 1000;
  while (times.length && now - times[0] > 2) times.shift();
  for (const curve of Object.values(curves)) curve.draw();
  panel.showFigures({
    "pictures": `${(times.length / 2).toFixed(0)} a second, ${kilobytes.toFixed(0)} kB`,
    "round trip": trip ? `${Math.round(trip)} ms` : undefined,
    ...(status.figures ?? {}),
  });
  $("stage").dataset.rate = (times.length / 2).toFixed(1);
  $("frozen").hidden = !selection.head;
  if (selection.head) {
    $("frozen").textContent = `picture held for ${((performance.now() - selection.since) / 1000).toFixed(1)} s`;
  }
}, 250);
