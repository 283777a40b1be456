// The viewer of the report: three planes of both visits, and the reader's answers.
//
// The volumes are in the page as 8-bit numbers. Their axes are: slice (to the head), row (to the
// back) and column (to the patient's left). Nothing is loaded from elsewhere.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = byId("viewer");
  const source = byId("viewer-data");
  if (!root || !source) return;

  // Axes of the volume that each plane shows from left to right and from top to bottom, the axis
  // that scrolls, and the letters at its edges: left, right, top, bottom.
  const PLANES = [
    { name: "axial", across: 2, down: 1, through: 0, upright: false, edges: ["R", "L", "A", "P"] },
    { name: "coronal", across: 2, down: 0, through: 1, upright: true, edges: ["R", "L", "S", "I"] },
    { name: "sagittal", across: 1, down: 0, through: 2, upright: true, edges: ["A", "P", "S", "I"] },
  ];
  const COLOURS = { prediction: "#e69f00", enlarging: "#009e73", vanished: "#56b4e9" };
  const DIFFERENCE = 2; // number of the third image, after both visits
  const NAMES = ["first visit", "second visit", "second minus first visit"];
  const MOST_ZOOM = 12;
  const state = {
    at: [0, 0, 0], zoom: 1, image: 1, both: false, outlines: true, cross: true,
    low: 0, high: 255, lesion: -1,
  };
  let data, images, labels, panes;
  let dragged = null; // the place of the plane that is dragged on; it stays during the drag

  // ------------------------------------------------------------------------------------ reading

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Each number is stored as its difference from the one before it, which is smaller to pack.
  function summed(numbers) {
    for (let i = 1; i < numbers.length; i++) numbers[i] += numbers[i - 1];
    return numbers;
  }

  async function start() {
    if (typeof DecompressionStream === "undefined") {
      byId("viewer-state").textContent =
        "This browser is too old for the viewer. The pictures below show the same lesions.";
      return;
    }
    data = JSON.parse(source.textContent);
    images = [];
    for (const text of data.visits) images.push(summed(await unpacked(text)));
    const difference = new Uint8Array(images[0].length);
    for (let i = 0; i < difference.length; i++) {
      difference[i] = Math.round((images[1][i] - images[0][i]) / 2 + 127.5);
    }
    images.push(difference);
    labels = new Uint16Array((await unpacked(data.labels)).buffer);
    state.at = data.shape.map((length) => Math.floor(length / 2));
    panes = [...root.querySelectorAll(".pane")].map(paneOf);
    listen();
    root.classList.add("ready");
    if (data.lesions.length) choose(0);
    else draw();
  }

  // ------------------------------------------------------------------------------------ drawing

  function paneOf(element) {
    const plane = PLANES.find((one) => one.name === element.dataset.plane);
    const fixed = element.dataset.image === "" ? null : Number(element.dataset.image);
    const canvas = element.querySelector("canvas");
    return { element, canvas, plane, fixed, slice: document.createElement("canvas") };
  }

  const shown = (pane) => (pane.fixed === null ? state.image : pane.fixed);
  const place = (index) =>
    (index[0] * data.shape[1] + index[1]) * data.shape[2] + index[2];

  // Where the plane lies on the canvas: pixels per mm, and the upper left corner of the plane.
  function fit(pane) {
    const { across, down } = pane.plane;
    const width = data.shape[across] * data.spacing[across];
    const height = data.shape[down] * data.spacing[down];
    const base = Math.min(pane.canvas.width / width, pane.canvas.height / height);
    const scale = base * state.zoom;
    const corner = (length, extent, axis, flipped) => {
      if (extent * scale <= length) return (length - extent * scale) / 2;
      let mm = (state.at[axis] + 0.5) * data.spacing[axis];
      if (flipped) mm = extent - mm;
      return Math.min(0, Math.max(length - extent * scale, length / 2 - mm * scale));
    };
    return {
      scale, width, height,
      left: corner(pane.canvas.width, width, across, false),
      top: corner(pane.canvas.height, height, down, pane.plane.upright),
    };
  }

  // The numbers of an array in the slice that a pane shows, row by row from the top.
  function sliceOf(array, pane, into) {
    const { across, down, through, upright } = pane.plane;
    const columns = data.shape[across], rows = data.shape[down];
    const index = [0, 0, 0];
    index[through] = state.at[through];
    for (let row = 0; row < rows; row++) {
      index[down] = upright ? rows - 1 - row : row;
      for (let column = 0; column < columns; column++) {
        index[across] = column;
        into(row * columns + column, array[place(index)]);
      }
    }
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    for (const pane of panes) {
      const box = pane.canvas.getBoundingClientRect();
      if (!box.width) continue; // hidden
      pane.canvas.width = Math.round(box.width * ratio);
      pane.canvas.height = Math.round(box.height * ratio);
      drawPane(pane, ratio);
    }
    say();
  }

  function drawPane(pane, ratio) {
    const context = pane.canvas.getContext("2d");
    const { across, down, through, upright } = pane.plane;
    const columns = data.shape[across], rows = data.shape[down];
    const where = dragged && dragged.pane === pane ? dragged.where : fit(pane);
    pane.slice.width = columns;
    pane.slice.height = rows;
    const picture = new ImageData(columns, rows);
    const image = shown(pane);
    const [low, high] = image === DIFFERENCE ? [64, 191] : [state.low, state.high];
    const gain = 255 / Math.max(1, high - low);
    sliceOf(images[image], pane, (i, value) => {
      const grey = (value - low) * gain;
      picture.data[4 * i] = picture.data[4 * i + 1] = picture.data[4 * i + 2] = grey;
      picture.data[4 * i + 3] = 255;
    });
    pane.slice.getContext("2d").putImageData(picture, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, pane.canvas.width, pane.canvas.height);
    context.imageSmoothingEnabled = true;
    context.drawImage(
      pane.slice, where.left, where.top, where.width * where.scale, where.height * where.scale,
    );
    const pixel = [data.spacing[across] * where.scale, data.spacing[down] * where.scale];
    if (state.outlines) outline(context, pane, where, pixel, ratio);
    if (state.cross) {
      const x = where.left + (state.at[across] + 0.5) * pixel[0];
      const row = upright ? rows - 1 - state.at[down] : state.at[down];
      crosshair(context, pane, x, where.top + (row + 0.5) * pixel[1], ratio);
    }
    context.font = `600 ${13 * ratio}px sans-serif`;
    context.fillStyle = "#fff";
    context.textBaseline = "middle";
    context.textAlign = "center";
    const [left, right, top, bottom] = pane.plane.edges;
    const width = pane.canvas.width, height = pane.canvas.height, edge = 11 * ratio;
    context.fillText(left, edge, height / 2);
    context.fillText(right, width - edge, height / 2);
    context.fillText(top, width / 2, edge);
    context.fillText(bottom, width / 2, height - edge);
    pane.element.querySelector(".pane-name").textContent =
      `${NAMES[image]}, ${pane.plane.name}`;
    pane.canvas.setAttribute(
      "aria-label", `${NAMES[image]}, ${pane.plane.name} slice ${state.at[through] + 1}`,
    );
  }

  function outline(context, pane, where, pixel, ratio) {
    const columns = data.shape[pane.plane.across];
    const rows = data.shape[pane.plane.down];
    const numbers = new Uint16Array(rows * columns);
    sliceOf(labels, pane, (i, value) => { numbers[i] = value; });
    const at = (row, column) =>
      row < 0 || column < 0 || row >= rows || column >= columns ? 0 : numbers[row * columns + column];
    const lines = new Map();
    const line = (label, ...ends) => {
      if (!lines.has(label)) lines.set(label, []);
      lines.get(label).push(ends);
    };
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const label = at(row, column);
        if (!label) continue;
        if (at(row - 1, column) !== label) line(label, column, row, column + 1, row);
        if (at(row + 1, column) !== label) line(label, column, row + 1, column + 1, row + 1);
        if (at(row, column - 1) !== label) line(label, column, row, column, row + 1);
        if (at(row, column + 1) !== label) line(label, column + 1, row, column + 1, row + 1);
      }
    }
    for (const [label, ends] of lines) {
      const lesion = data.lesions.find((one) => one.label === label);
      context.strokeStyle = COLOURS[lesion ? lesion.kind : "prediction"];
      context.lineWidth = (lesion === data.lesions[state.lesion] ? 2 : 1.2) * ratio;
      context.beginPath();
      for (const [x0, y0, x1, y1] of ends) {
        context.moveTo(where.left + x0 * pixel[0], where.top + y0 * pixel[1]);
        context.lineTo(where.left + x1 * pixel[0], where.top + y1 * pixel[1]);
      }
      context.stroke();
    }
  }

  // Two lines with a gap, so that they do not hide what they point at.
  function crosshair(context, pane, x, y, ratio) {
    const gap = 14 * ratio;
    context.strokeStyle = "rgba(255, 255, 255, 0.55)";
    context.lineWidth = ratio;
    context.beginPath();
    for (const [from, to] of [[0, x - gap], [x + gap, pane.canvas.width]]) {
      context.moveTo(from, y);
      context.lineTo(to, y);
    }
    for (const [from, to] of [[0, y - gap], [y + gap, pane.canvas.height]]) {
      context.moveTo(x, from);
      context.lineTo(x, to);
    }
    context.stroke();
  }

  function scannerMm() {
    return [0, 1, 2].map((row) => {
      const line = data.to_scanner[row];
      return line[0] * state.at[0] + line[1] * state.at[1] + line[2] * state.at[2] + line[3];
    });
  }

  function say() {
    const lesion = data.lesions.find((one) => one.label === labels[place(state.at)]);
    const position = scannerMm().map((mm) => mm.toFixed(1)).join(", ");
    byId("viewer-state").textContent =
      `${state.both ? "both visits" : NAMES[state.image]} \u00b7 x, y, z = ${position} mm` +
      (lesion ? ` \u00b7 in ${lesion.name}` : "");
    const current = data.lesions[state.lesion];
    byId("viewer-lesion").textContent = current
      ? `${current.name} (${state.lesion + 1} of ${data.lesions.length})`
      : `${data.lesions.length} lesion${data.lesions.length === 1 ? "" : "s"}`;
    for (const [id, on] of [
      ["show-both", state.both], ["show-outlines", state.outlines],
      ["show-difference", state.image === DIFFERENCE], ["show-cross", state.cross],
    ]) byId(id).setAttribute("aria-pressed", String(on));
    for (const button of root.querySelectorAll("[data-answer]")) {
      const on = current && answerOf(current.label) === button.dataset.answer;
      button.setAttribute("aria-pressed", String(Boolean(on)));
      button.disabled = !current;
    }
  }

  // ------------------------------------------------------------------------------------ moving

  const limited = (value, low, high) => Math.min(high, Math.max(low, value));

  // After a move, the keys for answers are for the lesion under the crosshair, if there is one.
  function moved() {
    const label = labels[place(state.at)];
    if (label) state.lesion = data.lesions.findIndex((one) => one.label === label);
    draw();
  }

  function move(axis, steps) {
    state.at[axis] = limited(state.at[axis] + steps, 0, data.shape[axis] - 1);
    moved();
  }

  function go(voxel, lesion) {
    state.at = [...voxel];
    state.lesion = lesion;
    draw();
  }

  function choose(number) {
    const count = data.lesions.length;
    if (!count) return;
    const lesion = (Math.max(number, -1) + count) % count; // -2: before a place without a lesion
    go(data.lesions[lesion].voxel, lesion);
  }

  function zoom(factor) {
    state.zoom = limited(state.zoom * factor, 1, MOST_ZOOM);
    draw();
  }

  function blink() {
    state.both = false;
    state.image = state.image === 0 ? 1 : 0;
    arrange();
  }

  // Show one visit or both. The focus stays on a plane if the one that had it disappears.
  function arrange() {
    root.classList.toggle("both", state.both);
    const visible = panes.filter((one) => one.element.offsetParent);
    const lost = panes.find((one) => one.element === document.activeElement);
    if (lost && !visible.includes(lost)) visible[0].element.focus({ preventScroll: true });
    draw();
  }

  function toggle(name) {
    if (name === "difference") {
      state.image = state.image === DIFFERENCE ? 1 : DIFFERENCE;
      state.both = false;
    } else {
      state[name] = !state[name];
    }
    arrange();
  }

  function reset() {
    Object.assign(state, { zoom: 1, low: 0, high: 255 });
    byId("window-low").value = 0;
    byId("window-high").value = 255;
    draw();
  }

  function point(pane, event) {
    const box = pane.canvas.getBoundingClientRect();
    const ratio = pane.canvas.width / box.width;
    const { where } = dragged;
    const { across, down, upright } = pane.plane;
    const column = ((event.clientX - box.left) * ratio - where.left) / where.scale;
    let row = ((event.clientY - box.top) * ratio - where.top) / where.scale;
    if (upright) row = where.height - row;
    state.at[across] = limited(Math.floor(column / data.spacing[across]), 0, data.shape[across] - 1);
    state.at[down] = limited(Math.floor(row / data.spacing[down]), 0, data.shape[down] - 1);
    moved();
  }

  // The keys, for the whole page. Arrows and page keys are for the plane that has the focus.
  const KEYS = {
    b: blink, " ": blink, o: () => toggle("outlines"), d: () => toggle("difference"),
    v: () => toggle("both"), x: () => toggle("cross"), r: reset,
    n: () => choose(state.lesion + 1), p: () => choose(state.lesion - 1),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5),
    t: () => answer("true"), f: () => answer("false"), u: () => answer("unsure"),
  };

  function key(event) {
    const target = event.target;
    const typing = target.matches("input[type=text], textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const slides = target.matches("input[type=range], input[type=radio]");
    if (slides && /^(Arrow|Page|Home|End)/.test(event.key)) return;
    if (event.key === " " && target.closest("button, a, summary, input")) return; // presses it
    const pane = panes.find((one) => one.element.contains(target));
    if (pane) {
      const { across, down, through, upright } = pane.plane;
      const up = upright ? 1 : -1;
      const steps = {
        ArrowLeft: [across, -1], ArrowRight: [across, 1], ArrowUp: [down, up],
        ArrowDown: [down, -up], PageUp: [through, 1], PageDown: [through, -1],
      }[event.key];
      if (steps) {
        move(...steps);
        event.preventDefault();
        return;
      }
    }
    const field = target.closest("fieldset[data-label]");
    if (field) {
      const label = Number(field.dataset.label);
      state.lesion = data.lesions.findIndex((one) => one.label === label);
    }
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) {
      act();
      event.preventDefault();
    }
  }

  // ------------------------------------------------------------------------------------ answers

  const fieldOf = (label) => document.querySelector(`fieldset[data-label="${label}"]`);

  function answerOf(label) {
    const checked = fieldOf(label)?.querySelector("input[type=radio]:checked");
    return checked ? checked.value : "";
  }

  function answer(value) {
    const lesion = data.lesions[state.lesion];
    if (!lesion) return;
    const button = fieldOf(lesion.label)?.querySelector(`input[value="${value}"]`);
    if (!button) return;
    button.checked = answerOf(lesion.label) !== value; // the same key again takes it back
    answered();
  }

  let saved = true;

  function answered() {
    saved = false;
    const given = data.lesions.filter((one) => answerOf(one.label)).length;
    byId("answers-state").textContent = `${given} of ${data.lesions.length} answered, not saved`;
    say();
  }

  // Spreadsheets run text that begins like a formula. An apostrophe before it prevents this
  // (system/tables.py does the same, and `evaluate` removes it). Numbers may begin with "-".
  const guarded = (value) =>
    typeof value === "string" && /^'*[=+\-@\t]/.test(value) ? `'${value}` : String(value);
  const quoted = (value) => `"${guarded(value).replaceAll('"', '""')}"`;

  function save() {
    const rows = [["patient", "lesion", "class", "label", "volume_mm3", "x_mm", "y_mm", "z_mm",
      "mean_probability", "answer", "note"]];
    for (const lesion of data.lesions) {
      const note = fieldOf(lesion.label)?.querySelector("input[type=text]").value ?? "";
      rows.push([data.patient, lesion.lesion, lesion.class, lesion.label, lesion.volume_mm3,
        ...lesion.centre_mm, lesion.mean_probability ?? "", answerOf(lesion.label), note]);
    }
    const text = rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = data.answers_file;
    link.click();
    URL.revokeObjectURL(link.href);
    saved = true;
    byId("answers-state").textContent = `saved as ${data.answers_file}`;
  }

  // ------------------------------------------------------------------------------------ events

  function listen() {
    for (const pane of panes) {
      pane.canvas.addEventListener("pointerdown", (event) => {
        pane.canvas.setPointerCapture(event.pointerId);
        pane.element.focus({ preventScroll: true });
        dragged = { pane, where: fit(pane) };
        point(pane, event);
        event.preventDefault();
      });
      pane.canvas.addEventListener("pointermove", (event) => {
        if (dragged && event.buttons & 1) point(pane, event);
      });
      for (const name of ["pointerup", "pointercancel"]) {
        pane.canvas.addEventListener(name, () => {
          dragged = null;
          draw();
        });
      }
      pane.canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        if (!event.deltaY) return; // sideways
        if (event.ctrlKey) zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
        else move(pane.plane.through, event.deltaY < 0 ? 1 : -1);
      }, { passive: false });
    }
    document.addEventListener("keydown", key);
    window.addEventListener("resize", draw);
    const press = (id, act) => byId(id).addEventListener("click", act);
    press("blink", blink);
    press("show-both", () => toggle("both"));
    press("show-outlines", () => toggle("outlines"));
    press("show-difference", () => toggle("difference"));
    press("show-cross", () => toggle("cross"));
    press("zoom-in", () => zoom(1.5));
    press("zoom-out", () => zoom(1 / 1.5));
    press("reset", reset);
    press("next-lesion", () => choose(state.lesion + 1));
    press("previous-lesion", () => choose(state.lesion - 1));
    if (data.lesions.length) press("save-answers", save);
    for (const [id, name] of [["window-low", "low"], ["window-high", "high"]]) {
      byId(id).addEventListener("input", (event) => {
        state[name] = Number(event.target.value);
        draw();
      });
    }
    for (const button of root.querySelectorAll("[data-answer]")) {
      button.addEventListener("click", () => answer(button.dataset.answer));
    }
    for (const field of document.querySelectorAll("fieldset[data-label]")) {
      field.addEventListener("input", answered);
    }
    for (const link of document.querySelectorAll("[data-go], [data-place]")) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        if (link.dataset.go) {
          choose(data.lesions.findIndex((one) => one.label === Number(link.dataset.go)));
        } else {
          go(data.places[Number(link.dataset.place)], -1);
        }
        root.scrollIntoView({ block: "start" });
        panes[0].element.focus({ preventScroll: true });
      });
    }
    window.addEventListener("beforeunload", (event) => {
      if (!saved) event.preventDefault();
    });
  }

  start();
})();
