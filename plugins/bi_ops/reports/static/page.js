"use strict";

// Draws the reports page. All requests go to this server, and all values from MEG are inserted as text, never as HTML.
const form = document.querySelector("#filters");
const themeName = () => (isDark() ? "dark" : "light");
let page = null;

function isDark() {
  try {
    const airflow = parent.document.documentElement;
    if (parent !== window) return airflow.classList.contains("dark");
  } catch { /* the page is not in a frame of Airflow */ }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function createElement(name, text, attributes = {}) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function filterParams() {
  const params = new URLSearchParams();
  for (const select of form.querySelectorAll("select")) {
    for (const option of select.selectedOptions) params.append(select.name, option.value);
  }
  for (const name of ["from_month", "to_month"]) if (form[name].value) params.append(name, form[name].value);
  return params.toString();
}

// The server computes few reports at once and answers 503 with Retry-After. A long Retry-After means MongoDB is down.
const MAX_REQUESTS = 4;
const MAX_RETRIES = 10;
const MAX_RETRY_SECONDS = 2;
let freeSlots = MAX_REQUESTS;
const slotQueue = [];

async function withSlot(action) {
  if (freeSlots) freeSlots -= 1;
  else await new Promise((resume) => slotQueue.push(resume));
  try {
    return await action();
  } finally {
    const resume = slotQueue.shift();
    if (resume) resume();
    else freeSlots += 1;
  }
}

async function fetchWithRetries(path) {
  for (let retries = 0; ; retries += 1) {
    const response = await withSlot(() => fetch(path));
    const seconds = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !seconds || seconds > MAX_RETRY_SECONDS || retries === MAX_RETRIES) return response;
    await new Promise((resume) => setTimeout(resume, 1000 * seconds * (1 + Math.random())));
  }
}

async function fetchJson(path) {
  const response = await fetchWithRetries(path);
  const body = await response.json().catch(() => ({}));
  const message = Array.isArray(body.detail) ? body.detail.map((error) => error.msg).join("; ") : body.detail;
  if (!response.ok) throw new Error(message || `The server answered with HTTP status ${response.status}.`);
  return body;
}

function showError(error) {
  const problem = document.querySelector("#problem");
  problem.textContent = error.message;
  problem.hidden = false;
}

// Airflow shows this page in a frame that may not navigate the parent window, so the click happens in the parent.
function openInAirflow(event) {
  if (parent === window || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const link = parent.document.createElement("a");
  link.href = event.currentTarget.href;
  parent.document.body.append(link);
  link.click();
  link.remove();
}

function airflowLink(path, text, attributes = {}) {
  const root = location.pathname.replace(/\/[^/]*\/[^/]*$/, "");
  const link = createElement("a", text, { href: root + path, ...attributes });
  link.addEventListener("click", openInAirflow);
  return link;
}

const formatInstant = (text) => text.replace("T", " ").replace(/:\d\d(\.\d+)?\+.*/, "");

const formatNumber = (value) => (value === null ? "" : value.toLocaleString());

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

async function loadFreshness() {
  const { jobs, problems, loads } = await fetchJson("api/freshness");
  document.querySelector("#freshness .problems").replaceChildren(...problems.map(createProblem));
  document.querySelector("#freshness tbody").replaceChildren(...jobs.map(createFreshnessRow));
  document.querySelector("#loads tbody").replaceChildren(...loads.map(createLoadRow));
}

function fillTable(table, columns, rows) {
  const header = createElement("tr");
  header.append(...columns.map((column) => createElement("th", column.title)));
  table.tHead.replaceChildren(header);
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const line = createElement("tr");
    line.append(...columns.map(({ name, type }) => type === "text"
      ? createElement("td", row[name] ?? "")
      : createElement("td", formatNumber(row[name]), { class: "number" })));
    return line;
  }));
}

function showMessage(figure, report, message) {
  figure.view?.finalize();
  figure.view = figure.rows = null;
  const chart = figure.querySelector(".chart");
  chart.classList.add("empty");
  chart.textContent = message;
  fillTable(figure.querySelector("table"), report.columns, []);
}

