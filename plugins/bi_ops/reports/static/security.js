// A client's security settings: what is a risk, and what to change.

import { DataTable } from "./data_table.js";
import { createElement } from "./dom.js";

const COLUMNS = [
  { name: "title", title: "Setting", value: (row) => row.title },
  { name: "value", title: "Value", value: (row) => row.value },
  { name: "points", title: "Risk points", type: "number", value: (row) => row.points },
  { name: "advice", title: "What to change", type: "wide", value: (row) => row.advice },
];

function formatSetting(value) {
  if (value === null || value === undefined) return "unknown";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.join(", ") : "none";
  return String(value);
}

// Settings and other risks as the rows of one table.
function toRows({ settings, other }) {
  return [
    ...settings.map(({ title, value, risk, points, advice }) => ({ title, value: formatSetting(value), points: points ?? 0, advice: risk || value === null ? advice : "" })),
    ...other.map(({ text, points, advice }) => ({ title: text, value: "", points, advice })),
  ];
}

export function createSecurity(security, csvHref) {
  if (!security) return [createElement("p", "Not assessed: security is assessed for active clients that handle patient data.")];
  const { risk_level: level, risk_score: score, users, admins, unknown } = security;
  const summary = [`Risk ${level}, ${score} points`, `${users} users`, `${admins} administrators`];
  if (unknown.length) summary.push(`${unknown.length} settings unknown`);
  const table = new DataTable({ title: "Security settings", noun: "settings and risks", hasSearch: false, rows: toRows(security), columns: COLUMNS, sort: "-points", csvHref });
  return [createElement("p", `${summary.join(" · ")}.`), table.element];
}
