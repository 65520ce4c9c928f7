// The first view: whether usage grows, which clients grow, fade or need attention.

import { appendText, createElement, formatNumber } from "./dom.js";
import { fetchJson } from "./requests.js";
import { sparkline } from "./sparkline.js";
import { clientLink } from "./state.js";

export const title = "Overview";

const formatValue = (value, unit) => (value === null ? "unknown" : `${formatNumber(value)}${unit === "percent" ? " %" : ""}`);

// A change in words, with an arrow: its direction does not depend on colour.
function createChange(amount, unit, base) {
  const [sign, word, state] = amount > 0 ? ["▲", "up", "up"] : amount < 0 ? ["▼", "down", "down"] : ["■", "no change", "same"];
  const line = createElement("p", undefined, { class: `change ${state}` });
  line.append(createElement("span", sign, { class: "sign", "aria-hidden": "true" }));
  return appendText(line, ` ${word}${amount ? ` ${formatNumber(Math.abs(amount))} ${unit}` : ""} on ${base}`);
}

function createTileChange(change, period) {
  if (change === null) return appendText(createElement("p", undefined, { class: "change unknown" }), `no figure for ${period}`);
  const { percent, points, base } = change;
  const line = createChange(percent ?? points, percent === undefined ? "points" : "%", period);
  line.title = `${period}: ${formatNumber(base)}`;
  return line;
}

function shiftMonth(month, by) {
  const [year, part] = month.split("-").map(Number);
  return new Date(Date.UTC(year, part - 1 + by, 15)).toISOString().slice(0, 7);
}

function createTile(tile, month) {
  const item = createElement("li", undefined, { class: "tile", "data-name": tile.name });
  const value = createElement("p", formatValue(tile.value, tile.unit), { class: "value" });
  if (tile.total !== null) value.append(createElement("span", ` of ${formatNumber(tile.total)}`, { class: "total" }));
  item.append(createElement("h2", tile.title), value);
  if (tile.series.length) {
    item.append(sparkline(tile.series, { title: tile.title, width: 140, height: 32 }));
    if (month) item.append(createTileChange(tile.change_month, shiftMonth(month, -1)), createTileChange(tile.change_year, shiftMonth(month, -12)));
  }
  if (tile.note) item.append(appendText(createElement("p", undefined, { class: "note" }), tile.note));
  return item;
}

function describeBasis({ month, quarter, as_of: asOf, partial }) {
  const parts = [month ? `Month: ${month}` : "No month is loaded", quarter ? `quarter: ${quarter}` : "no quarter is loaded"];
  if (asOf) parts.push(`snapshots as of ${asOf.slice(0, 10)}`);
  const partials = Object.entries(partial).map(([period, regions]) => `${period} without ${regions.join(", ")}`);
  if (partials.length) parts.push(`partial: ${partials.join("; ")}`);
  return parts.join(" · ");
}

function createList(name, heading, rows, describe, emptyText) {
  const section = createElement("section", undefined, { class: "short-list", "data-name": name });
  const list = createElement("ol");
  for (const row of rows) {
    const item = createElement("li");
    item.append(clientLink(row), createElement("span", ` ${row.region}`, { class: "quiet" }), describe(row));
    list.append(item);
  }
  section.append(createElement("h2", heading), rows.length ? list : createElement("p", emptyText, { class: "quiet" }));
  return section;
}

function describeGrowth({ change_quarter: percent, change_quarter_count: count }) {
  const line = createChange(count, "submissions", "last quarter");
  if (percent !== null) line.append(` (${formatNumber(Math.abs(percent))}\u00a0%)`);
  return line;
}

const describeAttention = ({ attention: { score, level, reasons } }) =>
  createElement("p", `${level}, ${score} of 100: ${reasons.join("; ")}`, { class: "change" });

export async function load(container, _route, params) {
  const overview = await fetchJson(`api/overview?${params}`);
  const tiles = createElement("ul", undefined, { class: "tiles" });
  tiles.append(...overview.tiles.map((tile) => createTile(tile, overview.month)));
  const lists = createElement("div", undefined, { class: "short-lists" });
  lists.append(
    createList("attention", "Need attention", overview.attention, describeAttention, "No client needs attention."),
    createList("growing", "Growing", overview.growing, describeGrowth, "No client grew on last quarter."),
    createList("fading", "Fading", overview.fading, describeGrowth, "No client fell on last quarter."),
  );
  container.append(appendText(createElement("p", undefined, { class: "basis" }), describeBasis(overview)), tiles, lists);
  return { status: overview.month ? `Overview of ${overview.month} updated` : "Overview updated: no month is loaded" };
}
