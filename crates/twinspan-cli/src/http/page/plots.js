
// Plots of the last two minutes, drawn here: two lines each do not need a library.

// The shortest of these that holds all there is: a young demo fills its plots too.
const WINDOWS = [
  { seconds: 30, marks: ['−30 s', '−15 s', 'now'] },
  { seconds: 60, marks: ['−1 min', '−30 s', 'now'] },
  { seconds: 120, marks: ['−2 min', '−1 min', 'now'] },
];
const KEPT_SECONDS = 300;
const GUTTER = { left: 52, right: 8, top: 6, bottom: 18 };

let history = [];
let view = WINDOWS[0];
// The second that the reader points at, the same in every plot; null for the newest.
let pointed = null;

const PLOTS = [
  { id: 'tick', title: 'Tick time', unit: 'per 60 Hz tick', show: micros, least: 100,
    lines: [['tick_p50_us', 'p50'], ['tick_p99_us', 'p99']] },
  { id: 'packets', title: 'Packets', unit: 'per second, server', show: scaled, least: 10,
    lines: [['packets_in', 'in'], ['packets_out', 'out']] },
  { id: 'bytes', title: 'Bytes per player', unit: 'per second', show: bytes, least: 100,
    lines: [['bytes_per_player_in', 'in'], ['bytes_per_player_out', 'out']] },
  { id: 'loss', title: 'Loss', unit: 'of inputs up, states down', show: percent, least: 0.01,
    lines: [['loss_up', 'up'], ['loss_down', 'down']] },
  // One scale for both, so that they can be compared.
  { id: 'up', title: 'Latency up', unit: 'one way', show: millis, least: 1, scale: 'latency',
    lines: [['up_p50_ms', 'p50'], ['up_p99_ms', 'p99']] },
  { id: 'down', title: 'Latency down', unit: 'one way', show: millis, least: 1, scale: 'latency',
    lines: [['down_p50_ms', 'p50'], ['down_p99_ms', 'p99']] },
];

for (const plot of PLOTS) {
  plot.canvas = make('canvas', { tabIndex: 0 });
  plot.canvas.setAttribute('role', 'img');
  plot.values = plot.lines.map(() => make('b', { textContent: '–' }));
  plot.when = make('li', { className: 'when' });
  const keys = plot.lines.map(([, label], k) =>
    make('li', { className: 'ab'[k] }, make('i'), `${label} `, plot.values[k]));
  plot.figure = make('figure', { className: 'card plot', id: `plot-${plot.id}` },
    make('figcaption', { className: 'plot-head' },
      make('h2', { textContent: plot.title }), make('span', { textContent: plot.unit })),
    make('ul', { className: 'keys' }, ...keys, plot.when), plot.canvas);
  $('plots').append(plot.figure);
  watchPointer(plot);
  onResize.observe(plot.canvas);
}
{
  const value = PLOTS.find((plot) => plot.id === 'loss').figure;
  value.querySelector('.keys').id = 'loss-now';
}
painters.push(drawPlots);

function takeMetrics(frames) {
  if (!frames.length) return;
  // A demo that began anew counts its seconds from zero.
  if (history.length && frames[0].second <= history[history.length - 1].second) history = [];
  history = history.concat(frames).slice(-KEPT_SECONDS);
  const last = history[history.length - 1];
  const now = $('loss-now').dataset;
  now.up = last.loss_up;
  now.down = last.loss_down;
  now.value = (last.loss_up + last.loss_down) / 2;
  document.body.dataset.second = last.second;
  drawPlots();
}

function forgetMetrics() {
  history = [];
}

// The smallest of 1, 2, 2.5, 5 times a power of ten that makes at most four steps.
function stepFor(top) {
  const rough = top / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((k) => k * power).find((step) => step >= rough * 0.999);
}

// The largest value of the plot, or of those that share its scale, in these seconds.
function topOf(plot, frames) {
  const plots = plot.scale ? PLOTS.filter((other) => other.scale === plot.scale) : [plot];
  let top = plot.least;
  for (const { lines } of plots) {
    for (const [key] of lines) for (const frame of frames) if (frame[key] > top) top = frame[key];
  }
  return top;
}

function drawPlots() {
  const last = history[history.length - 1];
  const age = last ? last.second - history[0].second : 0;
  view = WINDOWS.find(({ seconds }) => seconds >= age) ?? WINDOWS[WINDOWS.length - 1];
  for (const plot of PLOTS) {
    drawPlot(plot, last ? last.second : 0);
    const at = pointed === null ? last : history.find((frame) => frame.second === pointed);
    plot.lines.forEach(([key], k) => {
      put(plot.values[k], at && Number.isFinite(at[key]) ? plot.show(at[key]) : '–');
    });
    put(plot.when, pointed === null || !last ? '' : `${last.second - pointed} s ago`);
    plot.figure.dataset.points = history.length;
    const words = plot.lines.map(([, label], k) => `${label} ${plot.values[k].textContent}`);
    plot.canvas.setAttribute('aria-label', `${plot.title}, ${plot.unit}: ${words.join(', ')}`);
  }
}

