// Figures and their changes as text. An unknown figure is a dash, never zero.

import { createElement, formatNumber } from "./dom.js";

const UNKNOWN = "–";
export const isUnknown = (value) => value === null || value === undefined || value === "";

export const formatCount = (value) => (isUnknown(value) ? UNKNOWN : formatNumber(value));

export const formatPercent = (value) => (isUnknown(value) ? UNKNOWN : `${formatNumber(value)} %`);

export const formatPart = (part, whole) => (isUnknown(part) || isUnknown(whole) ? UNKNOWN : `${formatNumber(part)} of ${formatNumber(whole)}`);

export const formatDate = (text) => (text ? text.slice(0, 10) : UNKNOWN);

// A name of a field: "audit_submitters" becomes "Audit submitters".
export const formatName = (name) => `${name.charAt(0).toUpperCase()}${name.slice(1).replaceAll("_", " ")}`;

// A change with sign and arrow, so that its direction does not depend on colour.
export function createChange(value, unit = " %") {
  if (isUnknown(value)) return createElement("span", UNKNOWN, { class: "quiet" });
  const [direction, sign] = value > 0 ? ["up", "▲ +"] : value < 0 ? ["down", "▼ −"] : ["same", ""];
  return createElement("span", `${sign}${formatNumber(Math.abs(value))}${unit}`, { class: `change ${direction}` });
}

export const listWithout = (regions) => `without ${regions.join(", ")}`;

// The partial periods as a sentence; `partial` is {period: [regions that lack it]}.
export function describePartial(partial) {
  const periods = Object.entries(partial).map(([period, regions]) => `${period} ${listWithout(regions)}`);
  return periods.length ? `* Partial: ${periods.join("; ")}.` : "";
}

// The periods of a series that are not loaded, as a sentence.
export function describeGaps(series) {
  const missing = series.filter(({ isLoaded }) => !isLoaded).map(({ period }) => period);
  return missing.length ? `Not loaded: ${missing.join(", ")}.` : "";
}
