"use strict";
// The page is a view of the document: `position` says where we are in its walk, and everything is drawn from that.
const doc = JSON.parse(document.getElementById("document").textContent);
const steps = new Map(doc.steps.map(s => [s.number, s]));
const values = doc.values;
const walk = doc.walk;
const equations = new Map(doc.equations.map(e => [e.value, e]));
const cached = doc.cache.rows;
const saved = new Map(cached.filter(r => r.kind === "saved").map(r => [r.value, r]));
const at = new Map(walk.map((m, i) => [m.pass + m.step, i + 1]));
const names = new Map();
for (const v of values) if (v.name !== null) names.set(v.name, v.id);
for (const s of doc.steps) if (s.backward)
  for (const g of [...s.backward.gives, ...s.backward.arrives]) if (!names.has(g.name)) names.set(g.name, g.value);

const ALL = 40, AROUND = 6, ENDS = 3, CHUNK = 50;
let position = 0, opened = false, kept = null;
const unfolded = new Set();
const $ = id => document.getElementById(id);

// --- building blocks

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter(c => c !== null && c !== ""));
  return node;
}

const shape = v => v.shape.length === 1 ? `(${v.shape[0]},)` : `(${v.shape.join(", ")})`;
const big = n => typeof n === "string" ? n : n.toLocaleString("en");
const plural = (n, noun) => `${big(n)} ${noun}${n === 1 ? "" : "s"}`;

function flopsText(n) {
  const text = String(n).replace("-", "");
  return text.length > 12 ? `${text[0]}.${text.slice(1, 3)}e+${text.length - 1}` : big(Number(n));
}

function bytesText(n) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 1000) return `${unit === "B" ? n : n.toPrecision(3)} ${unit}`;
    n /= 1000;
  }
  return `${n.toPrecision(3)} TB`;
}

function numberText(x, digits = 4) {
  if (typeof x === "string") return { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" }[x] ?? x;
  if (typeof x === "boolean") return x ? "True" : "False";
  if (Array.isArray(x)) return `${numberText(x[0], digits)}+${numberText(x[1], digits)}j`;
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return String(x);
  const size = Math.abs(x);
  return size >= 1e5 || size < 1e-3 ? x.toExponential(digits - 2) : String(Number(x.toPrecision(digits)));
}

function button(id, text) {
  const v = values[id];
  const kind = v.role === "backward" || v.role === "downstream" ? v.role : saved.has(id) ? "saved" : "";
  return make("button", {
    class: `v ${kind}`, "data-value": id, "aria-label": `${text}, ${shape(v)} ${v.dtype}: show numbers`,
    onmouseenter: e => { if (kept === null) showCard(id, e.currentTarget); },
    onmouseleave: () => { if (kept === null) hideCard(); },
    onclick: e => { e.stopPropagation(); keep(id, e.currentTarget); },
  }, text);
}

// A formula with its names as buttons; attributes (.sum) and keywords (axis=) are not names.
function code(text) {
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(/[\p{L}_][\p{L}\p{N}_]*/gu)) {
    const before = text[match.index - 1], after = text.slice(match.index + match[0].length);
    if (before === "." || /^=(?!=)/.test(after) || !names.has(match[0])) continue;
    parts.push(text.slice(last, match.index), button(names.get(match[0]), match[0]));
    last = match.index + match[0].length;
  }
  return [...parts, text.slice(last)];
}

function matrix(v, digits) {
  const complex = v.dtype.startsWith("complex");
  const depth = x => v.shape.length - x;
  let top = 0;
  (function largest(x, level) {
    if (level < v.shape.length) for (const y of x) largest(y, level + 1);
    else if (typeof x === "number") top = Math.max(top, Math.abs(x));
  })(v.numbers, 0);
  const cell = x => {
    const td = make("td", {}, numberText(x, digits));
    if (typeof x === "number" && top > 0 && !complex)
      td.style.background = `rgb(var(${x < 0 ? "--minus" : "--plus"}) / ${(0.06 + 0.5 * Math.abs(x) / top).toFixed(3)})`;
    return td;
  };
  const box = make("div", { class: "matrix" });
  (function add(x, level, label) {
    if (depth(level) > 2) return x.forEach((y, i) => add(y, level + 1, `${label}${i}, `));
    if (label) box.append(make("div", { class: "slice" }, `[${label}…]`));
    const rows = depth(level) === 2 ? x : depth(level) === 1 ? [x] : [[x]];
    box.append(make("table", {}, rows.map(row => make("tr", {}, row.map(cell)))));
  })(v.numbers, 0, "");
  return box;
}