async function loadReport(report, figure) {
  const requestId = figure.requestId = (figure.requestId ?? 0) + 1;
  const params = filterParams();
  const result = await fetchJson(`api/reports/${report.name}?${params}`).catch((error) => ({ error }));
  if (requestId !== figure.requestId) return; // the filters have changed since
  if (result.error) return showMessage(figure, report, result.error.message);
  const notes = [];
  if (result.period) notes.push(`Period: ${result.period}.`);
  if (result.ignored.length) notes.push(`Filter not applicable: ${result.ignored.join(" and ")}.`);
  if (result.truncated) notes.push("Truncated to the first rows.");
  const note = figure.querySelector(".note");
  note.textContent = notes.join(" ");
  note.hidden = !notes.length;
  figure.querySelector("[data-action=csv]").href = `api/reports/${report.name}.csv?${params}`;
  fillTable(figure.querySelector("table"), report.columns, result.rows);
  if (!result.rows.length) return showMessage(figure, report, "Nothing to show for these filters.");
  figure.rows = result.rows;
  return drawChart(report, figure);
}

async function drawChart(report, figure) {
  const { requestId, rows } = figure;
  const chart = figure.querySelector(".chart");
  chart.classList.remove("empty");
  figure.view?.finalize();
  const spec = { width: "container", height: 260, autosize: { type: "fit", contains: "padding" }, ...report.spec, data: { values: rows } };
  const options = { actions: false, ast: true, renderer: "svg", config: page.themes[themeName()], defaultStyle: false, tooltip: { disableDefaultStyle: true } };
  const { view } = await vegaEmbed(chart, spec, options);
  if (requestId === figure.requestId) figure.view = view;
}

async function saveImage(figure, report, format) {
  if (!figure.view) return;
  const link = createElement("a", undefined, { href: await figure.view.toImageURL(format, 2), download: `${report.name}.${format}` });
  link.click();
}

function createFigure(report) {
  const figure = document.querySelector("#figure").content.cloneNode(true).querySelector("figure");
  figure.id = report.name;
  figure.querySelector(".chart").setAttribute("aria-label", `${report.title}; the table has its figures`);
  figure.querySelector("h3").textContent = report.title;
  figure.querySelector(".question").textContent = report.question;
  figure.querySelector("nav").addEventListener("click", ({ target }) => {
    const { action } = target.dataset;
    const rows = figure.querySelector(".rows");
    if (action === "table") rows.hidden = !rows.hidden;
    if (action === "png" || action === "svg") saveImage(figure, report, action).catch(showError);
  });
  return figure;
}

function loadReports() {
  document.querySelector("#problem").hidden = true;
  for (const report of page.reports) loadReport(report, document.getElementById(report.name)).catch(showError);
}

function applyTheme() {
  document.documentElement.classList.toggle("dark", isDark());
  for (const report of page?.reports ?? []) {
    const figure = document.getElementById(report.name);
    if (figure?.rows) drawChart(report, figure).catch(showError);
  }
}

function watchAirflowTheme() {
  applyTheme();
  try {
    if (parent !== window) new MutationObserver(applyTheme).observe(parent.document.documentElement, { attributeFilter: ["class"] });
  } catch { /* the page is not in a frame of Airflow */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
}

function fillFilters(options) {
  for (const select of form.querySelectorAll("select")) {
    select.replaceChildren(...options[select.name].map((value) => createElement("option", value, { value })));
  }
  const start = new Date();
  start.setMonth(start.getMonth() - 24);
  form.from_month.value = form.from_month.defaultValue = start.toISOString().slice(0, 7);
  form.addEventListener("change", loadReports);
  form.addEventListener("reset", () => setTimeout(loadReports));
  form.addEventListener("submit", (event) => event.preventDefault());
}

async function main() {
  watchAirflowTheme();
  loadFreshness().catch(showError);
  page = await fetchJson("api/page");
  fillFilters(page.filter_options);
  const sections = new Map();
  for (const report of page.reports) {
    if (!sections.has(report.section)) {
      const grid = createElement("div", undefined, { class: "grid" });
      document.querySelector("#reports").append(createElement("h2", report.section), grid);
      sections.set(report.section, grid);
    }
    sections.get(report.section).append(createFigure(report));
  }
  loadReports();
  const linked = page.reports.find(({ name, collection }) => [name, collection].includes(location.hash.slice(1)));
  if (linked) document.getElementById(linked.name).scrollIntoView();
}

main().catch(showError);
