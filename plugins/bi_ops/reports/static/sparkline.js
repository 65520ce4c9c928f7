// A line of small size for tables and tiles, drawn as SVG. It starts at zero, so that a flat line means little change.

import { formatNumber } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const MARGIN = 4;

function svgElement(name, attributes, text) {
  const node = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const isPartial = ({ partial }) => (Array.isArray(partial) ? partial.length > 0 : Boolean(partial));

// The series in words: what a reader of the line sees, for those who do not see it.
function describeSeries(series, title) {
  const known = series.filter(({ value }) => value !== null);
  if (!known.length) return `${title}: no data`;
  const describe = (word, { period, value }) => `${word} ${formatNumber(value)} in ${period}`;
  const byValue = [...known].sort((left, right) => left.value - right.value);
  const parts = [describe("first", known[0]), describe("last", known.at(-1)), describe("lowest", byValue[0]), describe("highest", byValue.at(-1))];
  const missing = series.filter(({ value }) => value === null).map(({ period }) => period);
  if (missing.length) parts.push(`not loaded: ${missing.join(" ")}`);
  const partial = series.filter(isPartial).map(({ period }) => period);
  if (partial.length) parts.push(`partial: ${partial.join(" ")}`);
  return `${title}: ${parts.join(", ")}`;
}

// One path with an interruption at each unknown value; a value between two unknown ones is a dot.
function linePath(points) {
  return points.map((point, index) => (point ? `${points[index - 1] ? "L" : "M"}${point.x},${point.y}${points[index + 1] ? "" : "h0"}` : "")).join("");
}

// `series` is [{period, value or null, partial}] with `partial` a list of regions or a truth value.
export function sparkline(series, { title, width = 112, height = 28 }) {
  const description = describeSeries(series, title);
  const svg = svgElement("svg", { class: "sparkline", role: "img", "aria-label": description, viewBox: `0 0 ${width} ${height}`, width, height });
  svg.append(svgElement("title", {}, description));
  const highest = Math.max(1, ...series.map(({ value }) => value ?? 0));
  const step = (width - 2 * MARGIN) / Math.max(1, series.length - 1);
  const round = (value) => Math.round(10 * value) / 10;
  const points = series.map(({ value }, index) => (value === null ? null : {
    x: round(MARGIN + index * step),
    y: round(height - MARGIN - (value / highest) * (height - 2 * MARGIN)),
  }));
  svg.append(svgElement("path", { d: `M${MARGIN},${height - MARGIN / 2}H${width - MARGIN}`, class: "base" }));
  svg.append(svgElement("path", { d: linePath(points), class: "line" }));
  const last = points.findLastIndex(Boolean);
  points.forEach((point, index) => {
    if (!point || (index !== last && !isPartial(series[index]))) return;
    svg.append(svgElement("circle", { cx: point.x, cy: point.y, r: 2.5, class: isPartial(series[index]) ? "partial" : "last" }));
  });
  return svg;
}
