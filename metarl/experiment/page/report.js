
"use strict";
(() => {
  const COLOURS = 6;
  const DASHES = [[], [9, 4], [3, 3]]; // tell lines of one colour apart
  const HEIGHT = 260;
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000]; // episodes are not parted
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (line) => value(`--c${line.colour % COLOURS}`);
  const dash = (line) => DASHES[Math.floor(line.colour / COLOURS) % DASHES.length];
  const stripes = (name, [ink, gap]) => // of a line in the legend
    ink ? `repeating-linear-gradient(90deg, ${name} 0 ${ink / 1.5}px, transparent 0 ${(ink + gap) / 1.5}px)` : name;
  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
  const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const charts = [];

  function draw(figure) {
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const column = (i) => 1 + 3 * i; // a line has three columns of data: mean, low, high
    const none = { points: { show: false }, width: 0 };
    const series = [{}];
    const data = [chart.x];
    const bands = [];
    chart.lines.forEach((line, i) => {
      const points = chart.marks ? { show: true, size: 6, fill: () => colour(line) } : { show: false };
      series.push({ stroke: () => colour(line), dash: dash(line), width: 1.5, points, spanGaps: chart.marks }, none, none);
      data.push(line.mean, line.low, line.high);
      bands.push({ series: [column(i) + 2, column(i) + 1], fill: () => colour(line) + "30" });
    });
    const axis = {
      stroke: () => value("--soft"),
      grid: { stroke: () => value("--rule"), width: 1 },
      ticks: { stroke: () => value("--rule"), width: 1, size: 4 },
      values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : compact.format(tick))),
    };
    const legend = document.createElement("div");
    legend.className = "legend";
    const outputs = chart.lines.map((line, i) => {
      const button = document.createElement("button");
      const key = document.createElement("i");
      const output = document.createElement("output");
      key.style.background = stripes(`var(--c${line.colour % COLOURS})`, dash(line));
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(key, document.createTextNode(line.label), output);
      button.addEventListener("click", () => {
        const show = button.getAttribute("aria-pressed") === "false";
        button.setAttribute("aria-pressed", String(show));
        for (let part = 0; part < 3; part++) plot.setSeries(column(i) + part, { show });
      });
      legend.append(button);
      return output;
    });
    const tell = (plot) => {
      const at = plot.cursor.idx;
      chart.lines.forEach((line, i) => {
        const known = at !== null && at !== undefined && line.mean[at] !== null;
        const range = known && line.low[at] !== null && line.low[at] !== line.high[at];
        outputs[i].textContent = !known ? "" : precise.format(line.mean[at]) +
          (range ? ` (${precise.format(line.low[at])} … ${precise.format(line.high[at])})` : "");
      });
    };
    const options = {
      width: figure.clientWidth - 24,
      height: HEIGHT,
      scales: { x: { time: false }, y: chart.logarithmic ? { distr: 3 } : {} },
      axes: [{ ...axis, ...(chart.marks ? { incrs: WHOLE } : {}), space: 60, size: 28, label: chart.x_label, labelSize: 20, labelFont: "12px system-ui" }, { ...axis, size: 56 }],
      series,
      bands,
      legend: { show: false },
      cursor: { y: false },
      hooks: { setCursor: [tell] },
    };
    const plot = new uPlot(options, data, figure);
    figure.append(legend);
    charts.push({ figure, plot });
  }

  document.querySelectorAll("figure.chart").forEach(draw);
  dark.addEventListener("change", () => charts.forEach(({ plot }) => plot.redraw()));
  new ResizeObserver(() => {
    for (const { figure, plot } of charts) {
      const width = figure.clientWidth - 24;
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }).observe(document.body);

  document.querySelectorAll("figure.heat").forEach((figure) => {
    const tip = figure.querySelector(".tip");
    let on = null;
    const show = (event) => {
      const cell = event.target.closest("td");
      if (cell === null) return;
      on?.classList.remove("on");
      (on = cell).classList.add("on");
      tip.textContent = cell.dataset.tip;
    };
    figure.addEventListener("pointerover", show);
    figure.addEventListener("click", show);
  });
})();
