"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const shown = data.entries.map(() => true);
  const plots = [];
  const MOST = 12; // settings that are named at a point
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colorOf = (entry) => color(`--c${entry % data.colors}`);
  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
  const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });

  function make(spec) {
    const place = document.getElementById(spec.id);
    const status = document.getElementById(`${spec.id}-status`);
    const tables = spec.lines.map((line) => [line.x, line.value, line.low, line.high]);
    const joined = uPlot.join(tables);
    const xs = joined[0];
    const whole = xs.length > 1 ? [xs[0], xs[xs.length - 1]] : null;
    const narrowest = whole ? (whole[1] - whole[0]) / 1000 : 0; // where nothing more is to be seen
    const series = [{}];
    const bands = [];
    for (const line of spec.lines) {
      const first = series.length;
      const stroke = () => colorOf(line.entry);
      const dash = data.dashes[line.entry];
      const common = { show: shown[line.entry], points: { show: line.x.length === 1 } };
      series.push({ ...common, label: data.entries[line.entry], stroke, dash, width: 2 });
      series.push({ ...common, stroke: "transparent", width: 0, points: { show: false } });
      series.push({ ...common, stroke: "transparent", width: 0, points: { show: false } });
      bands.push({ series: [first + 2, first + 1], fill: () => colorOf(line.entry) + "33" });
    }
    const axis = (label, size) => ({
      label, size, labelSize: 22, stroke: () => color("--muted"), font: "12px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif", values: (u, ticks) => ticks.map((tick) => compact.format(tick)),
      grid: { stroke: () => color("--line"), width: 1 }, ticks: { stroke: () => color("--line"), width: 1 },
    });
    const size = () => ({ width: Math.max(220, place.clientWidth), height: Math.round(Math.min(380, Math.max(280, place.clientWidth * 0.5))) });
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    let byKey = false;
    const say = (text) => { status.textContent = text; }; // what a screen reader reads out
    const plot = new uPlot({
      ...size(), series, bands, axes: [axis(spec.x, 34), axis(spec.y, 52)],
      scales: { x: { time: false } }, legend: { show: false },
      cursor: { drag: { x: true, y: false }, points: { show: false } },
      hooks: {
        setCursor: [(u) => tell(u)],
        setScale: [(u, key) => { if (key === "x" && u.status === 1) say(`${spec.x} from ${plain.format(u.scales.x.min)} to ${plain.format(u.scales.x.max)}`); }],
      },
    }, joined, place);
    plot.over.appendChild(tip);
    plot.over.addEventListener("mouseleave", () => { tip.hidden = true; });

    function at(x) { // the lines at x, by the nearest of their own points before it
      return spec.lines.flatMap((line) => {
        if (!shown[line.entry] || x < line.x[0] || x > line.x[line.x.length - 1]) return [];
        let i = 0;
        while (i + 1 < line.x.length && line.x[i + 1] <= x) i += 1;
        const interval = line.seeds > 1 ? ` (${plain.format(line.low[i])} … ${plain.format(line.high[i])})` : "";
        return line.value[i] === null ? [] : [{ entry: line.entry, value: line.value[i], interval }];
      }).sort((a, b) => b.value - a.value);
    }
    function tell(u) {
      const index = u.cursor.idx;
      if (index === null || index === undefined || u.cursor.left < 0) { tip.hidden = true; return; }
      const x = xs[index];
      const rows = at(x);
      const head = document.createElement("b");
      head.textContent = `${spec.x} ${plain.format(x)}`;
      const texts = rows.slice(0, MOST).map((row) => `${data.entries[row.entry]}: ${plain.format(row.value)}${row.interval}`);
      const more = rows.length > MOST ? [`and ${rows.length - MOST} lower`] : [];
      tip.replaceChildren(head, ...texts.map((text, i) => {
        const item = document.createElement("div");
        item.className = `c${rows[i].entry % data.colors}`;
        item.textContent = text;
        return item;
      }), ...more);
      tip.hidden = rows.length === 0;
      const right = u.cursor.left > u.over.clientWidth / 2;
      tip.style.left = right ? "" : `${u.cursor.left + 12}px`;
      tip.style.right = right ? `${u.over.clientWidth - u.cursor.left + 12}px` : "";
      tip.style.bottom = "8px"; // below most curves
      if (byKey) say([head.textContent, ...texts, ...more].join("; "));
    }
    function act(what) {
      if (!whole) return;
      const { min, max } = plot.scales.x;
      const width = max - min;
      if (what === "all") return plot.setScale("x", { min: whole[0], max: whole[1] });
      const grown = { in: 0.5, out: 2, left: 1, right: 1 }[what] * width;
      const middle = (min + max) / 2 + { in: 0, out: 0, left: -width / 4, right: width / 4 }[what];
      const kept = Math.min(Math.max(grown, narrowest), whole[1] - whole[0]);
      const start = Math.min(Math.max(middle - kept / 2, whole[0]), whole[1] - kept);
      plot.setScale("x", { min: start, max: start + kept });
    }
    place.closest("figure").addEventListener("click", (event) => {
      const button = event.target.closest("button[data-do]");
      if (button) act(button.dataset.do);
    });
    place.addEventListener("keydown", (event) => {
      const zoom = { "+": "in", "=": "in", "-": "out", 0: "all" }[event.key];
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey || (!zoom && !step)) return;
      event.preventDefault();
      if (zoom) return act(zoom);
      const [first, last] = plot.series[0].idxs ?? [0, xs.length - 1];
      const next = plot.cursor.idx == null ? first : Math.min(last, Math.max(first, plot.cursor.idx + step));
      byKey = true;
      plot.setCursor({ left: plot.valToPos(xs[next], "x"), top: 40 });
      byKey = false;
    });
    new ResizeObserver(() => { if (plot.width !== size().width) plot.setSize(size()); }).observe(place);
    plots.push({ plot, spec });
  }

  for (const spec of data.charts) make(spec);

  document.querySelectorAll("input[data-toggle]").forEach((box) => {
    const entry = Number(box.dataset.toggle);
    const update = () => {
      shown[entry] = box.checked;
      for (const { plot, spec } of plots) {
        plot.batch(() => spec.lines.forEach((line, i) => {
          if (line.entry === entry) for (const k of [1, 2, 3]) plot.setSeries(3 * i + k, { show: box.checked });
        }));
      }
      document.querySelectorAll(`[data-entry="${entry}"]`).forEach((row) => { row.hidden = !box.checked; });
    };
    box.addEventListener("change", update);
    if (!box.checked) update(); // the browser may have kept the state of an earlier visit
  });
  const switches = document.querySelector(".runs"); // at the top of a large window, where no heading may be behind them
  if (switches) new ResizeObserver(() => document.body.style.setProperty("--switches", `${switches.offsetHeight}px`)).observe(switches);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(({ plot }) => plot.redraw(false, true)));
  window.addEventListener("beforeprint", () => plots.forEach(({ plot }) => plot.redraw()));
  document.querySelectorAll("button[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const command = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
    } catch { // there is no clipboard, as on a page from http:, or the browser does not allow it
      getSelection().selectAllChildren(command);
      button.textContent = "Selected: copy it with the keyboard";
    }
  }));
  document.documentElement.dataset.ready = "true";
})();
