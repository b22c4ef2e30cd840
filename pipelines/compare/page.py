"""A comparison becomes one self-contained HTML file: a sortable table, and pictures for light and dark pages."""

import base64
from collections.abc import Sequence

from jinja2 import Environment

from pipelines.compare.plots import Picture
from pipelines.compare.runs import Comparison
from pipelines.compare.table import Column, shown

_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
  :root { --ink: #1f2328; --paper: #ffffff; --line: #d0d7de; --soft: #f3f5f7; --note: #fff4d6; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e6e6e6; --paper: #16181c; --line: #3a3f47; --soft: #1f2329; --note: #3a3114; }
  }
  body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
         max-width: 70rem; padding: 0 1rem; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
  th:first-child, td:first-child { text-align: left; }
  th button { all: unset; cursor: pointer; font-weight: 600; }
  th button:focus-visible { outline: 2px solid; }
  th[aria-sort="ascending"] button::after { content: " \\2191"; }
  th[aria-sort="descending"] button::after { content: " \\2193"; }
  tbody tr:nth-child(even) { background: var(--soft); }
  .notes { background: var(--note); padding: .6rem 1rem .6rem 2rem; border-radius: .4rem; }
  figure { margin: 1.5rem 0; }
  figure img { max-width: 100%; height: auto; }
  figcaption { font-weight: 600; }
  footer { color: color-mix(in srgb, var(--ink) 60%, var(--paper)); font-size: .85rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if notes %}
<ul class="notes">
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
<div class="wide">
<table id="rows">
<thead>
<tr>
{% for column in columns %}
<th scope="col"><button type="button" title="{{ column.meaning }}">{{ column.name }}</button></th>
{% endfor %}
</tr>
</thead>
<tbody>
{% for cells in rows %}
<tr>
{% for cell in cells %}
<td data-value="{{ cell.value if cell.value is not none else '' }}">{{ cell.text }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for picture in pictures %}
<figure id="{{ picture.name }}">
<figcaption>{{ picture.title }}</figcaption>
<picture>
<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{{ picture.dark }}">
<img alt="{{ picture.title }}" src="data:image/png;base64,{{ picture.light }}">
</picture>
</figure>
{% endfor %}
<footer>{{ footer }}</footer>
<script>
  const table = document.getElementById("rows");
  table.tHead.querySelectorAll("th").forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      table.tHead.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value;
      const rows = Array.from(table.tBodies[0].rows);
      rows.sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
        return ascending ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
</script>
</body>
</html>
""")


def render_page(comparison: Comparison, columns: Sequence[Column], pictures: Sequence[Picture], *, footer: str) -> str:
    """Return the page as text.

    Args:
        comparison: the rows and the notes.
        columns: of the table.
        pictures: below it.
        footer: where the figures come from.
    """
    encoded = [
        {
            "name": picture.name,
            "title": picture.title,
            "light": base64.b64encode(picture.light).decode(),
            "dark": base64.b64encode(picture.dark).decode(),
        }
        for picture in pictures
    ]
    columns = shown(columns)
    rows = [[column.cell(row) for column in columns] for row in comparison.rows]
    return _PAGE.render(
        title=comparison.title,
        notes=comparison.notes,
        columns=columns,
        rows=rows,
        pictures=encoded,
        footer=footer,
    )