function drawPlot(plot, newest) {
  const { context: c, width, height } = fit(plot.canvas);
  if (!width) return;
  const box = {
    left: GUTTER.left, right: width - GUTTER.right, top: GUTTER.top, bottom: height - GUTTER.bottom,
  };
  const frames = history.filter((frame) => frame.second >= newest - view.seconds);
  let top = topOf(plot, frames);
  const step = stepFor(top);
  top = Math.ceil(top / step * 0.999) * step;
  const x = (second) =>
    box.right - (newest - second) / view.seconds * (box.right - box.left);
  const y = (value) => box.bottom - value / top * (box.bottom - box.top);
  plot.x = x;

  c.clearRect(0, 0, width, height);
  c.font = FONT;
  c.lineWidth = 1;
  c.fillStyle = colours.dim;
  c.strokeStyle = colours.grid;
  c.textAlign = 'right';
  c.textBaseline = 'middle';
  c.beginPath();
  for (let value = 0; value <= top * 1.001; value += step) {
    const at = Math.round(y(value)) + 0.5;
    c.moveTo(box.left, at);
    c.lineTo(box.right, at);
    c.fillText(axisText(plot, value), box.left - 6, at);
  }
  c.stroke();
  c.textBaseline = 'alphabetic';
  view.marks.forEach((text, k) => {
    c.textAlign = ['left', 'center', 'right'][k];
    c.fillText(text, x(newest - view.seconds * (2 - k) / 2), height - 4);
  });

  c.save();
  c.beginPath();
  c.rect(box.left, 0, box.right - box.left + 3, height);
  c.clip();
  plot.lines.forEach(([key], k) => drawLine(c, frames, key, x, y, k ? colours.b : colours.a));
  c.restore();
  drawPointer(c, plot, frames, x, y, box);
}

// Axis numbers share the unit of the legend but not its three digits.
function axisText(plot, value) {
  if (value === 0) return '0';
  const text = plot.show(value);
  return text.replace(/(\.\d*?)0+(?=\D|$)/, '$1').replace(/\.(?=\D|$)/, '');
}

// A second without a value is a gap, not a line to the next.
function drawLine(c, frames, key, x, y, colour) {
  const line = new Path2D();
  let before = null;
  for (const frame of frames) {
    const value = frame[key];
    if (!Number.isFinite(value)) {
      before = null;
      continue;
    }
    if (before === frame.second - 1) line.lineTo(x(frame.second), y(value));
    else line.moveTo(x(frame.second), y(value));
    before = frame.second;
  }
  c.strokeStyle = colour;
  c.lineWidth = 1.75;
  c.lineJoin = 'round';
  c.stroke(line);
  const last = frames[frames.length - 1];
  if (last && Number.isFinite(last[key])) dot(c, x(last.second), y(last[key]), colour, 2.25);
}

function dot(c, x, y, colour, size) {
  c.fillStyle = colour;
  c.beginPath();
  c.arc(x, y, size, 0, 7);
  c.fill();
}

function drawPointer(c, plot, frames, x, y, box) {
  const frame = pointed === null ? undefined : frames.find((each) => each.second === pointed);
  if (!frame) return;
  c.strokeStyle = colours.strong;
  c.lineWidth = 1;
  c.beginPath();
  c.moveTo(Math.round(x(pointed)) + 0.5, box.top);
  c.lineTo(Math.round(x(pointed)) + 0.5, box.bottom);
  c.stroke();
  plot.lines.forEach(([key], k) => {
    if (!Number.isFinite(frame[key])) return;
    dot(c, x(pointed), y(frame[key]), colours.card, 5);
    dot(c, x(pointed), y(frame[key]), k ? colours.b : colours.a, 3.5);
  });
}

function watchPointer(plot) {
  const { canvas } = plot;
  const pointAt = (second) => {
    const newest = history[history.length - 1]?.second;
    if (newest === undefined) return;
    const oldest = Math.max(history[0].second, newest - view.seconds);
    pointed = second === null ? null : clamp(second, oldest, newest);
    drawPlots();
  };
  canvas.addEventListener('pointermove', (event) => {
    const newest = history[history.length - 1]?.second;
    if (newest === undefined) return;
    const at = event.clientX - canvas.getBoundingClientRect().left;
    const long = canvas.clientWidth - GUTTER.left - GUTTER.right;
    const ago = (canvas.clientWidth - GUTTER.right - at) / long * view.seconds;
    pointAt(newest - Math.round(ago));
  });
  canvas.addEventListener('pointerleave', () => pointAt(null));
  canvas.addEventListener('blur', () => pointAt(null));
  canvas.addEventListener('keydown', (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const newest = history[history.length - 1]?.second;
    if (event.key === 'Escape') pointAt(null);
    if (move === undefined || newest === undefined) return;
    event.preventDefault();
    pointAt((pointed ?? newest) + move);
  });
}
