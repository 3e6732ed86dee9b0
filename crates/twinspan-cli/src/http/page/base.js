// Shared: elements, numbers as people read them, colours of the current scheme.
// Text from the server reaches the document through textContent only.

const $ = (id) => document.getElementById(id);

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Writes only what changed: a write makes the browser lay out again.
const put = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const count = (value) => whole.format(value);

// Three digits are enough to read and do not jump about.
const digits = (value) => {
  const size = Math.abs(value);
  if (size === 0) return '0';
  return size >= 99.95 ? count(value) : size >= 9.995 ? value.toFixed(1) : value.toFixed(2);
};

// At most two decimals, and none that say nothing.
const plain = (value) => String(Number(Number(value).toFixed(2)));

const scaled = (value) => {
  if (!Number.isFinite(value)) return '–';
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (Math.abs(value) >= size * 0.9995) return `${digits(value / size)} ${unit}`;
  }
  return value >= 100 || Number.isInteger(value) ? count(value) : digits(value);
};
const bytes = (value) => {
  const text = scaled(value);
  return text === '–' ? text : /[kMG]$/.test(text) ? `${text}B` : `${text} B`;
};
const millis = (value) => Number.isFinite(value) ? `${digits(value)} ms` : '–';
const micros = (value) => {
  if (!Number.isFinite(value)) return '–';
  return value >= 1000 ? `${digits(value / 1000)} ms` : `${digits(value)} µs`;
};
const percent = (share) => Number.isFinite(share) ? `${digits(share * 100)} %` : '–';

const KINDS = ['Player', 'NPC', 'Projectile'];
const HASTE = 1;
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

let colours = {};
const painters = [];
const readColours = () => {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['card', 'sunk', 'line', 'strong', 'text', 'dim', 'accent', 'player', 'npc',
    'projectile', 'haste', 'a', 'b', 'grid', 'hair']) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
};
readColours();
const repaint = () => painters.forEach((paint) => paint());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  readColours();
  repaint();
});

// Sizes a canvas in device pixels; answers its size in CSS pixels.
const fit = (canvas) => {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [real, tall] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== real || canvas.height !== tall) {
    canvas.width = real;
    canvas.height = tall;
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
};
const onResize = new ResizeObserver(() => repaint());

const stillness = matchMedia('(prefers-reduced-motion: reduce)');