function facts(v) {
  const s = v.statistics;
  if (s === null) return "";
  const parts = ["min", "max", "mean", "norm"].filter(k => s[k] !== null).map(k => `${k} ${numberText(s[k])}`);
  if (s.nan) parts.push(`${s.nan} nan`);
  if (s.infinite) parts.push(`${s.infinite} inf`);
  return parts.join("  ");
}

function valueBlock(id, text, notes = [], digits = 3) {
  const v = values[id];
  const empty = v.shape.includes(0);
  return make("div", { class: "value" },
    make("div", { class: "head" }, names.has(text) ? button(id, text) : make("span", { class: "code" }, text),
      make("span", { class: "muted" }, `${shape(v)} ${v.dtype}`), notes),
    empty ? make("div", { class: "facts" }, "empty") : v.numbers !== null ? matrix(v, digits) : make("div", { class: "facts" }, facts(v)));
}

// --- numbers of a value, on pointing or clicking

function showCard(id, target) {
  const v = values[id], row = cached.find(r => r.value === id), card = $("card");
  const about = [v.role + (v.step === null ? "" : ` value of step ${v.step}`)];
  if (row) about.push(row.kind === "saved" ? `saved, ${bytesText(row.bytes)}` : "held anyway", `read by the backward of step ${row.read_by.join(", ")}`);
  card.replaceChildren(valueBlock(id, v.name ?? v.text, [], 6), make("div", { class: "facts" }, facts(v)), make("div", { class: "muted" }, about.join(" · ")));
  card.hidden = false;
  const box = target.getBoundingClientRect(), own = card.getBoundingClientRect();
  card.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
  card.style.top = `${box.bottom + own.height + 10 > innerHeight ? Math.max(8, box.top - own.height - 6) : box.bottom + 6}px`;
  document.querySelectorAll(`.v[data-value="${id}"]`).forEach(b => b.classList.add("marked"));
}

function hideCard() {
  kept = null;
  $("card").hidden = true;
  $("card").classList.remove("kept");
  document.querySelectorAll(".v.marked").forEach(b => b.classList.remove("marked"));
}

function keep(id, target) {
  const again = kept === id;
  hideCard();
  if (again) return;
  kept = id;
  showCard(id, target);
  $("card").classList.add("kept");
}

// --- the table of both passes

function note(g) {
  const of = values[g.of].name ?? values[g.of].text;
  if (g.kind === "part") return `part ${g.part[0]} of ${g.part[1]} of d${of}`;
  const sum = g.part ? `, sum of ${g.part[1]} parts` : "";
  return g.kind === "upstream" ? `to step ${g.to ?? "?"}${sum}` : `gradient${sum}`;
}

// What a step's local rules compute: its lines, and gradients that are other names for numbers that exist.
function backwardLines(step) {
  const lines = [], written = new Set();
  for (const f of step.backward.formulas) {
    const own = step.backward.gives.filter(g => g.value === f.value && g.text === g.name);
    own.forEach(g => written.add(g));
    lines.push({ text: `${f.name} = ${f.text}`, value: f.value, gives: own });
  }
  for (const g of step.backward.gives) if (!written.has(g)) {
    const name = g.kind === "part" ? `d${values[g.of].name ?? ""} so far` : g.name;
    lines.push({ text: name === g.text ? name : `${name} = ${g.text}`, value: g.value, gives: [g] });
  }
  return lines;
}

const line = (text, id, ...notes) => make("div", { class: "line" }, code(text), " ", make("span", { class: "shape" }, shape(values[id])), notes);
const badge = g => make("span", { class: `note ${g.kind}` }, note(g));

function said(step) { return step.formulas.map(f => `${f.name} = ${f.text}`); }

function row(step) {
  const lines = said(step), same = lines.length === 1 && lines[0].replace(/\s/g, "") === step.text.replace(/\s/g, "");
  const scope = step.scope.length > 1 ? `module ${step.scope.at(-1)}: ` : "";
  const open = pass => () => go(at.get(pass + step.number));
  const forward = make("td", { class: `pass ${step.pass}`, "data-at": at.get(step.pass + step.number), onclick: open(step.pass),
                               colspan: step.pass === "update" ? 2 : null },
    step.text && !same ? make("div", { class: "written" }, scope + step.text) : null,
    step.formulas.map(f => line(`${f.name} = ${f.text}`, f.value, saved.has(f.value) ? make("span", { class: "note saved" }, "saved") : null)));
  const number = make("td", { class: "number" },
    make("button", { onclick: open(step.pass), "aria-label": `Go to step ${step.number}` }, String(step.number)));
  if (step.pass === "update") return make("tr", {}, number, forward);
  const backward = step.backward
    ? make("td", { class: "pass backward", "data-at": at.get(`backward${step.number}`), onclick: open("backward") },
           backwardLines(step).map(l => line(l.text, l.value, l.gives.map(badge))))
    : make("td", { class: "muted" }, "no gradient passes here");
  return make("tr", {}, number, forward, backward);
}

