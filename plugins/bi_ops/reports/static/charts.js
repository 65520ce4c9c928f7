// The view of all charts. A chart is requested when it comes into view, and again when the filters have changed since.

import { createElement, showError, themeName } from "./dom.js";
import { createFigure, drawChart, loadReport } from "./figures.js";
import { fetchPage } from "./requests.js";

export const title = "Charts";

const MARGIN = "200px 0px"; // how far from the window a chart is requested
const figures = new Map();
const visible = new Set();
const sections = createElement("div");
let page = null;
let params = "";

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target);
    else visible.delete(target);
    if (isIntersecting) update(target).catch(showError);
  }
}, { rootMargin: MARGIN });

async function update(figure) {
  const theme = themeName();
  if (figure.params !== params) {
    figure.params = params;
    figure.theme = theme;
    const isLoaded = await loadReport(figure.report, figure, page.themes, params);
    if (isLoaded === false) figure.params = null; // requested again when it next comes into view
  } else if (figure.drawing && figure.theme !== theme) {
    figure.theme = theme;
    await drawChart(figure, page.themes);
  }
}

function createSections() {
  const grids = new Map();
  for (const report of page.reports) {
    if (!grids.has(report.section)) {
      grids.set(report.section, createElement("div", undefined, { class: "grid" }));
      sections.append(createElement("h2", report.section), grids.get(report.section));
    }
    const figure = createFigure(report, page.themes);
    figures.set(report.name, figure);
    grids.get(report.section).append(figure);
    observer.observe(figure);
  }
}

// Requests and draws every chart, also those out of view.
export const drawAll = () => Promise.all([...figures.values()].map(update));

// The observer reports what is in view once a frame, after the frame's own callbacks.
const observed = () => new Promise((resume) => requestAnimationFrame(() => requestAnimationFrame(resume)));

async function updateVisible() {
  await Promise.all([...visible].map(update));
  return { status: `${visible.size} of ${figures.size} charts in view updated` };
}

export function reload(_route, query) {
  params = query;
  return updateVisible();
}

export async function load(container, { path: [name] }, query) {
  params = query;
  page = await fetchPage();
  if (!figures.size) createSections();
  const actions = createElement("p", undefined, { class: "actions" });
  actions.append(createElement("a", "Atlas dashboard", { href: "bi.charts", download: "" }));
  container.append(actions, sections);
  const linked = page.reports.find((report) => [report.name, report.collection].includes(name));
  if (linked) figures.get(linked.name).scrollIntoView();
  await observed();
  return updateVisible();
}
