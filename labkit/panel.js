/* The page side of labkit.panel: it shows what it gets and says what the hand does. */

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

const picture = (attributes, tag = "svg") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

function render({ model, el }) {
  const spec = model.get("spec");
  const prefix = `lk${Math.random().toString(36).slice(2)}`; // ids of this view on its page
  const update = []; // called after every change, each with one part of the page to renew

  const set = (change) => {
    model.set("settings", { ...model.get("settings"), ...change });
    model.save_changes();
    renew();
  };

  /* badge ------------------------------------------------------------------------------- */

  const mark = make("span", { class: "lk-badge-mark", "aria-hidden": "true" });
  const word = make("strong");
  const words = make("span");
  const badge = make(
    "div", { class: "lk-badge", role: "status" }, mark, make("span", { class: "lk-badge-text" }, word, ": ", words),
  );
  const say = ({ status, mark: sign, word: name, line }) => {
    badge.dataset.status = status;
    mark.textContent = sign;
    word.textContent = name;
    words.textContent = line;
    panel.classList.toggle("lk-stale", status === "error");
  };

  /* knobs ------------------------------------------------------------------------------- */

  const dial = (knob, id) => {
    const decimals = (String(knob.step).split(".")[1] || "").length;
    const value = (index) => Number((knob.low + index * knob.step).toFixed(10));
    const index = (number) => Math.round((number - knob.low) / knob.step);
    const text = (number) => (number === value(index(number)) ? number.toFixed(decimals) : String(number));
    const input = make("input", {
      type: "range", id, min: 0, max: knob.count, step: 1, "data-knob": knob.name,
      oninput: () => set({ [knob.name]: value(Number(input.value)) }),
    });
    const shown = make("span", { class: "lk-value" });
    const marks = knob.marks.map((mark, i) => {
      const room = [mark.share - (knob.marks[i - 1]?.share ?? -0.1), (knob.marks[i + 1]?.share ?? 1.1) - mark.share];
      const tight = Math.min(...room) < 0.2;
      const right = mark.share < 0.1 || (mark.share < 0.9 && room[0] < room[1]);
      const side = !tight ? "" : right ? "lk-start" : "lk-end"; // words go where there is room
      return make("button", {
        class: `lk-mark ${side}`, tabindex: -1, title: `${knob.name} = ${text(mark.value)}`, style: `left:${100 * mark.share}%`,
        onclick: () => set({ [knob.name]: mark.value }),
      }, mark.words);
    });
    update.push((settings) => {
      const number = settings[knob.name];
      if (Number(input.value) !== index(number)) input.value = index(number);
      shown.textContent = `${text(number)} ${knob.unit}`.trim();
      input.setAttribute("aria-valuetext", shown.textContent);
    });
    return make("div", { class: "lk-dial" },
      make("label", { for: id }, knob.name, make("span", { class: "lk-help" }, ` ${knob.help}`)),
      shown, input, make("div", { class: "lk-marks", "aria-hidden": "true" }, ...marks));
  };

  const settle = () => { // words that would overlap go one line down
    for (const row of knobs.querySelectorAll(".lk-marks")) {
      const ends = [];
      for (const mark of row.children) {
        const { left, right } = mark.getBoundingClientRect();
        const free = ends.findIndex((end) => end <= left);
        const line = free < 0 ? ends.length : free;
        ends[line] = right + 2;
        mark.style.setProperty("--line", line);
      }
      row.style.setProperty("--lines", ends.length);
    }
  };

  const choice = (knob, id) => {
    const options = knob.options.map((option) => {
      const input = make("input", {
        type: "radio", name: id, value: option, "data-knob": knob.name,
        onchange: () => set({ [knob.name]: option }),
      });
      update.push((settings) => { input.checked = settings[knob.name] === option; });
      return make("label", {}, input, option);
    });
    return [
      make("span", { class: "lk-name", id, title: knob.help }, knob.name),
      make("div", { class: "lk-choice", role: "radiogroup", "aria-labelledby": id }, ...options),
    ];
  };

  const ids = (knob) => `${prefix}-${knob.name}`;
  const dials = spec.knobs.filter((k) => !k.options).map((k) => dial(k, ids(k)));
  const choices = spec.knobs.filter((k) => k.options).flatMap((k) => choice(k, ids(k)));

  const VERBS = { broken: "break", repaired: "repair" };
  const buttons = Object.entries(spec.cases).map(([name, settings]) => {
    const button = make("button", { class: "lk-button", "data-case": name, onclick: () => set(settings) }, VERBS[name] || name);
    update.push((now) => {
      const here = Object.entries(settings).every(([knob, value]) => now[knob] === value);
      button.setAttribute("aria-pressed", String(here));
    });
    return button;
  });

  const code = make("code");
  const copy = make("button", { class: "lk-button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard here: at least it is selected
      copy.textContent = "selected";
    }
    setTimeout(() => { copy.textContent = "copy"; }, 1500);
  } }, "copy");

  const knobs = make("div", { class: "lk-knobs" }, ...dials,
    make("div", { class: "lk-settings" },
      make("div", { class: "lk-choices" }, ...choices), make("div", { class: "lk-cases" }, ...buttons)));

  /* pictures ---------------------------------------------------------------------------- */

  const graph = picture({ class: "lk-graph", tabindex: 0, role: "group", "aria-roledescription": "graph",
    preserveAspectRatio: "xMidYMin meet", "font-size": 11 });
  const timeline = picture({ class: "lk-timeline", role: "img", "font-size": 11 });
  const gradients = picture({ class: "lk-gradients", role: "img", "font-size": 11 });
  let keyed = new Map();
  let view = { x: 0, y: 0, zoom: 1 };
  let size = { x: 0, width: 1, height: 1 };
  let own = false; // the hand has chosen what to see
  const LEAST = 0.7; // of a letter's size; a picture that is larger than this allows is shown in part
  const more = make("div", { class: "lk-more" }, "Drag to see the rest; ◻ shows all.");

  const look = () => {
    const [w, h] = [size.width / view.zoom, size.height / view.zoom];
    view.x = Math.min(Math.max(view.x, size.x - w / 2), size.x + size.width - w / 2);
    view.y = Math.min(Math.max(view.y, -h / 2), size.height - h / 2);
    graph.setAttribute("viewBox", `${view.x} ${view.y} ${w} ${h}`);
    const { width, height } = graph.getBoundingClientRect();
    more.hidden = !(Math.min(width / size.width, height / size.height) < LEAST) || view.zoom <= 1;
  };
  const centre = (x, y) => {
    view.x = x - size.width / view.zoom / 2;
    view.y = Math.min(Math.max(y - size.height / view.zoom / 2, 0), size.height * (1 - 1 / view.zoom));
    look();
  };
  const begin = () => { // all of the picture; of one that would be too small to read, the outlined place
    const { width, height } = graph.getBoundingClientRect();
    const whole = Math.min(width / size.width, height / size.height);
    view = { x: size.x, y: 0, zoom: whole > 0 ? Math.max(1, LEAST / whole) : 1 };
    if (view.zoom === 1) return look();
    const born = graph.querySelector(".lk-born");
    const at = (name, side) => Number(born.getAttribute(name)) + Number(born.getAttribute(side)) / 2;
    const wide = size.width * LEAST > width;
    centre(born && wide ? at("x", "width") : size.x + size.width / 2, born ? at("y", "height") : 0);
  };
  const zoom = (factor) => {
    own = true;
    const next = factor ? Math.min(Math.max(view.zoom * factor, 0.5), 6) : 1;
    const middle = [view.x + size.width / view.zoom / 2, view.y + size.height / view.zoom / 2];
    view = factor
      ? { x: middle[0] - size.width / next / 2, y: middle[1] - size.height / next / 2, zoom: next }
      : { x: size.x, y: 0, zoom: 1 };
    look();
  };
  const pan = (dx, dy) => { own = true; view.x += dx; view.y += dy; look(); };
  const unit = () => 1 / (graph.getScreenCTM()?.a || 1); // of the picture, for a pixel of the page

  const draw = (node, { width, height, svg, alt }) => {
    node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    node.setAttribute("aria-label", alt);
    node.innerHTML = svg;
  };

  let plan = null;
  const layout = () => {
    const drawn = model.get("graph");
    if (drawn.id === plan) return;
    plan = drawn.id;
    const width = Math.max(drawn.width, 430); // a small graph keeps its letters small
    size = { x: (drawn.width - width) / 2, width, height: Math.max(drawn.height, 500) };
    draw(graph, drawn);
    keyed = new Map([...graph.querySelectorAll("[data-key]")].map((node) => [node.dataset.key, node]));
    own = false;
    begin();
  };
  const recolour = ({ live, alt }) => {
    graph.setAttribute("aria-label", `${alt} Arrow keys walk through the ops, plus and minus zoom.`);
    for (const [key, [role, text]] of Object.entries(live)) {
      const node = keyed.get(key);
      if (!node) continue;
      if (node.getAttribute("class") !== role) node.setAttribute("class", role);
      if (node.tagName === "text" && node.textContent !== text) node.textContent = text;
    }
  };

  /* pointing ---------------------------------------------------------------------------- */

  const detail = make("div", { class: "lk-detail" });
  const point = (op) => {
    if (op === model.get("pointed")) return;
    model.set("pointed", op);
    model.save_changes();
  };
  const under = (event) => event.target.closest?.("[data-op]");
  for (const node of [graph, timeline]) {
    node.addEventListener("pointerover", (event) => { if (under(event)) point(Number(under(event).dataset.op)); });
    node.addEventListener("pointerleave", () => point(-1));
  }
  graph.addEventListener("blur", () => point(-1));

  const explain = () => {
    const { words: lines = [], cell = -1 } = model.get("detail");
    detail.setAttribute("aria-live", document.activeElement === graph ? "polite" : "off");
    detail.replaceChildren(...lines.map((line) => make("p", {}, line)));
    for (const node of graph.querySelectorAll(".lk-ring")) node.remove();
    const here = graph.querySelector(`[data-op="${cell}"]`);
    if (!here || model.get("pointed") < 0) return;
    const ring = here.cloneNode();
    for (const name of ["data-op", "data-key"]) ring.removeAttribute(name);
    ring.setAttribute("class", "lk-ring");
    graph.append(ring);
  };

  const walk = (dx, dy) => {
    const cells = [...graph.querySelectorAll("[data-op]")].map((node) => ({
      op: Number(node.dataset.op), x: Number(node.getAttribute("x")) + Number(node.getAttribute("width")) / 2,
      y: Number(node.getAttribute("y")),
    }));
    const from = cells.find((c) => c.op === model.get("pointed"));
    if (!from) return point(cells[0]?.op ?? -1);
    const cost = (c) => {
      const [along, aside] = dx ? [(c.x - from.x) * dx, Math.abs(c.y - from.y)] : [(c.y - from.y) * dy, Math.abs(c.x - from.x)];
      return along > 1 ? along + 3 * aside : Infinity;
    };
    const [next] = cells.filter((c) => cost(c) < Infinity).sort((a, b) => cost(a) - cost(b));
    if (!next) return;
    point(next.op);
    if (!more.hidden) centre(view.x + size.width / view.zoom / 2, next.y);
  };

  const KEYS = {
    "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), 0: () => zoom(0), Escape: () => point(-1),
    ArrowLeft: (shift) => (shift ? pan(-40, 0) : walk(-1, 0)), ArrowRight: (shift) => (shift ? pan(40, 0) : walk(1, 0)),
    ArrowUp: (shift) => (shift ? pan(0, -40) : walk(0, -1)), ArrowDown: (shift) => (shift ? pan(0, 40) : walk(0, 1)),
  };
  graph.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    KEYS[event.key](event.shiftKey);
    event.preventDefault();
    event.stopPropagation();
  });
  graph.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls as usual
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
  }, { passive: false });
  graph.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) return;
    pan(-event.movementX * unit(), -event.movementY * unit());
  });

  const zoomer = (label, name, factor) =>
    make("button", { class: "lk-button", "aria-label": name, title: name, onclick: () => zoom(factor) }, label);
  const left = make("div", { class: "lk-left" });
  left.append(graph, make("div", { class: "lk-zoom" },
    zoomer("+", "zoom in", 1.3), zoomer("−", "zoom out", 1 / 1.3), zoomer("◻", "show all", 0)), more);

  /* map: a click or Enter sets the bench there ------------------------------------------- */

  const HOW = "Click a cell, or walk with the arrow keys and press Enter, to set the bench there.";
  const map = picture({ class: "lk-map", tabindex: 0, role: "group", "aria-roledescription": "map", "font-size": 11 });
  const told = make("p", { class: "lk-told" });
  const mapTitle = make("summary");
  const chart = make("details", { class: "lk-chart", open: "" }, mapTitle, map, told);
  const [halo, ring, cursor] = [["lk-stand-halo", 21], ["lk-stand", 21], ["lk-cursor", 27]].map(([role, side]) =>
    picture({ class: role, x: -side / 2, y: -side / 2, width: side, height: side, rx: role === "lk-cursor" ? 3 : side / 2, visibility: "hidden" }, "rect"));
  let [drawn, at] = [null, null]; // the map on the page, the cell under cursor or pointer

  const stand = (node, spot) => {
    node.setAttribute("visibility", spot ? "visible" : "hidden");
    if (spot) node.setAttribute("transform", `translate(${spot.x} ${spot.y})`);
  };
  const aim = (cell) => {
    at = cell;
    stand(cursor, at);
    const { aside = "" } = model.get("frame").here || {};
    const words = at ? `${at.words}.` : HOW;
    const text = aside ? `${words} But ${aside}.` : words;
    if (told.textContent !== text) told.textContent = text;
  };
  const nearest = ({ x, y }) => {
    const far = (cell) => (cell.x - x) ** 2 + (cell.y - y) ** 2;
    return model.get("chart").cells.reduce((best, cell) => (far(cell) < far(best) ? cell : best));
  };
  const pointedCell = (event) => {
    const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    const { cells, reach: [left, right, high] } = model.get("chart");
    const over = (cell) => spot.x >= cell.x - left && spot.x < cell.x + right && Math.abs(spot.y - cell.y) < high;
    return cells.find(over) || null;
  };
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  map.addEventListener("pointermove", (event) => aim(pointedCell(event)));
  map.addEventListener("pointerleave", () => aim(null));
  map.addEventListener("click", (event) => { const cell = pointedCell(event); if (cell) set(cell.set); });
  map.addEventListener("focus", () => { if (map.matches(":focus-visible")) aim(nearest(model.get("frame").here)); });
  map.addEventListener("blur", () => aim(null));
  map.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(step || ["Enter", " "].includes(event.key))) return;
    const from = at || nearest(model.get("frame").here);
    if (step) aim(model.get("chart").cells.find((c) => c.column === from.column + step[0] && c.row === from.row + step[1]) || from);
    else set(from.set);
    event.preventDefault();
    event.stopPropagation();
  });
  const survey = () => {
    const found = model.get("chart");
    chart.hidden = !found.id;
    if (chart.hidden) return;
    if (found !== drawn) {
      drawn = found;
      draw(map, found);
      map.setAttribute("aria-label", found.title);
      map.setAttribute("aria-description", `${HOW} ${found.alt}`);
      map.style.maxWidth = `${found.width * 1.15}px`;
      mapTitle.textContent = found.title;
      map.append(halo, ring, cursor);
      if (at) at = found.cells.find((cell) => cell.column === at.column && cell.row === at.row) || null;
    }
    const { here } = model.get("frame");
    stand(halo, here);
    stand(ring, here);
    aim(at);
    told.setAttribute("aria-live", document.activeElement === map ? "polite" : "off");
  };

  /* the whole --------------------------------------------------------------------------- */

  const right = make("div", { class: "lk-right" }, knobs);
  right.append(timeline, gradients);
  const card = make("details", { class: "lk-card" }, make("summary", {}, `${spec.title}: card`),
    make("dl", {}, ...spec.card.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)])));
  const panel = make("div", { class: "lk-panel", role: "group", "aria-label": `Bench: ${spec.title}` },
    badge, make("div", { class: "lk-body" }, left, right),
    make("div", { class: "lk-foot" }, detail, make("div", { class: "lk-code" }, code, copy)), chart, card);
  for (const kind of ["keydown", "keyup", "keypress"]) {
    // JupyterLab must not take the keys that turn a knob
    panel.addEventListener(kind, (event) => event.stopPropagation());
  }

  let frame = null;
  const renew = () => {
    const settings = model.get("settings");
    for (const part of update) part(settings);
    layout();
    if (model.get("frame") !== frame) {
      const before = frame || {};
      frame = model.get("frame");
      say(frame.badge);
      code.textContent = code.title = frame.code;
      recolour(frame);
      if (frame.timeline !== before.timeline) draw(timeline, frame.timeline);
      if (frame.gradients !== before.gradients) draw(gradients, frame.gradients);
    }
    const waits = Object.entries(settings).some(([knob, value]) => frame.of[knob] !== value);
    badge.setAttribute("aria-busy", String(waits)); // what it says is not of these settings yet
    explain();
    survey();
  };

  renew();
  el.append(panel);
  model.on("change", renew);
  const fit = () => { settle(); if (own) look(); else begin(); };
  const room = new ResizeObserver(() => requestAnimationFrame(fit)); // it may resize what is observed
  for (const part of [graph, knobs]) room.observe(part);
  return () => { model.off("change", renew); room.disconnect(); };
}

export default { render };