// With many steps: the first, the last, those around the current one, and what was unfolded.
function visible(numbers) {
  if (numbers.length <= ALL) return new Set(numbers);
  const here = position ? walk[position - 1].step : 0;
  return new Set(numbers.filter((n, i) =>
    i < ENDS || i >= numbers.length - ENDS || Math.abs(n - here) <= AROUND || unfolded.has(n)));
}

function gap(hidden) {
  const unfold = () => { hidden.slice(0, CHUNK).forEach(n => unfolded.add(n)); drawRows(); mark(); };
  return make("tr", { class: "gap" }, make("td", { colspan: 3 },
    make("button", { onclick: unfold }, `… ${plural(hidden.length, "step")}: ${hidden[0]} to ${hidden.at(-1)} …`)));
}

let drawn = "";
function drawRows() {
  const numbers = [...steps.keys()], shown = visible(numbers), key = [...shown].join();
  if (key === drawn) return;
  drawn = key;
  const rows = [];
  let hidden = [], updating = false;
  for (const n of numbers) {
    if (!shown.has(n)) { hidden.push(n); continue; }
    if (hidden.length) rows.push(gap(hidden));
    hidden = [];
    if (steps.get(n).pass === "update" && !updating) {
      updating = true;
      rows.push(make("tr", { class: "title" }, make("td"), make("td", { colspan: 2 }, "Update: what the optimizer makes of the gradients")));
    }
    rows.push(row(steps.get(n)));
  }
  $("rows").replaceChildren(...rows);
}

function mark() {
  for (const cell of document.querySelectorAll("#rows td.pass")) {
    const when = Number(cell.dataset.at);
    cell.classList.toggle("now", when === position);
    cell.classList.toggle("later", position > 0 && when > position);
  }
  const now = document.querySelector("#rows td.now"), box = $("lines");
  if (!now) return;
  const top = now.getBoundingClientRect().top - box.getBoundingClientRect().top, room = box.clientHeight;
  if (top < 40 || top + now.clientHeight > room) box.scrollTop += top - Math.max(40, (room - now.clientHeight) / 2);
}

// --- this step

function jump(pass, number, text) {
  return make("button", { class: "jump", onclick: () => go(at.get(pass + number)) }, text);
}

function listing(ids, part) {
  const row = id => {
    const e = equations.get(id), of = e.of === null ? null : equations.get(e.of);
    const why = !part ? e.op : of === null ? "" : e.operand === null ? "parts added up" : `${of.op}'s rule ${e.operand + 1}`;
    return make("tr", {}, make("td", {}, `${e.label} = ${e.text}`), make("td", {}, shape(values[id])),
      make("td", {}, why), make("td", { class: "n" }, flopsText(e.flops)));
  };
  return make("table", { class: "equations" },
    make("tr", {}, ["equation", "shape", part ? "by" : "op", "flops"].map(t => make("th", { scope: "col" }, t))), ids.map(row));
}

function more(step, ids, part) {
  const toggle = () => { opened = !opened; drawNow(); };
  return [make("button", { class: "more", "aria-expanded": String(opened), onclick: toggle },
    `${opened ? "hide" : "show"} ${plural(ids.length, "single equation")}`), opened ? listing(ids, part) : null];
}

const section = (title, items) => items.length ? [make("h3", {}, title), items] : [];
const formula = text => make("div", { class: "formula" }, code(text));

function source(step) {
  const where = [step.file && step.line ? `${step.file}:${step.line}` : "", step.scope.length > 1 ? `module ${step.scope.at(-1)}` : ""];
  return [make("div", { class: "source" }, step.text || said(step).join("; ")), make("div", { class: "muted" }, where.filter(Boolean).join(" · "))];
}

const nameOf = id => values[id].name ?? values[id].text;

