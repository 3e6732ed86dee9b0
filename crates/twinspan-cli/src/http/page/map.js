
// The map: the newest frame, moved smoothly from where each entity was drawn last.

const STRIDE = 7;
// A frame's worth of faster movement than this is a respawn, not a walk: no gliding across.
const JUMP_METRES = 20;
const REACH_PIXELS = 40;
const ZOOM_MAX = 16;
// Around the world; below it lies the scale.
const MARGIN = 10;
const FOOT = 26;
const DRAW_PAUSE_MS = 24;

const map = {
  canvas: $('map'), tick: 0, side: 0, cell: 0, n: 0,
  id: new Uint32Array(0), kind: new Uint8Array(0), flags: new Uint8Array(0),
  health: new Uint8Array(0),
  // Where each entity glides from and to, and where it was drawn last.
  from: new Float32Array(0), to: new Float32Array(0), at: new Float32Array(0),
  index: new Map(),
  arrived: 0, interval: 100, drawn: 0, waiting: false,
  zoom: 1, centre: [0, 0], follow: false,
  hover: -1, scale: 1, left: 0, top: 0,
};

const selection = {
  id: null, cells: [], inside: new Set(), visible: new Set(), tick: null, asked: 0,
};
const ASK_MS = 400;

function takeWorld(frame, now) {
  const flat = frame.e;
  const n = Math.floor(flat.length / STRIDE);
  if (map.id.length < n) {
    const room = Math.ceil(n * 1.25);
    for (const name of ['from', 'to', 'at']) {
      const grown = new Float32Array(room * 3);
      grown.set(map[name]);
      map[name] = grown;
    }
    for (const name of ['kind', 'flags', 'health']) map[name] = new Uint8Array(room);
    map.id = new Uint32Array(room);
  }
  if (frame.side !== map.side) {
    map.centre = [frame.side / 2, frame.side / 2];
    map.zoom = 1;
  }
  const { from, to, at } = map;
  const known = map.index;
  // Places may be taken by others now, so the old ones are read before they are written.
  const last = at.slice(0, map.n * 3);
  const index = new Map();
  const tally = [0, 0, 0, 0];
  for (let i = 0; i < n; i += 1) {
    const o = i * STRIDE;
    const id = flat[o];
    const [x, z, yaw] = [flat[o + 2] / 100, flat[o + 3] / 100, flat[o + 4]];
    map.id[i] = id;
    map.kind[i] = flat[o + 1];
    map.flags[i] = flat[o + 5];
    map.health[i] = flat[o + 6];
    to[i * 3] = x;
    to[i * 3 + 1] = z;
    to[i * 3 + 2] = yaw;
    const was = known.get(id);
    const glides = was !== undefined &&
      Math.hypot(last[was * 3] - x, last[was * 3 + 1] - z) < JUMP_METRES;
    for (let k = 0; k < 3; k += 1) from[i * 3 + k] = glides ? last[was * 3 + k] : to[i * 3 + k];
    index.set(id, i);
    if (flat[o + 1] < 3) tally[flat[o + 1]] += 1;
    if (flat[o + 5] & HASTE) tally[3] += 1;
  }
  // The pace of the frames, smoothed: a late one should not make the next glide crawl.
  if (map.arrived) {
    map.interval += (clamp(now - map.arrived, 30, 400) - map.interval) * 0.1;
  }
  Object.assign(map, { n, index, arrived: now, tick: frame.tick, side: frame.side, cell: frame.cell });
  glide(now);
  const words = ['count-0', 'count-1', 'count-2', 'count-haste'];
  words.forEach((word, i) => put($(word), count(tally[i])));
  put($('world-size'), `${plain(frame.side)} m square, cells of ${plain(frame.cell)} m`);
  map.canvas.dataset.entities = n;
  map.canvas.dataset.tick = frame.tick;
  lookAround();
  $('map-wait').hidden = true;
  showDetails();
  animate();
}

// Moves every entity along its way from the last frame to this one.
function glide(now) {
  const t = stillness.matches ? 1 : clamp((now - map.arrived) / map.interval, 0, 1);
  const { from, to, at } = map;
  for (let i = 0; i < map.n * 3; i += 3) {
    at[i] = from[i] + (to[i] - from[i]) * t;
    at[i + 1] = from[i + 1] + (to[i + 1] - from[i + 1]) * t;
    // The short way round.
    const turn = ((to[i + 2] - from[i + 2] + 540) % 360) - 180;
    at[i + 2] = from[i + 2] + turn * t;
  }
  return t;
}

