"use strict";
// The view in space and the cosine maps of one run at one epoch. Mirrors neuralcollapse.figures.simplex.
{
  const {at, data, draw, colour, onRedraw} = page;
  const space = at("space"), slider = at("epoch"), playButton = at("play");
  const maps = Object.keys(data.figures).filter(id => id.startsWith("cosine-")).map(id => id.slice(7));
  let run = data.runs[0], chosen = [], timer = null;

  const range = n => [...Array(n).keys()];
  const mean = values => values.reduce((a, b) => a + b, 0) / values.length;
  const times = (a, b) => a.map(row => b[0].map((_, j) => row.reduce((sum, x, k) => sum + x * b[k][j], 0)));
  const pick = (matrix, rows) => rows.map(i => rows.map(j => matrix[i][j]));

  function centred(matrix) {  // on both sides
    const across = matrix.map(mean), down = matrix[0].map((_, j) => mean(matrix.map(row => row[j]))), all = mean(across);
    return matrix.map((row, i) => row.map((x, j) => x - across[i] - down[j] + all));
  }

  function eigen(matrix) {  // of a small symmetric matrix: Jacobi's rotations
    const a = matrix.map(row => [...row]), n = a.length, v = range(n).map(i => range(n).map(j => +(i === j)));
    for (let sweep = 0; sweep < 30; sweep++)
      for (let p = 0; p < n; p++)
        for (let q = p + 1; q < n; q++) {
          if (Math.abs(a[p][q]) < 1e-15) continue;
          const angle = 0.5 * Math.atan2(2 * a[p][q], a[q][q] - a[p][p]), c = Math.cos(angle), s = Math.sin(angle);
          for (const m of [a, v])
            for (let k = 0; k < n; k++) [m[k][p], m[k][q]] = [c * m[k][p] - s * m[k][q], s * m[k][p] + c * m[k][q]];
          for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
        }
    return {values: range(n).map(i => a[i][i]), vectors: v};
  }

  function simplex(m) {
    if (m === 2) return [[1, 0, 0], [-1, 0, 0]];
    const h = Math.sqrt(3) / 2;
    if (m === 3) return [[0, 1, 0], [0, -0.5, -h], [0, -0.5, h]];
    const r = Math.SQRT2 * 2 / 3;
    return [[0, 0, 1], [r, 0, -1 / 3], [-r / 2, r * h, -1 / 3], [-r / 2, -r * h, -1 / 3]];
  }

  function points(frame) {
    const m = chosen.length, gram = pick(frame.gram, chosen), {values, vectors} = eigen(centred(gram));
    const least = Math.max(1e-7 * Math.max(...values), 1e-300);
    const power = f => range(m).map(i => range(m).map(j =>
      range(m).reduce((sum, k) => sum + (values[k] > least ? f(values[k]) * vectors[i][k] * vectors[j][k] : 0), 0)));
    const corners = simplex(m).map(row => row.map(x => x * Math.sqrt(1 - 1 / m)));
    const inverse = times(power(x => 1 / Math.sqrt(x)), corners);
    const size = rows => Math.max(mean(rows.map(row => Math.hypot(...row))), 1e-12);
    const scaled = (rows, by) => rows.map(row => row.map(x => x / by));
    const means = times(power(Math.sqrt), corners);
    const weights = times(centred(pick(frame.weights, chosen)), inverse);
    const shift = gram[0].map((_, j) => mean(gram.map(row => row[j])));
    const samples = chosen.map(label => {
      const rows = frame.samples.filter((_, i) => frame.labels[i] === label).map(row => {
        const own = chosen.map((c, j) => row[c] - shift[j]), centre = mean(own);
        return own.map(x => x - centre);
      });
      return rows.length ? scaled(times(rows, inverse), size(means)) : [];
    });
    return {means: scaled(means, size(means)), weights: scaled(weights, size(weights)), samples};
  }

  function coordinates(frame) {  // of each trace: the simplex, then samples, mean and classifier row of each class
    const found = points(frame), corners = simplex(chosen.length), edges = [];
    for (let i = 0; i < corners.length; i++)
      for (let j = 0; j < i; j++) edges.push(corners[i], corners[j], [null, null, null]);
    const traces = [edges];
    for (let k = 0; k < (data.figures.space.data.length - 1) / 3; k++)
      traces.push(...(k < chosen.length
        ? [found.samples[k], [found.means[k]], [[0, 0, 0], found.weights[k]]] : [[], [], []]));
    return traces;
  }

  const short = value => value === null || value === undefined ? "–"
    : value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4) ? value.toExponential(1) : String(+value.toPrecision(3));

  function live(values) {
    at("live").replaceChildren(...Object.entries(values).map(([name, value]) => {
      const cell = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
      const percent = name.endsWith("accuracy");
      term.textContent = name.startsWith("nc") ? name.toUpperCase() : name.replace("_accuracy", " acc.");
      text.textContent = percent && value !== null ? (100 * value).toFixed(1) + "%" : short(value);
      cell.append(term, text);
      return cell;
    }));
  }

  function note(name, cosines) {
    const target = run.range[1], away = [];
    cosines.forEach((row, i) => row.forEach((x, j) => { if (i !== j && x !== null) away.push(x - target); }));
    const far = Math.sqrt(mean(away.map(x => x * x)));
    const signed = x => x.toFixed(3).replace("-", "−");
    at(`note-${name}`).textContent = `Off the diagonal: ${signed(mean(away) + target)} on average, target ${signed(target)}; typical distance ${far.toFixed(3)}.`;
  }

  function show(index) {
    const frame = run.frames[index], traces = coordinates(frame);
    slider.value = index;
    at("shown").textContent = `${run.step} ${frame.epoch}`;
    live(frame.values);
    const axis = k => traces.map(rows => rows.map(row => row[k]));
    Plotly.restyle(space, {x: axis(0), y: axis(1), z: axis(2)});
    for (const name of maps) {
      Plotly.restyle(document.querySelector(`[data-figure="cosine-${name}"]`), {z: [frame.cosines[name]], zmin: run.range[0], zmax: run.range[2]});
      note(name, frame.cosines[name]);
    }
  }

  function names() {  // of the chosen classes, where the pointer is
    const parts = ["samples", "mean", "classifier row"];
    const text = range(data.figures.space.data.length - 1).map(i => {
      const label = run.classes[chosen[Math.floor(i / 3)]] ?? "";
      return `class ${label.replace(/[&<>%]/g, c => `&#${c.charCodeAt(0)};`)}, ${parts[i % 3]}<extra></extra>`;
    });
    Plotly.restyle(space, {hovertemplate: text}, range(text.length).map(i => i + 1));
  }

  function chips() {
    const box = at("classes");
    box.querySelectorAll("label").forEach(label => label.remove());
    range(run.choices).forEach(number => {
      const label = document.createElement("label"), input = document.createElement("input"), dot = document.createElement("span");
      input.type = "checkbox";
      input.value = number;
      input.checked = chosen.includes(number);
      input.disabled = input.checked ? chosen.length === 2 : chosen.length === 4;
      dot.className = `swatch c${Math.max(chosen.indexOf(number), 0)}`;
      input.addEventListener("change", () => {
        chosen = input.checked ? [...chosen, number] : chosen.filter(other => other !== number);
        chips();
        box.querySelector(`input[value="${number}"]`).focus();
        names();
        show(+slider.value);
      });
      label.append(input, dot, run.classes[number] ?? number);
      box.append(label);
    });
  }

  function stop() { clearInterval(timer); timer = null; playButton.textContent = "Play"; }

  function play() {
    if (timer) { stop(); return; }
    let index = +slider.value >= run.frames.length - 1 ? 0 : +slider.value;
    show(index);
    playButton.textContent = "Pause";
    timer = setInterval(() => {
      if (index >= run.frames.length - 1) { stop(); return; }
      index += 1;
      show(index);
    }, Math.min(600, Math.max(90, 7000 / run.frames.length)));
  }

  function choose(position) {
    stop();
    run = data.runs[position];
    chosen = [...run.chosen];
    slider.max = run.frames.length - 1;
    chips();
    names();
    show(0);
  }

  data.runs.forEach((one, position) => at("run").add(new Option(one.name, position)));
  at("run").hidden = data.runs.length < 2;
  at("run").addEventListener("change", event => choose(+event.target.value));
  slider.addEventListener("input", () => { stop(); show(+slider.value); });
  playButton.addEventListener("click", play);
  choose(0);
  onRedraw(() => { names(); show(+slider.value); });

  // It plays once, when it is first seen, unless the reader has asked for less motion.
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches && run.frames.length > 1) {
    const seen = new IntersectionObserver(entries => {
      if (!entries.some(entry => entry.isIntersecting)) return;
      seen.disconnect();
      if (!timer && slider.value === "0") setTimeout(() => { if (!timer && slider.value === "0") play(); }, 600);
    }, {threshold: 0.5});
    seen.observe(space);
  }
}
