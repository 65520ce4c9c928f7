// Shows the view that the address names. A view is a module of this folder, in the registry of views.js, that exports
//
//   title    its heading
//   load(container, route, params)
//     container  an empty element, into which the view puts its content. Each load gets a new one, so a load that has
//                been overtaken by another cannot overwrite it. Headings inside begin at h2.
//     route      { view, path, filters, options }: for #/clients/eu/12?region=eu&sort=name the path is ["eu", "12"], and
//                the options, a URLSearchParams, hold sort. setOption() of state.js changes one in the address.
//     params     the filters as a query string for the API: fetchJson(`api/clients?${params}`)
//     returns    a promise of nothing, or of { title, status }: another heading, such as a client's name, and a short
//                text that screen readers announce, such as "23 clients". An error that it throws is shown.
//
//   reload(route, params)   optional: called instead of load when only the filters or the theme have changed, for a view
//                that keeps its content in place.
//
// A view is loaded when its path or the filters change, and when the theme does. hrefTo() of state.js makes links.

import { createElement, hideError, showError } from "./dom.js";
import { apiParams, hrefTo, readRoute } from "./state.js";
import { findView, NAVIGATION } from "./views.js";

const title = document.querySelector("#title");
const status = document.querySelector("#status");
let shownPath = null;
let currentLoad = 0;

function showNavigation(current) {
  document.querySelector("#views").replaceChildren(...NAVIGATION.map(([name, view]) => {
    const item = createElement("li");
    item.append(createElement("a", view.title, { href: hrefTo(name), ...(name === current ? { "aria-current": "page" } : {}) }));
    return item;
  }));
}

function showTitle(text) {
  title.textContent = text;
  document.title = `${text} · BI reports`;
}

function showContent(container) {
  document.querySelector("#content").replaceWith(container);
  container.id = "content";
}

function openView(view, container, isFirst) {
  showTitle(view.title);
  showContent(container);
  if (isFirst) return;
  scrollTo(0, 0);
  title.focus({ preventScroll: true });
}

// When only the filters change, the new content is laid out unseen, and replaces the old when it is complete.
async function loadContent(route, view, container, isNew) {
  const params = apiParams(route.filters);
  if (!isNew && view.reload) return view.reload(route, params);
  if (!isNew) {
    container.classList.add("staged");
    document.querySelector("#content").after(container);
  }
  return view.load(container, route, params);
}

export async function showRoute() {
  const load = currentLoad += 1;
  const route = readRoute();
  const view = findView(route);
  const path = [route.view, ...route.path].join("/");
  const container = createElement("div", undefined, { class: `view-${route.view}` });
  const isNew = path !== shownPath;
  hideError();
  showNavigation(route.view);
  if (isNew) openView(view, container, shownPath === null);
  shownPath = path;
  document.querySelector("#content").setAttribute("aria-busy", "true");
  try {
    const result = await loadContent(route, view, container, isNew);
    if (load !== currentLoad) return;
    if (result?.title) showTitle(result.title);
    status.textContent = result?.status ?? `${view.title} updated`;
    if (container.classList.contains("staged")) showContent(container);
  } catch (error) {
    if (load !== currentLoad) return;
    shownPath = ""; // the next change loads the view from scratch
    document.querySelector("#content").replaceChildren();
    showError(error);
  } finally {
    if (container.classList.contains("staged")) {
      container.classList.remove("staged");
      if (container.id !== "content") container.remove();
    }
    if (load === currentLoad) document.querySelector("#content").removeAttribute("aria-busy");
  }
}

export function startRouter(onRoute) {
  const follow = () => {
    onRoute(readRoute());
    return showRoute();
  };
  addEventListener("hashchange", follow);
  return follow();
}