// Draws now and, while something still glides, again on a later frame of the screen.
function animate() {
  if (map.waiting) return;
  map.waiting = true;
  requestAnimationFrame((now) => {
    map.waiting = false;
    if (now - map.drawn < DRAW_PAUSE_MS) return animate();
    map.drawn = now;
    const t = glide(now);
    drawMap();
    if (t < 1) animate();
  });
}

// From metres to pixels. North (growing z) is up.
const place = (x, z) => [map.left + x * map.scale, map.top - z * map.scale];

const wholeScale = (width, height) =>
  (Math.min(width, height - FOOT) - 2 * MARGIN) / (map.side || 1);

function frameView(width, height) {
  map.scale = wholeScale(width, height) * map.zoom;
  const i = map.index.get(selection.id);
  if (map.follow && map.zoom > 1 && i !== undefined) {
    map.centre = [map.at[i * 3], map.at[i * 3 + 1]];
  }
  const middle = (height - FOOT) / 2;
  const seen = [width / 2 / map.scale, middle / map.scale];
  map.centre = map.centre.map((c, k) => {
    const margin = MARGIN / map.scale;
    const [low, high] = [seen[k] - margin, map.side + margin - seen[k]];
    return low > high ? map.side / 2 : clamp(c, low, high);
  });
  map.left = width / 2 - map.centre[0] * map.scale;
  map.top = middle + map.centre[1] * map.scale;
}

function drawMap() {
  const { context: c, width, height } = fit(map.canvas);
  c.clearRect(0, 0, width, height);
  if (!map.side || !width) return;
  frameView(width, height);
  drawGrid(c);
  drawInterest(c);
  drawEntities(c, width, height);
  drawMarks(c, width);
  drawScale(c, width, height);
}

function drawGrid(c) {
  const size = map.side * map.scale;
  const [left, bottom] = place(0, 0);
  c.beginPath();
  // Lines closer than 6 pixels are grey paste: leave some out.
  let step = map.cell || map.side;
  while (step * map.scale < 6) step *= 2;
  for (let at = 0; at <= map.side; at += step) {
    const x = Math.round(left + at * map.scale) + 0.5;
    const y = Math.round(bottom - at * map.scale) + 0.5;
    c.moveTo(x, bottom);
    c.lineTo(x, bottom - size);
    c.moveTo(left, y);
    c.lineTo(left + size, y);
  }
  c.strokeStyle = colours.grid;
  c.lineWidth = 1;
  c.stroke();
  c.strokeStyle = colours.strong;
  c.strokeRect(Math.round(left) + 0.5, Math.round(bottom - size) + 0.5, Math.round(size), Math.round(size));
}

function drawInterest(c) {
  if (!selection.cells.length) return;
  const has = selection.inside;
  const size = map.cell * map.scale;
  c.save();
  c.beginPath();
  const [left, bottom] = place(0, 0);
  c.rect(left, bottom - map.side * map.scale, map.side * map.scale, map.side * map.scale);
  c.clip();
  c.fillStyle = colours.accent;
  c.globalAlpha = 0.13;
  c.beginPath();
  for (const [x, z] of selection.cells) {
    const [px, py] = place(x * map.cell, z * map.cell);
    c.rect(px, py - size, size, size);
  }
  c.fill();
  c.globalAlpha = 0.9;
  c.beginPath();
  // Only edges with no cell of the area behind them: its outline.
  for (const [x, z] of selection.cells) {
    const [px, py] = place(x * map.cell, z * map.cell);
    const edge = (dx, dz, ax, ay, bx, by) => {
      if (has.has(`${x + dx},${z + dz}`)) return;
      c.moveTo(px + ax * size, py - ay * size);
      c.lineTo(px + bx * size, py - by * size);
    };
    edge(-1, 0, 0, 0, 0, 1);
    edge(1, 0, 1, 0, 1, 1);
    edge(0, -1, 0, 0, 1, 0);
    edge(0, 1, 0, 1, 1, 1);
  }
  c.strokeStyle = colours.accent;
  c.lineWidth = 2;
  c.lineCap = 'square';
  c.stroke();
  c.restore();
}

// Large where there is room, small where there is a crowd.
const radius = () => {
  const apart = map.side * map.scale / Math.sqrt(map.n || 1);
  return clamp(Math.min(2 + map.scale, apart * 0.2), 2, 9);
};

