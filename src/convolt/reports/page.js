for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const th = button.parentElement, table = th.closest('table'), body = table.tBodies[0], column = th.cellIndex;
  const up = th.getAttribute('aria-sort') !== 'ascending';
  for (const other of th.parentElement.cells) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const key = row => row.cells[column].dataset.value;
  const order = (x, y) => {
    const a = key(x), b = key(y);
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    const both = a !== '' && b !== '' && isFinite(a) && isFinite(b);
    const less = both ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return up ? less : -less;
  };
  body.append(...[...body.rows].sort(order));
});
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details:not([open])')];
  for (const one of opened) one.open = true;
});
addEventListener('afterprint', () => { for (const one of opened) one.open = false; });
