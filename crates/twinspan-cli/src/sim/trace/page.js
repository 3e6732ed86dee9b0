
'use strict';
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const { events, hosts, flows, kinds, sent, states } = data;
const TIME = 0, KIND = 1, HOST = 2, DETAILS = 3, FLOW = 4, SENT = 5;
const kindOf = (event) => kinds[event[KIND]];
const isLoss = (event) => kindOf(event) === 'drop' || kindOf(event) === 'piece lost';
const hostName = (index) => hosts[index] ? `${hosts[index][0]} ${hosts[index][1]}` : 'outside';
const seconds = (nanos) => (nanos / 1e9).toFixed(6);

// ---- packets: from the event that sends one to the one that ends its way
const packets = [];
const packetAt = new Map();
{
  const open = new Map();
  events.forEach((event, index) => {
    const ends = event[FLOW] && flows[event[FLOW][0]];
    if (!ends) return;
    const key = event[FLOW].join('/');
    if (kindOf(event) === 'send') {
      const packet = { from: ends[2], to: ends[3], sent: index, ends: [], lost: null };
      packets.push(packet);
      open.set(key, packet);
      packetAt.set(index, packet);
      return;
    }
    const packet = open.get(key);
    if (!packet) return;
    if (isLoss(event)) packet.lost = index; else packet.ends.push(index);
    packetAt.set(index, packet);
  });
}

// ---- state: counted forward from the nearest snapshot, so that a step back costs no more than one on
const SNAPSHOT_EVERY = 512;
const blank = () => hosts.map(() => ({ on: false, tasks: 0, sent: 0, way: 0, got: 0, lost: 0, machine: '' }));
const copy = (state) => state.map((host) => ({ ...host }));
const statesByEvent = new Map();
for (const [event, host, text] of states) {
  if (!statesByEvent.has(event)) statesByEvent.set(event, []);
  statesByEvent.get(event).push([host, text]);
}
function apply(state, index) {
  for (const [host, text] of statesByEvent.get(index) || []) {
    if (state[host]) { state[host].machine = text; state[host].on = true; }
  }
  const event = events[index];
  const host = event[HOST] === null ? null : state[event[HOST]];
  const ends = event[FLOW] && flows[event[FLOW][0]];
  const from = ends ? state[ends[2]] : null;
  const to = ends ? state[ends[3]] : null;
  switch (kindOf(event)) {
    case 'host start': if (host) host.on = true; break;
    case 'host stop': if (host) { host.on = false; host.tasks = 0; } break;
    case 'spawn': if (host) { host.on = true; host.tasks += 1; } break;
    case 'task end': case 'abort': if (host) host.tasks = Math.max(0, host.tasks - 1); break;
    case 'send': if (from) { from.sent += 1; from.way += 1; from.on = true; } break;
    case 'deliver':
      if (from) from.way = Math.max(0, from.way - 1);
      if (to) { to.got += 1; to.on = true; }
      break;
    case 'drop': if (from) { from.way = Math.max(0, from.way - 1); from.lost += 1; } break;
  }
}
const snapshots = [blank()];
{
  const state = blank();
  for (let index = 0; index < events.length; index += 1) {
    apply(state, index);
    if ((index + 1) % SNAPSHOT_EVERY === 0) snapshots.push(copy(state));
  }
}
function stateAfter(index) {
  const block = Math.floor((index + 1) / SNAPSHOT_EVERY);
  const state = copy(snapshots[block]);
  for (let at = block * SNAPSHOT_EVERY; at <= index; at += 1) apply(state, at);
  return state;
}

// ---- where we are
let now = 0;
let playing = null;
const matches = () => {
  const kind = $('only').value;
  const text = $('find').value.trim().toLowerCase();
  return (event) => (!kind || kindOf(event) === kind) && (!text
    || `${event[DETAILS]} ${kindOf(event)} ${event[HOST] === null ? '' : hostName(event[HOST])}`.toLowerCase().includes(text));
};
function seek(step, wanted = matches()) {
  for (let at = now + step; at >= 0 && at < events.length; at += step) {
    if (wanted(events[at])) { go(at); return true; }
  }
  return false;
}
function go(index) {
  now = Math.max(0, Math.min(events.length - 1, index));
  draw();
}