// One path for each kind, so that a thousand entities are a handful of fills.
function drawEntities(c, width, height) {
  const r = radius();
  const chosen = selection.id !== null && selection.cells.length > 0;
  for (const lit of chosen ? [false, true] : [true]) {
    const paths = [new Path2D(), new Path2D(), new Path2D()];
    const [ticks, rings] = [new Path2D(), new Path2D()];
    for (let i = 0; i < map.n; i += 1) {
      const id = map.id[i];
      if (chosen && (selection.visible.has(id) || id === selection.id) !== lit) continue;
      const [x, y] = place(map.at[i * 3], map.at[i * 3 + 1]);
      if (x < -20 || y < -20 || x > width + 20 || y > height + 20) continue;
      const heading = map.at[i * 3 + 2] * Math.PI / 180;
      // Heading 0 is north, a quarter turn is east.
      const [dx, dy] = [Math.sin(heading), -Math.cos(heading)];
      const path = paths[map.kind[i]] ?? paths[1];
      if (map.kind[i] === 0) {
        path.moveTo(x + r, y);
        path.arc(x, y, r, 0, 7);
        ticks.moveTo(x + dx * r, y + dy * r);
        ticks.lineTo(x + dx * (r + 5), y + dy * (r + 5));
      } else if (map.kind[i] === 1) {
        const d = r * 1.35;
        path.moveTo(x, y - d);
        path.lineTo(x + d, y);
        path.lineTo(x, y + d);
        path.lineTo(x - d, y);
        path.closePath();
        ticks.moveTo(x + dx * d, y + dy * d);
        ticks.lineTo(x + dx * (d + 4), y + dy * (d + 4));
      } else {
        const d = r * 1.5;
        path.moveTo(x + dx * d, y + dy * d);
        path.lineTo(x - dx * d * 0.7 - dy * d * 0.65, y - dy * d * 0.7 + dx * d * 0.65);
        path.lineTo(x - dx * d * 0.7 + dy * d * 0.65, y - dy * d * 0.7 - dx * d * 0.65);
        path.closePath();
      }
      if (map.flags[i] & HASTE) {
        rings.moveTo(x + r + 3, y);
        rings.arc(x, y, r + 3, 0, 7);
      }
    }
    c.globalAlpha = lit ? 1 : 0.45;
    c.lineWidth = 1.5;
    c.strokeStyle = colours.haste;
    c.stroke(rings);
    c.strokeStyle = colours.dim;
    c.stroke(ticks);
    [colours.player, colours.npc, colours.projectile].forEach((colour, kind) => {
      c.fillStyle = colour;
      c.fill(paths[kind]);
    });
    if (chosen && lit) {
      c.strokeStyle = colours.text;
      c.lineWidth = 1;
      paths.forEach((path) => c.stroke(path));
    }
  }
  c.globalAlpha = 1;
}

// The chosen entity and the one under the pointer, with their names.
function drawMarks(c, width) {
  const marks = [[map.index.get(map.hover), colours.dim], [map.index.get(selection.id), colours.accent]];
  for (const [i, colour] of marks) {
    if (i === undefined) continue;
    const [x, y] = place(map.at[i * 3], map.at[i * 3 + 1]);
    const r = radius() + 7;
    c.strokeStyle = colour;
    c.lineWidth = 2;
    c.beginPath();
    c.arc(x, y, r, 0, 7);
    c.stroke();
    const text = `${KINDS[map.kind[i]] ?? 'Entity'} ${map.id[i]}`;
    c.font = `600 ${FONT}`;
    const wide = c.measureText(text).width + 12;
    const left = x + r + 4 + wide > width ? x - r - 4 - wide : x + r + 4;
    c.fillStyle = colours.card;
    c.beginPath();
    c.roundRect(left, y - 10, wide, 20, 5);
    c.fill();
    c.lineWidth = 1;
    c.stroke();
    c.fillStyle = colours.text;
    c.textAlign = 'left';
    c.textBaseline = 'middle';
    c.fillText(text, left + 6, y + 0.5);
  }
}

function drawScale(c, width, height) {
  const metres = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    .find((length) => length * map.scale >= 56) ?? 10000;
  const long = metres * map.scale;
  // A zoomed world would show through the numbers.
  c.clearRect(0, height - FOOT, width, FOOT);
  c.strokeStyle = c.fillStyle = colours.dim;
  c.lineWidth = 1.5;
  c.beginPath();
  c.moveTo(MARGIN + 1, height - 17);
  c.lineTo(MARGIN + 1, height - 12);
  c.lineTo(MARGIN + 1 + long, height - 12);
  c.lineTo(MARGIN + 1 + long, height - 17);
  c.stroke();
  c.font = FONT;
  c.textBaseline = 'middle';
  c.textAlign = 'left';
  c.fillText(`${metres} m`, MARGIN + long + 9, height - 13);
  c.textAlign = 'right';
  c.fillText(map.zoom > 1 ? `${digits(map.zoom)}× · drag to move` : 'north is up', width - MARGIN, height - 13);
}

