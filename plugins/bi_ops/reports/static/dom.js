// Helpers of all modules. Values from MEG are inserted as text, never as HTML.

export const themeName = () => (isDark() ? "dark" : "light");

export function isDark() {
  try {
    const airflow = parent.document.documentElement;
    if (parent !== window) return airflow.classList.contains("dark");
  } catch { /* the page is not in a frame of Airflow */ }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function createElement(name, text, attributes = {}) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// Appends a text in which no month, quarter or date is broken at its hyphen.
export function appendText(node, text) {
  node.append(...text.split(/(\b\d{4}-(?:Q\d|\d\d(?:-\d\d)?)\b)/).map((part, index) =>
    (index % 2 ? createElement("span", part, { class: "unbroken" }) : part)));
  return node;
}

export const formatNumber = (value) => (value === null || value === undefined ? "" : value.toLocaleString());

export function showError(error) {
  const problem = document.querySelector("#problem");
  problem.textContent = error.message;
  problem.hidden = false;
}

export function hideError() {
  document.querySelector("#problem").hidden = true;
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

export function airflowLink(path, text, attributes = {}) {
  const root = location.pathname.replace(/\/[^/]*\/[^/]*$/, "");
  const link = createElement("a", text, { href: root + path, ...attributes });
  link.addEventListener("click", openInAirflow);
  return link;
}
