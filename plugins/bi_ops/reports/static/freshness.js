// The view of what is published and what is missing: a matrix of jobs, regions and periods, problems, and the last loads.

import { airflowLink, createElement, formatNumber } from "./dom.js";
import { fetchJson } from "./requests.js";
import { hrefTo } from "./state.js";

export const title = "Freshness";

const COLUMNS = ["Job and region", "Latest", "As of (UTC)", "Documents", "Published (UTC)", "Duration"];
const LOAD_COLUMNS = ["Published (UTC)", "Job", "Region", "As of", "Started by", "Documents", "Before"];
const STATES = [
  ["", "published: opens its run"],
  ["missing", "missing: opens the DAG, to trigger it"],
  ["publishing", "being published: opens its run"],
];

const formatInstant = (text) => text.replace("T", " ").replace(/:\d\d(\.\d+)?\+.*/, "");

const formatProgress = ({ documents, total }) => `${formatNumber(documents)} of ${formatNumber(total)} documents`;

const formatParams = (params) => Object.entries(params).map(([name, value]) => `${name}: ${[value].flat().join(", ")}`).join("; ");

function createProblem({ subject, message, hint, command }) {
  const box = createElement("div", undefined, { class: "problem", role: "note" });
  box.append(createElement("strong", subject), `: ${message}. ${hint}`);
  if (command) box.append(createElement("pre", command, { tabindex: "0" }));
  return box;
}

function createCell(path, text, state) {
  return airflowLink(path, state === "missing" ? "!" : undefined, { title: text, "aria-label": text, class: `cell ${state}` });
}

function createPeriodCell(job, { period, documents, run_path: runPath, trigger_path: triggerPath, publishing }) {
  const name = `${job.job}, ${job.region}, ${period}`;
  if (publishing) return createCell(runPath, `${name}: publishing, ${formatProgress(publishing)}`, "publishing");
  if (documents === null) return createCell(triggerPath || runPath, `${name}: missing; open the DAG to trigger it`, "missing");
  return createCell(runPath, `${name}: ${formatNumber(documents)} documents`, "");
}

function createLatestCell(job) {
  const name = `${job.job}, ${job.region}`;
  if (job.publishing) return createCell(job.publishing.run_path, `${name}: publishing, ${formatProgress(job.publishing)}`, "publishing");
  if (job.overdue) return createCell(job.trigger_path || job.run_path, `${name}: overdue; open the DAG to trigger it`, "missing");
  return createCell(job.run_path, `${name}: published`, "");
}

function createAsOf(job) {
  const asOf = createElement("td");
  if (job.as_of) asOf.append(airflowLink(job.run_path, formatInstant(job.as_of)));
  else asOf.append(createElement("span", "never published", { class: "never" }));
  if (job.as_of && job.overdue) asOf.append(createElement("span", " overdue", { class: "never" }));
  if (job.publishing) asOf.append(createElement("span", ` publishing, ${formatProgress(job.publishing)}`, { class: "never" }));
  return asOf;
}

function createRow(job, months) {
  const row = createElement("tr");
  const name = createElement("th", job.job, { scope: "row" });
  name.append(createElement("strong", ` ${job.region}`));
  const latest = createElement("td");
  latest.append(createLatestCell(job));
  row.append(name, latest, createAsOf(job), createElement("td", formatNumber(job.documents), { class: "number" }));
  row.append(createElement("td", formatInstant(job.published_at)));
  row.append(createElement("td", job.published_at ? `${job.seconds} s` : "", { class: "number" }));
  if (!months.length) return row;
  if (!job.periods.length) {
    row.append(createElement("td", "replaced as a whole", { class: "quiet", colspan: months.length }));
    return row;
  }
  const periods = new Map(job.periods.map((period) => [period.period, period]));
  row.append(...months.map((month) => {
    const cell = createElement("td", undefined, { class: "period" });
    if (periods.has(month)) cell.append(createPeriodCell(job, periods.get(month)));
    return cell;
  }));
  return row;
}

function createHeaders(months) {
  const [years, names] = [createElement("tr"), createElement("tr")];
  years.append(...COLUMNS.map((name) => createElement("th", name, { rowspan: 2, scope: "col" })));
  for (const [year, group] of Map.groupBy(months, (month) => month.slice(0, 4))) {
    years.append(createElement("th", year, { colspan: group.length, scope: "colgroup" }));
    names.append(...group.map((month) => createElement("th", month.slice(5), { scope: "col", "aria-label": month })));
  }
  return [years, names];
}