function forwardStep(step) {
  const kept = cached.filter(r => r.kind === "saved" && r.saved_by === step.number);
  return [
    make("h2", { class: step.pass }, step.pass === "update" ? `Step ${step.number}, update` : `Step ${step.number}, forward`), source(step),
    section("Reads", step.inputs.map(id => valueBlock(id, nameOf(id)))),
    section("Computes", step.formulas.map(f => formula(`${f.name} = ${f.text}`))),
    section("Gives", step.formulas.map(f => valueBlock(f.value, f.name))),
    section("Saved for the backward pass", kept.map(r => make("div", {}, button(r.value, r.name),
      make("span", { class: "muted" }, ` ${bytesText(r.bytes)}, to be read by `),
      r.read_by.slice(0, 6).map(n => jump("backward", n, `step ${n}`))))),
    more(step, step.equations, false),
  ];
}

function origin(id) {
  const row = cached.find(r => r.value === id);
  const v = values[id];
  if (row && row.kind === "saved" && row.saved_by !== null) return jump("forward", row.saved_by, `saved by step ${row.saved_by}`);
  return make("span", { class: "muted" }, `${v.role}, held anyway`);
}

function backwardStep(step) {
  const b = step.backward, freed = cached.filter(r => r.kind === "saved" && r.freed_after === step.number);
  const from = g => g.from.length ? g.from.map(n => jump("backward", n, `from step ${n}`)) : [make("span", { class: "muted" }, "the pass begins here")];
  return [
    make("h2", { class: "backward" }, `Step ${step.number}, backward`), source(step),
    section("Arrives: the downstream gradient", b.arrives.map(g => valueBlock(g.value, g.name, from(g)))),
    section("Reads from the forward pass", b.reads.map(id => valueBlock(id, nameOf(id), origin(id)))),
    section("Local rules", backwardLines(step).map(l => formula(l.text))),
    section("Gives: gradients, and what goes upstream", b.gives.map(g => valueBlock(g.value, g.kind === "part" ? g.text : g.name, badge(g)))),
    section("Can be freed now", freed.map(r => make("div", {}, button(r.value, r.name), make("span", { class: "muted" }, ` ${bytesText(r.bytes)}`)))),
    more(step, b.equations, true),
  ];
}

function overview() {
  const leaves = ids => ids.map(id => valueBlock(id, nameOf(id)));
  return [
    make("h2", {}, "Everything at once"),
    make("p", {}, "Step on with ", make("kbd", {}, "→"), ": first forward through the lines, computing values and saving some of them; ",
      "then backward, from the last line to the first. Each line receives the gradient of what it computed, ",
      "reads what was saved, and passes gradients on."),
    section("Inputs", leaves(doc.inputs.slice(0, 12))), section("Parameters", leaves(doc.parameters.slice(0, 12))),
    section("Gradients", doc.gradients.slice(0, 24).map(g => valueBlock(g.value, g.name))),
  ];
}

function drawNow() {
  const moment = walk[position - 1];
  const parts = !moment ? overview() : moment.pass === "backward" ? backwardStep(steps.get(moment.step)) : forwardStep(steps.get(moment.step));
  $("now").replaceChildren(...parts.flat(9).filter(p => p !== null && p !== ""));
  $("now").scrollTop = 0;
}

// --- cache and cost

function drawChart() {
  const kept = doc.cache.kept, n = kept.length, top = Math.max(...kept, 1);
  if (!n) return;
  const y = b => (70 - 64 * b / top).toFixed(2), x = i => (1000 * i / n).toFixed(2);
  const path = count => `M0 70 ` + kept.slice(0, count).map((b, i) => `L${x(i)} ${y(b)} L${x(i + 1)} ${y(b)}`).join(" ") + ` L${x(count)} 70 Z`;
  const now = position ? kept[position - 1] : null;
  const cursor = position ? `<path class="done" d="${path(position)}"/><path class="cursor" d="M${x(position - 0.5)} 0 V72"/>` : "";
  $("chart").innerHTML = `<svg viewBox="0 0 1000 72" preserveAspectRatio="none" role="img" aria-label="Bytes kept, over both passes">` +
    `<path class="area" d="${path(n)}"/>${cursor}</svg>`;
  const row = saved.size ? `${plural(saved.size, "value")}, ${bytesText(doc.cache.saved_bytes)} saved in all` : "nothing has to be saved";
  $("chart").append(make("p", {}, make("span", {}, now === null ? row : `kept after this step: ${bytesText(now)} of ${bytesText(doc.cache.saved_bytes)}`),
    make("span", {}, `peak with gradients: ${bytesText(doc.cache.peak_bytes)}`)));
}

