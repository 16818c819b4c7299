/* Pictures that move on a page without a kernel: every position was measured ahead of time. */

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

const draw = (node, { width, height, svg, alt }) => {
  node.setAttribute("viewBox", `0 0 ${width} ${height}`);
  node.setAttribute("aria-label", alt);
  node.style.maxWidth = `${1.15 * width}px`;
  node.innerHTML = svg;
};

const unpack = async (letters) => {
  const bytes = Uint8Array.from(atob(letters.trim()), (letter) => letter.charCodeAt(0));
  const whole = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(whole).text());
};

/* a setting as a link: #shift=86&guard=none ------------------------------------------------ */

const same = (a, b) => a === b || (a !== "" && b !== "" && Number(a) === Number(b));
const wanted = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const fits = (stop, bench, wish) =>
  Object.entries(wish).every(([knob, value]) => (knob === "bench" ? bench === value : same(stop.set[knob], value)));

function start(exhibits, words) {
  const shown = []; // what stands on this page, from the top
  const several = new Set(exhibits.map((exhibit) => exhibit.bench)).size > 1;

  const link = (exhibit, stop) => {
    const wish = { ...(several ? { bench: exhibit.bench } : {}), ...stop.set };
    const first = exhibits.findIndex((other) => stops(other).some((it) => fits(it, other.bench, wish)));
    const here = exhibits.indexOf(exhibit);
    return `#${new URLSearchParams(first === here ? wish : { at: here, ...wish })}`;
  };
  const stops = (exhibit) => (exhibit.layers ? exhibit.layers.flatMap((layer) => layer.stops) : exhibit.stops);

  const restore = () => {
    const { at, ...wish } = wanted();
    if (!Object.values(wish).some(Boolean)) return; // a heading, or nothing
    const found = shown.filter((it) => (at === undefined || Number(at) === it.number) && it.go(wish));
    found[0]?.node.scrollIntoView({ block: "start" });
  };

  /* what every exhibit has: badge, copied line, link --------------------------------------- */

  const frame = (exhibit) => {
    const mark = make("span", { class: "lk-badge-mark", "aria-hidden": "true" });
    const word = make("strong");
    const line = make("span");
    const badge = make("div", { class: "lk-badge", role: "status" }, mark,
      make("span", { class: "lk-badge-text" }, word, ": ", line));
    const code = make("code");
    const copy = make("button", { class: "lk-button", lang: words.lang, onclick: async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = words.copied;
      } catch {
        getSelection().selectAllChildren(code); // no clipboard here: at least it is selected
        copy.textContent = words.selected;
      }
      setTimeout(() => { copy.textContent = words.copy; }, 1500);
    } }, words.copy);
    const address = make("a", { class: "link", href: "#", lang: words.lang }, words.link);
    const say = (stop) => {
      badge.dataset.status = stop.badge.status;
      mark.textContent = stop.badge.mark;
      word.textContent = stop.badge.word;
      line.textContent = stop.badge.line;
      code.textContent = stop.code;
      address.href = link(exhibit, stop);
    };
    return { badge, foot: make("div", { class: "foot" }, code, copy, address), say };
  };

  /* a strip, or the cases of a bench: one slider --------------------------------------------- */

  const slider = (exhibit, node, number) => {
    const { badge, foot, say } = frame(exhibit);
    const id = `exhibit-${number}`;
    const last = exhibit.stops.length - 1;
    const value = make("span", { class: "lk-value" });
    const input = make("input", { type: "range", id, min: 0, max: last, step: 1, value: 0, oninput: () => show(Number(input.value)) });
    const side = (index) => (exhibit.kind !== "cases" ? "" : index === 0 ? "lk-start" : index === last ? "lk-end" : "");
    const marks = exhibit.stops.map((stop, index) => make("button", {
      class: `lk-mark ${side(index)}`, tabindex: -1, style: `left:${(100 * index) / Math.max(last, 1)}%`,
      onclick: () => { input.value = index; show(index); },
    }, stop.place));
    const unit = exhibit.knob.unit ? ` (${exhibit.knob.unit})` : "";
    const dial = make("div", { class: "lk-dial" },
      make("label", { for: id }, exhibit.knob.name, make("span", { class: "lk-help" }, `${unit} ${exhibit.knob.help}`)),
      value, input, make("div", { class: "lk-marks", "aria-hidden": "true" }, ...marks));
    const [graph, timeline, gradients] = ["lk-flow", "lk-timeline", "lk-gradients"].map((role) =>
      picture({ class: role, role: "img", "font-size": 11 }));
    const left = make("div", { class: "lk-left" }, graph);
    left.style.minHeight = `${Math.max(...exhibit.graphs.map((it) => it.height))}px`;
    node.append(badge, make("div", { class: "lk-body" }, left, make("div", { class: "lk-right" }, dial, timeline, gradients)), foot);

    let plan = null;
    let keyed = new Map();
    const show = (index) => {
      const stop = exhibit.stops[index];
      const laid = exhibit.graphs[exhibit.graph[index]];
      if (laid !== plan) {
        plan = laid;
        draw(graph, laid);
        keyed = new Map([...graph.querySelectorAll("[data-key]")].map((it) => [it.dataset.key, it]));
      }
      for (const [key, [role, text]] of Object.entries(exhibit.live[index])) {
        const item = keyed.get(key);
        item?.setAttribute("class", role);
        if (item?.tagName === "text") item.textContent = text;
      }
      graph.setAttribute("aria-label", exhibit.alt[index]);
      draw(timeline, exhibit.timeline[index]);
      draw(gradients, exhibit.gradients[index]);
      value.textContent = stop.text;
      input.setAttribute("aria-valuetext", stop.text);
      say(stop);
    };
    show(0);
    return (wish) => {
      const index = exhibit.stops.findIndex((stop) => fits(stop, exhibit.bench, wish));
      if (index < 0) return false;
      input.value = index;
      show(index);
      return true;
    };
  };

  /* a map: the arrow keys walk from cell to cell ---------------------------------------------- */

  const map = (exhibit, node, number) => {
    const { badge, foot, say } = frame(exhibit);
    const chart = picture({ class: "lk-map", tabindex: 0, role: "application", "aria-roledescription": "map", "font-size": 11 });
    const ring = ["lk-stand-halo", "lk-stand"].map((role) =>
      picture({ class: role, x: -10.5, y: -10.5, width: 21, height: 21, rx: 10.5 }, "rect"));
    const title = make("p", { class: "map-title" });
    const told = make("p", { class: "lk-told" });
    const inputs = [];
    const choices = Object.entries(exhibit.choices).map(([knob, options]) => make("fieldset", { class: "lk-choice" },
      make("legend", {}, knob), ...options.map((option) => {
        const input = make("input", { type: "radio", name: `exhibit-${number}-${knob}`, value: option, onchange: () => pick() });
        inputs.push({ knob, option, input });
        return make("label", {}, input, option);
      })));
    node.append(badge, make("div", { class: "choices" }, ...choices), title, chart, told, foot);

    let layer = null;
    let stop = null;
    const lay = (next) => {
      layer = next;
      title.textContent = layer.title;
      draw(chart, layer);
      chart.append(...ring);
      chart.setAttribute("aria-label", `${layer.alt} ${words.map_how}`);
      for (const { knob, option, input } of inputs) input.checked = layer.set[knob] === option;
    };
    const stand = (next) => {
      stop = next;
      for (const part of ring) part.setAttribute("transform", `translate(${stop.x} ${stop.y})`);
      told.replaceChildren(`${stop.text}. `, make("span", { lang: words.lang }, words.map_how));
      say(stop);
    };
    const at = (column, row) => layer.stops.find((it) => it.column === column && it.row === row);
    const pick = () => {
      const chosen = Object.fromEntries(inputs.filter((it) => it.input.checked).map((it) => [it.knob, it.option]));
      lay(exhibit.layers.find((it) => Object.entries(chosen).every(([knob, option]) => it.set[knob] === option)));
      stand(at(stop.column, stop.row));
    };
    const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    chart.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      stand(at(stop.column + step[0], stop.row + step[1]) || stop);
      event.preventDefault();
    });
    chart.addEventListener("click", (event) => {
      const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      const far = (it) => (it.x - spot.x) ** 2 + (it.y - spot.y) ** 2;
      stand(layer.stops.reduce((best, it) => (far(it) < far(best) ? it : best)));
    });
    lay(exhibit.layers[exhibit.first]);
    stand(layer.stops[0]);
    return (wish) => {
      const there = exhibit.layers.find((it) => it.stops.some((one) => fits(one, exhibit.bench, wish)));
      if (!there) return false;
      lay(there);
      stand(there.stops.find((one) => fits(one, exhibit.bench, wish)));
      return true;
    };
  };

  exhibits.forEach((exhibit, number) => {
    const node = document.querySelector(`[data-exhibit="${number}"]`);
    node.classList.add("lk-panel");
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", `${exhibit.bench}: ${exhibit.kind}`);
    const go = (exhibit.layers ? map : slider)(exhibit, node, number);
    shown.push({ number, node, go });
    if (exhibit.kind === "cases") {
      // the still picture of the panel would say it twice
      for (const still of node.closest(".output").querySelectorAll(".output_png")) still.hidden = true;
    }
  });
  document.documentElement.dataset.ready = "yes";
  restore();
  addEventListener("hashchange", restore);
}

const words = JSON.parse(document.getElementById("words").textContent);
unpack(document.getElementById("exhibits").textContent).then(
  (exhibits) => start(exhibits, words),
  () => {
    for (const node of document.querySelectorAll("[data-exhibit]")) node.append(make("p", { class: "quiet", lang: words.lang }, words.too_old));
  },
);