// The entity drawn nearest to a point of the canvas, within reach.
function nearest(x, y, reach) {
  let best = null;
  let least = reach * reach;
  for (let i = 0; i < map.n; i += 1) {
    const [px, py] = place(map.at[i * 3], map.at[i * 3 + 1]);
    const far = (px - x) ** 2 + (py - y) ** 2;
    if (far < least) [best, least] = [map.id[i], far];
  }
  return best;
}

function forgetInterest() {
  Object.assign(selection, { cells: [], inside: new Set(), visible: new Set(), tick: null });
  const body = document.body.dataset;
  for (const name of ['aoiEntity', 'aoiCells', 'aoiVisible', 'aoiTick']) delete body[name];
}

function select(id) {
  if (id === selection.id) return;
  selection.id = id;
  forgetInterest();
  map.follow = id !== null;
  document.body.dataset.selected = id ?? '';
  const i = map.index.get(id);
  put($('announce'), i === undefined ? 'Nothing selected' : `${KINDS[map.kind[i]]} ${id} selected`);
  askInterest();
  showDetails();
  showSessions();
  animate();
}

// Keeps the chosen entity's area of interest up to date.
async function askInterest() {
  const id = selection.id;
  const i = map.index.get(id);
  // Only players in the world have an area; the server would refuse the others.
  if (i === undefined || map.kind[i] !== 0) return forgetInterest();
  const asked = selection.asked += 1;
  let answer;
  try {
    const reply = await fetch(`/api/aoi/${id}`);
    answer = await reply.json();
  } catch {
    // The feed's own state tells the person that the server is gone.
    return;
  }
  // Another was chosen or asked about meanwhile: this answer is stale.
  if (asked !== selection.asked || id !== selection.id) return;
  if (answer.error !== undefined) return forgetInterest();
  const names = answer.cells.map(([x, z]) => `${x},${z}`);
  Object.assign(selection, { cells: answer.cells, inside: new Set(names), tick: answer.tick });
  Object.assign(document.body.dataset, {
    aoiEntity: id, aoiCells: names.join(' '), aoiTick: answer.tick,
  });
  lookAround();
  showDetails();
  animate();
}
setInterval(askInterest, ASK_MS);

// Who stands in the area now: entities move more often than the area does.
function lookAround() {
  if (!selection.cells.length) return;
  const visible = new Set();
  // As the server's grid: who stands on the far edge, or outside, is in the nearest cell.
  const last = Math.ceil(map.side / map.cell) - 1;
  const cell = (at) => clamp(Math.floor(at / map.cell), 0, last);
  for (let i = 0; i < map.n; i += 1) {
    const [x, z] = [cell(map.to[i * 3]), cell(map.to[i * 3 + 1])];
    if (map.id[i] !== selection.id && selection.inside.has(`${x},${z}`)) visible.add(map.id[i]);
  }
  selection.visible = visible;
  document.body.dataset.aoiVisible = visible.size;
}

const POINTS = ['N', 'NE', 'E', 'SE', 'S', 'SW', 'W', 'NW'];

function showDetails() {
  const id = selection.id;
  $('details').dataset.entity = id ?? '';
  $('details-none').hidden = id !== null;
  $('details-some').hidden = id === null;
  if (id === null) return;
  const i = map.index.get(id);
  if (i === undefined) {
    put($('details-title'), `Entity ${id}`);
    put($('details-note'), 'is no longer in the world');
    return;
  }
  put($('details-title'), `${KINDS[map.kind[i]] ?? 'Entity'} ${id}`);
  const player = map.kind[i] === 0;
  put($('details-note'), player ? '' : 'has no area of interest: only players are sent the world');
  const yaw = ((map.to[i * 3 + 2] % 360) + 360) % 360;
  const rows = [
    ['Position', `${map.to[i * 3].toFixed(1)}, ${map.to[i * 3 + 1].toFixed(1)} m`],
    ['Heading', `${Math.round(yaw) % 360}° ${POINTS[Math.round(yaw / 45) % 8]}`],
    ['Health', `${map.health[i]}`],
    ['Effect', map.flags[i] & HASTE ? 'Haste' : 'none'],
  ];
  if (player) {
    const known = selection.tick !== null;
    rows.push(['Sees', known ? `${count(selection.visible.size)} entities` : '…']);
    rows.push(['Area', known ? `${selection.cells.length} cells` : '…']);
    const row = sessionOf(id);
    if (row) {
      rows.push(['Peer', row.peer]);
      rows.push(['Round trip', millis(row.rtt_ms ?? NaN)], ['Loss so far', percent(row.loss)]);
      rows.push(['Received', bytes(row.bytes_in)], ['Sent', bytes(row.bytes_out)]);
    }
  }
  const list = $('details-list');
  while (list.children.length > rows.length) list.lastElementChild.remove();
  while (list.children.length < rows.length) list.append(make('div', {}, make('dt'), make('dd')));
  rows.forEach(([name, value], k) => {
    put(list.children[k].children[0], name);
    put(list.children[k].children[1], value);
  });
}

