// Draws the reports page. All requests go to this server, and all values from MEG are inserted as text, never as HTML.

import { createElement, isDark, showError } from "./dom.js";
import { createFigure, drawChart, loadReport } from "./figures.js";
import { createFilters } from "./filters.js";
import { loadFreshness } from "./freshness.js";
import { fetchJson } from "./requests.js";

let page = null;

function loadReports() {
  document.querySelector("#problem").hidden = true;
  for (const report of page.reports) loadReport(report, document.getElementById(report.name), page.themes).catch(showError);
}

function applyTheme() {
  document.documentElement.classList.toggle("dark", isDark());
  for (const report of page?.reports ?? []) {
    const figure = document.getElementById(report.name);
    if (figure?.drawing) drawChart(figure, page.themes).catch(showError);
  }
}

function watchAirflowTheme() {
  applyTheme();
  try {
    if (parent !== window) new MutationObserver(applyTheme).observe(parent.document.documentElement, { attributeFilter: ["class"] });
  } catch { /* the page is not in a frame of Airflow */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
}

async function main() {
  watchAirflowTheme();
  loadFreshness().catch(showError);
  page = await fetchJson("api/page");
  createFilters(page.filter_options, page.first_month, loadReports);
  const sections = new Map();
  for (const report of page.reports) {
    if (!sections.has(report.section)) {
      const grid = createElement("div", undefined, { class: "grid" });
      document.querySelector("#reports").append(createElement("h2", report.section), grid);
      sections.set(report.section, grid);
    }
    sections.get(report.section).append(createFigure(report, page.themes));
  }
  loadReports();
  const linked = page.reports.find(({ name, collection }) => [name, collection].includes(location.hash.slice(1)));
  if (linked) document.getElementById(linked.name).scrollIntoView();
}

main().catch(showError);
