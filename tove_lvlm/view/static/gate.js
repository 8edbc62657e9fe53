// Draws the JSON of gate_view.py. gradio gives `element`, `props` and `watch`.
const KINDS = [
  ["picture", "The picture, as the tower sees it"],
  ["gate", "Gate: how much it is asked"],
  ["strength", "Strength: how much it adds"],
  ["map", "What it sees"],
];
const KEYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
let data = null;
let chosen = null;
let token = [0, 0];

const find = (name) => element.querySelector(name);
const make = (tag, name, text) => {
  const made = document.createElement(tag);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};

function draw() {
  data = props.value ? JSON.parse(props.value) : null;
  const panel = find(".tove-panel");
  const hint = find(".tove-hint");
  const hasGate = Boolean(data && data.tokens);
  panel.hidden = !hasGate;
  hint.hidden = hasGate;
  if (data && data.why) hint.textContent = data.why;
  if (!hasGate) return;
  const attached = data.experts.filter((expert) => expert.attached).map((expert) => expert.name);
  if (!attached.includes(chosen)) chosen = attached[0] || null;
  token = token.map((place) => Math.min(place, data.side - 1));
  drawExperts();
  drawCells();
  drawToken(false);
}

function drawExperts() {
  const buttons = data.experts.map((expert) => {
    const button = make("button", "tove-expert", expert.name);
    button.type = "button";
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", String(expert.name === chosen));
    button.style.setProperty("--expert", expert.color);
    button.disabled = !expert.attached;
    if (!expert.attached) button.append(make("span", "tove-off", " off"));
    button.addEventListener("click", () => choose(expert.name));
    return button;
  });
  find(".tove-experts").replaceChildren(...buttons);
}

function choose(name) {
  chosen = name;
  for (const button of element.querySelectorAll(".tove-expert")) {
    button.setAttribute("aria-checked", String(button.firstChild.textContent === name));
  }
  drawCells();
}

function drawCells() {
  const images = chosen ? data.cells[chosen] : {};
  const cells = KINDS.filter(([kind]) => kind === "picture" || images[kind]).map(([kind, caption]) => {
    const figure = make("figure", "tove-cell");
    const frame = make("div", "tove-frame");
    const image = make("img", "");
    image.src = kind === "picture" ? data.picture : images[kind];
    image.alt = kind === "picture" ? `${data.name}, as the tower sees it` : `${chosen}: ${caption}`;
    const mark = make("div", "tove-mark");
    mark.style.width = mark.style.height = `${100 / data.side}%`;
    frame.append(image, mark);
    frame.addEventListener("pointermove", (event) => point(event, frame));
    frame.addEventListener("pointerdown", (event) => point(event, frame));
    if (kind === "picture") {
      frame.tabIndex = 0;
      frame.setAttribute("role", "application");
      frame.setAttribute("aria-label", `Token grid of ${data.side} by ${data.side}; the arrow keys move between tokens`);
      frame.addEventListener("keydown", step);
    }
    const features = kind === "map" && data.experts.find((expert) => expert.name === chosen).is_features;
    figure.append(frame, make("figcaption", "", features ? `${caption} (three principal components)` : caption));
    return figure;
  });
  find(".tove-cells").replaceChildren(...cells);
  mark();
}

function point(event, frame) {
  const box = frame.getBoundingClientRect();
  const place = (offset, length) => Math.max(0, Math.min(data.side - 1, Math.floor((data.side * offset) / length)));
  const next = [place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width)];
  if (next[0] !== token[0] || next[1] !== token[1]) {
    token = next;
    drawToken(false);
  }
}

function step(event) {
  const move = KEYS[event.key];
  if (!move) return;
  event.preventDefault();
  token = token.map((place, axis) => Math.max(0, Math.min(data.side - 1, place + move[axis])));
  drawToken(true);
}

function mark() {
  for (const box of element.querySelectorAll(".tove-mark")) {
    box.style.top = `${(100 * token[0]) / data.side}%`;
    box.style.left = `${(100 * token[1]) / data.side}%`;
  }
}

function drawToken(isSpoken) {
  const [row, column] = token;
  const title = `Token in row ${row + 1}, column ${column + 1} of ${data.side}`;
  find(".tove-token-title").textContent = title;
  const bars = data.experts.map((expert) => {
    const gate = data.tokens.gate[expert.name][row][column];
    const strength = data.tokens.strength[expert.name][row][column];
    const line = make("li", expert.attached ? "tove-bar" : "tove-bar tove-bar-off");
    const track = make("span", "tove-track");
    const fill = make("span", "tove-fill");
    fill.style.width = `${100 * gate}%`;
    fill.style.background = expert.color;
    track.append(fill);
    const figures = expert.attached ? `${gate.toFixed(3)}, adds ${strength.toFixed(3)}` : "off";
    line.append(make("span", "tove-bar-name", expert.name), track, make("span", "tove-bar-figures", figures));
    line.dataset.expert = expert.name;
    return line;
  });
  find(".tove-bars").replaceChildren(...bars);
  if (isSpoken) {
    const said = data.experts
      .filter((expert) => expert.attached)
      .map((expert) => `${expert.name} ${data.tokens.gate[expert.name][row][column].toFixed(2)}`);
    find(".tove-spoken").textContent = `${title}: ${said.join(", ")}`;
  }
  mark();
}

draw();
watch("value", draw);
