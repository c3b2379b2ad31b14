// Draws the figures of a report. plotly.js comes compressed from this very file; nothing is fetched.
// documentElement.dataset.drawn counts what was drawn; a figure that cannot be drawn says so in its place.
"use strict";
(async () => {
  const root = document.documentElement;
  const figures = [...document.querySelectorAll("figure.figure")];
  const config = {
    displaylogo: false,
    showSendToCloud: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { scale: 2 },
  };
  const plotOf = (figure) => figure.querySelector(".plot");
  const say = (figure, text) => {
    figure.querySelector(".state").textContent = text;
    figure.classList.toggle("is-failed", text !== "" && text !== "Drawing …");
  };
  const reserve = (figure) => {
    plotOf(figure).style.height = figure.dataset.height + "px";
    if (Number(figure.dataset.minWidth)) plotOf(figure).style.minWidth = figure.dataset.minWidth + "px";
    say(figure, "Drawing …");
  };
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  // The policy forbids style attributes, also to scripts; plotly writes bold and coloured words with them.
  // The same declarations through the object model are allowed, and no markup can reach this.
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style" && this.style) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  const load = async () => {
    const script = document.createElement("script");
    script.textContent = await unpack(document.getElementById("plotly").textContent.trim());
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly.js did not start");
  };
  const zoomOnClick = (plot) => {
    plot.on("plotly_click", (event) => {
      const bar = event.points[0];
      window.Plotly.relayout(plot, { "xaxis.range": [bar.base, bar.base + (bar.value ?? bar.x - bar.base)] });
    });
  };
  const draw = async (figure) => {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const plot = plotOf(figure);
    await window.Plotly.newPlot(plot, data, layout, config);
    if (layout.meta && layout.meta.focus_ratio) {
      const scroll = figure.querySelector(".scroll");
      scroll.scrollLeft = layout.meta.focus_ratio * scroll.scrollWidth - scroll.clientWidth / 2;
    }
    if (layout.meta && layout.meta.click === "zoom") zoomOnClick(plot);
    say(figure, "");
    root.dataset.drawn = String(Number(root.dataset.drawn) + 1);
  };
  const onPaper = (isPaper) => {
    for (const figure of figures) {
      const plot = plotOf(figure);
      if (!plot.classList.contains("js-plotly-plot")) continue;
      const size = isPaper
        ? { width: Math.max(Number(figure.dataset.minWidth), 680), autosize: false }
        : { width: null, autosize: true };
      window.Plotly.relayout(plot, size);
    }
  };

  if (!figures.length) return;
  figures.forEach(reserve);
  try {
    await load();
  } catch (error) {
    figures.forEach((figure) => say(figure, "This figure could not be drawn (" + error.message +
      "). The text and the tables beside it say the same; a current browser draws it."));
    return;
  }
  for (const figure of figures) {
    try {
      await draw(figure);
    } catch (error) {
      say(figure, "This figure could not be drawn: " + error.message);
    }
    await new Promise((resume) => setTimeout(resume));
  }
  window.addEventListener("beforeprint", () => onPaper(true));
  window.addEventListener("afterprint", () => onPaper(false));
})();