function slotState(r) {
  const moment = walk[position - 1];
  const reading = moment?.pass === "backward" && r.read_by.includes(moment.step);
  if (reading) return "read";
  if (r.kind !== "saved") return "held";
  if (!position) return "full";
  const savedAt = r.saved_by === null ? 0 : at.get(`forward${r.saved_by}`) ?? 0;
  const freedAt = r.freed_after === null ? Infinity : at.get(`backward${r.freed_after}`) ?? Infinity;
  return position < savedAt ? "empty" : position < freedAt ? "full" : "freed";
}

function drawSlots() {
  const state = new Map(cached.map(r => [r, slotState(r)]));
  let rows = [...cached];
  if (rows.length > ALL) {  // what is read now, and what was saved last
    const rank = { read: 0, full: 1, held: 2, freed: 3, empty: 4 };
    const last = r => -(r.saved_by ?? 0);
    rows = rows.sort((a, b) => rank[state.get(a)] - rank[state.get(b)] || last(a) - last(b)).slice(0, 20);
  }
  const words = { read: "being read", full: "kept", held: "held anyway", freed: "freed", empty: "not yet" };
  const slots = rows.map(r => make("div", { class: `slot ${state.get(r)}` }, make("b", {}, r.name),
    `${r.kind === "saved" ? (r.view_of ? `view of ${r.view_of}` : bytesText(r.bytes)) : r.kind} · ${words[state.get(r)]}`));
  if (rows.length < cached.length) slots.push(make("div", { class: "slot" }, `and ${big(cached.length - rows.length)} more`));
  $("cached").replaceChildren(...slots);
}

function drawCost() {
  const c = doc.cost, rows = [["forward", "forward pass", c.forward_flops], ["backward", "backward pass", c.backward_flops],
                              ["without", "backward without reuse", c.without_reuse]];
  const top = Math.max(...rows.map(r => Number(r[2])), 1);
  const share = n => Number.isFinite(top) ? Number(n) / top : Number.isFinite(Number(n)) ? 0 : 1;
  $("bars").replaceChildren(...rows.map(([kind, label, n]) => {
    const bar = make("i");
    bar.style.width = `${(72 * share(n)).toFixed(2)}%`;
    return make("div", { class: `bar ${kind}` }, make("span", {}, label), make("span", {}, bar, flopsText(n)));
  }), !doc.gradients.length ? make("p", {}, "No gradient was asked for, or none leads anywhere.") : make("p", {}, `Backpropagation reuses partial results. Deriving each gradient on its own, along each of the ${flopsText(c.paths)} paths `,
    `to the ${doc.outputs.length ? nameOf(doc.outputs[0]) : "value"}, would take ${typeof c.reuse === "number" ? numberText(Number(c.reuse.toPrecision(3))) : "countless"} times the operations of the backward pass.`));
}

// --- the picture

const drawing = document.querySelector("#picture svg");
drawing.style.minWidth = `${0.8 * drawing.viewBox.baseVal.width}px`;  // larger pictures are scrolled, not shrunk until nothing can be read
const nodes = [...document.querySelectorAll("#picture .node")];
const edges = [...document.querySelectorAll("#picture path[data-step]")];
const range = text => { const [a, b] = text.split("-").map(Number); return [a, b ?? a]; };
const ranges = new Map(nodes.filter(n => n.dataset.steps).map(n => [range(n.dataset.steps)[0], range(n.dataset.steps)]));

function drawPicture() {
  const moment = walk[position - 1];
  $("picture").className = moment?.pass ?? "";
  const holds = ([a, b]) => moment && a <= moment.step && moment.step <= b;
  const touched = new Set(), reached = new Set();
  for (const edge of edges) {
    const own = ranges.get(Number(edge.dataset.step)), pass = edge.classList.contains("forward") ? "forward" : "backward";
    const first = pass === "forward" ? own[0] : own[1];
    const on = moment?.pass === pass && holds(own);
    edge.classList.toggle("on", Boolean(on));
    const later = position > 0 && (at.get(pass + first) ?? Infinity) > position;
    edge.classList.toggle("later", later);
    if (pass === "backward" && !later) reached.add(edge.dataset.value);
    if (on) touched.add(edge.dataset.value);
  }
  for (const node of nodes) {
    const own = node.dataset.steps ? range(node.dataset.steps) : null;
    node.classList.toggle("now", Boolean(own && moment?.pass !== "update" && holds(own)));
    node.querySelector(".gradient")?.classList.toggle("later", !reached.has(node.dataset.value));
    node.classList.toggle("touched", touched.has(node.dataset.value));
    const when = own ? at.get(`forward${own[0]}`) : at.get(`forward${values[node.dataset.value].step}`) ?? 0;
    node.classList.toggle("later", position > 0 && when > position);
  }
  const box = $("picture"), now = box.querySelector(".now");
  if (!now) return;
  const inner = now.getBoundingClientRect(), outer = box.getBoundingClientRect();
  box.scrollTop += inner.top + inner.height / 2 - outer.top - outer.height / 2;
  box.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
}

