// One colour a target, told apart also by those who see few colours (after Okabe and Ito).

const COLOURS = ["#3fd467", "#56b4e9", "#f0c808", "#e88bc4", "#ff8c42", "#9b8cff", "#c9d1d9"];
const chosen = new Map();

export function colourOf(id) {
  if (!chosen.has(id)) chosen.set(id, COLOURS[chosen.size % COLOURS.length]);
  return chosen.get(id);
}

export function nameOf(id) {
  return id === "" ? "target" : id;
}
