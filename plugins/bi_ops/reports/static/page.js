"use strict";

// Everything is fetched from beside this page, and whatever comes from MEG is written as text, never as HTML.
const form = document.querySelector("#filters");
const theme = () => (isDark() ? "dark" : "light");
let page = null;

function isDark() {
  try {
    const airflow = parent.document.documentElement;
    if (parent !== window) return airflow.classList.contains("dark");
  } catch { /* the page stands alone */ }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function query() {
  const params = new URLSearchParams();
  for (const select of form.querySelectorAll("select")) {
    for (const option of select.selectedOptions) params.append(select.name, option.value);
  }
  for (const name of ["first", "last"]) if (form[name].value) params.append(name, form[name].value);
  return params.toString();
}

// The server computes few reports at once, and says when to ask again. A longer wait means that MongoDB is down.
const MAX_REQUESTS = 4;
const MAX_RETRIES = 10;
const MAX_RETRY_SECONDS = 2;
let freeSlots = MAX_REQUESTS;
const waiting = [];

async function inSlot(action) {
  if (freeSlots) freeSlots -= 1;
  else await new Promise((resume) => waiting.push(resume));
  try {
    return await action();
  } finally {
    const resume = waiting.shift();
    if (resume) resume();
    else freeSlots += 1;
  }
}

async function fetchWithRetries(path) {
  for (let retries = 0; ; retries += 1) {
    const answer = await inSlot(() => fetch(path));
    const seconds = Number(answer.headers.get("Retry-After"));
    if (answer.status !== 503 || !seconds || seconds > MAX_RETRY_SECONDS || retries === MAX_RETRIES) return answer;
    await new Promise((resume) => setTimeout(resume, 1000 * seconds * (1 + Math.random())));
  }
}

async function get(path) {
  const answer = await fetchWithRetries(path);
  const body = await answer.json().catch(() => ({}));
  const said = Array.isArray(body.detail) ? body.detail.map((each) => each.msg).join("; ") : body.detail;
  if (!answer.ok) throw new Error(said || `the server answered ${answer.status}`);
  return body;
}

function showError(error) {
  const problem = document.querySelector("#problem");
  problem.textContent = error.message;
  problem.hidden = false;
}

// Airflow shows this page in a frame that may not navigate the window above it; Airflow's own document may.
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
  const link = element("a", text, { href: root + path, ...attributes });
  link.addEventListener("click", openInAirflow);
  return link;
}

const number = (value) => (value === null ? "" : value.toLocaleString());

const progress = ({ documents, of }) => `${number(documents)} of ${number(of)} documents`;

function problemBox({ subject, message, hint, command }) {
  const box = element("div", undefined, { class: "problem", role: "note" });
  box.append(element("strong", subject), `: ${message}. ${hint}`);
  if (command) box.append(element("pre", command));
  return box;
}

function freshnessRow(job) {
  const row = element("tr");
  row.append(element("td", job.job), element("td", job.region));
  const asOf = element("td");
  if (job.as_of) asOf.append(airflowLink(job.run_path, job.as_of.replace("T", " ").replace(/:\d\d(\.\d+)?\+.*/, "")));
  else asOf.append(element("span", "never published", { class: "never" }));
  if (job.as_of && job.overdue) asOf.append(element("span", " overdue", { class: "never" }));
  if (job.publishing) asOf.append(element("span", ` publishing, ${progress(job.publishing)}`, { class: "never" }));
  row.append(asOf, element("td", number(job.documents), { class: "number" }));
  row.append(element("td", job.published_at.slice(0, 16).replace("T", " ")));
  row.append(element("td", job.published_at ? `${job.seconds} s` : "", { class: "number" }));
  const strip = element("span", undefined, { class: "strip" });
  for (const { period, documents, run_path: run, publishing } of job.periods) {
    const missing = documents === null;
    let title = missing ? `${period}: missing; open the run that loads it` : `${period}: ${number(documents)} documents`;
    if (publishing) title = `${period}: publishing, ${progress(publishing)}`;
    const state = publishing ? "publishing" : missing ? "missing" : "";
    strip.append(airflowLink(run, undefined, { title, "aria-label": title, class: state }));
  }
  const cell = element("td");
  cell.append(strip);
  row.append(cell);
  return row;
}

async function drawFreshness() {
  const { jobs, problems } = await get("api/freshness");
  document.querySelector("#freshness .problems").replaceChildren(...problems.map(problemBox));
  document.querySelector("#freshness tbody").replaceChildren(...jobs.map(freshnessRow));
}

function fillTable(table, columns, rows) {
  const head = element("tr");
  head.append(...columns.map((column) => element("th", column.title)));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const line = element("tr");
    line.append(...columns.map(({ name, kind }) => kind === "text"
      ? element("td", row[name] ?? "")
      : element("td", number(row[name]), { class: "number" })));
    return line;
  }));
}

