// Vega, requested when the first chart is drawn: it is by far the largest file of the page.

let script = null;

function loadScript() {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = "vega.js";
    element.addEventListener("load", resolve);
    element.addEventListener("error", () => {
      script = null;
      element.remove();
      reject(new Error("The charts' script could not be loaded. Hint: reload the page."));
    });
    document.head.append(element);
  });
}

// vegaEmbed(), as in its documentation.
export async function embed(element, spec, options) {
  await (script ??= loadScript());
  return window.vegaEmbed(element, spec, options);
}
