// What the list of clients and the view of one show of a client in the same way.

import { createElement } from "./dom.js";

export function createAttention({ score, level, reasons }) {
  if (!reasons.length) return createElement("span", "none", { class: "quiet" });
  const title = { "at risk": "At risk", watch: "Watch" }[level] ?? "Low";
  const text = createElement("span", undefined, { class: "attention" });
  text.append(createElement("strong", `${title}, ${score}`, { class: `badge ${level.replace(" ", "-")}` }), ` ${reasons.join("; ")}`);
  return text;
}

export function createRisk({ risk_level: level, risk_score: score }) {
  if (!level) return createElement("span", "not assessed", { class: "quiet" });
  return createElement("span", `${level}, ${score}`, { class: `risk ${level}` });
}