// ---- drawing
const ROW = 20;
function drawList() {
  const rows = Math.max(1, Math.floor($('list').clientHeight / ROW));
  const wanted = matches();
  const before = [], after = [];
  for (let at = now - 1; at >= 0 && before.length < rows / 2; at -= 1) if (wanted(events[at])) before.unshift(at);
  for (let at = now + 1; at < events.length && after.length < rows; at += 1) if (wanted(events[at])) after.push(at);
  const shown = [...before, now, ...after].slice(0, rows);
  $('list').replaceChildren(...shown.map((index) => {
    const event = events[index];
    const row = document.createElement('li');
    row.className = `${index === now ? 'is-now' : ''} ${isLoss(event) ? 'bad' : ''}`;
    for (const [name, text] of [['time', seconds(event[TIME])], ['kind', kindOf(event)], ['what', what(event)]]) {
      const cell = document.createElement('span');
      cell.className = name;
      cell.textContent = text;
      row.append(cell);
    }
    if (index === now) row.setAttribute('aria-current', 'true');
    row.addEventListener('click', () => go(index));
    return row;
  }));
}
function what(event) {
  const host = event[HOST] === null || event[FLOW] ? '' : `${hostName(event[HOST])}  `;
  const plain = event[DETAILS].replace(/ ?host=.*?\([^)]*\)/, '').replace(/ payload=[0-9a-f]+/, '');
  return host + plain.replace(/^flow=/, '').replace(/ > /, ' → ');
}
function drawEvent() {
  const event = events[now];
  const packet = packetAt.get(now);
  const rows = [
    ['Number', String(data.first + now)],
    ['Time', `${seconds(event[TIME])} s`],
    ['Kind', kindOf(event)],
    ['Host', event[HOST] === null ? null : hostName(event[HOST])],
    ['Details', event[DETAILS]],
  ];
  if (packet) {
    const taken = (index) => `${((events[index][TIME] - events[packet.sent][TIME]) / 1e6).toFixed(3)} ms`;
    rows.push(['Sent', `event ${data.first + packet.sent}, ${seconds(events[packet.sent][TIME])} s`]);
    for (const end of packet.ends) rows.push(['Arrived', `event ${data.first + end}, after ${taken(end)}`]);
    if (packet.lost !== null) rows.push(['Lost', `event ${data.first + packet.lost}, after ${taken(packet.lost)}`]);
  }
  $('event').replaceChildren(...rows.filter(([, text]) => text).flatMap(([name, text]) => {
    const term = document.createElement('dt');
    term.textContent = name;
    const value = document.createElement('dd');
    value.textContent = text;
    return [term, value];
  }));
  const bytes = packet ? events[packet.sent][SENT] : null;
  $('bytes').hidden = bytes === null;
  if (bytes !== null) $('bytes').textContent = dump(sent[bytes]);
}
function dump([length, hex]) {
  const lines = [`${length} bytes${hex.length / 2 < length ? `, the first ${hex.length / 2} of them` : ''}`];
  for (let at = 0; at < hex.length; at += 32) {
    const line = hex.slice(at, at + 32);
    const pairs = line.match(/../g) || [];
    const text = pairs.map((pair) => {
      const code = parseInt(pair, 16);
      return code >= 32 && code < 127 ? String.fromCharCode(code) : '.';
    }).join('');
    lines.push(`${(at / 2).toString(16).padStart(4, '0')}  ${pairs.join(' ').padEnd(47)}  ${text}`);
  }
  return lines.join('\n');
}
function drawHosts() {
  const state = stateAfter(now);
  const current = events[now][HOST];
  $('hosts').replaceChildren(...state.map((host, index) => {
    const row = document.createElement('tr');
    row.className = `${index === current ? 'is-now' : ''} ${host.on ? '' : 'is-off'}`;
    const cells = [hostName(index), host.tasks, host.sent, host.way, host.got, host.lost, host.machine];
    row.append(...cells.map((text) => {
      const cell = document.createElement('td');
      cell.textContent = String(text);
      return cell;
    }));
    return row;
  }));
}
const WINDOW_NS = 120e6;
function drawLanes() {
  const canvas = $('lanes');
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const used = hosts.slice(0, 24);
  const lane = (index) => (index + .5) * width / used.length;
  const present = events[now][TIME];
  const start = present - WINDOW_NS * .6;
  const top = 26;
  const y = (time) => top + (time - start) / WINDOW_NS * (height - top);
  context.font = '12px system-ui, sans-serif';
  context.textAlign = 'center';
  used.forEach(([name, ip], index) => {
    context.fillStyle = colour('--dim');
    const label = width / used.length > 130 ? `${name} ${ip}` : width / used.length > 60 ? name : String(index);
    context.fillText(label, lane(index), 14);
    context.strokeStyle = colour('--grid');
    context.beginPath();
    context.moveTo(lane(index), top);
    context.lineTo(lane(index), height);
    context.stroke();
  });
  const chosen = packetAt.get(now);
  context.save();
  context.beginPath();
  context.rect(0, top, width, height - top);
  context.clip();
  for (const packet of packets) {
    const begun = events[packet.sent][TIME];
    if (begun > start + WINDOW_NS || packet.from === null || packet.to === null) continue;
    const ends = packet.ends.length ? packet.ends : [null];
    for (const end of ends) {
      const time = end === null ? begun + (packet.lost === null ? 12e6 : 6e6) : events[end][TIME];
      if (time < start) continue;
      const isLost = end === null && packet.lost !== null;
      const share = end === null ? .3 : 1;
      const [x0, x1] = [lane(packet.from), lane(packet.from) + (lane(packet.to) - lane(packet.from)) * share];
      context.strokeStyle = colour(isLost ? '--bad' : packet === chosen ? '--accent' : '--wire');
      context.lineWidth = packet === chosen ? 2.5 : 1;
      context.globalAlpha = begun > present ? .25 : 1;
      context.beginPath();
      context.moveTo(x0, y(begun));
      context.lineTo(x1, y(time));
      context.stroke();
      if (isLost) {
        context.beginPath();
        context.moveTo(x1 - 4, y(time) - 4); context.lineTo(x1 + 4, y(time) + 4);
        context.moveTo(x1 + 4, y(time) - 4); context.lineTo(x1 - 4, y(time) + 4);
        context.stroke();
      } else if (end !== null) {
        context.fillStyle = context.strokeStyle;
        context.beginPath();
        context.arc(x1, y(time), packet === chosen ? 4 : 2.2, 0, 7);
        context.fill();
      }
    }
  }
  context.restore();
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  context.strokeStyle = colour('--accent');
  context.beginPath();
  context.moveTo(0, y(present));
  context.lineTo(width, y(present));
  context.stroke();
}
function draw() {
  $('slider').value = String(now);
  $('clock').textContent = `${seconds(events[now][TIME])} s`;
  $('where').textContent = `event ${data.first + now} of ${data.total}` + (events.length + data.first < data.total ? `, ${data.first + events.length} in this page` : '');
  drawList();
  drawEvent();
  drawHosts();
  drawLanes();
}