function createMatrix(jobs) {
  const months = [...new Set(jobs.flatMap(({ periods }) => periods.map(({ period }) => period)))].sort();
  const table = createElement("table", undefined, { class: "matrix" });
  const [head, body] = [createElement("thead"), createElement("tbody")];
  head.append(...createHeaders(months));
  body.append(...jobs.map((job) => createRow(job, months)));
  table.append(createElement("caption", "Each job and region, with its periods", { class: "offscreen" }), head, body);
  return createScrollBox(table, "Freshness of each job and region");
}

// A box that scrolls can be reached by keyboard.
function createScrollBox(table, label) {
  const box = createElement("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": label });
  box.append(table);
  return box;
}

function createLegend() {
  const legend = createElement("ul", undefined, { class: "legend", "aria-label": "Legend" });
  for (const [state, text] of STATES) {
    const item = createElement("li");
    item.append(createElement("span", state === "missing" ? "!" : undefined, { class: `cell ${state}`, "aria-hidden": "true" }), ` ${text}`);
    legend.append(item);
  }
  return legend;
}

function listGaps(jobs) {
  return jobs.flatMap((job) => {
    const gaps = job.periods.filter(({ documents, publishing }) => documents === null && !publishing);
    if (gaps.length) return gaps.map((gap) => ({ ...gap, name: `${job.job}, ${job.region}, ${gap.period}` }));
    return job.overdue && job.trigger_path ? [{ ...job, name: `${job.job}, ${job.region}` }] : [];
  });
}

function createGaps(jobs) {
  const gaps = listGaps(jobs);
  const details = createElement("details", undefined, { class: "gaps" });
  details.hidden = !gaps.length;
  const list = createElement("ul");
  list.append(...gaps.map(({ name, run_path: runPath, trigger_path: triggerPath, params }) => {
    const item = createElement("li", `${name}: `);
    if (triggerPath) item.append(airflowLink(triggerPath, "trigger the DAG"), ` with ${formatParams(params)}; `);
    item.append("or clear a failed run of the ", airflowLink(runPath, "runs that were due"));
    return item;
  }));
  details.append(createElement("summary", `Missing: ${gaps.length}, and how to load them`), list);
  return details;
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

function createLoads(loads) {
  const section = createElement("section", undefined, { id: "loads" });
  const details = createElement("details");
  const table = createElement("table", undefined, { class: "loads" });
  const [head, header, body] = [createElement("thead"), createElement("tr"), createElement("tbody")];
  header.append(...LOAD_COLUMNS.map((name) => createElement("th", name, { scope: "col" })));
  head.append(header);
  body.append(...loads.map(createLoadRow));
  table.append(head, body);
  details.append(createElement("summary", "Loads: the last of each slice, newest first"), createScrollBox(table, "Loads"));
  section.append(details);
  return section;
}

function showVerdict({ verdict }) {
  const link = createElement("a", `${verdict.ok ? "✓" : "!"} ${verdict.text}`, { href: hrefTo("freshness"), class: verdict.ok ? "good" : "never", title: verdict.text });
  document.querySelector("#verdict").replaceChildren(link);
}

// Keeps the filters in the verdict's link, which stays while they change.
export function linkVerdict() {
  document.querySelector("#verdict a")?.setAttribute("href", hrefTo("freshness"));
}

// Says in one line, above every view, whether all that is due is published.
export async function loadVerdict() {
  showVerdict(await fetchJson("api/freshness"));
}

// Of the filters, only the region applies: what is published has no other.
export async function load(container, { filters }) {
  const freshness = await fetchJson("api/freshness");
  const regions = filters.getAll("region");
  const isChosen = ({ region }) => !regions.length || regions.includes(region);
  const [jobs, loads] = [freshness.jobs.filter(isChosen), freshness.loads.filter(isChosen)];
  showVerdict(freshness);
  const section = createElement("section", undefined, { id: "freshness", "aria-label": "Freshness" });
  const problemBox = createElement("div", undefined, { class: "problems" });
  problemBox.append(...freshness.problems.map(createProblem));
  const matrix = createMatrix(jobs);
  section.append(createLegend(), matrix, createGaps(jobs), problemBox);
  container.append(section, createLoads(loads));
  matrix.scrollLeft = matrix.scrollWidth; // the latest periods are of the most interest
  return { status: freshness.verdict.text };
}
