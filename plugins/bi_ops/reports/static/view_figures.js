// Charts of rows that a view has already: a figure with table, CSV, PNG and SVG, drawn when it comes into view.

import { showError } from "./dom.js";
import { createFigure, showRows } from "./figures.js";

const MARGIN = "200px 0px"; // how far from the window a chart is drawn

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    target.draw().catch(showError);
  }
}, { rootMargin: MARGIN });

// `definition` is {name, title, question, columns, rows, note, csvHref} of the table, and {values, spec, emptyText} of the
// chart, whose values default to the rows.
export function createViewFigure(definition, themes) {
  const figure = createFigure(definition, themes);
  figure.draw = () => showRows(figure, definition, themes);
  observer.observe(figure);
  return figure;
}

const periodAxis = (partial) => ({
  field: "period",
  type: "ordinal",
  title: null,
  axis: { labelAngle: 0, labelOverlap: true, labelExpr: `indexof(${JSON.stringify(partial)}, datum.label) < 0 ? datum.label : datum.label + ' *'` },
});

// Lines over periods, one for each of the names; the values are {period, series, value}. A value that is null interrupts its line.
export function lineSpec(yTitle, names, partial = []) {
  const scale = { domain: names };
  return {
    mark: { type: "line", point: true },
    encoding: {
      x: periodAxis(partial),
      y: { field: "value", type: "quantitative", title: yTitle, axis: { tickMinStep: 1 } },
      color: { field: "series", type: "nominal", title: null, scale },
      strokeDash: { field: "series", type: "nominal", title: null, scale: { ...scale, range: [[1, 0], [5, 4]] } },
      tooltip: [
        { field: "period", title: "Period", type: "nominal" },
        { field: "series", title: "Series", type: "nominal" },
        { field: "value", title: yTitle, type: "quantitative", format: ",.10~f" },
      ],
    },
  };
}

// One row for each period and series: `fields` maps each series' name to the field of the rows.
export const toSeries = (rows, fields) =>
  rows.flatMap((row) => Object.entries(fields).map(([series, field]) => ({ period: row.period, series, value: row[field] })));
