
// The feed: one stream of events, taken up again whenever it breaks.

const RETRY_MS = [500, 1000, 2000, 4000, 5000];
// Frames come ten times a second: this long without one is worth a word.
const STALE_MS = 3000;

const feed = { source: null, tries: 0, timer: 0, retryAt: 0, heard: 0, reason: '' };

function setState(state, text) {
  if (document.body.dataset.state !== state) document.body.dataset.state = state;
  put($('state-text'), text);
  $('banner').hidden = state !== 'lost';
}

function connect() {
  clearTimeout(feed.timer);
  feed.timer = 0;
  feed.source?.close();
  const source = feed.source = new EventSource('/events');
  const on = (name, take) => source.addEventListener(name, (event) => {
    feed.heard = performance.now();
    take(JSON.parse(event.data));
  });
  source.addEventListener('open', () => {
    Object.assign(feed, { tries: 0, heard: performance.now(), reason: '' });
    // The server sends all that it keeps again.
    forgetMetrics();
    setState('live', 'Live');
  });
  // The browser would try again by itself, but not after a refusal, and without a word.
  source.addEventListener('error', () => {
    source.close();
    retryLater();
  });
  on('world', (frame) => {
    takeWorld(frame, performance.now());
    showFacts(frame.tick);
    if (document.body.dataset.state === 'stale') setState('live', 'Live');
  });
  on('metrics', takeMetrics);
  on('sessions', takeSessions);
  on('conditions', takeConditions);
}

function retryLater() {
  const wait = RETRY_MS[Math.min(feed.tries, RETRY_MS.length - 1)];
  feed.tries += 1;
  feed.retryAt = performance.now() + wait;
  clearTimeout(feed.timer);
  feed.timer = setTimeout(connect, wait);
  askWhy();
  showLoss();
}

// An event source does not say why it was refused; another request may.
async function askWhy() {
  try {
    const reply = await fetch('/healthz', { signal: AbortSignal.timeout(2000) });
    feed.reason = reply.ok ? 'The server runs, but gave this page no feed. It may have too many pages open.' : '';
  } catch {
    feed.reason = '';
  }
  if (document.body.dataset.state === 'lost') showLoss();
}

function showLoss() {
  const seconds = Math.max(0, Math.ceil((feed.retryAt - performance.now()) / 1000));
  setState('lost', 'Not connected');
  put($('banner-text'), `${feed.reason || 'The connection to the demo is lost.'} ` +
    (seconds > 0 ? `Trying again in ${seconds} s.` : 'Trying again…'));
}

function showFacts(tick) {
  const players = map.n ? Number($('count-0').textContent.replace(/\D/g, '')) : 0;
  for (const [id, value] of [['players', players], ['entities', map.n], ['tick', tick]]) {
    put($(id), count(value));
    $(id).dataset.value = value;
  }
  const title = `Twinspan · ${count(players)} players`;
  if (document.title !== title) document.title = title;
}

setInterval(() => {
  const { state } = document.body.dataset;
  if (state === 'lost') showLoss();
  else if (state === 'live' && performance.now() - feed.heard > STALE_MS) {
    setState('stale', 'No news from the demo');
  }
}, 500);
$('banner-retry').addEventListener('click', connect);
addEventListener('pagehide', () => feed.source?.close());
addEventListener('pageshow', (event) => {
  if (event.persisted) connect();
});

// For tests and the curious: where things are, read only.
window.twinspan = Object.freeze({
  // Every entity with its place in the window, as drawn now.
  entities: () => {
    const box = map.canvas.getBoundingClientRect();
    return Array.from({ length: map.n }, (_, i) => {
      const [x, y] = place(map.at[i * 3], map.at[i * 3 + 1]);
      return { id: map.id[i], kind: map.kind[i], x: box.left + x, y: box.top + y };
    });
  },
  visible: () => [...selection.visible],
  metrics: () => structuredClone(history),
});

connect();
