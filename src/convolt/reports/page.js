const all = selector => [...document.querySelectorAll(selector)];
const addButton = (parent, text, act) => {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = text;
  button.addEventListener('click', () => act(button));
  parent.append(button);
  return button;
};

// Columns sort: up, down, and as they were. What has no value stays last; equal ones keep their order.
const isNumber = text => text !== '' && isFinite(text);
const compare = (a, b) => {
  if (isNumber(a) && isNumber(b)) return a - b;
  return isNumber(b) - isNumber(a) || a.localeCompare(b, undefined, { numeric: true });
};
const sort = th => {
  const body = th.closest('table').tBodies[0], column = th.cellIndex, before = th.getAttribute('aria-sort');
  const order = before === 'ascending' ? 'descending' : before === 'descending' ? null : 'ascending';
  for (const other of th.parentElement.cells) other.removeAttribute('aria-sort');
  if (order) th.setAttribute('aria-sort', order);
  const key = row => order ? row.cells[column].dataset.value : row.dataset.place;
  const sign = order === 'descending' ? -1 : 1;
  body.append(...[...body.rows].sort((x, y) => {
    const a = key(x), b = key(y);
    return a === undefined || b === undefined ? (a === undefined) - (b === undefined) : sign * compare(a, b);
  }));
};
for (const table of all('table')) {
  [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  if (table.tBodies[0].rows.length > 1) for (const th of table.tHead.rows[0].cells) {
    const text = th.textContent;
    th.textContent = '';
    addButton(th, text, () => sort(th)).title = 'sort by this column';
  }
}

// A box that scrolls can be scrolled by the keyboard.
const markBoxes = () => {
  for (const box of all('.scroll, figure')) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else box.removeAttribute('tabindex');
  }
};
markBoxes();
addEventListener('resize', markBoxes);
document.addEventListener('toggle', markBoxes, true);

// The switch between light and dark is kept by the page alone; the system's choice holds until it is used.
const tools = document.createElement('div'), root = document.documentElement;
tools.className = 'tools';
document.body.prepend(tools);
const isDark = () => root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
addButton(tools, 'Fold all', () => { for (const one of all('main details')) one.open = false; });
addButton(tools, 'Unfold all', () => { for (const one of all('details')) one.open = true; });
const theme = addButton(tools, '', () => { root.dataset.theme = isDark() ? 'light' : 'dark'; name(); });
const name = () => { theme.textContent = isDark() ? 'Light' : 'Dark'; theme.setAttribute('aria-label', `${theme.textContent} colors`); };
name();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', name);

// A link into what is folded opens it.
for (const link of all('nav a')) link.addEventListener('click', () => {
  document.querySelector(`${link.hash} > details`).open = true;
});

// What is folded is printed too.
let opened = [];
addEventListener('beforeprint', () => {
  opened = all('details:not([open])');
  for (const one of opened) one.open = true;
});
addEventListener('afterprint', () => { for (const one of opened) one.open = false; });
