"use strict";
// Draws one dashboard of ../dashboards as Grafana would in outline: its grid, its panels, its questions, its units.

const COLOURS = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#fade2a", "#56a64b", "#c4162a", "#96d98d", "#ca95e5"];
const asked = new URLSearchParams(location.search);
const span = Number(asked.get("span") ?? 3600), rateSpan = asked.get("rate") ?? "1m";
const now = Number(asked.get("now") ?? Date.now() / 1000), step = Math.max(1, Math.round(span / 240));

function make(tag, kind, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children);
  return element;
}

function scaled(value, unit, base = 1000) {
  if (!value) return `0 ${unit}`;
  const prefixes = base === 1024 ? ["", "Ki", "Mi", "Gi", "Ti"] : ["", "k", "M", "G", "T"];
  let power = 0, small = Math.abs(value);
  for (; small >= base && power < 4; power++) small /= base;
  if (small < 0.01 && !power) return value < 1e-6 * 0.9995 ? `${(value * 1e9).toPrecision(3)} n${unit}` : value < 0.9995e-3 ? `${(value * 1e6).toPrecision(3)} µ${unit}` : `${(value * 1e3).toPrecision(3)} m${unit}`;
  return `${Number((value / base ** power).toPrecision(3))} ${prefixes[power]}${unit}`;
}

const UNITS = {
  watt: (v) => scaled(v, "W"), joule: (v) => scaled(v, "J"), bytes: (v) => scaled(v, "B", 1024), Bps: (v) => scaled(v, "B/s"),
  s: (v) => (v >= 60 ? `${Number((v / 60).toPrecision(3))} min` : scaled(v, "s")), percentunit: (v) => `${Number((100 * v).toPrecision(3))} %`,
  reqps: (v) => `${Number(v.toPrecision(3))} /s`, celsius: (v) => `${Number(v.toPrecision(3))} °C`, none: (v) => (Math.abs(v) < 1e-9 ? "0" : String(Number(v.toPrecision(3)))),
};

function written(panel) {
  const unit = panel.fieldConfig.defaults.unit;
  return UNITS[unit] ?? ((v) => `${Number(v.toPrecision(3))} ${unit}`);
}

function named(target, metric) {
  return target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? "").trim() || Object.values(metric).join(" ") || target.expr;
}

async function answers(panel) {
  const all = [];
  for (const target of panel.targets) {
    const expression = target.expr.replaceAll("$__rate_interval", rateSpan).replaceAll("$site", ".*").replaceAll("$device", ".*");
    const query = new URLSearchParams({ query: expression, ...(target.instant ? { time: now } : { start: now - span, end: now, step }) });
    const answer = await fetch(`api/v1/${target.instant ? "query" : "query_range"}?${query}`);
    const document = await answer.json();
    if (document.status !== "success") throw new Error(document.error ?? answer.status);
    all.push(...document.data.result.map((found) => ({ name: named(target, found.metric), target, ...found })));
  }
  return all;
}

function lines(panel, found, body) {
  const times = Array.from({ length: Math.floor(span / step) + 1 }, (_, at) => now - span + at * step);
  const place = (time) => Math.round((time - times[0]) / step);
  const rows = found.map((series) => {
    const row = new Array(times.length).fill(null);
    for (const [time, value] of series.values) if (value !== "NaN") row[place(time)] = Number(value);
    return row;
  });
  const custom = panel.fieldConfig.defaults.custom, stacked = custom.stacking.mode === "normal";
  const shown = stacked ? rows.map((_, upTo) => times.map((_, at) => rows.slice(0, upTo + 1).reduce((sum, row) => sum + (row[at] ?? 0), 0))) : rows;
  const say = written(panel), axis = { stroke: "#9d9da8", grid: { stroke: "#25272d", width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
  const options = {
    width: body.clientWidth, height: Math.max(60, body.clientHeight - 18 * Math.min(2, Math.ceil(found.length / 4)) - 4),
    cursor: { show: false }, legend: { live: false }, scales: { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] } },
    axes: [axis, { ...axis, size: 64, values: (_, ticks) => ticks.map(say) }],
    series: [{}, ...found.map((series, at) => {
      const colour = COLOURS[at % COLOURS.length];
      return { label: series.name, stroke: colour, width: 1.5, points: { show: false }, spanGaps: false, ...(stacked ? {} : { fill: `${colour}10` }) };
    })],
    bands: stacked ? rows.slice(1).map((_, at) => ({ series: [at + 2, at + 1], fill: `${COLOURS[(at + 1) % COLOURS.length]}50` })) : [],
  };
  if (stacked && found.length) options.series[1].fill = `${COLOURS[0]}50`;
  new uPlot(options, [times, ...shown], body);
}