function zoomTo(zoom, x, y) {
  const { width, height } = map.canvas.getBoundingClientRect();
  const before = map.scale;
  map.zoom = clamp(zoom, 1, ZOOM_MAX);
  const after = wholeScale(width, height) * map.zoom;
  // The place under the pointer stays under it.
  const middle = (height - FOOT) / 2;
  const [px, py] = [(x ?? width / 2) - width / 2, middle - (y ?? middle)];
  map.centre = [
    map.centre[0] + px / before - px / after,
    map.centre[1] + py / before - py / after,
  ];
  map.canvas.dataset.zoomed = map.zoom > 1;
  if (x === undefined) map.follow = true;
  animate();
}

// The next entity in a direction: near and straight ahead before near and aside.
function step(dx, dy) {
  const i = map.index.get(selection.id);
  if (i === undefined) {
    const { width, height } = map.canvas.getBoundingClientRect();
    return select(nearest(width / 2, height / 2, Infinity));
  }
  let [best, least] = [null, Infinity];
  for (let k = 0; k < map.n; k += 1) {
    const [x, z] = [map.at[k * 3] - map.at[i * 3], map.at[k * 3 + 1] - map.at[i * 3 + 1]];
    const [ahead, aside] = [x * dx - z * dy, Math.abs(x * dy + z * dx)];
    const cost = ahead + aside * 2;
    if (k !== i && ahead > aside * 0.5 && cost < least) [best, least] = [map.id[k], cost];
  }
  if (best !== null) select(best);
}

{
  const { canvas } = map;
  let press = null;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    const [x, y] = point(event);
    press = { x, y, centre: map.centre, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    const [x, y] = point(event);
    if (press) {
      const [dx, dy] = [x - press.x, y - press.y];
      if (Math.hypot(dx, dy) > 4) press.moved = true;
      if (press.moved && map.zoom > 1) {
        map.follow = false;
        canvas.dataset.drag = true;
        map.centre = [press.centre[0] - dx / map.scale, press.centre[1] + dy / map.scale];
        animate();
      }
      return;
    }
    const near = nearest(x, y, 16);
    if (near !== map.hover) {
      map.hover = near;
      canvas.dataset.near = near !== null;
      animate();
    }
  });
  canvas.addEventListener('pointerup', (event) => {
    if (press && !press.moved) select(nearest(...point(event), REACH_PIXELS));
    press = null;
    canvas.dataset.drag = false;
  });
  canvas.addEventListener('pointercancel', () => {
    press = null;
    canvas.dataset.drag = false;
  });
  canvas.addEventListener('pointerleave', () => {
    map.hover = -1;
    animate();
  });
  // Plain wheels scroll the page; a pinch on a touch pad arrives with the control key.
  canvas.addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    map.follow = false;
    zoomTo(map.zoom * Math.exp(-event.deltaY * 0.004), ...point(event));
  }, { passive: false });
  canvas.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
      ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
      '+': () => zoomTo(map.zoom * 1.5), '=': () => zoomTo(map.zoom * 1.5),
      '-': () => zoomTo(map.zoom / 1.5), 0: () => zoomTo(1), Escape: () => select(null),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  $('zoom-in').addEventListener('click', () => zoomTo(map.zoom * 1.5));
  $('zoom-out').addEventListener('click', () => zoomTo(map.zoom / 1.5));
  $('zoom-fit').addEventListener('click', () => zoomTo(1));
  $('details-clear').addEventListener('click', () => select(null));
  painters.push(drawMap);
  onResize.observe(canvas);
}
