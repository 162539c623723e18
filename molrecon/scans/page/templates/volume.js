
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const canvas = find("picture"), context = canvas.getContext("2d", { willReadFrequently: true });
  const slider = find("slice"), low = find("low"), high = find("high");
  const windows = {};  // by group of views: [black, white] in grey levels
  let slice = data.start, view = 0, other = Math.min(1, data.views.length - 1), grey = null, drawing = 0;

  const number = (value) => {
    const small = value !== 0 && Math.abs(value) < 1e-3;
    return small ? value.toExponential(2) : Number(value.toPrecision(3)).toString();
  };
  const value = (level) => {
    const v = data.views[view];
    return v.low + (v.high - v.low) * level / 255;
  };
  const levels = () => (windows[data.views[view].group] ??= data.views[view].window);

  function paint() {
    const [black, white] = levels();
    const picture = context.createImageData(canvas.width, canvas.height), pixels = picture.data;
    for (let k = 0; k < grey.length; k++) {
      const shown = 255 * (grey[k] - black) / (white - black);  // the array clamps and rounds
      pixels[4 * k] = pixels[4 * k + 1] = pixels[4 * k + 2] = shown;
      pixels[4 * k + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
  }

  function size() {
    const room = canvas.parentElement.clientWidth - 24, tall = Math.max(320, window.innerHeight * 0.72);
    const aspect = data.views[view].key === "maps" ? canvas.height / canvas.width : data.aspect;
    const width = Math.min(room, tall / aspect);
    canvas.style.width = width + "px";
    canvas.style.height = width * aspect + "px";
  }

  function describe() {
    const shown = data.views[view], [black, white] = levels();
    slider.value = slice;
    low.value = black;
    high.value = white;
    find("slice-text").textContent = `${slice} of 0 to ${data.count - 1}`;
    find("low-text").textContent = `${number(value(black))} ${shown.unit}`;
    find("high-text").textContent = `${number(value(white))} ${shown.unit}`;
    find("note").textContent = `${shown.title}: ${shown.note}.`;
    find("caption").textContent = `${shown.title}, slice ${slice}: ${data.notes[slice]}`;
    canvas.setAttribute("aria-label", `${shown.title} of slice ${slice} of ${data.count}, ${shown.note}, window `
      + `${number(value(black))} to ${number(value(white))}. ${data.notes[slice]}`);
    document.querySelectorAll("[data-view]").forEach((button) =>
      button.setAttribute("aria-pressed", String(Number(button.dataset.view) === view)));
    document.querySelectorAll("tr[data-slice], polyline[data-slice]").forEach((item) =>
      item.classList.toggle("current", Number(item.dataset.slice) === slice));
  }

  function show() {
    describe();
    const order = ++drawing, image = new Image();
    image.onload = () => {
      if (order !== drawing) return;  // another one was asked for meanwhile
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      grey = new Uint8Array(pixels.length / 4);
      for (let k = 0; k < grey.length; k++) grey[k] = pixels[4 * k];
      size();
      paint();
      canvas.dataset.shown = `${data.views[view].key} ${slice}`;
    };
    image.src = data.views[view].images[slice];
  }

  function toSlice(k) {
    slice = Math.min(Math.max(k, 0), data.count - 1);
    show();
  }

  function toView(k) {
    if (k === view || k < 0 || k >= data.views.length) return;
    [other, view] = [view, k];
    show();
  }

  function toWindow(black, white, moved) {
    if (white <= black) [black, white] = moved === "low" ? [Math.min(black, 254), Math.min(black, 254) + 1] : [white - 1, white];
    windows[data.views[view].group] = [Math.max(0, black), Math.min(255, white)];
    describe();
    if (grey) paint();
  }

  slider.addEventListener("input", () => toSlice(Number(slider.value)));
  low.addEventListener("input", () => toWindow(Number(low.value), levels()[1], "low"));
  high.addEventListener("input", () => toWindow(levels()[0], Number(high.value), "high"));
  find("reset").addEventListener("click", () => toWindow(...data.views[view].window));
  document.querySelectorAll("[data-view]").forEach((button) =>
    button.addEventListener("click", () => toView(Number(button.dataset.view))));
  document.querySelectorAll(".jump").forEach((button) =>
    button.addEventListener("click", () => toSlice(Number(button.dataset.slice))));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    toSlice(slice + Math.sign(event.deltaY));
  }, { passive: false });
  canvas.addEventListener("pointermove", (event) => {
    if (!grey) return;
    const box = canvas.getBoundingClientRect();
    const col = Math.floor((event.clientX - box.left) / box.width * canvas.width);
    const row = Math.floor((event.clientY - box.top) / box.height * canvas.height);
    const level = grey[row * canvas.width + col];
    if (level === undefined) return;
    const coarse = data.views[view].key === "maps" ? 1 : Math.max(1, Math.floor(data.rows / canvas.height));
    find("pointer").textContent = `row ${coarse * row}, column ${coarse * col}: ${number(value(level))} ${data.views[view].unit}`;
  });
  canvas.addEventListener("pointerleave", () => { find("pointer").textContent = "\u00a0"; });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target, range = at.tagName === "INPUT", pressed = event.key;
    if (range && at !== slider && /^(Arrow|Home|End|Page)/.test(pressed)) return;  // a window slider has its own use for them
    if (pressed === " " && at.tagName === "BUTTON") return;
    if (at.classList?.contains("scroll") && /^(ArrowUp|ArrowDown|Home|End)$/.test(pressed)) return;
    const [black, white] = levels();
    const actions = {
      ArrowLeft: () => toSlice(slice - 1), ArrowRight: () => toSlice(slice + 1),
      Home: () => toSlice(0), End: () => toSlice(data.count - 1),
      " ": () => toView(other), r: () => toWindow(...data.views[view].window),
      "[": () => toWindow(black, Math.max(black + 1, white - 8)), "]": () => toWindow(black, Math.min(255, white + 8)),
    };
    const action = actions[pressed] ?? (/^[1-9]$/.test(pressed) ? () => toView(Number(pressed) - 1) : null);
    if (action) {
      event.preventDefault();
      action();
    }
  });
  window.addEventListener("resize", size);
  show();
})();
