"use strict";
// Draws what GET overview says, again and again. Texts of other nodes are only ever set as text, never as markup.

const SHOWN = 100; // rows of one parent before somebody asks for more
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const known = new Map(); // node: its elements, so that what is open, focused or scrolled to stays so
const chosen = { task: "", measure: "" };
let last = null, heard = 0;

// ------------------------------------------------------------------------------------------------- words

function amount(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const steps = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]];
  const [factor, prefix] = steps.find(([least]) => Math.abs(value) >= 0.9995 * least) ?? (value ? [1e-6, "µ"] : [1, ""]);
  return `${Number((value / factor).toPrecision(3))} ${prefix}${unit}`;
}

function bytes(value) { return value < 1000 ? `${value} B` : amount(value, "B"); }

function share(value) { return value === undefined ? "–" : Number(value.toPrecision(3)).toString(); }

function ago(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} d ago`;
}

function clock(at, span) {
  const date = new Date(at * 1000), two = (n) => String(n).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (span < 600) return `${time}:${two(date.getSeconds())}`;
  return span < 172800 ? time : `${date.getMonth() + 1}/${date.getDate()} ${time}`;
}

function text(element, words, kind) {
  if (element.textContent !== words) element.textContent = words;
  if (kind !== undefined && element.className !== kind) element.className = kind;
}

function mood(node) {
  if (node.state === "stopped") return "off";
  if (node.state === "lost" || node.state === "silent") return "bad";
  return node.reason ? "warn" : "good";
}

// ------------------------------------------------------------------------------------------------- tree

function make(tag, kind, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children);
  return element;
}

function elements(node) {
  const mark = make("span", "mark"), id = make("b"), role = make("i");
  const cells = ["state", "release", "last", "updates", "energy"].map(() => make("span"));
  const row = make("div", "row", make("span", "name", mark, id, " ", role), ...cells);
  const why = make("p", "why"), item = make("li");
  const it = { mark, id, role, cells, why, item, below: null, more: null, limit: SHOWN };
  item.dataset.node = node.node;
  if (node.role === "fog") {
    it.below = make("ul");
    it.more = make("button");
    it.more.type = "button";
    it.more.addEventListener("click", () => { it.limit += 10 * SHOWN; draw(); });
    const details = make("details", "", make("summary", "", row, why), it.below, it.more);
    details.open = true;
    item.append(details);
  } else {
    item.append(row, why);
  }
  return it;
}

function best(tasks, name) {
  const values = tasks.map((task) => task[name]).filter((value) => value !== undefined);
  return values.length ? Math.max(...values) : undefined;
}

function updates(node) {
  const sum = (name) => node.tasks.reduce((total, task) => total + (task[name] ?? 0), 0);
  if (!node.tasks.length) return "";
  const epsilon = best(node.tasks, "epsilon"), cost = epsilon === undefined ? "" : `, epsilon ${epsilon.toPrecision(3)}`;
  if (node.role === "fog") return `${sum("window")} waiting, ${sum("awaited")} awaited${cost}`;
  const pending = sum("updates_pending");
  return `${sum("updates_sent")} sent` + (pending ? `, ${pending} open` : "");
}

function show(node, children) {
  let it = known.get(node.node);
  if (!it || (it.below !== null) !== (node.role === "fog")) {
    it = elements(node);
    known.set(node.node, it);
  }
  const kind = mood(node), release = best(node.tasks, "release");
  text(it.mark, "", `mark ${kind}`);
  text(it.id, node.node);
  const alive = children.filter((child) => !["lost", "silent", "stopped"].includes(child.state)).length;
  text(it.role, node.role === "fog" ? `fog, ${alive} of ${children.length} there` : node.role);
  text(it.cells[0], node.state, kind);
  text(it.cells[1], release === undefined || release < 0 ? "–" : String(release));
  text(it.cells[2], ago(best(node.tasks, "last_update_s")));
  text(it.cells[3], updates(node));
  const joules = best(node.tasks, "energy_j"), watts = best(node.tasks, "energy_w");
  text(it.cells[4], joules === undefined ? "–" : amount(joules, "J"));
  it.cells[4].title = watts === undefined ? "" : amount(watts, "W");
  text(it.why, node.reason, `why ${kind}`);
  it.why.hidden = !node.reason;
  return it;
}

function place(list, items) {
  const same = list.children.length === items.length && items.every((item, at) => list.children[at] === item);
  if (!same) list.replaceChildren(...items);
}

function tree(found) {
  const below = new Map(found.nodes.map((node) => [node.node, []]));
  const roots = [], fogs = new Map(found.nodes.filter((node) => node.role === "fog").map((node) => [node.node, node]));
  const under = (node) => { // whether it says to be below itself
    let above = fogs.get(node.parent);
    for (let depth = 0; above && depth < 64; depth++) {
      if (above.node === node.node) return true;
      above = above.node === found.node ? undefined : fogs.get(above.parent);
    }
    return Boolean(above);
  };
  for (const node of found.nodes) {
    const nested = node.node !== found.node && fogs.has(node.parent) && !under(node);
    (nested ? below.get(node.parent) : roots).push(node);
  }
  const order = { bad: 0, warn: 1, good: 2, off: 3 };
  const sorted = (nodes) => nodes.toSorted((a, b) => (b.role === "fog") - (a.role === "fog") || order[mood(a)] - order[mood(b)]
    || a.node.localeCompare(b.node, "en", { numeric: true }));
  const seen = new Set();
  const grow = (node) => {
    const children = below.get(node.node), it = show(node, children);
    seen.add(node.node);
    if (it.below) {
      const all = sorted(children), some = all.slice(0, it.limit).filter((child) => !seen.has(child.node));
      place(it.below, some.map(grow));
      text(it.more, `show ${Math.min(10 * SHOWN, all.length - it.limit)} more of ${all.length}`);
      it.more.hidden = all.length <= it.limit;
    }
    return it.item;
  };
  place($("tree"), sorted(roots).map(grow));
  for (const node of known.keys()) if (!seen.has(node)) known.delete(node);
}

// ----------------------------------------------------------------------------------------------- charts

function drawn(tag, attributes, words) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (words !== undefined) element.textContent = words;
  return element;
}

function ticks(low, high) { // round numbers from at most low to at least high
  const rough = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.9999);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

function chart(id, title, series, said, empty) {
  const figure = $(id), svg = figure.querySelector("svg"), caption = figure.querySelector("figcaption");
  const legend = series.length > 1 ? series.map((s) => make("b", s.kind, ` ${s.name}`)) : [];
  caption.replaceChildren(title, ...legend);
  const points = series.flatMap((s) => s.points);
  text(figure.querySelector(".none"), points.length ? "" : empty);
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${title}: ${points.length ? said(series) : empty}`);
  if (!points.length) return;
  const wide = svg.clientWidth || 340, high = 170, left = 54, right = 8, top = 10, foot = 22;
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const lines = ticks(Math.min(0, ...ys), Math.max(...ys) || 1);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1), y0 = lines[0], y1 = lines.at(-1);
  const x = (v) => left + ((v - x0) / (x1 - x0)) * (wide - left - right);
  const y = (v) => high - foot - ((v - y0) / (y1 - y0)) * (high - foot - top);
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  for (const v of lines) {
    svg.append(drawn("line", { class: "grid", x1: left, x2: wide - right, y1: y(v), y2: y(v) }));
    svg.append(drawn("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, series[0].unit(v)));
  }
  for (const [at, anchor] of [[x0, "start"], [x1, "end"]]) {
    svg.append(drawn("text", { x: x(at), y: high - 6, "text-anchor": anchor }, clock(at, x1 - x0)));
  }
  for (const s of series) {
    const path = s.points.map(([a, b], at) => `${at ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    svg.append(drawn("path", { class: `series ${s.kind}`, d: path }));
    if (s.points.length < 3) s.points.forEach(([a, b]) => svg.append(drawn("circle", { class: `dot ${s.kind}`, cx: x(a), cy: y(b), r: 3 })));
  }
  const cursor = drawn("g", {});
  svg.append(cursor);
  svg.onpointerleave = () => cursor.replaceChildren();
  svg.onpointermove = (event) => {
    const at = x0 + ((event.offsetX - left) / (wide - left - right)) * (x1 - x0);
    const near = series.map((s) => s.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a), s.points[0]));
    if (near.some((p) => p === undefined)) return;
    const words = `${clock(near[0][0], x1 - x0)}${near[0][2] ? `, release ${near[0][2]}` : ""}: ` +
      near.map((p, i) => `${series.length > 1 ? `${series[i].name} ` : ""}${series[i].unit(p[1])}`).join(", ");
    cursor.replaceChildren(
      drawn("line", { class: "cursor", x1: x(near[0][0]), x2: x(near[0][0]), y1: top, y2: high - foot }),
      ...near.map((p, i) => drawn("circle", { class: `dot ${series[i].kind}`, cx: x(p[0]), cy: y(p[1]), r: 3 })),
      drawn("text", { x: wide - right, y: top, "text-anchor": "end" }, words),
    );
  };
}

// ------------------------------------------------------------------------------------------------- all of it

const NO_METRICS = new Set(["release", "wall_s", "uplink_bytes", "downlink_bytes", "updates_counted", "weight_counted", "late"]);

function choose(select, names, now) {
  if (select.dataset.names !== names.join()) {
    select.replaceChildren(...names.map((name) => make("option", "", name)));
    select.dataset.names = names.join();
  }
  const value = names.includes(now) ? now : names[0] ?? "";
  if (select.value !== value) select.value = value;
  return value;
}

function numbers(found, rounds, measure) {
  const alive = found.nodes.filter((node) => mood(node) === "good").length;
  const meant = found.nodes.filter((node) => mood(node) !== "off").length, wrong = meant - alive;
  text($("health"), wrong ? `${wrong} of ${meant} ${wrong === 1 ? "is" : "are"} not well` : `all ${meant} are well`, wrong ? "warn" : "good");
  text($("well"), `${alive} of ${meant}`);
  text($("well-small"), found.nodes.length > meant ? `and ${found.nodes.length - meant} stopped` : "");
  const own = found.nodes.find((node) => node.node === found.node);
  const newest = own ? best(own.tasks, "release") : undefined;
  text($("release"), newest === undefined || newest < 0 ? "–" : String(newest));
  text($("release-small"), own ? own.state : "");
  const measured = rounds.filter((round) => round[measure] !== undefined), now = measured.at(-1);
  text($("metric-name"), measure.replaceAll("_", " ") || "accuracy");
  text($("metric"), now ? share(now[measure]) : "–");
  text($("metric-small"), measured.length > 1 ? `${share(measured[0][measure])} at first` : "");
  const round = rounds.at(-1);
  text($("bytes"), round ? bytes(round.uplink_bytes + round.downlink_bytes) : "–");
  text($("bytes-small"), round ? `${bytes(round.uplink_bytes)} up, ${bytes(round.downlink_bytes)} down` : "");
  const energy = found.energy;
  text($("joules"), energy ? amount(energy.joules, "J") : "–");
  const each = energy?.joules_per_round;
  text($("joules-small"), energy ? (each ? `${amount(each, "J")} a round; ` : "") + `by ${energy.sources.join(", ")}` : "no node knows its energy");
}

function draw() {
  const found = last;
  if (!found) return;
  document.title = `${found.node} in ${found.net}: edgemw`;
  text($("net"), found.net);
  text($("where"), found.parent ? `fog node ${found.node} below ${found.parent}` : `${found.node}, the top`);
  const tasks = Object.keys(found.tasks), task = choose($("task"), tasks, chosen.task || found.task);
  const rounds = found.tasks[task] ?? [];
  const names = [...new Set(rounds.flatMap((round) => Object.keys(round).filter((name) => !NO_METRICS.has(name))))];
  const measure = choose($("measure"), names, chosen.measure);
  $("choices").hidden = !names.length;
  numbers(found, rounds, measure);
  const line = (name) => rounds.filter((r) => r[name] !== undefined).map((r) => [r.wall_s, r[name], r.release]);
  const to = (unit) => (series) => series.map((s) => `${s.name} ${unit(s.points.at(-1)?.[1] ?? 0)} now`).join(", ");
  const untold = found.parent ? "The page of the top has the rounds." : "No round has ended yet.";
  chart("chart-metric", measure.replaceAll("_", " ") || "accuracy", [{ name: measure, kind: "one", unit: share, points: line(measure) }], to(share), untold);
  chart("chart-bytes", "bytes since the start:", [{ name: "up", kind: "one", unit: bytes, points: line("uplink_bytes") },
    { name: "down", kind: "two", unit: bytes, points: line("downlink_bytes") }], to(bytes), untold);
  const joule = (value) => amount(value, "J");
  chart("chart-joules", "joules of all nodes", [{ name: "energy", kind: "one", unit: joule, points: found.joules }], to(joule),
    found.energy ? "Noted while somebody looks." : "No node knows its energy.");
  tree(found);
  text($("at"), `as of ${new Date(found.at * 1000).toLocaleTimeString()}`);
}

function trouble(words) {
  text($("trouble"), words);
  $("trouble").hidden = !words;
}

let waiting = 0;

async function look() {
  let wait = 2;
  clearTimeout(waiting);
  if (document.hidden) return; // whoever comes back looks at once; nobody is asked meanwhile
  try {
    const answer = await fetch("overview", { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error((await answer.json()).error ?? `HTTP ${answer.status}`);
    last = await answer.json();
    heard = Date.now();
    wait = last.every_s;
    draw();
    trouble(last.refused ? `Nodes below cannot be asked: ${last.refused}` : "");
  } catch (error) {
    const since = heard ? `; what is below is ${Math.round((Date.now() - heard) / 1000)} s old` : "";
    trouble(`This node does not answer (${error.message})${since}.`);
  }
  document.body.dataset.looked = String(Number(document.body.dataset.looked ?? 0) + 1);
  clearTimeout(waiting); // of a look that came between
  waiting = setTimeout(look, 1000 * Math.max(1, wait));
}

for (const name of ["task", "measure"]) $(name).addEventListener("change", (event) => { chosen[name] = event.target.value; draw(); });
addEventListener("resize", draw);
document.addEventListener("visibilitychange", look);
look();
