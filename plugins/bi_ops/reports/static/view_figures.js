// Charts of rows that a view has already: a figure with table, CSV, PNG and SVG, drawn when it comes into view.

import { showError } from "./dom.js";
import { createFigure, showRows } from "./figures.js";
import { listWithout } from "./format.js";

const MARGIN = "200px 0px"; // how far from the window a chart is drawn

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    target.draw().catch(showError);
  }
}, { rootMargin: MARGIN });

// `definition` is {name, title, question, columns, rows, partial, note, csvHref} of the table, and {values, spec, emptyText}
// of the chart, whose values default to the rows. `partial` is {period: [regions that lack it]}.
export function createViewFigure(definition, themes) {
  const figure = createFigure(definition, themes);
  figure.draw = () => showRows(figure, definition, themes);
  observer.observe(figure);
  return figure;
}

// The partial periods of rows that name the regions which lack theirs.
export const partialPeriods = (rows) =>
  Object.fromEntries(rows.filter(({ partial }) => partial?.length).map(({ period, partial }) => [period, partial]));

const periodAxis = (partial) => ({
  field: "period",
  type: "ordinal",
  title: null,
  axis: { labelAngle: 0, labelOverlap: true, labelExpr: `indexof(${JSON.stringify(partial)}, datum.label) < 0 ? datum.label : datum.label + ' *'` },
});

// Lines over periods, one for each of the names; the values are those of toSeries(). A value that is null interrupts its
// line, and one of a partial period is a cross: the label with its mark may be left out, for want of room.
export function lineSpec(yTitle, names, partial = {}) {
  const scale = { domain: names };
  const periods = Object.keys(partial);
  const shape = { condition: { test: `indexof(${JSON.stringify(periods)}, datum.period) >= 0`, value: "cross" }, value: "circle" };
  return {
    layer: [
      { mark: "line", encoding: { strokeDash: { field: "series", type: "nominal", title: null, scale: { ...scale, range: [[1, 0], [5, 4]] } } } },
      { mark: { type: "point", filled: true, size: 60 }, encoding: { shape } },
    ],
    encoding: {
      x: periodAxis(periods),
      y: { field: "value", type: "quantitative", title: yTitle, axis: { tickMinStep: 1 } },
      color: { field: "series", type: "nominal", title: null, scale },
      tooltip: [
        { field: "period", title: "Period", type: "nominal" },
        { field: "series", title: "Series", type: "nominal" },
        { field: "value", title: yTitle, type: "quantitative", format: ",.10~f" },
        ...(periods.length ? [{ field: "partial", title: "Partial", type: "nominal" }] : []),
      ],
    },
  };
}

// One row for each period and series: `fields` maps each series' name to the field of the rows.
export const toSeries = (rows, fields) =>
  rows.flatMap(({ period, partial, ...row }) => Object.entries(fields).map(([series, field]) =>
    ({ period, series, value: row[field], partial: partial?.length ? listWithout(partial) : "no" })));
