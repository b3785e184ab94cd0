'use strict';
for (const button of document.querySelectorAll('[data-sort]')) {
  button.addEventListener('click', () => {
    const head = button.closest('th'), table = head.closest('table'), body = table.tBodies[0];
    const column = head.cellIndex, numeric = button.dataset.sort === 'n';
    const down = head.getAttribute('aria-sort') === 'ascending';
    const value = row => {
      const cell = row.cells[column];
      return numeric ? Number(cell.dataset.v) : cell.textContent;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      return (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true })) * (down ? -1 : 1);
    });
    for (const other of head.parentElement.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    body.append(...rows);
  });
}
for (const input of document.querySelectorAll('[data-filter]')) {
  input.addEventListener('input', () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}
if (navigator.clipboard) {
  for (const button of document.querySelectorAll('[data-copy]')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(button.nextElementSibling.textContent);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    });
  }
}
