"use strict";
const page = (() => {
  const at = id => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const options = {responsive: true, displaylogo: false, displayModeBar: false, doubleClick: false};
  const redraws = [];

  // Figures take the page's colours, so that they follow light and dark.
  function dressed(figure) {
    const layout = structuredClone(figure.layout);
    const ink = colour("--ink"), line = colour("--line"), soft = colour("--soft");
    layout.font = {...layout.font, color: ink, family: "system-ui, sans-serif"};
    layout.hoverlabel = {bgcolor: colour("--card"), bordercolor: line, font: {color: ink}};
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    if (layout.dragmode === undefined) layout.dragmode = false;
    for (const [key, axis] of Object.entries(layout)) {
      if (!/^[xy]axis/.test(key)) continue;
      Object.assign(axis, {gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true});
      axis.tickfont = {...axis.tickfont, color: soft};
    }
    return layout;
  }

  function coloured(traces) {
    const neutral = colour("--neutral");
    for (const trace of traces) {
      if (Array.isArray(trace.colorscale))
        trace.colorscale = trace.colorscale.map(([stop, code]) => [stop, code === "#f7f7f7" ? neutral : code]);
      if (trace.colorbar) trace.colorbar.tickfont = {color: colour("--soft")};
    }
    return traces;
  }

  function draw(element, figure) {
    const layout = dressed(figure), most = +element.dataset.square;
    if (most) layout.height = Math.min(most, element.clientWidth);  // as wide as high, where there is room
    return Plotly.react(element, coloured(structuredClone(figure.data)), layout, options);
  }

  function drawAll() {
    for (const element of document.querySelectorAll("[data-figure]")) {
      const figure = data.figures[element.dataset.figure];
      if (figure) draw(element, figure);
    }
    for (const redraw of redraws) redraw();
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = at(button.dataset.copy);
      getSelection().selectAllChildren(code);
      try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
      button.textContent = "Copied";
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
  document.documentElement.dataset.ready = "yes";
  return {at, data, draw, colour, onRedraw: redraw => redraws.push(redraw)};
})();