function empty(figure, report, why) {
  figure.view?.finalize();
  figure.view = figure.rows = null;
  const chart = figure.querySelector(".chart");
  chart.classList.add("empty");
  chart.textContent = why;
  fillTable(figure.querySelector("table"), report.columns, []);
}

async function draw(report, figure) {
  const requestId = figure.requestId = (figure.requestId ?? 0) + 1;
  const params = query();
  const found = await get(`api/reports/${report.name}?${params}`).catch((error) => ({ error }));
  if (requestId !== figure.requestId) return; // the filters have changed since
  if (found.error) return empty(figure, report, found.error.message);
  const notes = [];
  if (found.period) notes.push(`Period: ${found.period}.`);
  if (found.ignored.length) notes.push(`Filter not applicable: ${found.ignored.join(" and ")}.`);
  if (found.truncated) notes.push("Truncated to the first rows.");
  const note = figure.querySelector(".note");
  note.textContent = notes.join(" ");
  note.hidden = !notes.length;
  figure.querySelector("[data-do=csv]").href = `api/reports/${report.name}.csv?${params}`;
  fillTable(figure.querySelector("table"), report.columns, found.rows);
  if (!found.rows.length) return empty(figure, report, "Nothing to show for these filters.");
  figure.rows = found.rows;
  return show(report, figure);
}

async function show(report, figure) {
  const { requestId, rows } = figure;
  const chart = figure.querySelector(".chart");
  chart.classList.remove("empty");
  figure.view?.finalize();
  const spec = { width: "container", height: 260, autosize: { type: "fit", contains: "padding" }, ...report.spec, data: { values: rows } };
  const options = { actions: false, ast: true, renderer: "svg", config: page.themes[theme()], defaultStyle: false, tooltip: { disableDefaultStyle: true } };
  const { view } = await vegaEmbed(chart, spec, options);
  if (requestId === figure.requestId) figure.view = view;
}

async function save(figure, report, kind) {
  if (!figure.view) return;
  const link = element("a", undefined, { href: await figure.view.toImageURL(kind, 2), download: `${report.name}.${kind}` });
  link.click();
}

function makeFigure(report) {
  const figure = document.querySelector("#figure").content.cloneNode(true).querySelector("figure");
  figure.id = report.name;
  figure.querySelector(".chart").setAttribute("aria-label", `${report.title}; the table has its figures`);
  figure.querySelector("h3").textContent = report.title;
  figure.querySelector(".question").textContent = report.question;
  figure.querySelector("nav").addEventListener("click", ({ target }) => {
    const wanted = target.dataset.do;
    const rows = figure.querySelector(".rows");
    if (wanted === "table") rows.hidden = !rows.hidden;
    if (wanted === "png" || wanted === "svg") save(figure, report, wanted).catch(showError);
  });
  return figure;
}

function drawAll() {
  document.querySelector("#problem").hidden = true;
  for (const report of page.reports) draw(report, document.getElementById(report.name)).catch(showError);
}

function applyTheme() {
  document.documentElement.classList.toggle("dark", isDark());
  for (const report of page?.reports ?? []) {
    const figure = document.getElementById(report.name);
    if (figure?.rows) show(report, figure).catch(showError);
  }
}

function watchAirflowTheme() {
  applyTheme();
  try {
    if (parent !== window) new MutationObserver(applyTheme).observe(parent.document.documentElement, { attributeFilter: ["class"] });
  } catch { /* the page stands alone */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
}

function fillFilters(choices) {
  for (const select of form.querySelectorAll("select")) {
    select.replaceChildren(...choices[select.name].map((value) => element("option", value, { value })));
  }
  const start = new Date();
  start.setMonth(start.getMonth() - 24);
  form.first.value = form.first.defaultValue = start.toISOString().slice(0, 7);
  form.addEventListener("change", drawAll);
  form.addEventListener("reset", () => setTimeout(drawAll));
  form.addEventListener("submit", (event) => event.preventDefault());
}

async function main() {
  watchAirflowTheme();
  drawFreshness().catch(showError);
  page = await get("api/page");
  fillFilters(page.choices);
  const sections = new Map();
  for (const report of page.reports) {
    if (!sections.has(report.section)) {
      const grid = element("div", undefined, { class: "grid" });
      document.querySelector("#reports").append(element("h2", report.section), grid);
      sections.set(report.section, grid);
    }
    sections.get(report.section).append(makeFigure(report));
  }
  drawAll();
  const wanted = page.reports.find(({ name, collection }) => [name, collection].includes(location.hash.slice(1)));
  if (wanted) document.getElementById(wanted.name).scrollIntoView();
}

main().catch(showError);
