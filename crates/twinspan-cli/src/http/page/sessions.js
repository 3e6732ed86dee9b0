
// The table of sessions: sorted by any column, 25 rows a page.

const PAGE_ROWS = 25;
const COLUMNS = [
  ['id', 'Slot', count], ['entity', 'Entity', null], ['user', 'User', String, 'code'],
  ['peer', 'Peer', String, 'words code'], ['cipher', 'Cipher', String, 'words'],
  ['rtt_ms', 'Round trip', millis], ['loss', 'Loss so far', percent],
  ['packets_in', 'Packets in', count], ['packets_out', 'Packets out', count],
  ['bytes_in', 'Bytes in', bytes], ['bytes_out', 'Bytes out', bytes],
  ['unacknowledged', 'In flight', count],
];

const table = { rows: [], byEntity: new Map(), sort: 'id', up: true, page: 0, filter: '' };

const sessionOf = (entity) => table.byEntity.get(entity);

function takeSessions({ columns, rows }) {
  table.rows = rows.map((row) => Object.fromEntries(columns.map((name, k) => [name, row[k]])));
  table.byEntity = new Map(table.rows.map((row) => [row.entity, row]));
  // Users are whole numbers beyond a script's exact ones: compare them as such.
  for (const row of table.rows) row.userNumber = BigInt(row.user);
  const cipher = table.rows[0]?.cipher ?? '–';
  put($('cipher'), cipher);
  $('cipher').dataset.value = table.rows[0]?.cipher ?? '';
  showSessions();
}

function sorted() {
  const key = table.sort === 'user' ? 'userNumber' : table.sort;
  const sign = table.up ? 1 : -1;
  const word = table.filter.trim().toLowerCase();
  const rows = word === '' ? table.rows.slice() : table.rows.filter((row) =>
    [row.entity, row.user, row.peer].some((text) => String(text).toLowerCase().includes(word)));
  // Null stands for a number nobody has measured yet: last either way.
  return rows.sort((left, right) => {
    const [a, b] = [left[key], right[key]];
    if (a === null || b === null) return (a === null) - (b === null) || left.id - right.id;
    if (a !== b) return a < b ? -sign : sign;
    return left.id - right.id;
  });
}

function showSessions() {
  const rows = sorted();
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_ROWS));
  table.page = clamp(table.page, 0, pages - 1);
  const first = table.page * PAGE_ROWS;
  const shown = rows.slice(first, first + PAGE_ROWS);
  put($('sessions-count'), table.rows.length ? count(table.rows.length) : '');
  put($('page-text'), rows.length
    ? `${count(first + 1)}–${count(first + shown.length)} of ${count(rows.length)}` : '0 of 0');
  $('page-back').disabled = table.page === 0;
  $('page-next').disabled = table.page === pages - 1;
  $('sessions').dataset.rows = table.rows.length;
  $('sessions').hidden = rows.length === 0;
  $('sessions-none').hidden = rows.length > 0;
  put($('sessions-none'), table.rows.length ? 'No session matches the filter.' : 'No sessions yet.');
  const body = $('sessions-body');
  while (body.children.length > shown.length) body.lastElementChild.remove();
  while (body.children.length < shown.length) body.append(emptyRow());
  shown.forEach((row, k) => fillRow(body.children[k], row));
  for (const cell of $('sessions-head').children) {
    if (cell.dataset.key === table.sort) {
      cell.setAttribute('aria-sort', table.up ? 'ascending' : 'descending');
    } else cell.removeAttribute('aria-sort');
  }
}

function emptyRow() {
  return make('tr', {}, ...COLUMNS.map(([key, , , kind]) => {
    const cell = make('td', { className: kind ?? '' });
    if (key === 'entity') cell.append(make('button', { type: 'button', title: 'Show on the map' }));
    return cell;
  }));
}

// Rows are filled again rather than made again, so that focus and marked text stay.
function fillRow(line, row) {
  line.dataset.session = row.id;
  line.dataset.entity = row.entity;
  line.dataset.selected = row.entity === selection.id;
  COLUMNS.forEach(([key, , show], k) => {
    const cell = line.children[k];
    if (show) put(cell, row[key] === null ? '–' : show(row[key]));
    else put(cell.firstElementChild, String(row[key]));
  });
}

for (const [key, title, , kind] of COLUMNS) {
  const head = make('th', { scope: 'col', className: (kind ?? '').includes('words') ? 'words' : '' },
    make('button', { type: 'button', textContent: title }));
  head.dataset.key = key;
  head.firstElementChild.addEventListener('click', () => {
    // Numbers are most telling from the top; a second click turns the order.
    table.up = table.sort === key ? !table.up : ['id', 'entity', 'user', 'peer', 'cipher'].includes(key);
    table.sort = key;
    table.page = 0;
    showSessions();
  });
  $('sessions-head').append(head);
}
$('sessions-body').addEventListener('click', (event) => {
  const line = event.target.closest('button')?.closest('tr');
  if (line) select(Number(line.dataset.entity));
});
$('page-back').addEventListener('click', () => {
  table.page -= 1;
  showSessions();
});
$('page-next').addEventListener('click', () => {
  table.page += 1;
  showSessions();
});
$('sessions-filter').addEventListener('input', (event) => {
  table.filter = event.target.value;
  table.page = 0;
  showSessions();
});
