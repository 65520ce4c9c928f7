// The view of what is published and what is missing.

import { airflowLink, createElement, formatNumber } from "./dom.js";
import { fetchJson } from "./requests.js";

const formatInstant = (text) => text.replace("T", " ").replace(/:\d\d(\.\d+)?\+.*/, "");

const formatProgress = ({ documents, total }) => `${formatNumber(documents)} of ${formatNumber(total)} documents`;

function createProblem({ subject, message, hint, command }) {
  const box = createElement("div", undefined, { class: "problem", role: "note" });
  box.append(createElement("strong", subject), `: ${message}. ${hint}`);
  if (command) box.append(createElement("pre", command));
  return box;
}

function createFreshnessRow(job) {
  const row = createElement("tr");
  row.append(createElement("td", job.job), createElement("td", job.region));
  const asOf = createElement("td");
  if (job.as_of) asOf.append(airflowLink(job.run_path, formatInstant(job.as_of)));
  else asOf.append(createElement("span", "never published", { class: "never" }));
  if (job.as_of && job.overdue) asOf.append(createElement("span", " overdue", { class: "never" }));
  if (job.publishing) asOf.append(createElement("span", ` publishing, ${formatProgress(job.publishing)}`, { class: "never" }));
  row.append(asOf, createElement("td", formatNumber(job.documents), { class: "number" }));
  row.append(createElement("td", formatInstant(job.published_at)));
  row.append(createElement("td", job.published_at ? `${job.seconds} s` : "", { class: "number" }));
  const strip = createElement("span", undefined, { class: "strip" });
  for (const { period, documents, run_path: runPath, publishing } of job.periods) {
    const missing = documents === null;
    let title = missing ? `${period}: missing; open the run that loads it` : `${period}: ${formatNumber(documents)} documents`;
    if (publishing) title = `${period}: publishing, ${formatProgress(publishing)}`;
    const state = publishing ? "publishing" : missing ? "missing" : "";
    strip.append(airflowLink(runPath, undefined, { title, "aria-label": title, class: state }));
  }
  const cell = createElement("td");
  cell.append(strip);
  row.append(cell);
  return row;
}

function createLoadRow(load) {
  const row = createElement("tr");
  row.append(createElement("td", formatInstant(load.published_at)), createElement("td", load.job), createElement("td", load.region));
  const asOf = createElement("td", undefined, { "data-label": "As of" });
  asOf.append(airflowLink(load.run_path, formatInstant(load.as_of)));
  const trigger = createElement("td", load.trigger, { "data-label": "Started by" });
  if (load.forced) trigger.append(createElement("span", ", forced", { class: "never" }));
  row.append(asOf, trigger);
  row.append(createElement("td", formatNumber(load.documents), { class: "number", "data-label": "Documents" }));
  row.append(createElement("td", formatNumber(load.previous_documents), { class: "number", "data-label": "Before" }));
  return row;
}

export async function loadFreshness() {
  const { jobs, problems, loads } = await fetchJson("api/freshness");
  document.querySelector("#freshness .problems").replaceChildren(...problems.map(createProblem));
  document.querySelector("#freshness tbody").replaceChildren(...jobs.map(createFreshnessRow));
  document.querySelector("#loads tbody").replaceChildren(...loads.map(createLoadRow));
}