// ---- playing: virtual time at a share of real time
function stop() {
  if (playing !== null) cancelAnimationFrame(playing);
  playing = null;
  $('play').textContent = 'Play';
}
function play() {
  if (playing !== null) { stop(); return; }
  $('play').textContent = 'Stop';
  let then = performance.now();
  let virtual = events[now][TIME];
  const step = (moment) => {
    virtual += (moment - then) * 1e6 * Number($('speed').value);
    then = moment;
    let at = now;
    while (at + 1 < events.length && events[at + 1][TIME] <= virtual) at += 1;
    if (at !== now) go(at);
    if (at + 1 >= events.length) { stop(); return; }
    playing = requestAnimationFrame(step);
  };
  playing = requestAnimationFrame(step);
}

// ---- the page
$('about').textContent = `${data.about}; trace hash ${data.hash} over ${data.total} events`;
$('slider').max = String(events.length - 1);
for (const [value, text] of [['1', '1 ×'], ['0.1', '1/10'], ['0.01', '1/100'], ['0.001', '1/1000'], ['10', '10 ×']]) {
  $('speed').append(new Option(text, value, value === '0.1', value === '0.1'));
}
$('only').append(new Option('all events', ''));
[...kinds].sort().forEach((kind) => $('only').append(new Option(kind, kind)));
const on = (id, what, act) => $(id).addEventListener(what, act);
on('first', 'click', () => go(0));
on('last', 'click', () => go(events.length - 1));
on('back', 'click', () => { stop(); seek(-1); });
on('forward', 'click', () => { stop(); seek(1); });
on('lost', 'click', () => { stop(); seek(1, isLoss); });
on('play', 'click', play);
on('slider', 'input', () => { stop(); go(Number($('slider').value)); });
on('only', 'change', draw);
on('find', 'input', draw);
on('list', 'wheel', (event) => { event.preventDefault(); stop(); seek(event.deltaY > 0 ? 1 : -1); });
document.addEventListener('keydown', (event) => {
  if (event.target.matches('input[type="search"], select')) return;
  const act = {
    ArrowLeft: () => { stop(); seek(-1); }, ArrowRight: () => { stop(); seek(1); },
    ArrowUp: () => { stop(); seek(-1); }, ArrowDown: () => { stop(); seek(1); },
    Home: () => go(0), End: () => go(events.length - 1), ' ': play, l: () => seek(1, isLoss),
  }[event.key];
  if (!act || (event.key === ' ' && event.target.matches('button'))) return;
  event.preventDefault();
  act();
});
window.addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
// `#event=N` opens the page there.
const asked = Number(new URLSearchParams(location.hash.slice(1)).get('event'));
go(Number.isFinite(asked) ? asked - data.first : 0);
})();