function numbers(panel, found, body) {
  const say = written(panel), none = panel.fieldConfig.defaults.noValue;
  const big = found.map((f) => make("div", "", say(Number(f.value[1])), ...(found.length > 1 ? [make("span", "", f.name)] : [])));
  body.append(make("div", "big", ...(big.length ? big : [none])));
}

function bars(panel, found, body) {
  const say = written(panel), most = Math.max(...found.map((f) => Number(f.value[1])), 1e-9);
  const grid = make("div", "bars");
  for (const one of found.sort((a, b) => b.value[1] - a.value[1])) {
    const bar = make("i");
    bar.style.width = `${(100 * one.value[1]) / most}%`;
    grid.append(make("span", "", one.name), bar, make("b", "", say(Number(one.value[1]))));
  }
  body.append(grid);
}

function table(panel, found, body) {
  const say = written(panel), hidden = new Set(["__name__", "instance", "job"]);
  const labels = [...new Set(found.flatMap((f) => Object.keys(f.metric)))].filter((label) => !hidden.has(label));
  const head = make("tr", "", ...[...labels, "Value"].map((label) => make("th", "", label)));
  const rows = found.map((f) => make("tr", "", ...labels.map((label) => make("td", "", f.metric[label] ?? "")), make("td", "", say(Number(f.value[1])))));
  body.append(make("table", "", head, ...rows));
}

function heat(panel, found, body) {
  const buckets = found.map((f) => ({ bound: f.metric.le === "+Inf" ? Infinity : Number(f.metric.le), at: new Map(f.values.map(([t, v]) => [Math.round((t - now + span) / step), Number(v)])) }));
  buckets.sort((a, b) => a.bound - b.bound);
  const columns = Math.floor(span / step) + 1, canvas = make("canvas"), wide = body.clientWidth, high = body.clientHeight, left = 64, foot = 18;
  canvas.width = wide; canvas.height = high;
  const draw = canvas.getContext("2d"), rows = buckets.length || 1, tall = (high - foot) / rows, broad = (wide - left) / columns;
  const cells = buckets.map((b, row) => Array.from({ length: columns }, (_, at) => Math.max(0, (b.at.get(at) ?? 0) - (row ? buckets[row - 1].at.get(at) ?? 0 : 0))));
  const most = Math.max(...cells.flat(), 1e-9);
  draw.font = "11px sans-serif"; draw.textAlign = "right";
  buckets.forEach((bucket, row) => {
    const y = high - foot - (row + 1) * tall;
    draw.fillStyle = "#9d9da8";
    draw.fillText(Number.isFinite(bucket.bound) ? scaled(bucket.bound, "s") : "more", left - 6, y + tall - 2);
    cells[row].forEach((value, at) => {
      if (!value) return;
      draw.fillStyle = `rgba(255, 120, 10, ${0.15 + 0.85 * (value / most)})`;
      draw.fillRect(left + at * broad, y + 1, Math.max(1, broad - 0.5), tall - 1);
    });
  });
  body.append(canvas);
}

const DRAW = { timeseries: lines, stat: numbers, bargauge: bars, table, heatmap: heat };

async function main() {
  const names = await (await fetch("dashboards")).json(), name = asked.get("dashboard") ?? names[0];
  const board = await (await fetch(`dashboards/${encodeURIComponent(name)}`)).json();
  document.querySelector("h1").textContent = board.title;
  document.querySelector("nav").append(...names.map((other) => {
    const link = make("a", "", other.replace(".json", ""));
    link.href = `?${new URLSearchParams({ ...Object.fromEntries(asked), dashboard: other })}`;
    return link;
  }));
  const drawn = board.panels.map(async (panel) => {
    const { x, y, w, h } = panel.gridPos, body = make("div", "body"), section = make("section", "", make("h2", "", panel.title), body);
    section.style.gridArea = `${y + 1} / ${x + 1} / span ${h} / span ${w}`;
    section.title = panel.description;
    document.querySelector("main").append(section);
    try {
      const found = await answers(panel);
      const quiet = panel.fieldConfig.defaults.noValue === "0";
      section.dataset.found = found.length;
      if (!found.length && panel.type !== "stat") body.append(make("p", "empty", quiet ? "nothing, and that is good" : "no data"));
      else DRAW[panel.type](panel, found, body);
    } catch (error) {
      section.dataset.wrong = error.message;
      body.append(make("p", "wrong", error.message));
    }
  });
  await Promise.all(drawn);
  document.body.dataset.drawn = String(drawn.length);
}

main();
