// Charts as image files that are understood without the page: with title, period, filters and date.

import { createElement } from "./dom.js";
import { describeFilters } from "./filters.js";
import { embed } from "./vega_embed.js";

const WIDTH = 720;
const MAX_LINE = 110; // characters
const LINE_HEIGHT = 16;

function wrap(text) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length > MAX_LINE) lines.push("");
    lines[lines.length - 1] += `${lines.at(-1) ? " " : ""}${word}`;
  }
  return lines;
}

function imageTitle(figure, report) {
  const { period, values } = describeFilters();
  const note = figure.querySelector(".note");
  const saved = `Saved: ${new Date().toISOString().slice(0, 10)}`;
  const lines = [report.question, `${period} · ${values}`, ...(note.hidden ? [] : [note.textContent]), saved];
  return { text: report.title, subtitle: lines.flatMap(wrap), anchor: "start", frame: "bounds", offset: 12 };
}

// Drawn again, in the light theme, since files are read outside of the page.
export async function saveImage(figure, report, themes, format) {
  const holder = createElement("div", undefined, { class: "offscreen" });
  document.body.append(holder);
  const title = imageTitle(figure, report);
  const spec = { ...figure.drawing, width: WIDTH, title, background: "white", padding: 16 };
  if (typeof spec.height === "number") spec.height += (title.subtitle.length + 2) * LINE_HEIGHT; // the title takes part of it
  const { view } = await embed(holder, spec, { actions: false, ast: true, renderer: "svg", config: themes.light });
  try {
    const href = await view.toImageURL(format, 2);
    createElement("a", undefined, { href, download: `${report.name}.${format}` }).click();
  } finally {
    view.finalize();
    holder.remove();
  }
}
