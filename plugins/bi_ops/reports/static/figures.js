// One figure for each report: chart, table, notes and downloads.

import { appendText, createElement, formatNumber, showError, themeName } from "./dom.js";
import { describePartial, listWithout } from "./format.js";
import { saveImage } from "./images.js";
import { fetchJson } from "./requests.js";
import { embed } from "./vega_embed.js";

const PERIOD_COLUMNS = ["month", "quarter", "period"];
const SIZE = { width: "container", height: 260, autosize: { type: "fit", contains: "padding" } };
const EMBED_OPTIONS = {
  actions: false,
  ast: true, // the page's policy forbids eval
  renderer: "svg",
  defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

function fillTable(table, columns, rows, partial = {}) {
  const header = createElement("tr");
  header.append(...columns.map((column) => createElement("th", column.title)));
  table.tHead.replaceChildren(header);
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const line = createElement("tr");
    line.append(...columns.map(({ name, type }) => {
      if (type !== "text") return createElement("td", formatNumber(row[name]), { class: "number" });
      const regions = PERIOD_COLUMNS.includes(name) ? partial[row[name]] : undefined;
      return createElement("td", regions ? `${row[name]} (partial: ${listWithout(regions)})` : row[name] ?? "");
    }));
    return line;
  }));
}

function showMessage(figure, report, message) {
  figure.view?.finalize();
  figure.view = figure.drawing = null;
  const chart = figure.querySelector(".chart");
  chart.classList.add("empty");
  chart.textContent = message;
  fillTable(figure.querySelector("table"), report.columns, []);
}

// The partial periods among those that the chart shows.
function selectPartial({ partial, period: latest, chart_rows: rows }) {
  const isShown = (period) => (latest ? period === latest : !rows || rows.some((row) => [row.month, row.quarter].includes(period)));
  return Object.fromEntries(Object.entries(partial).filter(([period]) => isShown(period)));
}

function showNotes(figure, result) {
  const notes = [];
  if (result.period) notes.push(`Period: ${result.period}${result.partial[result.period] ? " *" : ""}.`);
  if (result.ignored.length) notes.push(`Filter not applicable: ${result.ignored.join(" and ")}.`);
  if (result.truncated) notes.push("Truncated to the first rows.");
  const partial = describePartial(selectPartial(result));
  if (partial) notes.push(partial);
  showNote(figure, notes.join(" "));
}

function showNote(figure, text) {
  const note = figure.querySelector(".note");
  note.replaceChildren();
  appendText(note, text);
  note.hidden = !text;
}

// Requests a report and draws it; returns false if the server could not answer.
export async function loadReport(report, figure, themes, params) {
  const requestId = figure.requestId = (figure.requestId ?? 0) + 1;
  figure.querySelector("[data-action=csv]").href = `api/reports/${report.name}.csv?${params}`;
  const result = await fetchJson(`api/reports/${report.name}?${params}`).catch((error) => ({ error }));
  if (requestId !== figure.requestId) return true; // the filters have changed since
  if (result.error) {
    showMessage(figure, report, result.error.message);
    return false;
  }
  showNotes(figure, result);
  fillTable(figure.querySelector("table"), report.columns, result.rows, result.partial);
  if (!result.rows.length) {
    const isChosen = params.includes("institution=") && report.empty_message;
    showMessage(figure, report, isChosen ? report.empty_message : "Nothing to show for these filters.");
    return true;
  }
  figure.drawing = { ...SIZE, ...result.spec, data: { values: result.chart_rows ?? result.rows } };
  await drawChart(figure, themes);
  return true;
}

export async function drawChart(figure, themes) {
  const { requestId } = figure;
  const chart = figure.querySelector(".chart");
  chart.classList.remove("empty");
  figure.view?.finalize();
  const { view } = await embed(chart, figure.drawing, { ...EMBED_OPTIONS, config: themes[themeName()] });
  if (requestId === figure.requestId) figure.view = view;
}

// Shows rows that a view has already; view_figures.js describes the definition.
export async function showRows(figure, definition, themes) {
  const { columns, rows, values, spec, partial = {}, note = "", csvHref, emptyText } = definition;
  figure.querySelector("[data-action=csv]").href = csvHref;
  if (!rows.length) return showMessage(figure, definition, emptyText);
  fillTable(figure.querySelector("table"), columns, rows, partial);
  showNote(figure, [note, describePartial(partial)].filter(Boolean).join(" "));
  figure.drawing = { ...SIZE, ...spec, data: { values: values ?? rows } };
  return drawChart(figure, themes);
}

export function createFigure(report, themes) {
  const figure = document.querySelector("#figure").content.cloneNode(true).querySelector("figure");
  figure.id = report.name;
  figure.report = report;
  figure.querySelector(".chart").setAttribute("aria-label", `${report.title}; the table has its figures`);
  figure.querySelector("h3").textContent = report.title;
  figure.querySelector(".question").textContent = report.question;
  figure.querySelector(".downloads").addEventListener("click", ({ target }) => {
    const { action } = target.dataset;
    const rows = figure.querySelector(".rows");
    if (action === "table") rows.hidden = !rows.hidden;
    if (action !== "png" && action !== "svg") return;
    if (figure.drawing) saveImage(figure, report, themes, action).catch(showError);
    else showNote(figure, `There is no ${action.toUpperCase()} to save: the chart is empty.`);
  });
  return figure;
}
