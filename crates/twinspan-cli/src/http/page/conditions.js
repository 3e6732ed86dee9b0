
// The panel of network conditions: a slider and a number for each, sent as soon as they rest.

const DEBOUNCE_MS = 150;
// What a slider spans is what one wants to try; the number takes all that the server takes.
const CONTROLS = [
  { key: 'loss', title: 'Loss', unit: '%', factor: 100, span: 50, step: 0.5, max: 100 },
  { key: 'duplicate', title: 'Duplicate', unit: '%', factor: 100, span: 50, step: 0.5, max: 100 },
  { key: 'reorder', title: 'Reorder', unit: '%', factor: 100, span: 50, step: 0.5, max: 100 },
  { key: 'delay_ms', title: 'Delay', unit: 'ms', factor: 1, span: 500, step: 5, max: 60000 },
  { key: 'jitter_ms', title: 'Jitter', unit: 'ms', factor: 1, span: 500, step: 5, max: 60000 },
];

const panel = { now: null, timer: 0, sent: 0, busy: 0 };

for (const control of CONTROLS) {
  const id = `condition-${control.key.replace('_ms', '')}`;
  control.range = make('input', {
    type: 'range', id, min: 0, max: control.span, step: control.step, value: 0,
  });
  control.number = make('input', {
    type: 'number', id: `${id}-number`, min: 0, max: control.max, step: 'any', value: 0, required: true,
  });
  control.number.setAttribute('aria-label', `${control.title} in ${control.unit === '%' ? 'per cent' : 'milliseconds'}`);
  $('controls').append(make('div', { className: 'control' },
    make('label', { htmlFor: id, textContent: control.title }), control.range, control.number,
    make('span', { textContent: control.unit })));
  control.range.addEventListener('input', () => {
    control.number.value = control.range.value;
    schedule();
  });
  control.number.addEventListener('input', () => {
    if (control.number.validity.valid) control.range.value = control.number.value;
    schedule();
  });
}
for (const button of $('presets').children) {
  button.addEventListener('click', () => send({ preset: button.dataset.preset }));
}

function schedule() {
  clearTimeout(panel.timer);
  panel.timer = setTimeout(() => {
    panel.timer = 0;
    const wrong = CONTROLS.find((control) => !control.number.validity.valid);
    if (wrong) return note('bad', `${wrong.title} must be a number from 0 to ${wrong.max} ${wrong.unit}`);
    const form = {};
    // Per cent to share without the noise of floating point: 0.07 and not 0.07000000000000001.
    for (const { key, number, factor } of CONTROLS) form[key] = Number((number.value / factor).toFixed(6));
    return send(form);
  }, DEBOUNCE_MS);
}

async function send(form) {
  clearTimeout(panel.timer);
  panel.timer = 0;
  const ticket = panel.sent += 1;
  panel.busy += 1;
  try {
    const reply = await fetch('/api/conditions', {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(form),
    });
    const answer = await reply.json();
    if (ticket !== panel.sent) return;
    if (!reply.ok) return note('bad', `Not applied: ${answer.error}`);
    panel.busy -= 1;
    takeConditions(answer);
    panel.busy += 1;
    note('good', `In force: ${inWords(answer)}`);
  } catch {
    if (ticket === panel.sent) note('bad', 'Not applied: the server does not answer');
  } finally {
    panel.busy -= 1;
  }
}

function inWords({ now, preset }) {
  if (preset === 'clean') return 'a clean network';
  const parts = CONTROLS.filter(({ key }) => now[key] > 0).map(({ key, title, factor, unit }) =>
    `${title.toLowerCase()} ${Number((now[key] * factor).toFixed(3))} ${unit}`);
  if (now.rate_bytes_per_s > 0) parts.push(`${bytes(now.rate_bytes_per_s)}/s a bot`);
  return parts.join(', ') || 'a clean network';
}

function note(kind, text) {
  $('conditions-note').dataset.kind = kind;
  put($('conditions-note'), text);
}

// What the server has in force, from whichever page it was set.
function takeConditions(answer) {
  const data = $('conditions').dataset;
  for (const { key } of CONTROLS) data[key.replace('_ms', '')] = answer.now[key];
  data.preset = answer.preset ?? '';
  for (const button of $('presets').children) {
    button.setAttribute('aria-pressed', button.dataset.preset === answer.preset);
  }
  const changed = JSON.stringify(answer.now) !== JSON.stringify(panel.now);
  panel.now = answer.now;
  // Never under the hands of someone who is moving a slider.
  if (panel.timer || panel.busy > 0) return;
  for (const { key, factor, range, number } of CONTROLS) {
    const value = Number((answer.now[key] * factor).toFixed(4));
    range.value = value;
    if (document.activeElement !== number || Number(number.value) !== value) number.value = value;
  }
  if (changed) note('idle', `In force: ${inWords(answer)}`);
}