for (const node of nodes) node.addEventListener("click", e => {
  e.stopPropagation();
  if (node.dataset.steps) {
    const n = range(node.dataset.steps)[0], back = walk[position - 1]?.pass === "backward" && at.has(`backward${n}`);
    go(at.get((back ? "backward" : "forward") + n));
  } else keep(Number(node.dataset.value), node);
});

// --- walking

function placeText() {
  const moment = walk[position - 1];
  if (!moment) return `Both passes, ${plural(walk.length, "step")}`;
  const pass = { forward: "Forward", backward: "Backward", update: "Update" }[moment.pass];
  return `${pass}, step ${moment.step}  (${position} of ${walk.length})`;
}

function draw() {
  hideCard();
  drawRows(); mark(); drawNow(); drawChart(); drawSlots(); drawPicture();
  $("slider").value = position;
  $("slider").setAttribute("aria-valuetext", placeText());
  $("place").textContent = placeText();
  $("place").className = walk[position - 1]?.pass ?? "";
  $("first").disabled = $("previous").disabled = position === 0;
  $("last").disabled = $("next").disabled = position === walk.length;
}

function go(to, remember = true) {
  if (to === undefined || Number.isNaN(to)) return;
  position = Math.max(0, Math.min(walk.length, to));
  draw();
  if (remember) history.replaceState(null, "", position ? `#step=${position}` : "#");
}

function fromAddress() {
  const match = /^#(step|forward|backward|update)=(\d+)$/.exec(location.hash);
  const to = match ? (match[1] === "step" ? Number(match[2]) : at.get(match[1] + match[2]) ?? 0) : 0;
  if (to !== position || !drawn) go(to, false);
}

const moves = {
  ArrowRight: () => go(position + 1), ArrowDown: () => go(position + 1), ArrowLeft: () => go(position - 1), ArrowUp: () => go(position - 1),
  Home: () => go(0), End: () => go(walk.length), PageDown: () => go(position + 10), PageUp: () => go(position - 10),
  o: () => { opened = !opened; drawNow(); }, Escape: hideCard,
};

addEventListener("keydown", e => {
  if (e.altKey || e.ctrlKey || e.metaKey || e.target.id === "slider" && e.key !== "o" || !(e.key in moves)) return;
  e.preventDefault();
  moves[e.key]();
});
addEventListener("click", e => { if (kept !== null && !$("card").contains(e.target)) hideCard(); });
addEventListener("hashchange", fromAddress);
addEventListener("beforeprint", () => { drawn = ""; });
$("slider").addEventListener("input", e => go(Number(e.target.value)));
for (const [id, by] of [["first", () => 0], ["previous", () => position - 1], ["next", () => position + 1], ["last", () => walk.length]])
  $(id).addEventListener("click", () => go(by()));

function about() {
  const leaf = id => `${nameOf(id)} ${shape(values[id])}`;
  const list = ids => ids.slice(0, 10).map(leaf).join(", ") + (ids.length > 10 ? `, and ${ids.length - 10} more` : "");
  const parts = [["inputs", doc.inputs], ["parameters", doc.parameters.filter(id => values[id].role === "parameter")],
    ["states", doc.parameters.filter(id => values[id].role === "state")], ["constants", doc.constants]];
  return parts.filter(p => p[1].length).map(([title, ids]) => `${title}: ${list(ids)}`).join(" · ");
}

$("about").textContent = about();
$("slider").max = walk.length;
const forwards = walk.filter(m => m.pass === "forward").length, updates = walk.filter(m => m.pass === "update").length;
const percent = n => `${(100 * n / Math.max(walk.length, 1)).toFixed(2)}%`;
$("slider").style.setProperty("--turn", percent(forwards + 0.5));
$("slider").style.setProperty("--end", updates ? percent(walk.length - updates + 0.5) : "100%");
$("controls").hidden = false;
document.querySelector("main").hidden = false;
drawCost();
fromAddress();
