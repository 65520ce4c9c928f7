// "Copy link" and "Export".

import { drawAll } from "./charts.js";
import { createElement, isDark, showError } from "./dom.js";
import { describeFilters } from "./filters.js";
import { readRoute } from "./state.js";

const REMOVED = "button, input, select, [hidden], .offscreen, .downloads, .actions, script";
const status = document.querySelector("#status");

// Airflow's frame and plain HTTP may deny the clipboard. Then the address is shown, selected.
async function copyLink() {
  const box = document.querySelector("#link");
  const field = box.querySelector("input");
  box.hidden = true;
  try {
    await navigator.clipboard.writeText(location.href);
    status.textContent = "Link copied";
    document.querySelector("#copy-link").textContent = "Link copied";
    setTimeout(() => { document.querySelector("#copy-link").textContent = "Copy link"; }, 2000);
  } catch {
    field.value = location.href;
    box.hidden = false;
    field.focus();
    field.select();
  }
}

async function readStyles() {
  const sheets = [...document.querySelectorAll("link[rel=stylesheet]")];
  return Promise.all(sheets.map(async ({ href }) => (await fetch(href)).text()));
}

// The view as it is shown, without what needs the page: scripts, buttons and links within it.
function copyView() {
  const view = document.querySelector("main").cloneNode(true);
  view.querySelectorAll("th button").forEach((button) => button.replaceWith(...button.childNodes));
  view.querySelectorAll(REMOVED).forEach((node) => node.remove());
  for (const link of view.querySelectorAll("a[href]")) {
    if (link.getAttribute("href").startsWith("#")) link.replaceWith(...link.childNodes);
    else link.href = new URL(link.getAttribute("href"), location.href).href;
  }
  return view;
}

async function exportView() {
  if (readRoute().view === "charts") await drawAll();
  await Promise.all([...document.querySelectorAll("figure")].map((figure) => figure.draw?.()));
  const { period, values } = describeFilters();
  const copy = document.implementation.createHTMLDocument(document.title);
  copy.documentElement.lang = "en";
  copy.documentElement.classList.toggle("dark", isDark());
  const style = copy.createElement("style");
  style.textContent = (await readStyles()).join("\n");
  copy.head.prepend(createElement("meta", undefined, { charset: "utf-8" }));
  copy.head.append(style);
  copy.body.append(copyView(), createElement("footer", `BI reports · ${period} · ${values} · Saved: ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`));
  const text = `<!doctype html>\n${copy.documentElement.outerHTML}`;
  const href = URL.createObjectURL(new Blob([text], { type: "text/html" }));
  createElement("a", undefined, { href, download: `bi-reports-${readRoute().view}.html` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
  status.textContent = "Exported";
}

export function connectShareButtons() {
  document.querySelector("#copy-link").addEventListener("click", copyLink);
  document.querySelector("#export").addEventListener("click", () => exportView().catch(showError));
}
