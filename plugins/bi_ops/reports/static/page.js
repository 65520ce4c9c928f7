// Starts the reports page. All requests go to this server, and all values from MEG are inserted as text, never as HTML.

import { isDark, showError } from "./dom.js";
import { createFilters, showFilters } from "./filters.js";
import { linkVerdict, loadVerdict } from "./freshness.js";
import { fetchPage } from "./requests.js";
import { showRoute, startRouter } from "./router.js";
import { connectShareButtons } from "./share.js";

function applyTheme() {
  const isChanged = document.documentElement.classList.toggle("dark", isDark()) !== wasDark;
  wasDark = isDark();
  if (isChanged) showRoute();
}

let wasDark = isDark();

function watchAirflowTheme() {
  document.documentElement.classList.toggle("dark", wasDark);
  try {
    if (parent !== window) new MutationObserver(applyTheme).observe(parent.document.documentElement, { attributeFilter: ["class"] });
  } catch { /* the page is not in a frame of Airflow */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
}

function skipToContent(event) {
  event.preventDefault(); // the hash is the page's address
  document.querySelector("#title").focus();
}

async function main() {
  watchAirflowTheme();
  document.querySelector(".skip").addEventListener("click", skipToContent);
  connectShareButtons();
  createFilters();
  startRouter(({ filters }) => {
    showFilters(filters);
    linkVerdict();
  });
  await Promise.all([loadVerdict(), fetchPage()]);
}

main().catch(showError);
